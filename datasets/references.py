"""Which frames of a clip the networks see as references of the person."""

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


def _at_ranks(openness: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Positions of the known values at these ranks, 0 the smallest, 1 the largest."""
    known = np.isfinite(openness).sum()  # NaN is sorted to the end
    return np.argsort(openness)[(ranks * (known - 1)).round().astype(int)]
