"""Which pixels of a generated face go into the frame."""

from functools import lru_cache

import cv2
import numpy as np

from face.crop import SIZE
from face.topology import CONTOUR, LIP_GAP

_TOP = (345, 346, 347, 348, 197, 119, 118, 117, 116)
"""From the left ear's side below the eyes and over the nose bridge to the right side."""
_CHIN = CONTOUR[2:-2]
FEATHER_PX = 2.0
"""Sigma of the soft edge, px of the 128 crop; it lies inside the outline."""
CHIN_GROWTH = 0.12
"""How far the outline is pushed at the chin, of the distance from the mouth: the source's chin must not look out."""
TOP_ROW, TOP_FEATHER_PX = 62, 12
"""Of the 128 crop: the mask rises from TOP_ROW on. The networks see the source down to row 64, so the edge between what
they saw and what they painted lies where next to nothing of it is pasted.
"""
SIDE_PX = 32, 50
"""Distance across from the lips' middle up to which all is pasted, and from which nothing is: the source's own cheeks
fit its pose, painted ones come from the reference's.
"""
_EDGE_PX = 4
_SHIFT = 6


def paste_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Lips, chin and the cheeks beside them, from landmarks (478, 2) of the GENERATED face in px of the 128 crop.

    Returns (size, size) float32 in 0..1 with a soft edge, exactly 0 on the outermost rows and columns.
    """
    points = np.asarray(landmarks, float)
    outline = np.concatenate([_grown_chin(points), points[list(_TOP)]])
    mask = np.zeros((SIZE, SIZE), np.uint8)
    fixed = np.rint(np.clip(outline, -SIZE, 2 * SIZE) * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
    soft = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), FEATHER_PX)
    # Values above a half lie inside the outline: the edge runs inwards only.
    near, far = SIDE_PX
    aside = np.abs(np.arange(SIZE) - points[list(LIP_GAP), 0].mean())
    soft = np.clip(2 * soft - 1, 0, 1) * _inner() * ((far - aside) / (far - near)).clip(0, 1).astype(np.float32)
    return soft if size == SIZE else cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR)


def _grown_chin(points: np.ndarray) -> np.ndarray:
    """The contour, pushed away from the mouth: at the chin by CHIN_GROWTH, fading to nothing at the mouth's height."""
    mouth, chin = points[list(LIP_GAP)].mean(0), points[152]
    contour = points[list(_CHIN)]
    down = chin - mouth
    depth = np.clip((contour - mouth) @ down / max(float(down @ down), 1e-6), 0, 1)
    return contour + CHIN_GROWTH * depth[:, None] * (contour - mouth)


@lru_cache(maxsize=1)
def _inner() -> np.ndarray:
    """(128, 128) 0 on the border and down to TOP_ROW, rising to 1 within a few pixels."""
    place = np.arange(SIZE)
    columns = np.minimum(place, place[::-1]) / _EDGE_PX
    rows = np.minimum((place - TOP_ROW) / TOP_FEATHER_PX, place[::-1] / _EDGE_PX)
    return np.minimum(rows[:, None], columns[None]).clip(0, 1).astype(np.float32)
