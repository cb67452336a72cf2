"""From a sound to the feature sequence of either front end."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from media.audio import SAMPLE_RATE
from models.checkpoint import load_network
from models.whisper import WhisperFrontEnd
from speech.mel import log_mel
from speech.windows import WHISPER_LEAD, WHISPER_RATE, WHISPER_TAIL

WHISPER_WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints" / "whisper_tiny_en_2blocks.safetensors"


def pad_for_whisper(wave: np.ndarray) -> np.ndarray:
    """Silence round a 16 kHz sound (samples,): WHISPER_LEAD features before it and WHISPER_TAIL after."""
    step = SAMPLE_RATE // WHISPER_RATE
    return np.pad(np.asarray(wave, np.float32), (WHISPER_LEAD * step, WHISPER_TAIL * step))


def sound_features(wave: np.ndarray, kind: str) -> np.ndarray:
    """Features of a 16 kHz mono sound of any length: `mel` (n, 80) at 80 Hz, `whisper` (n, 384) at 50 Hz.

    speech.windows.audio_window_at cuts a frame's window out of either.
    """
    if kind == "mel":
        return log_mel(wave)
    return whisper().features(pad_for_whisper(wave))


@lru_cache(maxsize=1)
def whisper() -> WhisperFrontEnd:
    """The frozen encoder that comes with the project, loaded once."""
    return load_network(WHISPER_WEIGHTS, kind=WhisperFrontEnd)
