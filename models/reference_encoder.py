"""References encoded apart from the masked face: once a key frame, mixed by pose, and joined at every level."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import ConvNormReLU, PlainTrunk
from models.config import BaseConfig
from models.face_decoder import join, upsample

FLOW_WIDTH = 24
"""Channels from which MoveReferences tells its flow."""


class ReferenceEncoder(PlainTrunk):
    """(N, 3, 128, 128) in 0..1 -> maps at 64, 32, 16 and 8 px, one reference each."""

    def __init__(self, channels: Sequence[int]):
        super().__init__(3, channels)


def mix_references(maps: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Maps (B, K, R, C, H, W) of R mouths in K key poses and shares (B, T, K, R) -> maps (B * T, R, C, H, W) a level.

    One matrix product a mouth: linear in the shares, so references change as smoothly as those do.
    """
    mixed = []
    for level in maps:
        weights = shares.to(level.dtype).permute(0, 3, 1, 2)  # (B, R, T, K)
        flat = level.transpose(1, 2).flatten(3)  # (B, R, K, C * H * W)
        mixed.append((weights @ flat).transpose(1, 2).flatten(0, 1).unflatten(2, level.shape[3:]))
    return mixed


class SelectReferences(nn.Module):
    """One map out of R: every group of channels takes, at every place, its own mixture of the mouths.

    The mixture is a softmax over the mouths of what the face's own features ask for, and of what the sound asks for: a
    wide mouth is painted from the wide one.
    """

    def __init__(self, inputs: int, channels: int, mouths: int, groups: int, width: int):
        """inputs: channels of what asks; channels: of the references; width: of a hyper vector."""
        super().__init__()
        self.mouths, self.groups, self.outputs = mouths, groups, channels
        self.gate = nn.Conv2d(inputs, mouths * groups, 1)
        self.heard = nn.Linear(width, mouths * groups, bias=False)

    def forward(self, x: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """x (N, inputs, h, w), references (N, R, C, H, W) with H = h or 2h, hyper (N, width) -> (N, C, H, W)."""
        asked = self.gate(x) + self.heard(hyper)[:, :, None, None]
        weights = asked.unflatten(1, (self.mouths, self.groups)).softmax(1)
        if references.shape[-1] != x.shape[-1]:
            weights = upsample(weights.flatten(1, 2)).unflatten(1, (self.mouths, self.groups))
        grouped = references.unflatten(2, (self.groups, -1))
        return (weights.to(references.dtype)[:, :, :, None] * grouped).sum(1).flatten(1, 2)


class MoveReferences(nn.Module):
    """Maps of the mouths moved to where this frame has its own: a flow a mouth, from what is decoded and the maps.

    Selection takes a place as it is; teeth and corners of the mouth are seldom at the very place of a key frame's.
    """

    def __init__(self, inputs: int, channels: int, mouths: int, furthest: float):
        """inputs: channels of what was decoded; channels: of the references; furthest: px of their maps, a bound."""
        super().__init__()
        self.furthest = furthest
        self.look = ConvNormReLU(inputs + mouths * channels, FLOW_WIDTH, bias=False)
        self.flow = nn.Conv2d(FLOW_WIDTH, 2 * mouths, 3, padding=1)
        for weights in self.flow.parameters():
            nn.init.zeros_(weights)  # begin with references that stay where they are

    def forward(self, x: Tensor, references: Tensor) -> Tensor:
        """x (N, inputs, h, w), references (N, R, C, 2h, 2w) -> references, moved."""
        count, mouths, _, height, width = references.shape
        flat = references.flatten(1, 2)
        flow = upsample(self.flow(self.look(join(x, F.avg_pool2d(flat, 2)))))
        flow = self.furthest * torch.tanh(flow.float()).unflatten(1, (mouths, 2)).flatten(0, 1)
        across, down = (torch.arange(size, device=x.device) + 0.5 for size in (width, height))
        places = torch.stack(
            [(across + flow[:, 0]) * (2 / width) - 1, (down[:, None] + flow[:, 1]) * (2 / height) - 1], -1
        )
        with torch.autocast(x.device.type, enabled=False):  # half precision could not tell a pixel from its neighbour
            moved = F.grid_sample(references.flatten(0, 1).float(), places, padding_mode="border", align_corners=False)
        return moved.to(references.dtype).unflatten(0, (count, mouths))


class ConcatenateReferences(nn.Module):
    """All R maps side by side: whatever comes after chooses. Takes what SelectReferences takes."""

    def __init__(self, inputs: int, channels: int, mouths: int, groups: int, width: int):
        super().__init__()
        self.outputs = channels * mouths

    def forward(self, x: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """references (N, R, C, H, W) -> (N, R * C, H, W)."""
        return references.flatten(1, 2)


def make_mover(config: BaseConfig, inputs: int, channels: int) -> MoveReferences | None:
    """What moves references of `channels` at 64 px for features of `inputs`, where the config says so."""
    furthest = config.reference_flow / 2
    return MoveReferences(inputs, channels, config.references, furthest) if furthest else None


def make_joiner(config: BaseConfig, inputs: int, channels: int) -> SelectReferences | ConcatenateReferences:
    """What joins references of `channels` for features of `inputs`; its maps have `.outputs` channels."""
    kind = SelectReferences if config.reference_encoder == "selected" else ConcatenateReferences
    return kind(inputs, channels, config.references, config.reference_groups, config.hyper_width)


class ReferencedLevel(nn.Module):
    """One level of PlainTrunk, with references of its size before its second convolution."""

    def __init__(self, config: BaseConfig, inputs: int, outputs: int, channels: int):
        super().__init__()
        self.first = ConvNormReLU(inputs, outputs, stride=2, bias=False)
        self.joiner = make_joiner(config, outputs, channels)
        self.second = ConvNormReLU(outputs + self.joiner.outputs, outputs, bias=False)

    def forward(self, x: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """x (N, inputs, 2H, 2W), references (N, R, C, H, W), hyper (N, width) -> (N, outputs, H, W)."""
        x = self.first(x)
        return self.second(join(x, self.joiner(x, references, hyper)))


class ReferencedTrunk(nn.Module):
    """As PlainTrunk, of the masked face alone; references join at every level."""

    def __init__(self, config: BaseConfig):
        super().__init__()
        outputs = config.latent_channels
        self.levels = nn.ModuleList(
            ReferencedLevel(config, *widths)
            for widths in zip([3, *outputs[:-1]], outputs, config.reference_channels, strict=True)
        )

    def forward(self, face: Tensor, references: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Masked face (N, 3, 128, 128), references (N, R, C, H, W) and hyper vectors (N, width) a level -> latents."""
        x, maps = face, []
        for level, shown, hyper in zip(self.levels, references, vectors, strict=True):
            x = level(x, shown, hyper)
            maps.append(x)
        return maps


def below(maps: Tensor, rows: int) -> Tensor:
    """Maps (..., H, W) without their first rows; unlike a slice, padding gives back gradients in the maps' memory
    layout.
    """
    return F.pad(maps, (0, 0, -rows, 0)) if rows else maps
