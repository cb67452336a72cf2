"""Feature distance on VGG19, as the published HR stage has it (up to its 35th layer, L1; after arXiv 1603.08155)."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from errors import InputError
from models.checkpoint import check_fit, read_state

_LAYERS = 35
"""Layers of VGG19's `features` up to conv5_4, before its ReLU."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, which torchvision's weights expect."""


class VGGDistance(nn.Module):
    """Mean |difference| of VGG19 features; frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.features = features[:_LAYERS]
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance (N,) of images (N, 3, H, W), RGB in 0..1, H and W at least 16; gradients flow to `output` only."""
        with torch.no_grad():
            wanted = self._extract(target)
        return (self._extract(output) - wanted).abs().mean((1, 2, 3))

    def _extract(self, images: Tensor) -> Tensor:
        return self.features((images - self.mean) / self.std)


def load_vgg(weights: str | Path | None = None) -> VGGDistance:
    """From torchvision's hub, or from a local file in torchvision's layout (`features.N.weight`, with or without the
    classifier).

    Raises InputError where the hub cannot be reached, or for a file that is missing or of another network.
    """
    if weights is None:
        try:
            network = vgg19(weights=VGG19_Weights.IMAGENET1K_V1)
        except OSError as error:
            raise InputError(
                f"torchvision's VGG19 cannot be fetched ({error}); name a local copy in perceptual.weights"
            ) from error
        return VGGDistance(network.features)
    features = vgg19(weights=None).features
    state = {
        name.removeprefix("features."): value
        for name, value in read_state(Path(weights))[0].items()
        if not name.startswith("classifier.")
    }
    check_fit(Path(weights), features, state)
    features.load_state_dict(state)
    return VGGDistance(features)
