"""The line drawing of a face that tells stage 2 where lips, eyes, brows, nose and contour are."""

from typing import Literal

import cv2
import numpy as np

from face.crop import SIZE, area_reduce, rescale
from face.topology import CLOSED_LINES, CLOSED_LINES_68, OPEN_LINES, OPEN_LINES_68, TO_68

SketchPoints = Literal[478, 68, 0]
"""Landmarks a sketch is drawn from; 0: it stays black."""
LINE_WIDTH = 2 / 128
"""Of the sketch's size."""
_FINE = 4
"""Drawn this much larger, then reduced, as OpenCV's anti-aliased lines come out wider than asked for:"""
_EXTRA = 1.4
"""px, at even widths; odd ones come out like the next even one."""
_SHIFT = 6  # fractional bits of a coordinate


def draw_sketch(landmarks: np.ndarray, size: int = SIZE, points: SketchPoints = 478) -> np.ndarray:
    """Lips, eyes, brows, nose and the contour from ear to ear under the chin, white on black, anti-aliased.

    landmarks (478 | 68, 2) in px of the 128 crop, of 478 only the nearest 68 are drawn with `points` 68; returns (size,
    size) uint8.
    """
    if points == 0:
        return np.zeros((size, size), np.uint8)
    if points == 68 and len(landmarks) == 478:
        landmarks = to_68(landmarks)
    closed, opened = (CLOSED_LINES, OPEN_LINES) if len(landmarks) == 478 else (CLOSED_LINES_68, OPEN_LINES_68)
    large = size * _FINE
    places = rescale(np.asarray(landmarks, float), SIZE, large)
    # Wild points would overflow OpenCV's integers, and lines far outside show nothing.
    fixed = np.rint(np.clip(places, -large, 2 * large) * 2**_SHIFT).astype(np.int32)
    sketch = np.zeros((large, large), np.uint8)
    width = max(1, int((LINE_WIDTH * large - _EXTRA) // 2) * 2)
    for lines, is_closed in ((closed, True), (opened, False)):
        cv2.polylines(sketch, [fixed[list(line)] for line in lines], is_closed, 255, width, cv2.LINE_AA, _SHIFT)
    return area_reduce(sketch, size)


def to_68(landmarks: np.ndarray) -> np.ndarray:
    """(..., 478, 2) to the nearest of the 68 iBUG points (..., 68, 2); the jaw differs most."""
    return landmarks[..., list(TO_68), :]


def draw_sketches(landmarks: np.ndarray, points: SketchPoints = 478) -> np.ndarray:
    """(n, 1, 128, 128) uint8: what stage 2 reads of landmarks (n, 478 | 68, 2), px of the 128 crop."""
    return np.stack([draw_sketch(face, points=points) for face in landmarks])[:, None]
