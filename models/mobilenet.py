"""The published trunk: MobileNetV3-Large with a dilated last stage (arXiv 1905.02244), and its LR-ASPP head."""

from functools import partial

from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops.misc import Conv2dNormActivation

_TAPS = (1, 3, 6, 16)
_BLOCKS = (  # input, kernel, expanded, output, squeeze-excite, activation, stride, dilation
    (16, 3, 16, 16, False, "RE", 1, 1),
    (16, 3, 64, 24, False, "RE", 2, 1),
    (24, 3, 72, 24, False, "RE", 1, 1),
    (24, 5, 72, 40, True, "RE", 2, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 3, 240, 80, False, "HS", 2, 1),
    (80, 3, 200, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 480, 112, True, "HS", 1, 1),
    (112, 3, 672, 112, True, "HS", 1, 1),
    (112, 5, 672, 160, True, "HS", 2, 2),
    (160, 5, 960, 160, True, "HS", 1, 2),
    (160, 5, 960, 160, True, "HS", 1, 2),
)


class MobileNetTrunk(nn.Module):
    """(N, inputs, H, W) -> four maps with TRUNK_CHANNELS channels at 1/2, 1/4, 1/8 and 1/16 of the size."""

    def __init__(self, inputs: int):
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
        first = Conv2dNormActivation(inputs, 16, stride=2, norm_layer=nn.BatchNorm2d, activation_layer=nn.Hardswish)
        blocks = [InvertedResidual(InvertedResidualConfig(*row, width_mult=1.0), norm) for row in _BLOCKS]
        last = Conv2dNormActivation(160, 960, kernel_size=1, norm_layer=norm, activation_layer=nn.Hardswish)
        self.features = nn.ModuleList([first, *blocks, last])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, feature in enumerate(self.features):
            x = feature(x)
            if index in _TAPS:
                maps.append(x)
        return maps


class LRASPP(nn.Module):
    """(N, inputs, h, w) -> (N, outputs, h, w): a 1x1 convolution gated by the sigmoid of the global mean."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.values = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.values(x) * self.gate(x)
