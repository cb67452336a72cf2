"""Perceptual distances of mouth box and lower face: ST-LPIPS, whose weights ship, and LPIPS with the user's."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from errors import InputError
from metrics.image import lower_face, mouth_boxes
from metrics.scorers import Batch, ClipContext
from models.checkpoint import check_fit, read_state

LOWER_SIZE = 128
"""px of the crop whose lower face is compared; the mouth box keeps the pixels it has."""
_LEAST_SIDE = 31
"""px: of what AlexNet's strides leave something of, as LPIPS has them; ST-LPIPS needs fewer."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""Of two pictures (1, 3, H, W), RGB in 0..1: one number."""


class PerceptualScore:
    """Rows mouth_<name> and face_<name>: means over every `step`-th frame."""

    def __init__(self, name: str, distance: Distance, step: int, context: ClipContext):
        self._name, self._distance, self._step = name, distance, step
        self._mouth: list[float] = []
        self._face: list[float] = []

    def add(self, batch: Batch) -> None:
        boxes = mouth_boxes(batch.real_points, batch.real.shape[1], _LEAST_SIDE)
        for k in np.flatnonzero(batch.index % self._step == 0):
            x0, y0, x1, y1 = boxes[k]
            mouths = batch.generated[k, y0:y1, x0:x1], batch.real[k, y0:y1, x0:x1]
            self._mouth.append(picture_distance(self._distance, *mouths))
            size = batch.real.shape[1]
            # Outside the face both are the real one: nothing to tell apart there.
            outside = ~lower_face(batch.real_points[k], size)[..., None]
            face = np.where(outside, batch.real[k], batch.generated[k])
            lower = face[size // 2 :], batch.real[k, size // 2 :]
            self._face.append(picture_distance(self._distance, *lower, LOWER_SIZE / size))

    def result(self) -> dict[str, float]:
        if not self._mouth:
            return {}
        return {
            f"mouth_{self._name}": float(np.mean(self._mouth)),
            f"face_{self._name}": float(np.mean(self._face)),
        }


@torch.inference_mode()
def picture_distance(distance: Distance, generated: np.ndarray, real: np.ndarray, scale: float = 1) -> float:
    """Of two pictures (H, W, 3) uint8 RGB, both scaled by `scale` first."""
    pair = torch.from_numpy(np.stack([generated, real])).permute(0, 3, 1, 2).float() / 255
    if scale != 1:
        pair = F.interpolate(pair, scale_factor=scale, mode="area")
    return float(distance(pair[:1], pair[1:]))


def load_lpips(path: Path) -> Distance:
    """LPIPS with AlexNet (Zhang et al., CVPR 2018) by the `lpips` package, from its `state_dict()`, trunk included.

    Raises InputError without that package, and for another file.
    """
    state = read_state(path)[0]
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise InputError(
            f"{path} needs lpips, which is not installed; pip install -r requirements-metrics.txt"
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how the package builds its trunk
        network = LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False)  # random: nothing is fetched
    check_fit(path, network, state)
    network.load_state_dict(state)
    return partial(network, normalize=True)
