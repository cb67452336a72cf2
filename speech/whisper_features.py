"""A sound as Whisper's encoder hears it: features made a piece at a time, so that an hour is heard like a minute."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.whisper import FEATURE_HOP, FLOOR, HOP, N_FFT, RANGE, WhisperFrontEnd, floored

_PIECE, _CONTEXT = 200, 25
"""Features a piece (4 s) and extra ones on each side (0.5 s). The blocks attend within a piece, so that cost and memory
stay linear; every piece starts at position 0, so that a long sound shows no positions that a short one lacks."""
_MEL_CHUNK = 6000
"""Spectrum frames at a time (60 s)."""


class Wave(Protocol):
    """A sound: an array (samples,), or what gives slices of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> np.ndarray: ...


class LazyFeatures:
    """Features (n, width) float32 of a whole sound, n = ceil(samples / 320), made where they are asked for: of an hour
    they would take 276 MB, and its spectrum 115. Indexed by arrays of row numbers.

    Feature k stands for the 20 ms round (k + 0.5) / 50 s.
    """

    @torch.inference_mode()
    def __init__(self, network: WhisperFrontEnd, wave: Wave, lead: int = 0, tail: int = 0):
        """wave (samples,): mono float32 at 16 kHz in -1..1. lead, tail: features of silence before and after it."""
        self._network = network
        self._count = lead - (-len(wave) // FEATURE_HOP) + tail
        before = lead * FEATURE_HOP
        self._sound = _Surrounded(wave, before, self._count * FEATURE_HOP - before - len(wave))
        self._made: dict[int, np.ndarray] = {}
        """Those asked for last, by number."""
        frames = 2 * self._count
        parts = ((start, min(start + _MEL_CHUNK, frames)) for start in range(0, frames, _MEL_CHUNK))
        self._loudest = max((float(self._log_power(*part).max()) for part in parts), default=FLOOR)

    def __len__(self) -> int:
        return self._count

    def __array__(self, dtype: np.typing.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All of them, always made anew."""
        pieces = [self._make(number) for number in range(-(-self._count // _PIECE))]
        none = np.zeros((0, self._network.config.width), np.float32)
        return np.concatenate([none, *pieces]).astype(dtype or np.float32, copy=False)

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
        mel = floored(self._log_power(*inside), self._loudest)
        silence = (max(self._loudest - RANGE, FLOOR) + 4) / 4
        made = self._network(F.pad(mel, (inside[0] - first, last - inside[1]), value=silence)[None])
        return made[0, _CONTEXT : _CONTEXT + count].cpu().numpy()

    def _log_power(self, start: int, stop: int) -> Tensor:
        """Of frames start..stop - 1: (80, stop - start)."""
        return self._network.log_power(self._sound[start * HOP - N_FFT // 2 : (stop - 1) * HOP + N_FFT // 2])


@torch.inference_mode()
def stretch_features(network: WhisperFrontEnd, wave: np.ndarray, loudest: float) -> tuple[np.ndarray, float]:
    """Features (samples // 320, width) of a part of a sound (samples,), at most 30 s, of which the rest is not known
    yet, and the log10 power of the loudest sound so far.

    loudest: of what came before. The ends have no context: only the middle is like LazyFeatures of the whole.
    """
    log = network.log_power(_Surrounded(wave)[-N_FFT // 2 : (len(wave) // HOP - 1) * HOP + N_FFT // 2])
    loudest = max(loudest, float(log.max()))
    return network(floored(log, loudest)[None])[0].cpu().numpy(), loudest


class _Surrounded:
    """A sound (samples,) with so many samples of silence round it; beyond those, what lies at its ends is mirrored.
    Slices are copies of what they hold alone.
    """

    def __init__(self, wave: Wave, before: int = 0, after: int = 0):
        self._wave, self._before = wave, before
        self._total = before + len(wave) + after

    def __getitem__(self, part: slice) -> Tensor:
        """start and stop are given, and may lie beyond the ends; too short a sound has more silence there."""
        place = torch.arange(part.start, part.stop)
        if self._total > N_FFT // 2:
            place = place.abs()
            place = torch.where(place < self._total, place, 2 * (self._total - 1) - place)
        place -= self._before
        heard = (place >= 0) & (place < len(self._wave))
        if not heard.any():
            return torch.zeros(len(place))
        first, last = int(place[heard].min()), int(place[heard].max())
        wave = torch.as_tensor(self._wave[first : last + 1], dtype=torch.float32)
        return torch.where(heard, wave[(place - first).clamp(0, len(wave) - 1)], 0.0)
