"""Latents of the masked face and the reference faces."""

from collections.abc import Sequence

from torch import Tensor, nn

from models.blocks import PlainTrunk
from models.config import TRUNK_CHANNELS
from models.mobilenet import LRASPP, MobileNetTrunk


class MobileNetFaceEncoder(nn.Module):
    """Published encoder: the trunk, its last map reduced by LR-ASPP to `channels[3]`."""

    def __init__(self, inputs: int, channels: Sequence[int]):
        super().__init__()
        self.trunk = MobileNetTrunk(inputs)
        self.aspp = LRASPP(TRUNK_CHANNELS[3], channels[3])

    def forward(self, face: Tensor) -> list[Tensor]:
        """(N, inputs, 128, 128) in 0..1 -> latents at 64, 32, 16 and 8 px."""
        *latents, last = self.trunk(face)
        return [*latents, self.aspp(last)]


def make_face_encoder(trunk: str, inputs: int, channels: Sequence[int]) -> nn.Module:
    """`trunk`: mobilenet | plain. The module maps (N, inputs, 128, 128) to four latents of `channels` channels."""
    return MobileNetFaceEncoder(inputs, channels) if trunk == "mobilenet" else PlainTrunk(inputs, channels)
