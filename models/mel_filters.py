"""Mel filter banks as Slaney's Auditory Toolbox has them (M. Slaney, Interval Technical Report 1998-010)."""

import numpy as np

_LINEAR_HZ, _KNEE_HZ = 200 / 3, 1000.0
"""Hz a mel below the knee; above it mels are logarithmic."""
_LOG_STEP = np.log(6.4) / 27


def mel_filters(sample_rate: int, n_fft: int, bands: int, low_hz: float = 0.0, high_hz: float = 0.0) -> np.ndarray:
    """(bands, n_fft // 2 + 1) float32: triangles of unit area from `low_hz` to `high_hz` (0: half the sample rate).

    The same numbers as librosa.filters.mel, whose import takes seconds.
    """
    first, last = _mel(np.array([low_hz, high_hz or sample_rate / 2]))
    corners = _hertz(np.linspace(first, last, bands + 2))
    beyond = np.fft.rfftfreq(n_fft, 1 / sample_rate) - corners[:, None]
    widths = np.diff(corners)[:, None]
    triangles = np.minimum(beyond[:-2] / widths[:-1], -beyond[2:] / widths[1:]).clip(0)
    return (triangles * (2 / (corners[2:] - corners[:-2]))[:, None]).astype(np.float32)


def _mel(hertz: np.ndarray) -> np.ndarray:
    knee = _KNEE_HZ / _LINEAR_HZ
    return np.where(hertz < _KNEE_HZ, hertz / _LINEAR_HZ, knee + np.log(np.maximum(hertz, 1e-9) / _KNEE_HZ) / _LOG_STEP)


def _hertz(mel: np.ndarray) -> np.ndarray:
    knee = _KNEE_HZ / _LINEAR_HZ
    return np.where(mel < knee, mel * _LINEAR_HZ, _KNEE_HZ * np.exp(_LOG_STEP * (mel - knee)))
