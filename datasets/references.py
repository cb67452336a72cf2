"""Which frames of a clip the networks see as references of the person."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ReferencePolicy = Literal["random", "far", "closed", "span"]

FAR_FRAMES = 10
"""A far reference lies at least this many frames from the window."""
WIDEST = 0.95
"""Rank, 0..1, of the mouth that counts as a clip's widest: the very widest is often a misplaced landmark."""
_RANK_SPREAD = 0.2
_SAME = 0.1
"""Probability in training that all spanning references are one frame: a portrait has no other."""

CELL = 7.0
"""Degrees of yaw and pitch: a key pose is added as long as some frame is further than this from all of them."""
KEY_POSES = 6
"""Most key poses of a clip."""
BLEND = 3.5
"""Degrees: sigma with which a key frame's share falls as a pose departs from its own."""
_NEAR = 0.25
"""Share of a clip's frames, those nearest in pose, among which a key pose finds its closed and its wide mouth: more
than the cell itself holds, for what is near in pose may all be near in time, and show one mouth."""
_LEAST_NEAR = 25
_OUTLIERS = 0.02
"""Share of poses at either end that no key pose is added for."""


def spanning_references(openness: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of a clip, evenly from the most closed mouth to its widest; one: closed.

    openness (n,): how far its lips open, NaN where no face is seen.
    """
    return _at_ranks(openness, np.linspace(0, WIDEST, count))


def choose_references(
    policy: ReferencePolicy, openness: np.ndarray, frames: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """`count` frames of a clip for the window `frames` of it, in training.

    closed: always those that inference chooses, see spanning_references; random: any; far: any at least FAR_FRAMES away
    (a third of a short clip); span: of the far ones, from a rather closed mouth to a wide one, the order in which
    inference has them.
    """
    if policy == "closed":
        return spanning_references(openness, count)
    choices = np.flatnonzero(np.isfinite(openness))
    if policy in ("far", "span"):
        distance = np.minimum(np.abs(choices - frames[0]), np.abs(choices - frames[-1]))
        far = choices[distance >= min(FAR_FRAMES, len(openness) // 3)]
        choices = far if len(far) else choices
    if policy != "span":
        return rng.choice(choices, count)
    ranks = np.linspace(0, WIDEST, count) + rng.uniform(-_RANK_SPREAD, _RANK_SPREAD, count)
    chosen = choices[_at_ranks(openness[choices], ranks.clip(0, 1))]
    return np.repeat(chosen[:1], count) if rng.random() < _SAME else chosen


@dataclass(frozen=True)
class ReferenceBank:
    """Key frames of one clip: `frames` (K, S) are frame numbers, `poses` (K, S, 2) the yaw and pitch (degrees) seen in
    them. K key poses; S slots, from the most closed mouth to a wide one.
    """

    frames: np.ndarray
    poses: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)


def reference_bank(
    pose: np.ndarray, openness: np.ndarray, slots: int, rng: np.random.Generator | None = None
) -> ReferenceBank:
    """A few frames of a clip that show its person in every pose the clip visits, closed and wide.

    pose (n, 2): smoothed yaw and pitch in degrees; openness (n,): how far the lips open; NaN in either: no reference.
    A clip that does not turn has one key pose, with the frames of `spanning_references`. With `rng`, as training wants
    it, mouths are only roughly the most closed and a wide one.
    """
    known = np.flatnonzero(np.isfinite(openness) & np.isfinite(pose).all(1))
    poses = pose[known]
    keys = _key_poses(poses)
    frames = []
    for key in keys:
        near = max(round(_NEAR * len(known)), _LEAST_NEAR) if len(keys) > 1 else len(known)
        nearest = np.sort(known[np.argsort(np.linalg.norm(poses - key, axis=1), kind="stable")[:near]])
        ranks = np.linspace(0, WIDEST, slots)
        if rng is not None:
            ranks = (ranks + rng.uniform(-_RANK_SPREAD, _RANK_SPREAD, slots)).clip(0, 1)
        frames.append(nearest[_at_ranks(openness[nearest], ranks)])
    return ReferenceBank(np.stack(frames), pose[np.stack(frames)])


def bank_shares(bank: ReferenceBank, pose: np.ndarray) -> np.ndarray:
    """How much of each key frame a frame's references hold: (n, K, S), each slot's sum over K is 1.

    pose (n, 2): smoothed yaw and pitch in degrees. The shares are smooth in pose, so nothing switches; a pose far
    from all key frames takes the nearest.
    """
    distance = np.square(pose[:, None, None] - bank.poses).sum(-1)
    closeness = np.exp((distance.min(1, keepdims=True) - distance) / (2 * BLEND**2))
    return (closeness / closeness.sum(1, keepdims=True)).astype(np.float32)


def drawn_bank(
    pose: np.ndarray, openness: np.ndarray, frames: np.ndarray, slots: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Training: `most` key frames a slot (most, S) and their shares (T, most, S) for a clip's window `frames` (T,).

    Nothing near the window in time is a reference: what is near in pose would else show the mouth to be painted. Of
    the bank's key poses the `most` of the largest shares; fewer are repeated with no share.
    """
    distance = np.minimum(np.abs(np.arange(len(openness)) - frames[0]), np.abs(np.arange(len(openness)) - frames[-1]))
    far = np.where(distance >= min(FAR_FRAMES, len(openness) // 3), openness, np.nan)
    bank = reference_bank(pose, far if np.isfinite(far).any() else openness, slots, rng)
    if rng.random() < _SAME:
        bank = ReferenceBank(bank.frames[:1, :1].repeat(slots, 1), bank.poses[:1, :1].repeat(slots, 1))
    shares = bank_shares(bank, pose[frames])
    order = np.argsort(-shares.mean(0), axis=0, kind="stable")[:most]
    shares = np.take_along_axis(shares, order[None], 1)
    missing = [(0, most - len(order)), (0, 0)]
    return (
        np.pad(np.take_along_axis(bank.frames, order, 0), missing, mode="edge"),
        np.pad(shares / shares.sum(1, keepdims=True), [(0, 0), *missing]),
    )


def _at_ranks(openness: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Positions of the known values at these ranks, 0 the smallest, 1 the largest."""
    known = np.isfinite(openness).sum()  # NaN is sorted to the end
    return np.argsort(openness)[(ranks * (known - 1)).round().astype(int)]


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
