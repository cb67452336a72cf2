"""Which frames of a clip the networks see as references of the person."""

import numpy as np

from datasets.config import ReferencePolicy

FAR_FRAMES = 10
"""A far reference lies at least this many frames from the window."""
WIDEST = 0.95
"""Rank, 0..1, of the mouth that counts as a clip's widest: the very widest is often a misplaced landmark."""
_TURNED = 0.3
"""Lip gap that a yaw of 1 weighs as much as: references should be frontal, too."""
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


def choose_references(
    policy: ReferencePolicy,
    lip_gaps: np.ndarray,
    yaw: np.ndarray,
    frames: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` frames of a clip for the window `frames` of it, in training.

    closed: always those that inference chooses, see spanning_references; random: any; far: any at least FAR_FRAMES away
    (a third of a short clip); span: of the far ones, from a rather closed mouth to a wide one, the order in which
    inference has them.
    """
    if policy == "closed":
        return spanning_references(lip_gaps, yaw, count)
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
