"""Is it still the same person: cosine of a face-recognition network's vectors."""

from pathlib import Path

import cv2
import numpy as np

from face.crop import rescale, similarity
from metrics.onnx import OnnxNetwork
from metrics.scorers import Batch, ClipContext

_SIZE = 112
_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""(5, 2) px of 112: the person's right and left eye, nose tip, mouth corners, where ArcFace and SFace expect them."""


class IdentityScorer:
    """Row identity: mean cosine of the vectors of generated and real faces, over every `step`-th frame.

    The network takes (N, 3, 112, 112) RGB in 0..255, aligned by five points, as SFace does.
    """

    def __init__(self, path: Path, step: int = 1):
        self.network, self.step = OnnxNetwork(path), step

    def start(self, context: ClipContext) -> "_IdentityScore":
        return _IdentityScore(self)


class _IdentityScore:
    def __init__(self, scorer: IdentityScorer):
        self._scorer = scorer
        self._cosines: list[float] = []

    def add(self, batch: Batch) -> None:
        chosen = np.flatnonzero(batch.index % self._scorer.step == 0)
        if not len(chosen):
            return
        generated, real = (
            self._scorer.network(np.stack([aligned(images[k], points[k]) for k in chosen]))
            for images, points in ((batch.generated, batch.points), (batch.real, batch.real_points))
        )
        scale = np.linalg.norm(generated, axis=1) * np.linalg.norm(real, axis=1)
        self._cosines += ((generated * real).sum(1) / np.maximum(scale, 1e-9)).tolist()

    def result(self) -> dict[str, float]:
        return {"identity": float(np.mean(self._cosines))} if self._cosines else {}


def aligned(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(112, 112, 3) uint8: a crop (S, S, 3) turned so that five landmarks of (478, 2), px of 128, meet the template."""
    points = np.stack(
        [landmarks[[33, 133]].mean(0), landmarks[[263, 362]].mean(0), landmarks[4], landmarks[61], landmarks[291]]
    )
    points = rescale(points, 128, len(image))
    source, target = points @ [1, 1j], _TEMPLATE @ [1, 1j]
    turn, centre = similarity(source, target)
    shift = target.mean() - turn * centre
    matrix = np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
    return cv2.warpAffine(image, matrix, (_SIZE, _SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
