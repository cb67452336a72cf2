"""Which features of a sound belong to a video frame, and which sound and faces the sync expert sees at once.

Two kinds of feature sequences are cut by the same functions: `mel` (80 frames a second, frame j centred on j / 80 s)
and `whisper` (50 a second, WHISPER_LEAD of them of the silence before the sound, so that feature k is centred on
(k - WHISPER_LEAD + 1/2) / 50 s).
"""

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from torch import Tensor, nn

from errors import InputError
from models.channels import in_order, unit
from models.config import SYNC_FRAMES, SyncConfig
from speech.mel import MEL_SILENCE
from speech.rates import MEL_RATE, WHISPER_LEAD, WHISPER_RATE
from speech.whisper_features import LazyFeatures

SYNC_FPS = 25
_SYNC_MEL = 16
"""Mel frames that a sync expert hears: five frames at 25 fps."""


def audio_window_at(
    features: np.ndarray, seconds: float | Fraction, kind: str, length: int, convention: str = "centred"
) -> np.ndarray:
    """The sound of a video frame whose middle is shown at `seconds`: mel (1, 80, length) or whisper (length, 384),
    float32.

    features: what `sound_features` gives. convention: `centred` on the middle of the frame; `published` (mel only)
    starts where published HyperLips training starts it, for frame k of 25 fps at 80 (k - 1) / 25, truncated. Beyond the
    ends there is silence.
    """
    return cut_windows(features, [first_feature(seconds, kind, length, convention)], kind, length)[0]


def audio_windows(
    features: np.ndarray,
    indices: int | Iterable[float | Fraction],
    fps: Fraction,
    kind: str,
    length: int,
    convention: str = "centred",
) -> np.ndarray:
    """`audio_window_at` of frames at a constant rate of `fps`, stacked: (N, 1, 80, length) or (N, length, 384).

    indices: frame numbers, or how many from 0; the middle of frame k is shown at (k + 1/2) / fps.
    """
    indices = range(indices) if isinstance(indices, int) else indices
    middles = ((_fraction(index) + Fraction(1, 2)) / Fraction(fps) for index in indices)
    return cut_windows(features, [first_feature(middle, kind, length, convention) for middle in middles], kind, length)


def first_feature(seconds: float | Fraction, kind: str, length: int, convention: str = "centred") -> int:
    """Time index of the first feature in the window of a frame whose middle is at `seconds`; may be negative.

    Index 0 of `whisper` is the sound's first feature, which sits WHISPER_LEAD into the array.
    """
    seconds = _fraction(seconds)
    if convention not in ("centred", "published"):
        raise InputError(f"found audio window {convention!r}, expected centred or published, choose one of them")
    if kind == "mel":
        if convention == "published":
            return math.trunc(MEL_RATE * seconds - Fraction(24, 5))
        return math.floor(MEL_RATE * seconds - Fraction(length, 2) + 1)
    if kind != "whisper":
        raise InputError(f"found audio features {kind!r}, expected mel or whisper, choose one of them")
    if convention == "published":
        raise InputError("found audio window published with whisper features, expected mel, use centred")
    return math.floor(WHISPER_RATE * seconds - Fraction(length, 2) + Fraction(1, 2))


def cut_windows(features: np.ndarray | LazyFeatures, firsts: list[int], kind: str, length: int) -> np.ndarray:
    """Windows (N, 1, 80, length) or (N, length, 384) float32 that begin at features `firsts` of the sound; silence
    beyond its ends.
    """
    where = np.array(firsts, np.int64)[:, None] + np.arange(length) + (0 if kind == "mel" else WHISPER_LEAD)
    inside = np.clip(where, 0, len(features) - 1)
    windows = features[inside].astype(np.float32, copy=False)
    if kind == "mel":
        windows[inside != where] = MEL_SILENCE
        return np.ascontiguousarray(windows.transpose(0, 2, 1))[:, None]
    return windows


def _fraction(value: float | Fraction) -> Fraction:
    return value if isinstance(value, Fraction) else Fraction(float(value))


def sound_windows(features: np.ndarray, starts: np.ndarray, expert: SyncConfig) -> np.ndarray:
    """The sound of the five frames from each start (n,), as an expert of that config hears it, float32.

    mel (n, 1, 80, 16): from the first video frame on. whisper (n, window, 384): centred on the middle one of the five.
    """
    if expert.audio == "mel":
        return cut_windows(features, [MEL_RATE * int(start) // SYNC_FPS for start in starts], "mel", _SYNC_MEL)
    middle = (starts + SYNC_FRAMES // 2).tolist()
    return audio_windows(features, middle, Fraction(SYNC_FPS), expert.audio, expert.audio_window)


def face_windows(faces: Tensor, expert: nn.Module) -> Tensor:
    """What an expert sees of five frames in a row: their lower halves, frame after frame, in its order of colours.

    faces (B, 5, 3, S, S), RGB, uint8 or 0..1 -> (B, 15, S / 2, S) float32 in 0..1.
    """
    lower = in_order(faces[..., faces.shape[-2] // 2 :, :], expert).flatten(1, 2)
    return unit(lower).float()
