"""MediaPipe's face landmark network (`face_landmarks_detector.tflite`, Apache 2.0) as a module."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.compiled import Convertible

POINTS = 478
_WIDTHS = (16, 32, 64, 128, 128, 128, 128)
"""Channels at 128, 64, 32, 16, 8, 4 and 2 px."""
_BLOCKS = 4
"""At every size, beside the one that leads to it."""


class Pointwise(nn.Conv2d):
    """1x1 convolution of maps in channels_last.

    It takes rows for samples, which moves nothing: for fewer than 16 samples torch has no fast 1x1 convolution on one
    thread (maps at batch 8 cost .6 of the time).
    """

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(count * height, 1, width, channels).permute(0, 3, 1, 2)
        y = super().forward(rows).permute(0, 2, 3, 1)
        return y.reshape(count, height, width, self.out_channels).permute(0, 3, 1, 2)

    portable_forward = nn.Conv2d.forward  # other runtimes have one


class Block(nn.Module):
    """Residual bottleneck with a depthwise convolution; `down` halves the size and may widen."""

    def __init__(self, inputs: int, outputs: int, down: bool = False):
        super().__init__()
        inner = outputs // 2
        self.reduce = nn.Conv2d(inputs, inner, 2, stride=2) if down else Pointwise(inputs, inner, 1)
        self.inner = nn.PReLU(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.expand = Pointwise(inner, outputs, 1)
        self.outer = nn.PReLU(outputs)
        self.down = down

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H, W), or half of that size."""
        y = self.expand(self.depthwise(self.inner(self.reduce(x))))
        known = F.max_pool2d(x, 2) if self.down else x
        missing = y.shape[1] - known.shape[1]
        y += F.pad(known, (0, 0, 0, 0, 0, missing)) if missing else known
        return self.outer(y)


class FaceLandmarkNet(Convertible):
    """For inference, in channels_last. Modules stand in the order of their use, so that weights can be filled in."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _WIDTHS[0], 3, stride=2)
        self.activation = nn.PReLU(_WIDTHS[0])
        blocks = [Block(_WIDTHS[0], _WIDTHS[0]) for _ in range(_BLOCKS)]
        for inputs, outputs in pairwise(_WIDTHS):
            blocks += [Block(inputs, outputs, down=True), *(Block(outputs, outputs) for _ in range(_BLOCKS))]
        self.blocks = nn.Sequential(*blocks)
        self.presence = nn.Conv2d(_WIDTHS[-1], 1, 2)
        self.points = nn.Conv2d(_WIDTHS[-1], 3 * POINTS, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """RGB (N, 3, 256, 256) in 0..1 -> points (N, 478, 3), px of 256, and presence logits (N,)."""
        return self.run(images)

    def core(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """All of `forward`."""
        (images,) = inputs
        x = self.blocks(self.activation(self.stem(F.pad(images, (0, 1, 0, 1)))))
        return self.points(x).view(-1, POINTS, 3), self.presence(x).flatten()

    @torch.no_grad()
    def fill(self, weights: list[list[Tensor]]) -> None:
        """Take the weights (one list a layer, in the order of use) of convolutions (weight, bias) and PReLUs.

        Raises ValueError where they are not this network's.
        """
        layers = [module for module in self.modules() if isinstance(module, (nn.Conv2d, nn.PReLU))]
        for layer, values in zip(layers, weights, strict=True):
            for parameter, value in zip(layer.parameters(), values, strict=True):
                if parameter.numel() != value.numel():
                    raise ValueError(f"{layer} cannot take weights {tuple(value.shape)}")
                parameter.copy_(value.view_as(parameter))
