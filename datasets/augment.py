"""Changes that keep sound and lips in step. Each is drawn once a sample and falls on all its faces alike."""

from dataclasses import dataclass

import cv2
import numpy as np

from datasets.config import AugmentConfig, FaceAugmentConfig, HRAugmentConfig
from face.crop import SIZE, CropTransform

_BLUR_PX = 0.4, 1.2
"""Range of a blurred reference's sigma, px of the 128 crop."""
_JPEG_QUALITY = 50, 95


@dataclass(frozen=True)
class FaceChange:
    """One draw: first the crop moves, then its colours change, then it may be mirrored."""

    mirrored: bool = False
    colours: np.ndarray | None = None
    """(256, 1, 3) uint8: new value of each channel's old one."""
    shift: tuple[int, int] = (0, 0)
    """px of the 128 crop."""
    zoom: float = 1.0

    def matrix(self, size: int = SIZE) -> np.ndarray:
        """(2, 3): where a pixel of a crop of `size` px goes before it is mirrored."""
        centre = (size - 1) / 2 * (1 - self.zoom)
        across, down = (part * size / SIZE for part in self.shift)
        return np.array([[self.zoom, 0, centre + across], [0, self.zoom, centre + down]])

    def faces(self, faces: np.ndarray) -> np.ndarray:
        """(n, S, S, 3) uint8, any S; what the crop does not hold is its border, repeated."""
        size = faces.shape[1]
        if self.zoom != 1 or any(self.shift):
            kind = cv2.INTER_NEAREST if self.zoom == 1 else cv2.INTER_CUBIC
            matrix = self.matrix(size)
            faces = np.stack(
                [
                    cv2.warpAffine(face, matrix, (size, size), flags=kind, borderMode=cv2.BORDER_REPLICATE)
                    for face in faces
                ]
            )
        if self.colours is not None:
            faces = cv2.LUT(np.ascontiguousarray(faces).reshape(-1, 1, 3), self.colours).reshape(faces.shape)
        return faces[:, :, ::-1] if self.mirrored else faces

    def points(self, points: np.ndarray) -> np.ndarray:
        """Landmarks (..., 2) in px of the 128 crop; each keeps its name, so a mirrored left eye is still the left
        one.
        """
        moved = CropTransform(self.matrix()).apply(points)
        return ([SIZE - 1, 0] + moved * [-1, 1] if self.mirrored else moved).astype(np.float32)

    def motions(self, motions: np.ndarray) -> np.ndarray:
        """Differences (..., 2) of landmarks: as `points`, but a shift does not move them."""
        return (motions * [-self.zoom if self.mirrored else self.zoom, self.zoom]).astype(np.float32)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 4) = (x0, y0, x1, y1), px of the 128 crop."""
        corners = self.points(boxes.reshape(-1, 2, 2))
        return np.concatenate([corners.min(1), corners.max(1)], 1)


def draw_change(config: FaceAugmentConfig, rng: np.random.Generator) -> FaceChange:
    """One sample's change."""
    mirrored = bool(rng.random() < config.flip)
    colours = None
    if config.colour:
        gain = 1 + rng.uniform(-config.colour, config.colour) + rng.uniform(-config.colour / 3, config.colour / 3, 3)
        offset = 255 * rng.uniform(-config.colour / 3, config.colour / 3)
        colours = np.clip(np.arange(256)[:, None] * gain + offset, 0, 255).astype(np.uint8)[:, None]
    across, down = rng.integers(-config.shift, config.shift + 1, 2).tolist() if config.shift else (0, 0)
    zoom = 1 + rng.uniform(-config.zoom, config.zoom) if config.zoom else 1.0
    return FaceChange(mirrored, colours, (across, down), zoom)


def blurred(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faces (n, S, S, 3) after one Gaussian blur, drawn from _BLUR_PX."""
    sigma = rng.uniform(*_BLUR_PX) * faces.shape[1] / SIZE
    return np.stack([cv2.GaussianBlur(face, (0, 0), sigma) for face in np.ascontiguousarray(faces)])


def degrade_references(
    faces: np.ndarray, config: AugmentConfig | HRAugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """References (R, S, S, 3) uint8 RGB, perhaps blurred, perhaps compressed: the source of a reference is often
    poor.
    """
    if rng.random() < config.reference_blur:
        faces = blurred(faces, rng)
    if rng.random() < config.reference_jpeg:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*_JPEG_QUALITY))]
        data = [cv2.imencode(".jpg", cv2.cvtColor(face, cv2.COLOR_RGB2BGR), quality)[1] for face in faces]
        faces = np.array([cv2.imdecode(face, cv2.IMREAD_COLOR_RGB) for face in data])
    return faces
