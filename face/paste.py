"""A generated face back into its frame."""

import cv2
import numpy as np

from face.crop import SIZE, CropTransform, warp

_SAMPLED_PX = 4
"""px of 128 round a mask that its pixels in the frame are made from: by cubic sampling, and by the blur of small faces.
Of crops below 40 px in the frame it misses what would change them by 1 or 2 of 255."""
_STEP = 4
"""Parts are multiples of it, so that networks meet few shapes: each new one costs them a start."""


def paste_rect(mask: np.ndarray, transform: CropTransform, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) px of the frame, all even, x1 and y1 excluded: what a crop's mask (S, S) can touch, 2 x 2 at
    least.

    size_wh: (width, height) of the frame, even.
    """
    left, top, right, bottom = _covered(mask)
    left, top = left - 1, top - 1  # resampling may reach a pixel beyond it
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    places = transform.at(len(mask)).inverse().apply(corners)
    low, high = np.floor(places.min(0) / 2) * 2, np.ceil((places.max(0) + 1) / 2) * 2
    x0, y0 = np.clip(low, 0, np.array(size_wh) - 2).astype(int)
    x1, y1 = np.clip(high, (x0 + 2, y0 + 2), size_wh).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def sampled_part(masks: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) px of 128, multiples of four: what `paste_face` looks at of faces with masks (n, S, S); of other
    pixels it makes no use. All of them where the masks are empty.
    """
    if not masks.any():
        return 0, 0, SIZE, SIZE
    scale, box = masks.shape[1] // SIZE, _covered(masks.max(0))
    low, high = np.array(box[:2]) // scale - _SAMPLED_PX, np.array(box[2:]) // scale + _SAMPLED_PX
    x0, y0 = np.clip(low // _STEP * _STEP, 0, SIZE).tolist()
    x1, y1 = np.clip(-(-high // _STEP) * _STEP, 0, SIZE).tolist()
    return x0, y0, x1, y1


def paste_face(
    rect_rgb: np.ndarray, rect: tuple[int, int, int, int], face: np.ndarray, mask: np.ndarray, transform: CropTransform
) -> np.ndarray:
    """Blend a face (S, S, 3) uint8 by its mask (S, S) in 0..1 into the frame's part `rect`, (h, w, 3) uint8.

    Returns a new (h, w, 3) uint8; pixels where the mask is 0 keep their values.
    """
    back = transform.within(*rect[:2]).at(len(face)).inverse()
    size_wh = rect_rgb.shape[1], rect_rgb.shape[0]
    share = np.clip(warp(mask, back, size_wh, cv2.BORDER_CONSTANT), 0, 1)
    return cv2.blendLinear(_sampled(face, back, size_wh), np.ascontiguousarray(rect_rgb), share, 1 - share)


def _covered(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1), x1 and y1 excluded: where a mask (S, S) is not 0; nothing where it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)


def _sampled(face: np.ndarray, back: CropTransform, size_wh: tuple[int, int]) -> np.ndarray:
    """The face at the frame's pixels, cubic.

    A crop that was enlarged up to twice holds nothing finer than its frame, and samples give that back with .98 of its
    sharpness, where area means keep .67. One that was enlarged more may have been painted with more detail: it is
    blurred first, the more the smaller.
    """
    excess = (0.5 / back.scale) ** 2 - 1
    if excess > 0:
        face = cv2.GaussianBlur(face, (0, 0), np.sqrt(excess), borderType=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(face, back.matrix, size_wh, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
