"""Rewritten latents to a face: RobustVideoMatting's recurrent decoder (arXiv 2108.11515), with or without its GRUs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import ConvNormReLU

Memory = dict[nn.Module, Tensor]
"""States of a decoder's GRUs after the frames it has painted; empty at the start of a clip."""


class ConvGRU(nn.Module):
    """Convolutional GRU over (N, C, H, W), N = clips x frames. Every clip starts from a zero state, or from a memory.

    The published network lets every frame start from zero (`recurrent=False`): then the reset gate and the
    state's share of the kernels are idle and are left out of the sum.
    """

    def __init__(self, channels: int, recurrent: bool):
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.channels, self.recurrent = channels, recurrent

    def forward(self, x: Tensor, frames: int, memory: Memory | None = None) -> Tensor:
        """(N, C, H, W) -> the states after them, (N, C, H, W). memory: begins with the state in it, and leaves the last
        one there.
        """
        if not self.recurrent:
            return self._first(x)
        states: list[Tensor] = []
        state = None if memory is None else memory.get(self)
        for frame in x.unflatten(0, (-1, frames)).unbind(1):
            state = self._first(frame) if state is None else self._step(frame, state)
            states.append(state)
        if memory is not None:
            memory[self] = states[-1]
        return torch.stack(states, 1).flatten(0, 1)

    def _first(self, x: Tensor) -> Tensor:
        count, bias = self.channels, self.gates.bias
        assert bias is not None
        update = torch.sigmoid(F.conv2d(x, self.gates.weight[count:, :count], bias[count:], padding=1))
        return update * torch.tanh(F.conv2d(x, self.candidate.weight[:, :count], self.candidate.bias, padding=1))

    def _step(self, x: Tensor, state: Tensor) -> Tensor:
        reset, update = torch.sigmoid(self.gates(torch.cat([x, state], 1))).chunk(2, 1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * state], 1)))
        return (1 - update) * state + update * candidate


class HalfGRU(nn.Module):
    """A ConvGRU over the second half of the channels; the first half passes through."""

    def __init__(self, channels: int, recurrent: bool):
        super().__init__()
        self.gru = ConvGRU(channels // 2, recurrent)

    def forward(self, x: Tensor, frames: int, memory: Memory | None = None) -> Tensor:
        """(N, C, H, W), N = clips x `frames` -> (N, C, H, W)."""
        kept, remembered = x.chunk(2, 1)
        return torch.cat([kept, self.gru(remembered, frames, memory)], 1)


class UpBlock(nn.Module):
    """Bilinear x2, join the latent and the input picture of that size, convolve, and remember where there is a GRU."""

    def __init__(self, inputs: int, outputs: int, gru: str):
        super().__init__()
        self.conv = ConvNormReLU(inputs, outputs, bias=False)
        self.memory = None if gru == "none" else HalfGRU(outputs, gru == "recurrent")

    def forward(self, x: Tensor, latent: Tensor, picture: Tensor, frames: int, memory: Memory | None) -> Tensor:
        """x (N, C, h, w), latent (N, L, 2h, 2w) and picture (N, P, 2h, 2w), whose channels are `inputs` together;
        N = clips x `frames` -> (N, outputs, 2h, 2w).
        """
        x = self.conv(join(upsample(x), latent, picture))
        return x if self.memory is None else self.memory(x, frames, memory)


class FullSizeHead(nn.Module):
    """Published end, at 128 px: (N, inputs, 64, 64) and the picture (N, C, 128, 128) -> logits (N, 3, 128, 128)."""

    def __init__(self, inputs: int, picture: int, full_channels: int, output_channels: int):
        super().__init__()
        self.block = nn.Sequential(
            ConvNormReLU(inputs + picture, full_channels, bias=False),
            ConvNormReLU(full_channels, full_channels, bias=False),
        )
        self.refine = nn.Sequential(
            ConvNormReLU(full_channels, full_channels, residual=True),
            ConvNormReLU(full_channels, full_channels, residual=True),
            ConvNormReLU(full_channels, output_channels),
        )
        self.output = nn.Conv2d(output_channels, 3, 1)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        return self.output(self.refine(self.block(join(upsample(x), picture))))


class ShuffleHead(nn.Module):
    """Light end: stay at 64 px and unfold 12 channels into 128 px. (N, inputs, 64, 64) -> logits (N, 3, 128, 128)."""

    def __init__(self, inputs: int, output_channels: int):
        super().__init__()
        self.refine = ConvNormReLU(inputs, output_channels, bias=False)
        self.output = nn.Conv2d(output_channels, 12, 3, padding=1)

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        return F.pixel_shuffle(self.output(self.refine(x)), 2)


class FaceDecoder(nn.Module):
    """Four latents and the input picture -> face.

    `size` is the side it works at: at 128 the picture joins at every size; at 64 its full detail joins once, folded
    into four times the channels at 64 px.
    """

    def __init__(
        self,
        picture: int,
        latents: Sequence[int],
        channels: Sequence[int],
        full_channels: int,
        output_channels: int,
        size: int,
        gru: str,
        details: int = 0,
    ):
        """details: channels of the references' maps at 64 px, where those are encoded apart from the picture."""
        super().__init__()
        self.fold = size == 64
        bottleneck = latents[3]
        self.memory = None if gru == "none" else HalfGRU(bottleneck, gru == "recurrent")
        pictures = (picture, picture, (4 * picture if self.fold else picture) + details)
        self.ups = nn.ModuleList()
        inputs = bottleneck
        for outputs, latent, shown in zip(channels, reversed(latents[:3]), pictures, strict=True):
            self.ups.append(UpBlock(inputs + latent + shown, outputs, gru))
            inputs = outputs
        self.head = (
            ShuffleHead(inputs, output_channels)
            if self.fold
            else FullSizeHead(inputs, picture, full_channels, output_channels)
        )

    def forward(
        self,
        latents: Sequence[Tensor],
        picture: Tensor,
        frames: int = 1,
        memory: Memory | None = None,
        details: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Latents at 64 ... 8 px and the picture (N, C, 128, 128), or the same rows of all; N = clips x `frames`.

        Returns (N, 3, 128, 128) in 0..1, or those rows. memory: goes on from the frames painted with it before.
        details: gives the references' maps (N, details, 64, 64), the same rows, for what was decoded up to 32 px.
        """
        half = F.avg_pool2d(picture, 2)
        quarter = F.avg_pool2d(half, 2)
        pictures = (F.avg_pool2d(quarter, 2), quarter, F.pixel_unshuffle(picture, 2) if self.fold else half)
        x = latents[3] if self.memory is None else self.memory(latents[3], frames, memory)
        for number, (up, latent, shown) in enumerate(zip(self.ups, reversed(latents[:3]), pictures, strict=True)):
            if details is not None and number == len(self.ups) - 1:
                shown = join(shown, details(x))
            x = up(x, latent, shown, frames, memory)
        return torch.sigmoid(self.head(x, picture))


def upsample(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 2H, 2W), bilinear, in the type it comes in: autocast would make it float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def join(first: Tensor, *others: Tensor) -> Tensor:
    """Concatenate by channels in the type and memory layout of the first; a mixture would be copied once more by
    convolutions.
    """
    layout = torch.channels_last if first.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return torch.cat([first, *(other.to(first.dtype, memory_format=layout) for other in others)], 1)
