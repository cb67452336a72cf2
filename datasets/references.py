"""Which frames of a clip the networks see as references of the person."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from datasets.config import ReferencePolicy

FAR_FRAMES = 10
"""A far reference lies at least this many frames from the window."""
WIDEST = 0.95
"""Rank, 0..1, of the mouth that counts as a clip's widest: the very widest is often a misplaced landmark."""
_TURNED = 0.3
"""Lip gap that a yaw of 1 weighs as much as: references should be frontal, too."""
CELL = 7.0
"""Degrees of yaw and pitch: a key pose is added as long as some frame is further than this from all of them."""
KEY_POSES = 6
"""Most key poses of a clip."""
FADE_FRAMES = 1.5
"""Sigma of the Gaussian mean over time with which one key pose gives way to another."""
_NEAR, _LEAST_NEAR = 0.25, 25
"""Share of a clip's frames, those nearest in pose, and their least number, among which a key pose finds its mouths:
more than it holds itself, for what is near in pose may all be near in time, and show one mouth."""
_OUTLIERS = 0.02
"""Share of poses at either end that no key pose is added for."""
_LEAST_SHARE = 0.05
_RANK_SPREAD = 0.2
_SAME = 0.1
"""Probability in training that all spanning references are one frame: a portrait has no other."""


def spanning_references(lip_gaps: np.ndarray, yaw: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of a clip: the most closed mouth, and further ones evenly on to its widest; rather frontal ones.

    lip_gaps (n,): how far its lips open, NaN where a frame is of no use. yaw (n,): as a Track has it, 0 frontal.
    """
    turned = _TURNED * np.abs(yaw)
    chosen = _at_ranks(lip_gaps - turned, np.linspace(0, WIDEST, count))
    chosen[0] = np.nanargmin(lip_gaps + turned)
    return chosen


@dataclass(frozen=True)
class References:
    """The references of a whole clip: `frames` (K, R) are the numbers of its key frames, R of each of K key poses, from
    the most closed mouth to a wide one; `shares` (n, K) say how much of each key pose every frame shows, sum 1.
    """

    frames: np.ndarray
    shares: np.ndarray


def pose_references(lip_gaps: np.ndarray, yaw: np.ndarray, pose: np.ndarray, count: int) -> References:
    """References of a clip in the poses it visits; a clip that does not turn has those of spanning_references.

    lip_gaps (n,), yaw (n,): see there. pose (n, 2): smoothed yaw and pitch in degrees. A frame shows the key pose
    nearest to its own; where that changes the two are blended for a few frames, so that nothing switches.
    """
    known = np.flatnonzero(np.isfinite(lip_gaps) & np.isfinite(pose).all(1))
    keys = _key_poses(pose[known]) if len(known) else pose[:0]
    if len(keys) < 2:
        return References(spanning_references(lip_gaps, yaw, count)[None], np.ones((len(pose), 1), np.float32))
    frames = []
    for key in keys:
        near = max(round(_NEAR * len(known)), _LEAST_NEAR)
        nearest = np.sort(known[np.argsort(np.linalg.norm(pose[known] - key, axis=1), kind="stable")[:near]])
        frames.append(nearest[_at_ranks(lip_gaps[nearest], np.linspace(0, WIDEST, count))])
    distance = np.linalg.norm(np.nan_to_num(pose)[:, None] - keys, axis=2)
    shares = gaussian_filter1d(np.eye(len(keys))[distance.argmin(1)], FADE_FRAMES, axis=0, mode="nearest")
    shares[shares < _LEAST_SHARE] = 0
    return References(np.stack(frames), (shares / shares.sum(1, keepdims=True)).astype(np.float32))


def _key_poses(poses: np.ndarray) -> np.ndarray:
    """(K, 2): the median of poses (n, 2), then time and again the one furthest from all so far, down to CELL."""
    low, high = np.quantile(poses, [_OUTLIERS, 1 - _OUTLIERS], axis=0)
    usual = poses[((poses >= low) & (poses <= high)).all(1)]
    keys = [np.median(poses, axis=0)]
    while len(usual) and len(keys) < KEY_POSES:
        distance = np.min([np.linalg.norm(usual - key, axis=1) for key in keys], axis=0)
        if distance.max() <= CELL:
            break
        keys.append(usual[distance.argmax()])
    return np.stack(keys)


def choose_references(
    policy: ReferencePolicy,
    lip_gaps: np.ndarray,
    usual: References,
    frames: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` frames of a clip for the window `frames` of it, in training.

    closed: those that inference has, `usual`, in the pose of the window's middle; random: any; far: any at least
    FAR_FRAMES away
    (a third of a short clip); span: of the far ones, from a rather closed mouth to a wide one, the order in which
    inference has them.
    """
    if policy == "closed":
        return usual.frames[usual.shares[frames[len(frames) // 2]].argmax()]
    choices = np.flatnonzero(np.isfinite(lip_gaps))
    if policy in ("far", "span"):
        distance = np.minimum(np.abs(choices - frames[0]), np.abs(choices - frames[-1]))
        far = choices[distance >= min(FAR_FRAMES, len(lip_gaps) // 3)]
        choices = far if len(far) else choices
    if policy != "span":
        return rng.choice(choices, count)
    ranks = np.linspace(0, WIDEST, count) + rng.uniform(-_RANK_SPREAD, _RANK_SPREAD, count)
    chosen = choices[_at_ranks(lip_gaps[choices], ranks.clip(0, 1))]
    return np.repeat(chosen[:1], count) if rng.random() < _SAME else chosen


def _at_ranks(lip_gaps: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Positions of the known values at these ranks, 0 the smallest, 1 the largest."""
    known = np.isfinite(lip_gaps).sum()  # NaN is sorted to the end
    return np.argsort(lip_gaps)[(ranks * (known - 1)).round().astype(int)]
