"""A sound as the networks ask for it: whole, or in pieces as they are spoken."""

from collections.abc import Iterable
from fractions import Fraction
from typing import Protocol

import numpy as np

from errors import InputError, check
from media.audio import SAMPLE_RATE, shifted
from models.whisper import FEATURE_HOP
from speech.features import lazy_features, whisper
from speech.mel import HOP, MEL_BANDS, N_FFT, log_mel
from speech.rates import WHISPER_LEAD, WHISPER_TAIL
from speech.whisper_features import Wave, stretch_features
from speech.windows import cut_windows, first_feature

BLOCK, BEFORE, AFTER = 4, 150, 7
"""Whisper features made at a time of a sound that comes in pieces (80 ms), and what the encoder sees before (3 s) and
after them (140 ms)."""
_MEL_SPARE = N_FFT // 2 // HOP + 1
"""Mel frames at either end of a stretch that see beyond it."""


class Sound(Protocol):
    """What a chain needs of a sound that drives it; `seconds` never decrease from one call to the next."""

    def lasts(self, seconds: Fraction) -> bool:
        """Whether there is sound at `seconds`."""

    def window(self, seconds: Fraction) -> np.ndarray:
        """What stage 1 hears of a frame whose middle is shown at `seconds`: mel (1, 80, n) or whisper (n, 384)."""


class WholeSound:
    """A sound (samples,) float32 at 16 kHz that is there from the start. Raises InputError for another array."""

    def __init__(self, wave: Wave, kind: str, length: int, convention: str = "centred"):
        """kind, length: features of a window, see audio_window_at; convention: see first_feature."""
        self.duration = Fraction(len(wave), SAMPLE_RATE)
        self._features = lazy_features(checked(wave) if isinstance(wave, np.ndarray) else wave, kind)
        self._kind, self._length, self._convention = kind, length, convention

    def lasts(self, seconds: Fraction) -> bool:
        return seconds < self.duration

    def window(self, seconds: Fraction) -> np.ndarray:
        first = first_feature(seconds, self._kind, self._length, self._convention)
        return cut_windows(self._features, [first], self._kind, self._length)[0]


class LiveSound:
    """Pieces (samples,) float32 at 16 kHz, of any length, taken no earlier than a window needs them; InputError is
    raised when one is another array.

    A window of Whisper features needs at most 0.41 s of sound beyond the frame's middle, one of mel 0.13 s. Mel windows
    equal those of the whole sound. Whisper's differ about as much as those of a whole sound that begins 1.3 s earlier
    (hyper vectors of 12 clips correlate .87 with the whole sound's, those .88): its encoder sees 3 s before and 140 ms
    after a feature, and what counts as silent follows the loudest sound so far.
    """

    def __init__(self, pieces: Iterable[np.ndarray], kind: str, length: int, convention: str = "centred"):
        self._pieces = iter(pieces)
        self._kind, self._length, self._convention = kind, length, convention
        self._make = _WhisperFeatures() if kind == "whisper" else _MelFeatures()
        self._received = 0
        self._ended = False

    def lasts(self, seconds: Fraction) -> bool:
        while not self._ended and Fraction(self._received, SAMPLE_RATE) <= seconds:
            self._pull()
        return seconds < Fraction(self._received, SAMPLE_RATE)

    def window(self, seconds: Fraction) -> np.ndarray:
        first = first_feature(seconds, self._kind, self._length, self._convention)
        while not self._ended and self._make.made < first + self._length + self._make.lead:
            self._pull()
        features, base = self._make.kept(first + self._make.lead)
        return cut_windows(features, [first - base], self._kind, self._length)[0]

    def _pull(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            self._ended = True
            self._make.end()
        else:
            piece = checked(piece)
            self._received += len(piece)
            self._make.add(piece)


def checked(wave: np.ndarray) -> np.ndarray:
    """The sound as float32. Raises InputError where it is not mono, not of floats or not finite: whole numbers would
    be heard as a very loud sound, and one nan would reach every frame."""
    wave = np.asarray(wave)
    check(
        wave.ndim != 1 and f"found a sound of shape {wave.shape}, expected (samples,): mix its channels to one",
        wave.dtype.kind != "f" and f"found a sound of {wave.dtype}, expected float32 in -1..1: int16 over 32768, say",
    )
    if not np.isfinite(wave).all():
        raise InputError("found a sound with samples that are nan or infinite, expected numbers")
    return wave.astype(np.float32, copy=False)


class _Features:
    """Features of a growing sound. Of the wave and of what was made only as much is kept as is still needed."""

    lead = 0
    """Features of silence before the sound's first sample."""

    def __init__(self, width: int, hop: int, before: int):
        self._hop, self._before = hop, before
        self._wave, self._wave_start = np.zeros(0, np.float32), 0
        self.made = 0
        self._blocks, self._first = [np.zeros((0, width), np.float32)], 0

    def kept(self, first: int) -> tuple[np.ndarray, int]:
        """Features from number `first` on, or all where the sound ended before, and the number of the first of them.

        Windows only move on: what comes before is forgotten, however long the piece was that it came with.
        """
        stale = min(max(first, 0), self.made - 1) - self._first
        kept = np.concatenate(self._blocks)[max(stale, 0) :]
        self._blocks, self._first = [kept], self._first + max(stale, 0)
        return kept, self._first

    def _samples(self, start: int, stop: int) -> np.ndarray:
        """Samples start..stop - 1; silence where there are none."""
        return shifted(self._wave, start - self._wave_start, stop - start)

    def _append(self, wave: np.ndarray) -> None:
        stale = max((self.made - self._before) * self._hop - self._wave_start, 0)
        self._wave, self._wave_start = np.concatenate([self._wave[stale:], wave]), self._wave_start + stale

    def _keep(self, features: np.ndarray) -> None:
        self._blocks.append(features)
        self.made += len(features)

    @property
    def _received(self) -> int:
        return self._wave_start + len(self._wave)


class _MelFeatures(_Features):
    def __init__(self) -> None:
        super().__init__(MEL_BANDS, HOP, 2 * _MEL_SPARE)

    def add(self, wave: np.ndarray) -> None:
        self._append(wave)
        self._make((self._received - N_FFT // 2) // HOP + 1)

    def end(self) -> None:
        self._make(self._received // HOP + 1)

    def _make(self, stop: int) -> None:
        start = self.made
        if stop <= start:
            return
        samples = self._samples((start - _MEL_SPARE) * HOP, min((stop + _MEL_SPARE) * HOP, self._received))
        self._keep(log_mel(samples)[_MEL_SPARE : _MEL_SPARE + stop - start])


class _WhisperFeatures(_Features):
    lead = WHISPER_LEAD

    def __init__(self) -> None:
        self._network = whisper()
        super().__init__(self._network.config.width, FEATURE_HOP, BEFORE)
        self._loudest = self._network.usual_loudness
        self._append(np.zeros(WHISPER_LEAD * FEATURE_HOP, np.float32))

    def add(self, wave: np.ndarray) -> None:
        self._append(wave)
        while (self.made + BLOCK + AFTER) * FEATURE_HOP <= self._received:
            self._make(BLOCK)

    def end(self) -> None:
        count = -(-self._received // FEATURE_HOP) + WHISPER_TAIL
        while self.made < count:
            self._make(min(BLOCK, count - self.made))

    def _make(self, count: int) -> None:
        start = self.made
        samples = self._samples((start - BEFORE) * FEATURE_HOP, (start + count + AFTER) * FEATURE_HOP)
        features, self._loudest = stretch_features(self._network, samples, self._loudest)
        self._keep(features[BEFORE : BEFORE + count])
