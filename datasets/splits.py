"""Which clips a training learns from and which it is validated on, also where a data set holds a single clip."""

from dataclasses import dataclass

from datasets.clips import FPS, WHOLE_STEP, Clip, load_clips, read_index
from datasets.config import DataSection
from errors import InputError

TRAIN, VAL = "train", "val"
_HEAD, _TAIL = "train[:90%]", "train[90%:]"
"""What the split of clips is called that are the last tenths of others, and what is left of these."""
_LEAST = FPS
"""Frames of either part of a clip; a shorter clip is not cut."""
LEAST_SECONDS = 2 * _LEAST / FPS
"""Of a clip that can lend its last tenth."""
_MIN_VISIBLE = 0.5
"""Share of the last tenth's frames that show the face: with less there is nothing to validate on."""


@dataclass(frozen=True)
class Splits:
    """Clips that a training learns from and those it is validated on, and what there is to say of them."""

    train: list[Clip]
    validation: list[Clip]
    note: str = ""


def training_splits(data: DataSection, validation: str) -> Splits:
    """The clips of a training whose config has this `data` section and asks for that split in validation.

    Where the index names no clip of `val`, the last tenth of every train clip becomes it and is not trained on. Raises
    InputError where the data set cannot be read, lacks a split, or no clip is long enough for that.
    """
    train = load_clips(data.path, TRAIN, data.min_face_px)
    if validation == TRAIN:
        return Splits(train, train)
    if not _is_cut(data, validation):
        return Splits(train, load_clips(data.path, validation, data.min_face_px))
    heads, tails = [], []
    for clip in train:
        cut = tail_start(clip)
        heads.append(clip if cut is None else clip.part(0, cut, _HEAD))
        if cut is not None:
            tails.append(clip.part(cut, clip.info.frames, _TAIL))
    if not tails:
        raise InputError(
            f"{data.path}: no clip is in split {VAL!r}, and none of its {len(train)} train clips can lend its last "
            f"tenth: that takes {LEAST_SECONDS:g} s whose last second shows the face; add a longer clip or one with "
            f"--split {VAL}, or validate on what is trained on: validation.split={TRAIN}"
        )
    note = (
        f"{data.path}: no clip is in split {VAL!r}, so the last tenth of {len(tails)} train clips, "
        f"{sum(clip.info.seconds for clip in tails):.1f} s, is kept for validation and not trained on"
    )
    return Splits(heads, tails, note)


def validation_clips(data: DataSection, validation: str) -> list[Clip]:
    """Those of training_splits alone; the others are read only where they lend their last tenth."""
    if _is_cut(data, validation):
        return training_splits(data, validation).validation
    return load_clips(data.path, validation, data.min_face_px)


def _is_cut(data: DataSection, validation: str) -> bool:
    """Whether clips to validate on are cut from those of `train`."""
    return validation == VAL and all(info.split != VAL for info in read_index(data.path))


def tail_start(clip: Clip) -> int | None:
    """The frame at which a clip's last tenth begins, which is 1 s or more; None for a clip that cannot spare it."""
    frames = clip.info.frames
    start = min(frames - frames // 10, frames - _LEAST) // WHOLE_STEP * WHOLE_STEP
    return start if start >= _LEAST and clip.visible[start:].mean() >= _MIN_VISIBLE else None
