"""Pictures into a network and out of it, in the channel order it was trained on."""

import numpy as np
import torch
from torch import Tensor, nn


def to_network(images: np.ndarray, network: nn.Module) -> Tensor:
    """(n, S, S, 3) RGB uint8 -> (n, 3, S, S) uint8 in the network's channel order, on its device."""
    ordered = images[..., ::-1] if network.channel_order == "bgr" else images
    return torch.from_numpy(np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))).to(next(network.parameters()).device)


def from_network(output: Tensor, network: nn.Module) -> np.ndarray:
    """(n, 3, S, S) 0..1 in the network's channel order -> (n, S, S, 3) RGB uint8."""
    images = (output.float().clamp(0, 1) * 255).round().byte().cpu().numpy().transpose(0, 2, 3, 1)
    return images[..., ::-1] if network.channel_order == "bgr" else images
