"""Pictures as networks take them: the order of colours that one was trained on, and their range."""

import torch
from torch import Tensor, nn


class PictureNetwork(nn.Module):
    """A network whose pictures, in and out, have their colours in one order."""

    channel_order: str = "rgb"
    """`bgr` where published weights are loaded."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device


def in_order(images: Tensor, network: nn.Module) -> Tensor:
    """RGB images (..., 3, H, W) in the network's `channel_order`; the same call brings its output back to RGB."""
    return images.flip(-3) if network.channel_order == "bgr" else images


def unit(images: Tensor) -> Tensor:
    """uint8 pictures as float in 0..1; floats as they are."""
    return images if images.is_floating_point() else images.float() / 255
