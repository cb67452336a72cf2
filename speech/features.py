"""From a sound to the feature sequence of either front end."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from models.checkpoint import load_network
from models.whisper import LazyFeatures, WhisperFrontEnd
from speech.mel import log_mel
from speech.windows import WHISPER_LEAD, WHISPER_TAIL

WHISPER_WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints" / "whisper_tiny_en_2blocks.safetensors"


def sound_features(wave: np.ndarray, kind: str) -> np.ndarray:
    """Features of a 16 kHz mono sound of any length: `mel` (n, 80) at 80 Hz, `whisper` (n, 384) at 50 Hz.

    speech.windows.audio_window_at cuts a frame's window out of either.
    """
    if kind == "mel":
        return log_mel(wave)
    features = whisper_features(wave)
    return features[np.arange(len(features))]


def whisper_features(wave: np.ndarray) -> LazyFeatures:
    """Features of a 16 kHz sound (samples,) with silence round it: WHISPER_LEAD of them before it, WHISPER_TAIL after;
    made where they are asked for.
    """
    return LazyFeatures(whisper(), wave, WHISPER_LEAD, WHISPER_TAIL)


@lru_cache(maxsize=1)
def whisper() -> WhisperFrontEnd:
    """The frozen encoder that comes with the project, loaded once."""
    return load_network(WHISPER_WEIGHTS, kind=WhisperFrontEnd)
