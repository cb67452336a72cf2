"""From a sound to the feature sequence of either front end: the one place where media and the Whisper front end
meet.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from media.audio import log_mel, pad_for_whisper
from models.checkpoint import load_network

WHISPER_WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints" / "whisper_tiny_en_2blocks.safetensors"


def sound_features(wave: np.ndarray, kind: str) -> np.ndarray:
    """Features of a 16 kHz mono sound of any length: `mel` (n, 80) at 80 Hz, `whisper` (n, 384) at 50 Hz.

    media.audio.audio_window cuts a frame's window out of either.
    """
    if kind == "mel":
        return log_mel(wave)
    return _whisper().features(pad_for_whisper(wave))


@lru_cache(maxsize=1)
def _whisper():
    return load_network(WHISPER_WEIGHTS)
