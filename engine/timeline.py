"""Which source frame is shown when: forwards, then ping-pong for as long as the sound lasts."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np

from media.video import STILL_FPS, Frame, VideoReader


def shown_frames(reader: VideoReader, times: list[Fraction], duration: Fraction) -> Iterator[tuple[Frame, Fraction]]:
    """(frame, time shown in s) for every frame shown before `duration`; memory does not grow with length.

    `times` are the source's own, kept in the first pass; after it the step is the median one. A still repeats.
    """
    shown = 0
    if reader.is_still:
        still = next(iter(reader))
        while shown / STILL_FPS < duration:
            yield still.copy(), shown / STILL_FPS
            shown += 1
        return
    step = median_step(times, reader.fps)
    end = times[-1] + step
    for frame in reader:
        if times[frame.index] >= duration:
            return
        yield frame, times[frame.index]
    forwards = False
    while True:
        for frame in reader if forwards else reader.reversed_frames():
            if frame.index == (0 if forwards else len(times) - 1) and len(times) > 1:
                continue  # the turning frame was shown already
            when = end + shown * step
            if when >= duration:
                return
            yield frame, when
            shown += 1
        forwards = not forwards


def median_step(times: list[Fraction], fps: Fraction) -> Fraction:
    """The usual time between two frames: the exact one of a constant rate, the median of a variable one."""
    if len(times) < 2:
        return 1 / fps
    steps = sorted(after - before for before, after in pairwise(times))
    middle = steps[len(steps) // 2]
    return 1 / fps if abs(middle - 1 / fps) < Fraction(1, 2000) else middle


def gaps(absent: np.ndarray, times: list[Fraction], fps: Fraction) -> list[tuple[float, float]]:
    """Stretches (start, end) in s over which `absent` holds; the last frame is shown for as long as is usual."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(int), [0]])))
    ends = [*map(float, times), float(times[-1] + median_step(times, fps))]
    return [(ends[start], ends[stop]) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
