"""Where a face is cut from a frame, and the way back.

A CropTransform maps frame px to px of the crop at 128, whatever size is cut; a video's are kept as one array
(frames, 2, 3). Pixel centres are at integers, so px p at 128 is (p + 0.5) * S / 128 - 0.5 at size S: see `rescale`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

if TYPE_CHECKING:
    from torch import Tensor

    from media.video import Frame, Rect

Coordinates = TypeVar("Coordinates", float, np.ndarray, "Tensor")

SIZE = 128
TEMPLATE = np.array(
    [
        (41.1, 48.3),
        (54.9, 48.9),
        (86.9, 48.3),
        (73.1, 48.9),
        (64, 46.3),
        (64, 50.2),
        (64, 53.6),
        (64, 56.7),
        (64, 59.9),
        (64, 64),
    ]
)
"""(10, 2) px of the 128 crop: where the rigid points go. The median of 63 talking faces, made symmetric, eyes 32 px
apart. No jaw and no lips, or the crop itself would tell how far the mouth is open."""

BOX_BELOW = 0.05
"""Of a box's height: how much is added under the chin in upright boxes (our guess of published preprocessing)."""
_MAX_OVERSAMPLING = 8
_PLACE_SIGMA, _SCALE_SIGMA = 2.0, 8.0
"""Frames, of the Gaussians that smooth a crop's path."""
_REACH = 3
"""Frame px beyond a crop that cubic resampling may look at."""


def fit_transforms(rigid: np.ndarray, present: np.ndarray, shot: np.ndarray) -> np.ndarray:
    """Least-squares similarities (T, 2, 3) from rigid points (T, 10, 2) in frame px to TEMPLATE.

    Centre and angle are smoothed by a zero-phase Gaussian, the scale by a wider one, within each of `shot_stretches`.
    present (T,) bool, shot (T,) int; NaN where absent.
    """
    target = TEMPLATE @ [1, 1j]
    points = np.asarray(rigid, float) @ [1, 1j]
    transforms = np.full((len(points), 2, 3), np.nan)
    for run in shot_stretches(present, shot):
        turn, centre = similarity(points[run], target)
        log_scale = _smooth(np.log(np.abs(turn).clip(1e-9)), _SCALE_SIGMA)
        angle = _smooth(np.unwrap(np.angle(turn)), _PLACE_SIGMA)
        centre = _smooth(centre.real, _PLACE_SIGMA) + 1j * _smooth(centre.imag, _PLACE_SIGMA)
        transforms[run] = similarity_matrix(np.exp(log_scale + 1j * angle), centre, target)
    return transforms


def similarity(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares (Umeyama 1991) between complex numbers x + iy, points (..., n) and target (n,): turn and centre,
    (...,) each, of point -> turn * (point - centre) + target.mean().
    """
    centre = points.mean(-1)
    offsets = points - centre[..., None]
    return (offsets.conj() @ (target - target.mean())) / (np.abs(offsets) ** 2).sum(-1).clip(1e-9), centre


def similarity_matrix(turn: np.ndarray, centre: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(..., 2, 3) of the map that `similarity` tells by turn and centre, (...,) each."""
    shift = target.mean() - turn * centre
    rows = [turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag]
    return np.stack(rows, -1).reshape(*turn.shape, 2, 3)


def box_transforms(box: np.ndarray, present: np.ndarray, shot: np.ndarray) -> np.ndarray:
    """Transforms (T, 2, 3) of upright face boxes (T, 4) = (x0, y0, x1, y1) px, stretched to 128 x 128 as in published
    preprocessing. Smoothed as in `fit_transforms`; NaN where absent."""
    box = np.asarray(box, float)
    transforms = np.full((len(box), 2, 3), np.nan)
    for run in shot_stretches(present, shot):
        size = (box[run, 2:] - box[run, :2]) * [1, 1 + BOX_BELOW]
        centre = _smooth(box[run, :2] + size / 2, _PLACE_SIGMA)
        scale = SIZE / np.exp(_smooth(np.log(size.clip(1e-9)), _SCALE_SIGMA))
        transforms[run, :, :2] = scale[:, :, None] * np.eye(2)
        transforms[run, :, 2] = (SIZE - 1) / 2 - scale * centre
    return transforms


def shot_stretches(present: np.ndarray, shot: np.ndarray) -> list[np.ndarray]:
    """Frame numbers of each uninterrupted stretch of one shot that shows the face. present (T,) bool, shot (T,) int."""
    labels = np.where(present, shot, -1)
    found = np.split(np.arange(len(labels)), np.flatnonzero(np.diff(labels)) + 1)
    return [stretch for stretch in found if len(stretch) and labels[stretch[0]] >= 0]


def area_reduce(image: np.ndarray, size: int) -> np.ndarray:
    """(S, S, ...) to (size, size, ...), S a multiple of size: every pixel is the mean of those it covers."""
    if image.shape[0] == size:
        return image
    if image.shape[0] % size:
        raise ValueError(f"{image.shape[0]} px is no multiple of {size}")
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def rescale(px: Coordinates, before: float, after: float) -> Coordinates:
    """Coordinates in a picture of side `before` as they are in the same picture at side `after`."""
    return (px + 0.5) * (after / before) - 0.5


@dataclass(frozen=True)
class CropTransform:
    """Affine map `matrix` (2, 3) from px of a frame to px of a crop, at 128 unless `at` says otherwise."""

    matrix: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the frame as they are in the crop."""
        return points @ self.matrix[:, :2].T + self.matrix[:, 2]

    def inverse(self) -> "CropTransform":
        """From the crop's px to the frame's."""
        back = np.linalg.inv(self.matrix[:, :2])
        return CropTransform(np.concatenate([back, -back @ self.matrix[:, 2:]], 1))

    def at(self, size: float) -> "CropTransform":
        """To px of the crop at `size`."""
        return CropTransform(
            np.concatenate([self.matrix[:, :2] * size / SIZE, rescale(self.matrix[:, 2:], SIZE, size)], 1)
        )

    def within(self, x: float, y: float) -> "CropTransform":
        """From px of the frame's part that begins at (x, y)."""
        return CropTransform(np.concatenate([self.matrix[:, :2], self.apply(np.array([x, y]))[:, None]], 1))

    @property
    def scale(self) -> float:
        """By how much it enlarges."""
        return float(scale_of(self.matrix))

    def cut(self, image_rgb: np.ndarray, size: int, rows: int = SIZE) -> np.ndarray:
        """The face of (H, W, 3) uint8 as (size, size, 3) uint8; the frame's border is replicated. rows: px of 128, of
        the crop only so many, from its top, are cut.
        """
        return warp(image_rgb, self.at(size), (size, size * rows // SIZE), cv2.BORDER_REPLICATE)

    def cut_from(self, frame: "Frame", size: int, area: "Rect | None" = None, rows: int = SIZE) -> np.ndarray:
        """As `cut`, of a frame of which only the part that the crop looks at is made RGB.

        area: (x0, y0, x1, y1) px, the part of the frame whose px the transform maps and beyond whose border nothing is
        seen; None: all of it.
        """
        left, top, right, bottom = area or (0, 0, *frame.size)
        limit = np.array([right - left, bottom - top])
        corners = self.inverse().apply(np.array([(0, 0), (SIZE, 0), (SIZE, rows), (0, rows)]) - 0.5)
        low = np.clip(np.floor(corners.min(0)).astype(int) - _REACH, 0, limit - 1)
        high = np.clip(np.ceil(corners.max(0)).astype(int) + _REACH + 1, low + 1, limit)
        return self.within(*low).cut(frame.rgb((*(low + (left, top)), *(high + (left, top)))), size, rows)


def is_shown(transforms: np.ndarray) -> np.ndarray:
    """Where transforms (..., 2, 3) lead to a face, (...,) bool: they are NaN where none is shown."""
    return np.isfinite(transforms[..., 0, 0])


def scale_of(transforms: np.ndarray) -> np.ndarray:
    """By how much matrices (..., 2, 3) enlarge: (...,)."""
    return np.sqrt(np.abs(np.linalg.det(transforms[..., :2])))


def warp(image: np.ndarray, transform: CropTransform, size_wh: tuple[int, int], border: int) -> np.ndarray:
    """Resample (H, W, ...) to size_wh = (w, h) px: cubic where it grows; else at a multiple, then area means."""
    width, height = size_wh
    if transform.scale >= 1:
        return cv2.warpAffine(image, transform.matrix, size_wh, flags=cv2.INTER_CUBIC, borderMode=border)
    times = min(int(np.ceil(1 / transform.scale)), _MAX_OVERSAMPLING)
    fine = transform.at(SIZE * times).matrix
    large = cv2.warpAffine(image, fine, (width * times, height * times), flags=cv2.INTER_LINEAR, borderMode=border)
    return cv2.resize(large, size_wh, interpolation=cv2.INTER_AREA)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter1d(values, sigma, axis=0, mode="nearest")
