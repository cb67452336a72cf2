"""Faces in one picture after another: what the tracker needs of a backend."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Face:
    """box_xyxy (4,) px round the face, forehead to chin; landmarks (478 | 68, 2) px, pixel centres at integers."""

    box_xyxy: np.ndarray
    landmarks: np.ndarray


class Detector(Protocol):
    """What the tracker needs of a backend."""

    lip_gap: tuple[int, int]
    """Landmarks whose distance tells how far the mouth is open."""
    least_side: int | None
    """Shorter side, px, to which a film's pictures may be reduced before it looks at them; None: not at all."""

    def detect(self, image_rgb: np.ndarray, time_s: float) -> list[Face]:
        """Faces of (H, W, 3) uint8, which is shown at `time_s` seconds."""

    def search(self, image_rgb: np.ndarray) -> list[Face]:
        """Faces of a picture that stands alone, found with more care than a film's frames get."""

    def reset(self) -> None:
        """Forget earlier pictures: the next one comes after a cut."""

    def rigid(self, landmarks: np.ndarray) -> np.ndarray:
        """The ten rigid points (10, 2) of (P, 2) landmarks, in the order of the crop template."""
