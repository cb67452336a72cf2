"""Which clips a training learns from and which it is validated on, also where a data set holds a single clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from datasets.archive import Archive
from datasets.clips import FPS, Clip, load_clips, read_index
from datasets.config import DataSection
from errors import InputError
from media.audio import SAMPLE_RATE
from speech.mel import MEL_RATE
from speech.windows import WHISPER_LEAD, WHISPER_RATE, WHISPER_TAIL

TRAIN, VAL = "train", "val"
HEAD, TAIL = "train[:90%]", "train[90%:]"
"""Splits that are parts of the clips of `train`: the last tenth of each, and the rest."""
WHOLE_STEP = 5
"""Frames in which both kinds of sound features have whole numbers: 16 and 10. Clips are cut at multiples of it."""
_LEAST = FPS
"""Frames of either part of a clip; a shorter clip is not cut."""
LEAST_SECONDS = 2 * _LEAST / FPS
"""Of a clip that can lend its last tenth."""
_MIN_VISIBLE = 0.5
"""Share of the last tenth's frames that show the face: with less there is nothing to validate on."""


class ClipPart(Clip):
    """Frames `start` to `stop` - 1 of a clip, a clip of their own with all that belongs to it; start in WHOLE_STEPs."""

    def __init__(self, whole: Clip, start: int, stop: int):
        count = stop - start
        super().__init__(whole.folder, replace(whole.info, frames=count, seconds=count / FPS))
        self._whole, self._start, self._stop = whole, start, stop

    def faces(self, indices: Sequence[int], archive: str = "faces.zip", size: int | None = None) -> np.ndarray:
        return self._whole.faces([index + self._start for index in indices], archive, size)

    def archive(self, name: str) -> Archive:
        return self._whole.archive(name)

    @property
    def landmarks(self) -> np.ndarray:
        return self._whole.landmarks[self._start : self._stop]

    @cached_property
    def visible(self) -> np.ndarray:
        return self._whole.visible[self._start : self._stop]

    @cached_property
    def base_landmarks(self) -> np.ndarray:
        return self._whole.base_landmarks[self._start : self._stop]

    def sound(self) -> np.ndarray:
        return self._whole.sound()[self._start * SAMPLE_RATE // FPS : self._stop * SAMPLE_RATE // FPS]

    def features(self, kind: str, variant: int = 0) -> np.ndarray:
        # Whisper's begin with what is before the part, in the place of the silence before a whole clip.
        rate, around = (MEL_RATE, 1) if kind == "mel" else (WHISPER_RATE, WHISPER_LEAD + WHISPER_TAIL)
        features = self._whole.features(kind, variant)
        return features[self._start * rate // FPS : self._stop * rate // FPS + around]


@dataclass(frozen=True)
class Splits:
    """Names of the splits that a training learns from and is validated on, and what there is to say of them."""

    train: str
    validation: str
    note: str = ""


def training_splits(data: DataSection, validation: str) -> Splits:
    """The splits of a training whose config has this `data` section and asks for that split in validation.

    Where the index names no clip of `val`, the last tenth of every train clip becomes it and is not trained on. Raises
    InputError where the data set cannot be read, or no clip is long enough for that.
    """
    if validation != VAL or any(info.split == VAL for info in read_index(data.path)):
        return Splits(TRAIN, validation)
    tails = load_split(data.path, TAIL, data.min_face_px)
    seconds = sum(clip.info.seconds for clip in tails)
    note = (
        f"{data.path}: no clip is in split {VAL!r}, so the last tenth of {len(tails)} train clips, {seconds:.1f} s, is "
        "kept for validation and not trained on"
    )
    return Splits(HEAD, TAIL, note)


def load_split(data: str | Path, split: str, min_face_px: float = 0) -> list[Clip]:
    """load_clips, for which HEAD and TAIL are splits too."""
    if split not in (HEAD, TAIL):
        return load_clips(data, split, min_face_px)
    clips = load_clips(data, TRAIN, min_face_px)
    cuts = [tail_start(clip) for clip in clips]
    if split == HEAD:
        return [clip if cut is None else ClipPart(clip, 0, cut) for clip, cut in zip(clips, cuts, strict=True)]
    tails: list[Clip] = [
        ClipPart(clip, cut, clip.info.frames) for clip, cut in zip(clips, cuts, strict=True) if cut is not None
    ]
    if not tails:
        raise InputError(
            f"{data}: no clip is in split {VAL!r}, and none of its {len(clips)} train clips can lend its last tenth: "
            f"that takes {LEAST_SECONDS:g} s whose last second shows the face; add a longer clip or one with "
            f"--split {VAL}, or validate on what is trained on: validation.split={TRAIN}"
        )
    return tails


def tail_start(clip: Clip) -> int | None:
    """The frame at which a clip's last tenth begins, which is 1 s or more; None for a clip that cannot spare it."""
    frames = clip.info.frames
    start = min(frames - frames // 10, frames - _LEAST) // WHOLE_STEP * WHOLE_STEP
    return start if start >= _LEAST and clip.visible[start:].mean() >= _MIN_VISIBLE else None
