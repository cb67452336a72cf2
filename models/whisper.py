"""Frozen speech features: stem and first blocks of Whisper tiny.en's encoder (OpenAI, MIT; arXiv 2212.04356)."""

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import WhisperConfig
from models.mel_filters import mel_filters

SAMPLE_RATE = 16000
FEATURE_HOP = 320
"""Samples a feature: 50 features a second."""
_FFT, _HOP, _MELS = 400, 160, 80
_FLOOR, _RANGE = -10, 8
"""Of the log10 power: its least value, and how far below the maximum anything counts."""
_POSITIONS = 1500
_PIECE, _CONTEXT = 200, 25
"""Features a piece (4 s) and extra ones on each side (0.5 s). The blocks attend within a piece, so that cost and memory
stay linear; every piece starts at position 0, so that a long sound shows no positions that a short one lacks."""
_MEL_CHUNK = 6000
"""Spectrum frames at a time (60 s)."""


class Wave(Protocol):
    """A sound: an array (samples,), or what gives slices of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


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
        self.register_buffer("filters", torch.from_numpy(mel_filters(SAMPLE_RATE, _FFT, _MELS)), persistent=False)
        self.register_buffer("positions", _sinusoids(_POSITIONS, config.width), persistent=False)
        self.register_buffer("hann", torch.hann_window(_FFT), persistent=False)
        self.requires_grad_(False)

    def forward(self, mel: Tensor) -> Tensor:
        """Whisper's log-mel (N, 80, 2T), T <= 1500 -> features (N, T, width)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x

    def features(self, wave: Wave) -> np.ndarray:
        """Mono float32 (samples,) at 16 kHz in -1..1 -> float32 (ceil(samples / 320), width).

        Feature k stands for the 20 ms round (k + 0.5) / 50 s.
        """
        return np.asarray(LazyFeatures(self, wave))

    @torch.inference_mode()
    def stretch(self, wave: np.ndarray, loudest: float) -> tuple[np.ndarray, float]:
        """Features (samples // 320, width) of a part of a sound of which the rest is not known yet, at most 30 s, and
        the log10 power of the loudest sound so far.

        loudest: of what came before. The ends have no context: only the middle is like `features` of the whole.
        """
        log = self.log_power(Surrounded(wave), 0, len(wave) // _HOP)
        loudest = max(loudest, float(log.max()))
        return self(_floored(log, loudest)[None])[0].cpu().numpy(), loudest

    def log_mel(self, wave: np.ndarray) -> Tensor:
        """(samples,) at 16 kHz -> Whisper's log-mel (80, samples // 160), floored 8 below the whole sound's maximum."""
        log = self.log_power(Surrounded(wave), 0, len(wave) // _HOP)
        return _floored(log, float(log.max()))

    def log_power(self, sound: "Surrounded", start: int, stop: int) -> Tensor:
        """log10 of the mel power of frames start..stop - 1: (80, stop - start)."""
        samples = sound[start * _HOP - _FFT // 2 : (stop - 1) * _HOP + _FFT // 2].to(self.filters.device)
        spectrum = torch.stft(samples, _FFT, _HOP, window=self.hann, center=False, return_complex=True)
        return (self.filters @ spectrum.abs().square()).clamp_min(10**_FLOOR).log10()


class LazyFeatures:
    """Features (n, width) float32 of a whole sound, made where they are asked for, a piece at a time: of an hour
    they would take 276 MB, and its spectrum 115. Indexed by arrays of row numbers.
    """

    @torch.inference_mode()
    def __init__(self, network: WhisperFrontEnd, wave: Wave, lead: int = 0, tail: int = 0):
        """wave (samples,): as for `features`. lead, tail: features of silence before and after it."""
        self._network = network
        self._count = lead - (-len(wave) // FEATURE_HOP) + tail
        before = lead * FEATURE_HOP
        self._sound = Surrounded(wave, before, self._count * FEATURE_HOP - before - len(wave))
        self._made: dict[int, np.ndarray] = {}
        """Those asked for last, by number."""
        frames = 2 * self._count
        self._loudest = max(
            (
                float(network.log_power(self._sound, start, min(start + _MEL_CHUNK, frames)).max())
                for start in range(0, frames, _MEL_CHUNK)
            ),
            default=_FLOOR,
        )

    def __len__(self) -> int:
        return self._count

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of them, always made anew."""
        return self[np.arange(len(self))].astype(dtype or np.float32, copy=False)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(..., width) of row numbers (...)."""
        if not rows.size:
            return np.zeros((*rows.shape, self._network.config.width), np.float32)
        wanted = range(int(rows.min()) // _PIECE, int(rows.max()) // _PIECE + 1)
        self._made = {number: self._made[number] if number in self._made else self._make(number) for number in wanted}
        return np.concatenate(list(self._made.values()))[rows - wanted[0] * _PIECE]

    @torch.inference_mode()
    def _make(self, number: int) -> np.ndarray:
        start, count = number * _PIECE, min(_PIECE, self._count - number * _PIECE)
        first, last = 2 * (start - _CONTEXT), 2 * (start + _PIECE + _CONTEXT)
        inside = max(first, 0), min(last, 2 * self._count)
        mel = _floored(self._network.log_power(self._sound, *inside), self._loudest)
        silence = (max(self._loudest - _RANGE, _FLOOR) + 4) / 4
        made = self._network(F.pad(mel, (inside[0] - first, last - inside[1]), value=silence)[None])
        return made[0, _CONTEXT : _CONTEXT + count].cpu().numpy()


class Surrounded:
    """A sound (samples,) with so many samples of silence round it; beyond those, what lies at its ends is mirrored.
    Slices are copies of what they hold alone.
    """

    def __init__(self, wave: Wave, before: int = 0, after: int = 0):
        self._wave, self._before = wave, before
        self._total = before + len(wave) + after

    def __getitem__(self, part: slice) -> Tensor:
        """start and stop are given, and may lie beyond the ends; too short a sound has more silence there."""
        place = torch.arange(part.start, part.stop)
        if self._total > _FFT // 2:
            place = place.abs()
            place = torch.where(place < self._total, place, 2 * (self._total - 1) - place)
        place -= self._before
        heard = (place >= 0) & (place < len(self._wave))
        if not heard.any():
            return torch.zeros(len(place))
        first, last = int(place[heard].min()), int(place[heard].max())
        wave = torch.as_tensor(self._wave[first : last + 1], dtype=torch.float32)
        return torch.where(heard, wave[(place - first).clamp(0, len(wave) - 1)], 0.0)


def _floored(log: Tensor, loudest: float) -> Tensor:
    """Whisper's scale of log10 power, in its place: about -1..1, nothing further than _RANGE below the loudest."""
    return log.clamp_min_(loudest - _RANGE).add_(4).div_(4)


def _sinusoids(length: int, channels: int) -> Tensor:
    """Whisper's position table (length, channels): sines, then cosines, of periods 2 pi to 20000 pi positions."""
    rates = torch.exp(-torch.arange(channels // 2) * (math.log(10000) / (channels // 2 - 1)))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
