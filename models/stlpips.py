"""ST-LPIPS: a perceptual distance whose trunk blurs before it subsamples, so that small shifts cost little."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHANNELS = 64, 192, 384, 256, 256


class STLPIPS(nn.Module):
    """Shift-tolerant LPIPS, AlexNet (Ghildyal and Liu, ECCV 2022). Module names are those of the published weights.

    Each of five stages yields features; they are scaled to unit length at every position, and the squared differences
    are weighted by channel, averaged over the image and summed over the stages. Always frozen and in eval mode.
    """

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth, fifth = _CHANNELS
        self.scaling_layer = Scaling()
        self.net = nn.Sequential(
            OrderedDict(
                slice1=Entry(OrderedDict({"0": nn.Conv2d(3, first, 11, padding=2), "1": Blur(first)})),
                slice2=numbered(
                    3, nn.MaxPool2d(3, 1), Blur(first), nn.Conv2d(first, second, 5, padding=2), nn.ReLU(inplace=True)
                ),
                slice3=numbered(
                    7, nn.MaxPool2d(3, 1), Blur(second), nn.Conv2d(second, third, 3, padding=1), nn.ReLU(inplace=True)
                ),
                slice4=numbered(11, nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU(inplace=True)),
                slice5=numbered(13, nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(inplace=True)),
            )
        )
        for stage, channels in enumerate(_CHANNELS):
            head = numbered(1, Head(channels))
            self.add_module(f"lin{stage}", nn.Sequential(OrderedDict(model=head)))
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # as the features: else CPU convolutions reorder it at every call
        self.eval()

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance (N,) of images (N, 3, H, W), RGB in 0..1, H and W at least 21; gradients flow to `output` only."""
        with torch.no_grad():
            wanted = self._features(target)
        heads = [self.get_submodule(f"lin{stage}") for stage in range(len(_CHANNELS))]
        stages = zip(heads, self._features(output), wanted, strict=True)
        return torch.stack([head((found - right).square()) for head, found, right in stages]).sum(0)

    def train(self, mode: bool = True) -> "STLPIPS":
        """Stays in eval mode, whatever the network around it does."""
        return super().train(False)

    def _features(self, images: Tensor) -> list[Tensor]:
        x = self.scaling_layer(images).contiguous(memory_format=torch.channels_last)  # pools four times faster on CPU
        features = []
        for stage in self.net:
            x = stage(x)
            features.append(F.normalize(x.float(), dim=1, eps=1e-10))
        return features


class Scaling(nn.Module):
    """Images in 0..1 to the trunk's range."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to the same; the published shift and scale are meant for images in -1..1."""
        return (2 * images - 1 - self.shift) / self.scale


class Blur(nn.Module):
    """3x3 binomial blur of every channel, mirrored two pixels past the edges, of which every second pixel is kept."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filt", torch.outer(taps, taps).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, (H + 1) // 2 + 1, (W + 1) // 2 + 1)."""
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class Entry(nn.Sequential):
    """Convolution, blur, ReLU. Nothing bends between the first two, so they are done as one convolution of stride 2.

    Children: the 11x11 convolution and the blur. Their product is a 13x13 kernel; on 2x2 blocks of pixels laid out as
    channels it is 7x7, which costs a fifth of the two steps, forward and backward. Only the edges, where the blur
    mirrors what the convolution gave, need care.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W), scaled, to (N, 64, (H - 5) // 2 + 1, (W - 5) // 2 + 1)."""
        convolution, blur = self
        assert isinstance(convolution, nn.Conv2d) and isinstance(blur, Blur)
        height, width = images.shape[-2:]
        padded = F.pad(images, (2, 2, 2, 2))
        blocks = F.pixel_unshuffle(F.pad(padded, (0, width % 2, 0, height % 2)), 2)
        inner = F.conv2d(blocks, block_kernel(convolution.weight, blur.filt[:1]), convolution.bias)

        # The first outputs see the first three pixels mirrored: the second outputs again, the kernel being symmetric.
        body = F.pad(inner, (1, 0, 1, 0), mode="replicate")
        # The last ones are computed step by step, on strips of the same parity, which decides what is mirrored.
        bottom, right = padded[..., -14 - height % 2 :, :], padded[..., -14 - width % 2 :]
        bottom, right = (blur(F.conv2d(strip, convolution.weight, convolution.bias)) for strip in (bottom, right))
        body = torch.cat([body, bottom[..., -1:, :-1]], 2)
        return F.relu(torch.cat([body, right[..., -1:]], 3))


class Head(nn.Module):
    """Mean over the image, then a weighted sum of the channels; no convolution, which autocast would do in halves."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, squares: Tensor) -> Tensor:
        """Squared differences (N, C, H, W) to distances (N,)."""
        return (squares.mean((2, 3)) * self.weight.flatten()).sum(1)


def block_kernel(weight: Tensor, blur: Tensor) -> Tensor:
    """(64, 12, 7, 7): a convolution's kernel, blurred, with one row and column of zeros to make its size even."""
    kernel = F.conv2d(F.pad(weight.flatten(0, 1)[:, None], (2, 2, 2, 2)), blur).view(*weight.shape[:2], 13, 13)
    return F.pixel_unshuffle(F.pad(kernel, (0, 1, 0, 1)), 2)


def numbered(first: int, *layers: nn.Module) -> nn.Sequential:
    """Layers in order, whose names count from `first`."""
    return nn.Sequential(OrderedDict((str(first + index), layer) for index, layer in enumerate(layers)))
