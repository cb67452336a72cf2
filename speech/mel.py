"""The published mel spectrogram of a sound (Wav2Lip's recipe, arXiv 2008.10010)."""

import numpy as np

from media.audio import SAMPLE_RATE
from models.mel_filters import mel_filters
from speech.rates import MEL_RATE

MEL_BANDS = 80
MEL_SILENCE = -4.0
N_FFT = 800
HOP = SAMPLE_RATE // MEL_RATE
_PRE_EMPHASIS = 0.97
_BLOCK = 4096
"""Mel frames computed at a time."""


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Mel spectrogram of a 16 kHz sound (samples,): float32 (1 + samples // 200, 80) in -4..4, digital silence -4.

    The published recipe: pre-emphasis, 800-point STFT (centred, zeros beyond the ends), Slaney mels 55..7600 Hz,
    decibels from -120 to 0 stretched over -4..4. Computed in blocks, so that memory beside the result does not grow
    with length.
    """
    wave = np.asarray(wave, np.float32)
    emphasised = wave.copy()
    emphasised[1:] -= _PRE_EMPHASIS * wave[:-1]
    padded = np.pad(emphasised, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    filters = mel_filters(SAMPLE_RATE, N_FFT, MEL_BANDS, 55, 7600)
    mel = np.empty((len(frames), MEL_BANDS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        part = slice(start, start + _BLOCK)
        mel[part] = np.abs(np.fft.rfft(frames[part] * window)) @ filters.T
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip(8 * (decibels + 100) / 100 - 4, MEL_SILENCE, -MEL_SILENCE)
