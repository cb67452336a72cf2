"""Landmarks over time, smoothed without delay inside a stretch, and never across its ends."""

from collections.abc import Hashable, Iterable, Iterator

import numpy as np


def smoothed(frames: Iterable[tuple[np.ndarray | None, Hashable]]) -> Iterator[np.ndarray | None]:
    """Landmarks of successive frames, 1-2-1 over their neighbours of the same stretch; looks one frame ahead.

    frames: (landmarks (P, 2), stretch). A stretch ends at a cut and at a frame that does not show the face; None is of
    no stretch: its landmarks, or None, come back as they are. At the ends of a stretch the frame itself stands in for
    its missing neighbour.
    """
    before: np.ndarray | None = None
    here: tuple[np.ndarray | None, Hashable] | None = None
    for following in frames:
        if here is not None:
            yield _smooth(here, before, following)
            before = here[0] if following[1] == here[1] else None
        here = following
    if here is not None:
        yield _smooth(here, before, None)


def _smooth(
    here: tuple[np.ndarray | None, Hashable],
    before: np.ndarray | None,
    following: tuple[np.ndarray | None, Hashable] | None,
) -> np.ndarray | None:
    points, stretch = here
    if points is None or stretch is None:
        return points
    after = following[0] if following is not None and following[1] == stretch else None
    return (2 * points + (points if before is None else before) + (points if after is None else after)) / 4


def smooth_stretches(landmarks: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Landmarks (frames, P, 2) of one shot, smoothed; frames that are not `seen` (frames,) bool stay as they are."""
    return np.stack([points for points in smoothed(zip(landmarks, stretches(seen), strict=True)) if points is not None])


def stretches(seen: np.ndarray) -> list[int | None]:
    """Stretch of every frame of one shot: frames in a row that are `seen` (frames,) bool share a number."""
    numbers = np.cumsum(~seen)
    return [int(number) if visible else None for number, visible in zip(numbers, seen, strict=True)]
