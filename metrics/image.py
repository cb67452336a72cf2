"""Picture scores on parts of a face crop, where the real face's landmarks say what is where."""

import cv2
import numpy as np

from face.crop import SIZE, rescale
from face.lips import eye_distance
from face.topology import CONTOUR, LIPS_INNER, LIPS_OUTER
from media.video import Rect

MOUTH_BOX_POINTS = (61, 291, 0, 17, 13, 14, 37, 267, 84, 314, 91, 321)
MOUTH_BOX = np.array([0.75, 0.55])
"""Half width and half height of the mouth box in eye distances."""
LOWER_ROW = 64
"""First row of the lower face in px of 128."""
PSNR_CEILING = 100.0
"""Equal pictures count as this many dB, so that a mean over frames stays finite."""
LEAST_SIDE = 21
"""px: of what ST-LPIPS can look at; more than the SSIM window."""
_SSIM_WINDOW = 7
_LEAST_REGION = 12
"""Pixels: of a shut mouth's rim no colour is told."""
_K1, _K2 = 0.01, 0.03


def mouth_boxes(landmarks: np.ndarray, size: int, least: int = LEAST_SIDE) -> list[Rect]:
    """(x0, y0, x1, y1) px, ends excluded, in a crop of `size`, from landmarks (frames, 478, 2) in px of 128.

    Clipped to the crop; of a head that is turned far the sides grow to `least` px, inside the crop.
    """
    centre = rescale(landmarks[:, list(MOUTH_BOX_POINTS)].mean(1), SIZE, size) + 0.5  # from the edge, not a pixel
    half = MOUTH_BOX * eye_distance(landmarks)[:, None] * size / SIZE
    low, high = np.clip(np.rint([centre - half, centre + half]), 0, size).astype(int)
    low = np.clip(low - np.maximum(least - (high - low), 0) // 2, 0, size - least)
    high = np.maximum(high, low + least)
    return [(int(x0), int(y0), int(x1), int(y1)) for (x0, y0), (x1, y1) in zip(low, high, strict=True)]


def lower_face(landmarks: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool: rows from LOWER_ROW on inside the contour of one face, landmarks (478, 2) in px of 128."""
    mask = _filled(landmarks[list(CONTOUR)], size)
    mask[: round(LOWER_ROW * size / SIZE)] = False
    return mask


def mean_colours(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Mean CIE Lab colour (2, 3) of the lips and of what is seen between them, in (size, size, 3) uint8 RGB with
    landmarks (478, 2) of its own, px of 128; NaN for a region of fewer than _LEAST_REGION pixels.
    """
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    outer, inner = (_filled(landmarks[list(points)], len(image)) for points in (LIPS_OUTER, LIPS_INNER))
    colours = [
        lab[part].mean(0) if part.sum() >= _LEAST_REGION else np.full(3, np.nan) for part in (outer & ~inner, inner)
    ]
    return np.stack(colours)


def _filled(points: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool inside a closed line of points (n, 2), px of 128."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(rescale(points, SIZE, size)).astype(np.int32)], 1)
    return mask.astype(bool)


def psnr(generated: np.ndarray, real: np.ndarray) -> float:
    """Peak signal to noise ratio in dB of uint8 values in two arrays of one shape, at most PSNR_CEILING."""
    error = np.mean((generated.astype(np.float64) - real) ** 2)
    return min(float(10 * np.log10(255**2 / error)), PSNR_CEILING) if error > 0 else PSNR_CEILING


def ssim_map(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) round every pixel of (H, W, 3) uint8, mean of the channels: (H, W).

    Window 7x7, even weights, sample covariance, as scikit-image has by default. 3 px at the rim see a mirrored edge.
    """
    x, y = generated.astype(np.float64), real.astype(np.float64)
    count = _SSIM_WINDOW**2
    mean_x, mean_y, xx, yy, xy = (cv2.blur(values, (_SSIM_WINDOW,) * 2) for values in (x, y, x * x, y * y, x * y))
    spread_x, spread_y, together = (
        count / (count - 1) * values for values in (xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y)
    )
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    similarity = (
        (2 * mean_x * mean_y + c1) * (2 * together + c2) / ((mean_x**2 + mean_y**2 + c1) * (spread_x + spread_y + c2))
    )
    return similarity.mean(2)


def box_mean(values: np.ndarray, box: Rect) -> float:
    """Mean of a similarity map over a box, less the rim whose windows would leave it (as on the box cut out)."""
    x0, y0, x1, y1 = box
    rim = _SSIM_WINDOW // 2
    return float(values[y0 + rim : y1 - rim, x0 + rim : x1 - rim].mean())


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the luma of (H, W, 3) uint8."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
