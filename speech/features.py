"""From a sound to the feature sequence of either front end."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from models.checkpoint import load_network
from models.whisper import WhisperFrontEnd
from speech.mel import log_mel
from speech.rates import WHISPER_LEAD, WHISPER_TAIL
from speech.whisper_features import LazyFeatures, Wave

WHISPER_WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints" / "whisper_tiny_en_2blocks.safetensors"


def sound_features(wave: Wave, kind: str) -> np.ndarray:
    """Features of a 16 kHz mono sound of any length: `mel` (n, 80) at 80 Hz, `whisper` (n, 384) at 50 Hz.

    speech.windows.audio_window_at cuts a frame's window out of either.
    """
    return np.asarray(lazy_features(wave, kind))


def lazy_features(wave: Wave, kind: str) -> np.ndarray | LazyFeatures:
    """The same, but `whisper` made where it is asked for: WHISPER_LEAD features of the silence before the sound, and
    WHISPER_TAIL of that after it.
    """
    return log_mel(wave[:]) if kind == "mel" else LazyFeatures(whisper(), wave, WHISPER_LEAD, WHISPER_TAIL)


@lru_cache(maxsize=1)
def whisper() -> WhisperFrontEnd:
    """The frozen encoder that comes with the project, loaded once."""
    return load_network(WHISPER_WEIGHTS, kind=WhisperFrontEnd)
