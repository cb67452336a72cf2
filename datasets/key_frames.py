"""Key poses of a clip, and the frames that stand for them."""

from dataclasses import dataclass

import numpy as np

BLEND = 1.5
"""Degrees: sigma with which a key frame's share falls as a pose departs from its own."""
_OUTLIERS = 0.02
"""Share of poses at either end that no key pose is added for."""


@dataclass(frozen=True)
class KeyPoses:
    """How a clip's key poses, and their frames, are chosen."""

    turn: float
    """Degrees: a clip that never turns this far from its median pose has that one alone. Poses are told from a moving
    face, so that between near ones a mouth that opens would choose."""
    cell: float
    """Degrees of yaw and pitch: a key pose is added as long as some frame is further than this from all of them."""
    most: int
    near: float
    """Share of a clip's frames, those nearest in pose, among which a key pose finds its mouths: more than it holds
    itself, for what is near in pose may all be near in time, and show one mouth."""
    least: int
    """The least number of those."""
    closed: float
    wide: float
    """Ranks, 0..1, among all lip gaps of a clip: how far the most closed and the widest mouth of every key pose open,
    as nearly as its frames can. Alike in all of them, or lips would move as the head turns; and not the very extremes,
    which few key poses have, and where landmarks are misplaced, or lips pressed together."""

    def ranks(self, count: int) -> np.ndarray:
        """(count,): those of as many mouths, from the most closed to the widest; of one alone, the closed one's."""
        return np.linspace(self.closed, self.wide, count)


MOUTHS = KeyPoses(turn=7.0, cell=3.0, most=20, near=0.06, least=10, closed=0.1, wide=0.85)
"""References of stage 1."""
PORTRAITS = KeyPoses(turn=7.0, cell=3.0, most=20, near=0.04, least=4, closed=0.2, wide=0.85)
"""Of stage 2, a closed mouth alone: it lends jaw and hair but no lips, so the pose counts for more than the mouth; and
it lends creases, so that lips must not be pressed."""


def key_frames(lip_gaps: np.ndarray, pose: np.ndarray, ranks: np.ndarray, rule: KeyPoses) -> np.ndarray:
    """(K, R): frames whose mouths open as far as those of these ranks do, in every pose that a clip visits.

    lip_gaps (n,), pose (n, 2): see ClipMoves.
    """
    known = np.flatnonzero(np.isfinite(lip_gaps) & np.isfinite(pose).all(1))
    gaps, poses = lip_gaps[known], pose[known]
    wanted = gaps[at_ranks(gaps, ranks)]
    keys = _key_poses(poses, rule)
    near = max(round(rule.near * len(known)), rule.least) if len(keys) > 1 else len(known)
    chosen = []
    for key in keys:
        among = np.sort(np.argsort(np.linalg.norm(poses - key, axis=1), kind="stable")[:near])
        chosen.append(known[among[np.abs(gaps[among][:, None] - wanted).argmin(0)]])
    return np.stack(chosen)


def _key_poses(poses: np.ndarray, rule: KeyPoses) -> np.ndarray:
    """(K, 2): the median of poses (n, 2), then time and again the one furthest from all so far."""
    low, high = np.quantile(poses, [_OUTLIERS, 1 - _OUTLIERS], axis=0)
    usual = poses[((poses >= low) & (poses <= high)).all(1)]
    keys = [np.median(poses, axis=0)]
    if not len(usual) or np.linalg.norm(usual - keys[0], axis=1).max() <= rule.turn:
        return np.stack(keys)
    while len(keys) < rule.most:
        distance = np.min([np.linalg.norm(usual - key, axis=1) for key in keys], axis=0)
        if distance.max() <= rule.cell:
            break
        keys.append(usual[distance.argmax()])
    return np.stack(keys)


def pose_shares(keys: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """(n, K, R) float32 of key frames' poses (K, R, 2) in poses (n, 2): smooth in pose, so nothing switches; a pose far
    from all takes the nearest.
    """
    distance = np.square(pose[:, None, None] - keys).sum(-1)
    closeness = np.exp((distance.min(1, keepdims=True) - distance) / (2 * BLEND**2))
    return (closeness / closeness.sum(1, keepdims=True)).astype(np.float32)


def at_ranks(lip_gaps: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Positions of the known values at these ranks, 0 the smallest, 1 the largest."""
    known = np.isfinite(lip_gaps).sum()  # NaN is sorted to the end
    return np.argsort(lip_gaps)[(ranks * (known - 1)).round().astype(int)]
