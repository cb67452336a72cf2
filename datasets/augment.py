"""Changes that keep sound and lips in step."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass
class AugmentConfig:
    """`augment` section of the configs; a zero switches a change off."""

    flip: float = 0.5
    """Probability of a mirror image, the same for all faces of a sample."""
    colour: float = 0.15
    """Largest relative change of brightness, contrast and each colour channel, the same for all faces of a sample."""
    silence: float = 0.03
    """Probability of a muted sample whose target is the clip's most closed mouth, so that lips rest in silence."""


def augment_faces(faces: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """Change the faces (n, H, W, 3) uint8 of one sample alike; returns them and whether they are mirrored."""
    flipped = bool(rng.random() < config.flip)
    if flipped:
        faces = faces[:, :, ::-1]
    if config.colour:
        gain = 1 + rng.uniform(-config.colour, config.colour) + rng.uniform(-config.colour / 3, config.colour / 3, 3)
        shift = 255 * rng.uniform(-config.colour / 3, config.colour / 3)
        table = np.clip(np.arange(256)[:, None] * gain + shift, 0, 255).astype(np.uint8)
        faces = cv2.LUT(np.ascontiguousarray(faces).reshape(-1, 1, 3), table[:, None]).reshape(faces.shape)
    return faces, flipped
