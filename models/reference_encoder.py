"""References encoded apart from the masked face: once a key frame, mixed by pose, and joined at every level."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import ConvNormReLU, PlainTrunk
from models.face_decoder import join, upsample


class ReferenceEncoder(PlainTrunk):
    """(N, 3, 128, 128) in 0..1 -> maps at 64, 32, 16 and 8 px, one reference each."""

    def __init__(self, channels: Sequence[int]):
        super().__init__(3, channels)


def mix_references(maps: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """Maps (B, K, S, C, H, W) of K key frames in S slots and shares (B, T, K, S) -> maps (B * T, S, C, H, W) a level.

    One matrix product a slot: linear in the shares, so references change as smoothly as those do.
    """
    mixed = []
    for level in maps:
        weights = shares.to(level.dtype).permute(0, 3, 1, 2)  # (B, S, T, K)
        flat = level.transpose(1, 2).flatten(3)  # (B, S, K, C * H * W)
        mixed.append((weights @ flat).transpose(1, 2).flatten(0, 1).unflatten(2, level.shape[3:]))
    return mixed


class SelectReferences(nn.Module):
    """One map out of S: every group of channels takes, at every place, its own mixture of the slots.

    The mixture is a softmax over the slots of what the face's own features ask for, and of what the sound asks for
    where it is given: a wide mouth is painted from the wide one.
    """

    def __init__(self, inputs: int, slots: int, groups: int, width: int):
        super().__init__()
        self.slots, self.groups = slots, groups
        self.gate = nn.Conv2d(inputs, slots * groups, 1)
        self.heard = nn.Linear(width, slots * groups, bias=False)

    def forward(self, x: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """x (N, inputs, h, w), references (N, S, C, H, W) with H = h or 2h, hyper (N, width) -> (N, C, H, W)."""
        asked = self.gate(x) + self.heard(hyper)[:, :, None, None]
        weights = asked.unflatten(1, (self.slots, self.groups)).softmax(1)
        if references.shape[-1] != x.shape[-1]:
            weights = upsample(weights.flatten(1, 2)).unflatten(1, (self.slots, self.groups))
        grouped = references.unflatten(2, (self.groups, -1))
        return (weights.to(references.dtype)[:, :, :, None] * grouped).sum(1).flatten(1, 2)

    @staticmethod
    def outputs(channels: int, slots: int) -> int:
        """Channels of the result for references of `channels`."""
        return channels


class ConcatenateReferences(nn.Module):
    """All S maps side by side: whatever comes after chooses. Takes what SelectReferences takes."""

    def __init__(self, inputs: int, slots: int, groups: int, width: int):
        super().__init__()

    def forward(self, x: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """references (N, S, C, H, W) -> (N, S * C, H, W)."""
        return references.flatten(1, 2)

    @staticmethod
    def outputs(channels: int, slots: int) -> int:
        """Channels of the result for references of `channels`."""
        return channels * slots


JOINERS = {"selected": SelectReferences, "concatenated": ConcatenateReferences}


class ReferencedTrunk(nn.Module):
    """As PlainTrunk, of the masked face alone; references of the level's size join before each level's second
    convolution.
    """

    def __init__(
        self, kind: str, channels: Sequence[int], references: Sequence[int], slots: int, groups: int, width: int
    ):
        super().__init__()
        self.levels, self.joiners = nn.ModuleList(), nn.ModuleList()
        inputs, joiner = 3, JOINERS[kind]
        for outputs, reference in zip(channels, references, strict=True):
            self.joiners.append(joiner(outputs, slots, groups, width))
            joined = outputs + joiner.outputs(reference, slots)
            self.levels.append(
                nn.ModuleList(
                    [ConvNormReLU(inputs, outputs, stride=2, bias=False), ConvNormReLU(joined, outputs, bias=False)]
                )
            )
            inputs = outputs

    def forward(self, face: Tensor, references: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """Masked face (N, 3, 128, 128), references (N, S, C, H, W) and hyper vectors (N, width) a level -> latents."""
        x, maps = face, []
        for (first, second), joiner, shown, hyper in zip(self.levels, self.joiners, references, vectors, strict=True):
            x = first(x)
            x = second(join(x, joiner(x, shown, hyper)))
            maps.append(x)
        return maps


def below(maps: Tensor, rows: int) -> Tensor:
    """Maps (..., H, W) without their first rows; unlike a slice, padding gives back gradients in the maps' memory
    layout.
    """
    return F.pad(maps, (0, 0, -rows, 0)) if rows else maps
