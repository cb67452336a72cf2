"""Published discriminators. They return logits: the sigmoid belongs to the loss."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.channels import PictureNetwork
from models.config import DiscriminatorConfig

Stage = tuple[int, int, int | tuple[int, int], int, int]
"""Channels, kernel, stride, padding of the first convolution, kernel of the second (0: none)."""

_BASE_STAGES = (
    (1, 7, 1, 3, 0),
    (2, 5, (1, 2), 2, 5),
    (4, 5, 2, 2, 5),
    (8, 5, 2, 2, 5),
    (16, 3, 2, 1, 3),
    (16, 3, 2, 1, 3),
    (16, 3, 1, 0, 1),
)
_HR_STAGES = ((1, 7, 1, 3, 0), (2, 5, 2, 2, 5), (4, 5, 2, 2, 5), (4, 5, 2, 2, 5), (4, 3, 2, 1, 3))


class _Discriminator(PictureNetwork):
    """Stages of conv-LeakyReLU without norm, global mean, one logit. `stages` count channels in units of the width."""

    def __init__(self, stages: Sequence[Stage], config: DiscriminatorConfig | None):
        super().__init__()
        self.config = config or DiscriminatorConfig()
        self.stages = nn.ModuleList()
        inputs = 3
        for multiple, kernel, stride, padding, second in stages:
            outputs = multiple * self.config.width
            stage = [_conv(inputs, outputs, kernel, stride, padding)]
            if second:
                stage.append(_conv(outputs, outputs, second, 1, second // 2))
            self.stages.append(nn.Sequential(*stage))
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Conv2d(inputs, 1, 1)

    def _logits(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.output(self.pool(x)).flatten(1)


class BaseDiscriminator(_Discriminator):
    """Judges the lower half of 128 px faces."""

    def __init__(self, config: DiscriminatorConfig | None = None):
        super().__init__(_BASE_STAGES, config)

    def forward(self, face: Tensor) -> Tensor:
        """Whole faces (N, 3, 128, 128) -> logits (N, 1)."""
        return self._logits(face[:, :, face.shape[2] // 2 :])


class HRDiscriminator(_Discriminator):
    """Judges whole faces."""

    def __init__(self, config: DiscriminatorConfig | None = None):
        super().__init__(_HR_STAGES, config)

    def forward(self, face: Tensor) -> Tensor:
        """(N, 3, S, S) in 0..1 -> logits (N, 1)."""
        return self._logits(face)


def _conv(inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int], padding: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.LeakyReLU())
