"""One picture of a video, held as the 8-bit 4:2:0 planes it was coded in, so that untouched pixels stay bit-equal."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import VideoReformatter

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]
Rect = tuple[int, int, int, int]

_BILINEAR, _FULL_CHR_H_INT, _FULL_CHR_H_INP, _ACCURATE_RND = 2, 8192, 16384, 262144
_FLAGS = _BILINEAR | _FULL_CHR_H_INT | _FULL_CHR_H_INP | _ACCURATE_RND
"""swscale flags. Without the last three the way to RGB darkens by 1 to 2 levels. Numbers, as PyAV 17 has no names for
them.
"""
_MARGIN = 16
"""Pixels converted round a rectangle, so that its rim equals that of the whole picture's conversion."""
_local = threading.local()


@dataclass(frozen=True)
class Colour:
    """Colour tags as FFmpeg numbers them (AVColorSpace, AVColorRange, ...), and the shape of a pixel."""

    space: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2
    aspect: Fraction = Fraction(1)

    @property
    def matrix(self) -> int:
        """The number swscale knows the colour space by. Untagged video is read as BT.601, as FFmpeg does."""
        return self.space if self.space in (1, 4, 5, 7, 9) else 5

    @property
    def levels(self) -> int:
        """1: 16..235, 2: 0..255."""
        return self.range or 1


@dataclass
class Frame:
    """A picture at `time` s after the first one. planes: y (H, W), u and v (H / 2, W / 2), uint8, upright, H and W
    even.
    """

    index: int
    time: Fraction
    planes: Planes
    colour: Colour

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in px."""
        height, width = self.planes[0].shape
        return width, height

    def rgb(self, rect: Sequence[int] | None = None) -> np.ndarray:
        """The picture, or its part rect = (x0, y0, x1, y1) in px (x1, y1 excluded), as (h, w, 3) uint8."""
        width, height = self.size
        x0, y0, x1, y1 = inner = _inside(rect, self.size)
        if inner == (0, 0, width, height):
            return planes_to_rgb(self.planes, self.colour)
        left, top = max(0, (x0 - _MARGIN) // 2 * 2), max(0, (y0 - _MARGIN) // 2 * 2)
        outer = left, top, min(width, (x1 + _MARGIN + 1) // 2 * 2), min(height, (y1 + _MARGIN + 1) // 2 * 2)
        image = planes_to_rgb(_part(self.planes, outer), self.colour)
        return np.ascontiguousarray(image[y0 - top : y1 - top, x0 - left : x1 - left])

    def rgb_reduced(self, times: int, rect: Rect) -> np.ndarray:
        """The part rect = (x0, y0, x1, y1) px at 1 / times of its size, area means, as (h, w, 3) uint8.

        times: 1, or an even number that divides all of rect. Only what is left is made RGB: at half the size the
        colours, coded so, stay as they are.
        """
        if times == 1:
            return self.rgb(rect)
        if any(value % times for value in _inside(rect, self.size)) or times % 2:
            raise ValueError(f"rectangle {rect} cannot be reduced {times} times")
        x0, y0, x1, y1 = rect
        size = (x1 - x0) // times, (y1 - y0) // times
        y, u, v = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in _part(self.planes, rect))
        return planes_to_rgb((y, u, v), self.colour)

    def write_rgb(self, rect: Sequence[int], image: np.ndarray) -> None:
        """Put an (h, w, 3) uint8 image into rect = (x0, y0, x1, y1), even numbers; every value outside it stays as it
        is.
        """
        x0, y0, x1, y1 = rect = _inside(rect, self.size)
        if any(value % 2 for value in rect):
            raise ValueError(f"rectangle {rect} is not even-aligned")
        if image.shape != (y1 - y0, x1 - x0, 3) or image.dtype != np.uint8:
            raise ValueError(f"image {image.shape} {image.dtype} does not fill rectangle {rect} with uint8")
        for target, values in zip(_part(self.planes, rect), rgb_to_planes(image, self.colour), strict=True):
            target[:] = values

    def copy(self) -> "Frame":
        """A frame with planes of its own."""
        return replace(self, planes=tuple(plane.copy() for plane in self.planes))


def planes_to_rgb(planes: Planes, colour: Colour) -> np.ndarray:
    """4:2:0 or 4:4:4 planes to (H, W, 3) uint8."""
    frame = _reformatter().reformat(
        to_av(planes),
        format="rgb24",
        interpolation=_FLAGS,
        src_colorspace=colour.matrix,
        src_color_range=colour.levels,
        dst_color_range=2,
        threads=1,
    )
    return frame.to_ndarray()


def rgb_to_planes(image: np.ndarray, colour: Colour) -> Planes:
    """(H, W, 3) uint8, H and W even, to 4:2:0 planes."""
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame = _reformatter().reformat(
        source,
        format="yuv420p",
        interpolation=_FLAGS,
        dst_colorspace=colour.matrix,
        src_color_range=2,
        dst_color_range=colour.levels,
        threads=1,
    )
    return planes_of(frame)


def to_420(frame: av.VideoFrame, size: tuple[int, int], colour: Colour) -> av.VideoFrame:
    """A decoded frame of any pixel format (10 bit, 4:4:4, RGB, ...) and size as 8-bit yuv420p of `size` and
    `colour`.
    """
    return _reformatter().reformat(
        frame,
        *size,
        format="yuv420p",
        interpolation=_FLAGS,
        src_colorspace=colour.matrix,
        dst_colorspace=colour.matrix,
        src_color_range=levels_of(frame),
        dst_color_range=colour.levels,
        threads=1,
    )


def to_rgba(frame: av.VideoFrame, colour: Colour) -> np.ndarray:
    """A decoded frame of any pixel format as (H, W, 4) uint8, the last 0 where it can be seen through."""
    image = _reformatter().reformat(
        frame,
        format="rgba",
        interpolation=_FLAGS,
        src_colorspace=colour.matrix,
        src_color_range=levels_of(frame),
        dst_color_range=2,
        threads=1,
    )
    return image.to_ndarray()


def is_rgb(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame holds RGB, or numbers of a palette of it."""
    return frame.format.is_rgb or frame.format.name.startswith("pal")


def levels_of(frame: av.VideoFrame) -> int:
    """Of a decoded frame, as Colour.levels."""
    return 2 if is_rgb(frame) or frame.format.name.startswith("yuvj") or frame.color_range == 2 else 1


def planes_of(frame: av.VideoFrame) -> Planes:
    """Copies of a yuv420p frame's planes."""
    y, u, v = (_rows(plane).copy() for plane in frame.planes)
    return y, u, v


def to_av(planes: Planes) -> av.VideoFrame:
    """A yuv420p frame holding these planes; yuv444p where all are of one size."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, "yuv444p" if planes[1].shape == planes[0].shape else "yuv420p")
    for plane, values in zip(frame.planes, planes, strict=True):
        _rows(plane)[:] = values
    return frame


def _rows(plane: VideoPlane) -> np.ndarray:
    """The memory of a plane (H, W)."""
    held = np.frombuffer(memoryview(plane), np.uint8)[: plane.height * plane.line_size]
    return held.reshape(plane.height, plane.line_size)[:, : plane.width]


def pad_even(image: np.ndarray) -> np.ndarray:
    """Replicate the last row or column where height or width is odd."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), *[(0, 0)] * (image.ndim - 2)), "edge")


def _part(planes: Planes, rect: Rect) -> Planes:
    x0, y0, x1, y1 = rect
    half = slice(y0 // 2, y1 // 2), slice(x0 // 2, x1 // 2)
    return planes[0][y0:y1, x0:x1], planes[1][half], planes[2][half]


def _inside(rect: Sequence[int] | None, size: tuple[int, int]) -> Rect:
    if rect is None:
        return 0, 0, *size
    x0, y0, x1, y1 = (int(value) for value in rect)
    if not (0 <= x0 < x1 <= size[0] and 0 <= y0 < y1 <= size[1]):
        raise ValueError(f"rectangle {(x0, y0, x1, y1)} is empty or leaves a picture of {size[0]}x{size[1]}")
    return x0, y0, x1, y1


def _reformatter() -> VideoReformatter:
    # One per thread: it keeps its conversion tables, and is not made for sharing.
    if not hasattr(_local, "reformatter"):
        _local.reformatter = VideoReformatter()
    return _local.reformatter
