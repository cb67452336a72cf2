"""A video's faces, followed: decoded, tracked, and cut smoothly."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice

import numpy as np

from ahead import ahead
from face.crop import box_transforms, fit_transforms, is_shown, rescale
from face.detector import Detector
from face.track import Track, track_faces
from media.video import Frame, Rect

LIPS_BOX = np.array([40.0, 72, 88, 104])
"""x0, y0, x1, y1, px of the 128 crop: lips, also wide open ones, lie in it."""
LIPS_INSIDE = 0.9
"""Least share of it that must lie inside the picture: beyond the border there is nothing to paint, and nothing to learn
from."""


@dataclass(frozen=True)
class Followed:
    """One face over all frames of a video.

    times: s after the first frame. transforms (frames, 2, 3): frame px to px of the 128 crop, NaN where the face is not
    shown or its lips are outside the picture.
    """

    times: list[Fraction]
    track: Track
    transforms: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(frames,) bool: where there is a face to paint."""
        return is_shown(self.transforms)


def follow(
    frames: Iterable[Frame], detector: Detector, crop: str = "template", area: Rect | None = None
) -> list[Followed]:
    """Every face of a video whose lips are shown somewhere, the largest first; none where none is seen.

    crop: `template` registers eyes and nose, `box` cuts upright boxes (published). area: the part (x0, y0, x1, y1) px
    of every frame that is looked at, the whole if None; tracks and transforms are in its px.
    """
    times: list[Fraction] = []
    coming = iter(frames)
    first = list(islice(coming, 2))
    if not first:
        return []
    rect = area or (0, 0, *first[0].size)
    fewer = _reduction(rect, detector.least_side) if len(first) > 1 else 1  # a still is searched with all care

    def timed() -> Iterator[tuple[np.ndarray, float]]:
        for frame in chain(first, coming):
            times.append(Fraction(frame.time))
            yield frame.rgb_reduced(fewer, rect), float(frame.time)

    size = rect[2] - rect[0], rect[3] - rect[1]
    with closing(ahead(timed())) as pictures:
        tracks = [_enlarged(track, fewer) for track in track_faces(pictures, detector)]
    found = [Followed(times, track, _transforms(track, crop, size)) for track in tracks]
    return [face for face in found if face.present.any()]


def _reduction(rect: Rect, least_side: int | None) -> int:
    """How many times smaller a picture is looked at: a power of two that divides rect and leaves `least_side` px."""
    times, side = 1, min(rect[2] - rect[0], rect[3] - rect[1])
    while least_side and side >= 2 * times * least_side and not any(value % (2 * times) for value in rect):
        times *= 2
    return times


def _enlarged(track: Track, times: int) -> Track:
    """A track of pictures that were reduced, in px of the whole ones."""
    if times == 1:
        return track
    return replace(track, rigid=rescale(track.rigid, 1, times), box=rescale(track.box, 1, times))


def _transforms(track: Track, crop: str, size_wh: tuple[int, int]) -> np.ndarray:
    cut = box_transforms if crop == "box" else fit_transforms
    transforms = cut(track.box if crop == "box" else track.rigid, track.present, track.shot)
    transforms[lips_inside(transforms, size_wh) < LIPS_INSIDE] = np.nan
    return transforms


def lips_inside(transforms: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Share (frames,) of LIPS_BOX that lies inside pictures of (width, height) px, cut by transforms (frames, 2, 3);
    0 where they are NaN."""
    x0, y0, x1, y1 = LIPS_BOX
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 13), np.linspace(y0, y1, 9)), -1).reshape(-1, 2)
    known = is_shown(transforms)
    shares = np.zeros(len(transforms))
    turns, shifts = transforms[known, :, :2], transforms[known, :, 2:]
    places = np.linalg.solve(turns, grid.T - shifts)
    limits = np.array(size_wh)[:, None] - 0.5
    shares[known] = ((places >= -0.5) & (places <= limits)).all(1).mean(1)
    return shares
