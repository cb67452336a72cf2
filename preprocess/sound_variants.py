"""Noisy variants of a sound: background, room, microphone and level. Nothing is delayed, so lips stay in step.

Sounds are (samples,) float32 in -1..1 at 16 kHz.
"""

from collections.abc import Callable

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.signal import fftconvolve

from media.audio import SAMPLE_RATE

Noise = Callable[[int, np.random.Generator], np.ndarray]
"""(samples, rng) -> a background of that length, at any level."""
ROOM, EQUALISER, TELEPHONE = 0.5, 0.5, 0.15
"""Shares of the variants that are heard in a room, through a coloured microphone, through a telephone's band."""
SNR_DB = 5.0, 20.0
REVERBERATION_S = 0.1, 0.6
"""Range of the time in which the room's tail falls by 60 dB."""
DIRECT_DB = 0.0, 15.0
"""Range of the direct sound's energy over the tail's."""
GAIN_DB = -12.0, 6.0
TELEPHONE_HZ = 300.0, 3400.0
_EQUALISER_DB = 4.0  # standard deviation of each of its bands
_BANDS_HZ = np.geomspace(60, SAMPLE_RATE / 2, 8)
_FIRST_ECHO_S = 0.002
_SILENCE_RMS = 0.01  # what the noise in a sound without speech is measured by


def vary_sound(wave: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """A variant of `wave`, of its length: `noise` is added at SNR_DB, the rest is drawn."""
    varied = in_room(wave, rng.uniform(*REVERBERATION_S), rng.uniform(*DIRECT_DB), rng) if rng.random() < ROOM else wave
    varied = add_noise(varied, noise(len(wave), rng), rng.uniform(*SNR_DB))
    if rng.random() < EQUALISER:
        varied = filtered(
            varied, lambda hz: np.interp(np.log(hz), np.log(_BANDS_HZ), rng.normal(0, _EQUALISER_DB, len(_BANDS_HZ)))
        )
    if rng.random() < TELEPHONE:
        varied = telephone(varied)
    varied = varied * 10 ** (rng.uniform(*GAIN_DB) / 20)
    return (varied / max(1.0, np.abs(varied).max(initial=0))).astype(np.float32)


def in_room(wave: np.ndarray, seconds: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """The sound with a tail of noise that falls by 60 dB in `seconds`; the direct sound stays where it is."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds) * (time >= _FIRST_ECHO_S)
    tail *= 10 ** (-direct_db / 20) / np.linalg.norm(tail)
    tail[0] = 1
    return fftconvolve(wave, tail)[: len(wave)]


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`snr_db` compares the noise with the sound where it is loud, so that pauses make no difference."""
    return wave + noise * (loudness(wave) or _SILENCE_RMS) / (loudness(noise) or 1) * 10 ** (-snr_db / 20)


def loudness(wave: np.ndarray) -> float:
    """RMS over the pieces of 20 ms that are within 30 dB of the loudest one; 0 for digital silence."""
    pieces = np.array_split(wave, max(len(wave) // (SAMPLE_RATE // 50), 1))
    power = np.array([np.mean(np.square(piece, dtype=np.float64)) for piece in pieces if len(piece)])
    return float(np.sqrt(power[power >= power.max(initial=0) / 1000].mean())) if len(power) else 0.0


def filtered(wave: np.ndarray, gain_db: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The sound after a zero-phase filter; gain_db: frequencies in Hz, above 0, -> dB."""
    size = next_fast_len(len(wave) + SAMPLE_RATE // 10, real=True)
    hz = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 1)
    return irfft(rfft(wave, size) * 10 ** (gain_db(hz) / 20), size)[: len(wave)]


def telephone(wave: np.ndarray) -> np.ndarray:
    """Only the telephone's band; beyond it the sound falls by 48 dB an octave."""
    low, high = TELEPHONE_HZ
    return filtered(wave, lambda hz: -48 * (np.maximum(np.log2(low / hz), 0) + np.maximum(np.log2(hz / high), 0)))


def coloured_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """From hiss to rumble: white noise whose power falls by 0 to 6 dB an octave."""
    slope = rng.uniform(0, 6)
    return filtered(rng.standard_normal(count), lambda hz: -slope * np.log2(np.maximum(hz, 50) / 50))


def stretch_of(wave: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` samples of a sound from a random place on, repeated where it is shorter."""
    return np.take(wave, np.arange(count) + rng.integers(len(wave)), mode="wrap")
