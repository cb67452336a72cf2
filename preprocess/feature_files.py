"""Features of a clip's sound, and of its variants, as files."""

import io
from pathlib import Path

import numpy as np

from speech.features import sound_features

DTYPES = {"mel": np.float32, "whisper": np.float16}
"""Kinds of features, and as what they are kept."""


def write_features(path: Path, wave: np.ndarray, kind: str) -> None:
    """Those of a 16 kHz mono sound, as np.save writes them; into a file of its own np.save does not say that the disk
    is full.
    """
    written = io.BytesIO()
    np.save(written, sound_features(wave, kind).astype(DTYPES[kind]))
    path.write_bytes(written.getbuffer())
