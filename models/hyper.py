"""The paper's idea: audio writes the kernels that rewrite the face latents (arXiv 2310.05720, section 3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class HyperNet(nn.Sequential):
    """Audio vector (N, inputs) -> hyper vector (N, width)."""

    def __init__(self, inputs: int, width: int):
        super().__init__(nn.Linear(inputs, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU())


class HyperConv(nn.Module):
    """3x3 convolution, `channels` to `channels`, whose kernel and bias are linear in each sample's hyper vector.

    One grouped convolution over the batch: on two CPU cores, forward and backward, faster than a loop over samples
    (1.1 to 4 times) and than matrix products over unfolded patches (1.2 to 5 times).
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.kernel = nn.Linear(width, channels * channels * 9)
        self.bias = nn.Linear(width, channels)

    def forward(self, x: Tensor, hyper: Tensor) -> Tensor:
        """x (N, C, H, W), hyper (N, width) -> (N, C, H, W)."""
        batch, channels, height, width = x.shape
        kernel = self.kernel(hyper).view(batch * channels, channels, 3, 3)
        bias = self.bias(hyper).view(batch * channels)
        y = F.conv2d(x.reshape(1, batch * channels, height, width), kernel, bias, padding=1, groups=batch)
        return y.view(batch, channels, height, width)

    def portable_forward(self, x: Tensor, hyper: Tensor) -> Tensor:
        """The same as a matrix product over the 3x3 surroundings of every pixel: other runtimes want a constant number
        of groups.
        """
        channels, height, width = x.shape[1:]
        padded = F.pad(x, (1, 1, 1, 1))
        around = torch.stack(
            [padded[:, :, row : row + height, column : column + width] for row in range(3) for column in range(3)], 2
        )
        kernel = self.kernel(hyper).unflatten(1, (channels, channels * 9))
        y = kernel @ around.flatten(1, 2).flatten(2) + self.bias(hyper)[:, :, None]
        return y.unflatten(2, (height, width))


class HyperBlock(nn.Module):
    """Two HyperConvs with batch norm, ReLU between and sigmoid after; the result replaces the latent."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv1 = HyperConv(channels, width)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = HyperConv(channels, width)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, latent: Tensor, hyper: Tensor) -> Tensor:
        """latent (N, C, H, W), hyper (N, width) -> (N, C, H, W) in 0..1."""
        x = torch.relu(self.norm1(self.conv1(latent, hyper)))
        return torch.sigmoid(self.norm2(self.conv2(x, hyper)))


class ConcatBlock(nn.Module):
    """Ablation of HyperBlock: the hyper vector joins the latent as constant maps; the kernels are ordinary ones."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels + width, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, latent: Tensor, hyper: Tensor) -> Tensor:
        """latent (N, C, H, W), hyper (N, width) -> (N, C, H, W) in 0..1."""
        maps = hyper[:, :, None, None].expand(-1, -1, *latent.shape[2:])
        x = torch.relu(self.norm1(self.conv1(torch.cat([latent, maps], 1))))
        return torch.sigmoid(self.norm2(self.conv2(x)))
