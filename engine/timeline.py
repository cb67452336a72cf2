"""Which source frame is shown when: forwards, then ping-pong for as long as the sound lasts."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count, pairwise

import numpy as np

from media.video import STILL_FPS, Frame, VideoReader


def shown_frames(
    reader: VideoReader, times: list[Fraction], step: Fraction, lasts: Callable[[Fraction], bool]
) -> Iterator[tuple[Frame, Fraction]]:
    """(frame, time shown in s) for every frame that is shown while the sound `lasts`; memory does not grow with length.

    `times` are the source's own, kept in the first pass; after it every frame is shown for `step`. A still repeats.
    """
    for frame, when in _endless(reader, times, step):
        if not lasts(when):
            return
        yield frame, when


def source_frame(number: int, count: int) -> int:
    """Which of a source's `count` frames is the `number`th that is shown."""
    period = max(2 * count - 2, 1)
    return min(number % period, period - number % period) if count > 1 else 0


def _endless(reader: VideoReader, times: list[Fraction], step: Fraction) -> Iterator[tuple[Frame, Fraction]]:
    if reader.is_still:
        still = next(iter(reader))
        for shown in count():
            yield still.copy(), shown / STILL_FPS
    for frame in reader:
        yield frame, times[frame.index]
    when, forwards = times[-1] + step, False
    while True:
        for frame in reader if forwards else reader.reversed_frames():
            if frame.index == (0 if forwards else len(times) - 1) and len(times) > 1:
                continue  # the turning frame was shown already
            yield frame, when
            when += step
        forwards = not forwards


def median_step(times: list[Fraction], fps: Fraction) -> Fraction:
    """The usual time between two frames: the exact one of a constant rate, the median of a variable one."""
    if len(times) < 2:
        return 1 / fps
    steps = sorted(after - before for before, after in pairwise(times))
    middle = steps[len(steps) // 2]
    return 1 / fps if abs(middle - 1 / fps) < Fraction(1, 2000) else middle


def gaps(absent: np.ndarray, times: list[Fraction], step: Fraction) -> list[tuple[float, float]]:
    """Stretches (start, end) in s over which `absent` holds; the last frame is shown for `step`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(int), [0]])))
    ends = [*map(float, times), float(times[-1] + step)]
    return [(ends[start], ends[stop]) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
