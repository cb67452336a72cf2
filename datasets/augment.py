"""Changes that keep sound and lips in step. Each is drawn once a sample and falls on all its faces alike."""

from dataclasses import dataclass

import cv2
import numpy as np

from errors import InputError
from face.crop import SIZE, apply

_BLUR_PX = 0.4, 1.2
"""Range of a blurred reference's sigma, px of the 128 crop."""
_JPEG_QUALITY = 50, 95


@dataclass
class FaceAugmentConfig:
    """What every stage may change about its faces; a zero switches a change off."""

    flip: float = 0.5
    """Probability of a mirror image."""
    colour: float = 0.15
    """Largest relative change of brightness, contrast and each colour channel."""
    shift: int = 2
    """Largest shift of the crop, whole px of 128, so that nothing is resampled."""
    zoom: float = 0.0
    """Largest relative change of the crop's scale about its centre; resampling makes the target a little softer."""

    def __post_init__(self) -> None:
        for name in ("flip", "reference_blur", "reference_jpeg", "base_blur", "silence", "sound"):
            if not 0 <= getattr(self, name, 0) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected a probability, 0 to 1")
        for name, most in (("colour", 1), ("shift", SIZE // 4), ("zoom", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 to {most}")


@dataclass
class HRAugmentConfig(FaceAugmentConfig):
    """`augment` section of the HR config. Its references lend their own pixels, so they stay sharp by default."""

    reference_blur: float = 0.0
    """Probability of blurred references."""
    reference_jpeg: float = 0.0
    """Probability of references that were JPEGs of poor quality."""
    base_blur: float = 0.5
    """Probability of a blurred stage-1 face: those of people it was not trained on are softer than the data set's."""


@dataclass
class AugmentConfig(FaceAugmentConfig):
    """`augment` section of the base config."""

    reference_blur: float = 0.1
    """Probability of blurred references."""
    reference_jpeg: float = 0.1
    """Probability of references that were JPEGs of poor quality."""
    silence: float = 0.03
    """Probability of a muted sample whose target is the clip's most closed mouth, so that lips rest in silence."""
    sound: float = 0.0
    """Probability of hearing one of the variants that preprocess.augment_sound wrote (noise, room, equaliser, level).
    """


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
        moved = apply(self.matrix(), points)
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
        faces = np.stack([cv2.imdecode(face, cv2.IMREAD_COLOR_RGB) for face in data])
    return faces
