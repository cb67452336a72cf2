"""Perceptual distances of mouth box and lower face: ST-LPIPS, whose weights ship, and LPIPS with the user's."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metrics.image import lower_face, mouth_boxes
from metrics.scorers import Batch, ClipContext
from models.checkpoint import check_fit, read_state
from models.stlpips import numbered

LOWER_SIZE = 128
"""px of the crop whose lower face is compared; the mouth box keeps the pixels it has."""


class PerceptualScorer:
    """Rows mouth_<name> and face_<name>: means over every `step`-th frame."""

    def __init__(self, name: str, network: nn.Module, step: int = 1):
        """network(generated, real), (N, 3, H, W) RGB in 0..1, gives distances (N,)."""
        self.name, self.network, self.step = name, network.eval(), step

    def start(self, context: ClipContext) -> "_PerceptualScore":
        return _PerceptualScore(self)


class _PerceptualScore:
    def __init__(self, scorer: PerceptualScorer):
        self._scorer = scorer
        self._mouth: list[float] = []
        self._face: list[float] = []

    def add(self, batch: Batch) -> None:
        boxes = mouth_boxes(batch.real_points, batch.real.shape[1])
        for k in np.flatnonzero(batch.index % self._scorer.step == 0):
            x0, y0, x1, y1 = boxes[k]
            self._mouth.append(self._distance(batch.generated[k, y0:y1, x0:x1], batch.real[k, y0:y1, x0:x1]))
            size = batch.real.shape[1]
            # Outside the face both are the real one: nothing to tell apart there.
            outside = ~lower_face(batch.real_points[k], size)[..., None]
            face = np.where(outside, batch.real[k], batch.generated[k])
            self._face.append(self._distance(face[size // 2 :], batch.real[k, size // 2 :], LOWER_SIZE / size))

    def result(self) -> dict[str, float]:
        if not self._mouth:
            return {}
        return {
            f"mouth_{self._scorer.name}": float(np.mean(self._mouth)),
            f"face_{self._scorer.name}": float(np.mean(self._face)),
        }

    @torch.inference_mode()
    def _distance(self, generated: np.ndarray, real: np.ndarray, scale: float = 1) -> float:
        pair = torch.from_numpy(np.stack([generated, real])).permute(0, 3, 1, 2).float() / 255
        if scale != 1:
            pair = F.interpolate(pair, scale_factor=scale, mode="area")
        return float(self._scorer.network(pair[:1], pair[1:]))


class LPIPS(nn.Module):
    """LPIPS with AlexNet (Zhang et al., CVPR 2018). Module names are those of the `lpips` package, version 0.1.

    Features of five stages are scaled to unit length at every position; their squared differences are weighted by
    channel, averaged over the image and summed over the stages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = nn.Sequential(
            OrderedDict(
                slice1=numbered(0, nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU()),
                slice2=numbered(2, nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
                slice3=numbered(5, nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
                slice4=numbered(8, nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
                slice5=numbered(10, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
            )
        )
        for stage, channels in enumerate((64, 192, 384, 256, 256)):
            head = numbered(1, nn.Conv2d(channels, 1, 1, bias=False))
            self.add_module(f"lin{stage}", nn.Sequential(OrderedDict(model=head)))
        self.requires_grad_(False)
        self.eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance (N,) of images (N, 3, H, W), RGB in 0..1, H and W at least 31."""
        x, y = self.scaling_layer(2 * output - 1), self.scaling_layer(2 * target - 1)
        total = torch.zeros(len(output), device=output.device)
        for stage, layers in enumerate(self.net):
            x, y = layers(x), layers(y)
            total = total + self.get_submodule(f"lin{stage}")((_unit(x) - _unit(y)).square()).mean((1, 2, 3))
        return total


def load_lpips(path: Path) -> LPIPS:
    """LPIPS from `lpips.LPIPS(net="alex").state_dict()`, trunk included. Raises InputError for another file."""
    state = {
        key: value for key, value in read_state(path)[0].items() if not key.startswith("lins.")
    }  # lins repeat lin0..4
    network = LPIPS()
    check_fit(path, network, state)
    network.load_state_dict(state)
    return network


class _Scaling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.shift) / self.scale


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)
