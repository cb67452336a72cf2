"""Frozen speech features: stem and first blocks of Whisper tiny.en's encoder (OpenAI, MIT; arXiv 2212.04356)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import WhisperConfig
from models.mel_filters import mel_filters

SAMPLE_RATE = 16000
FEATURE_HOP = 320
"""Samples a feature: 50 features a second."""
N_FFT, HOP, _MELS = 400, 160, 80
FLOOR, RANGE = -10, 8
"""Of the log10 power: its least value, and how far below the maximum anything counts."""
_POSITIONS = 1500


class Block(nn.Module):
    """Pre-norm transformer block: (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + self.out(attended)
        return x + self.feed(self.norm2(x))


class WhisperFrontEnd(nn.Module):
    """16 kHz sound to 50 features a second. Frozen: no gradient, always in eval mode's behaviour."""

    filters: Tensor
    positions: Tensor
    hann: Tensor
    usual_loudness = 1.0
    """log10 of the loudest mel power of a usual recording of speech: where the loudest sound is not known yet."""

    def __init__(self, config: WhisperConfig | None = None):
        super().__init__()
        self.config = config = config or WhisperConfig()
        self.conv1 = nn.Conv1d(_MELS, config.width, 3, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.blocks))
        self.register_buffer("filters", torch.from_numpy(mel_filters(SAMPLE_RATE, N_FFT, _MELS)), persistent=False)
        self.register_buffer("positions", _sinusoids(_POSITIONS, config.width), persistent=False)
        self.register_buffer("hann", torch.hann_window(N_FFT), persistent=False)
        self.requires_grad_(False)

    def forward(self, mel: Tensor) -> Tensor:
        """Whisper's log-mel (N, 80, 2T), T <= 1500 -> features (N, T, width)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x

    def log_power(self, samples: Tensor) -> Tensor:
        """log10 of the mel power (80, n) of n frames whose middles are HOP samples apart, the first of them N_FFT / 2
        after the beginning of samples (N_FFT + (n - 1) * HOP,).
        """
        spectrum = torch.stft(
            samples.to(self.filters.device), N_FFT, HOP, window=self.hann, center=False, return_complex=True
        )
        return (self.filters @ spectrum.abs().square()).clamp_min(10**FLOOR).log10()


def floored(log: Tensor, loudest: float) -> Tensor:
    """Whisper's scale of log10 power, in its place: about -1..1, nothing further than RANGE below the loudest."""
    return log.clamp_min_(loudest - RANGE).add_(4).div_(4)


def _sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's position table (length, channels): sines, then cosines, of periods 2 pi to 20000 pi positions."""
    rates = torch.exp(-torch.arange(channels // 2) * (math.log(10000) / (channels // 2 - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
