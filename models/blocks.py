"""Convolution blocks that several networks share, and the plain trunk of the light preset."""

from collections.abc import Sequence

from torch import Tensor, nn

Size = int | tuple[int, int]


class ConvNormReLU(nn.Module):
    """relu(bn(conv(x))), or relu(bn(conv(x)) + x) where `residual`. (N, C, H, W) -> (N, out, H', W')."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Size = 3,
        stride: Size = 1,
        padding: Size = 1,
        residual: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.activation(y + x if self.residual else y)


class UpConvNormReLU(nn.Module):
    """Twice the size by a transposed convolution, then batch norm and ReLU. (N, C, H, W) -> (N, out, 2H, 2W)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class PlainTrunk(nn.Module):
    """Per level one 3x3 of stride 2 and one of stride 1. Trains on a CPU, where depthwise convolutions are slow."""

    def __init__(self, inputs: int, channels: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList()
        for outputs in channels:
            self.levels.append(
                nn.Sequential(
                    ConvNormReLU(inputs, outputs, stride=2, bias=False), ConvNormReLU(outputs, outputs, bias=False)
                )
            )
            inputs = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> one map a level, at 1/2, 1/4, 1/8 ... of the size."""
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps
