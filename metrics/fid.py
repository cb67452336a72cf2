"""FID over all clips together, with a feature network given by path."""

from pathlib import Path

import cv2
import numpy as np
from scipy.linalg import sqrtm

from metrics.onnx import OnnxNetwork
from metrics.scorers import Batch, ClipContext

MIN_FRAMES = 2000
"""A covariance of 2,048 features from fewer pictures is mostly noise, and the distance mostly bias."""
_SIZE = 299


class FidScorer:
    """Frechet distance of face crops' features, real and generated. Clips have no rows; `pooled` has."""

    def __init__(self, path: Path):
        """path: ONNX network, (N, 3, 299, 299) RGB in 0..255 to features."""
        self.network = OnnxNetwork(path)
        self._moments: dict[str, tuple[_Moments, _Moments]] = {}

    def start(self, context: ClipContext) -> "_FidScore":
        return _FidScore(self.network, *self._moments.setdefault(context.line, (_Moments(), _Moments())))

    def pooled(self) -> tuple[dict[str, float], list[str]]:
        """FID by line, and a note on the lines that have none."""
        few = {line: own.count for line, (own, _) in self._moments.items() if own.count < MIN_FRAMES}
        values = {
            line: frechet(*generated.result(), *real.result())
            for line, (generated, real) in self._moments.items()
            if line not in few
        }
        counts = ", ".join(f"{line} {count} frames" for line, count in few.items())
        return values, [f"no FID: {counts}; below {MIN_FRAMES} it measures the number of frames"] if few else []


class _FidScore:
    def __init__(self, network: OnnxNetwork, generated: "_Moments", real: "_Moments"):
        self._network, self._generated, self._real = network, generated, real

    def add(self, batch: Batch) -> None:
        for images, moments in ((batch.generated, self._generated), (batch.real, self._real)):
            moments.add(self._network(np.stack([cv2.resize(image, (_SIZE,) * 2) for image in images])))

    def result(self) -> dict[str, float]:
        return {}


class _Moments:
    """Running mean and covariance."""

    def __init__(self) -> None:
        self.count, self._sum, self._products = 0, 0.0, 0.0

    def add(self, vectors: np.ndarray) -> None:
        vectors = vectors.astype(np.float64)
        self.count += len(vectors)
        self._sum = self._sum + vectors.sum(0)
        self._products = self._products + vectors.T @ vectors

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self._sum / self.count
        return mean, (self._products - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet(mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray) -> float:
    """Frechet distance of two normal distributions (Heusel et al. 2017): means (F,), covariances (F, F)."""
    root = sqrtm(covariance @ other_covariance).real
    return float(((mean - other_mean) ** 2).sum() + np.trace(covariance + other_covariance - 2 * root))
