"""Is it still the same person: cosine of a face-recognition network's vectors."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from errors import InputError
from face.crop import rescale, similarity, similarity_matrix
from metrics.scorers import Batch, ClipContext
from models.config import BASE_SIZE

_SIZE = 112
_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""(5, 2) px of 112: the person's right and left eye, nose tip, mouth corners, where ArcFace and SFace expect them."""


class FaceNetwork:
    """A face-recognition network in an ONNX file: one picture batch in, one vector a picture out."""

    def __init__(self, path: Path):
        """Raises InputError where the file or onnxruntime is missing, or it is another kind of network."""
        if not path.is_file():
            raise InputError(f"found no file {path}, expected an ONNX network; check the path")
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"{path} needs onnxruntime, which is not installed; pip install -r requirements-metrics.txt"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors derive from nothing narrower
            raise InputError(f"{path} is not an ONNX network that onnxruntime reads: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise InputError(f"{path} has {len(inputs)} inputs, expected one: pictures (N, 3, H, W)")
        self._input = inputs[0]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, H, W, 3) to (n, features), float32; one after another where the network takes only one."""
        batch = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        pieces = [batch] if not isinstance(self._input.shape[0], int) else batch[:, None]
        return np.concatenate(
            [self._session.run(None, {self._input.name: piece})[0].reshape(len(piece), -1) for piece in pieces]
        )


class IdentityScore:
    """Row identity: mean cosine of the vectors of generated and real faces, over every `step`-th frame."""

    def __init__(self, network: Callable[[np.ndarray], np.ndarray], step: int, context: ClipContext):
        """network: faces (n, 112, 112, 3) RGB uint8, aligned by five points as SFace wants them, to (n, features)."""
        self._network, self._step = network, step
        self._cosines: list[float] = []

    def add(self, batch: Batch) -> None:
        chosen = np.flatnonzero(batch.index % self._step == 0)
        if not len(chosen):
            return
        generated, real = (
            self._network(np.stack([aligned(images[k], points[k]) for k in chosen]))
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
    points = rescale(points, BASE_SIZE, len(image))
    source, target = points @ [1, 1j], _TEMPLATE @ [1, 1j]
    matrix = similarity_matrix(*similarity(source, target), target)
    return cv2.warpAffine(image, matrix, (_SIZE, _SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
