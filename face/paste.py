"""A generated face back into its frame."""

import cv2
import numpy as np

from face.crop import SIZE, apply, at_size, invert, warp

TOP_ROW = 36
"""Of the 128 crop: no mask reaches higher, as masks begin at the nose bridge (row 54) and faces tilt."""


def paste_rect(transform: np.ndarray, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) px of the frame, all even, x1 and y1 excluded: what a mask of this crop can touch, at least 2 x 2.

    size_wh: (width, height) of the frame, even.
    """
    left, top, right, bottom = -0.5, TOP_ROW - 0.5, SIZE - 0.5, SIZE - 0.5
    corners = apply(invert(transform), np.array([(left, top), (right, top), (right, bottom), (left, bottom)]))
    low, high = np.floor(corners.min(0) / 2) * 2, np.ceil((corners.max(0) + 1) / 2) * 2
    x0, y0 = np.clip(low, 0, np.array(size_wh) - 2).astype(int)
    x1, y1 = np.clip(high, (x0 + 2, y0 + 2), size_wh).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def paste_face(rect_rgb: np.ndarray, rect: tuple[int, int, int, int], face: np.ndarray, mask: np.ndarray,
               transform: np.ndarray) -> np.ndarray:
    """Blend a face (S, S, 3) uint8 by its mask (S, S) in 0..1 into the frame's part `rect`, (h, w, 3) uint8.

    Returns a new (h, w, 3) uint8. Pixels where the mask is 0, and all above TOP_ROW of the crop, keep their values.
    """
    size = len(face)
    back = invert(at_size(transform, size))
    back[:, 2] -= rect[:2]
    size_wh = rect[2] - rect[0], rect[3] - rect[1]
    kept = mask.astype(np.float32)
    kept[:TOP_ROW * size // SIZE] = 0
    share = np.clip(warp(kept, back, size_wh, cv2.BORDER_CONSTANT), 0, 1)[..., None]
    image = warp(face, back, size_wh, cv2.BORDER_REPLICATE).astype(np.float32)
    source = rect_rgb.astype(np.float32)
    return np.rint(source + share * (image - source)).astype(np.uint8)
