"""Is a clip's sound in step with its lips? A sync expert finds a constant offset, which extraction then takes out."""

from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.archive import Archive
from datasets.clips import FPS
from errors import InputError
from face.crop import area_reduce
from models.checkpoint import load_network
from models.config import BASE_SIZE, MAX_SHIFT, SYNC_FRAMES
from models.syncnet import SyncExpert
from speech.features import sound_features
from speech.offset import clip_vectors, estimate_offset, peak

MIN_CONFIDENCE = 0.08
"""Least confidence of an estimate. With the shipped expert 3 of 218 training clips in sync were below it, and 68 % of
the same clips under another clip's sound.
"""
NEAR = 1
"""Frames: of a person's own recording an estimate so near to none is taken for none, however low its confidence: some
people hardly move their lips, and sounds of somebody else have it one time in ten.
"""
HALF = 2 * FPS
"""Shortest half of a clip, in frames, whose offset is looked at by itself, to tell a constant offset from a drift."""


def sound_offset(expert: str, faces: Path, sound: np.ndarray, trusted: bool = False) -> Fraction:
    """Seconds by which the sound is late, in steps of a tenth of a frame, within +-MAX_SHIFT frames.

    faces: archive of the clip's crops at 25 fps; sound (samples,) at 16 kHz from the first of them on. trusted: the two
    were recorded together, see NEAR. Raises InputError where they do not belong together, or drift.
    """
    archive = Archive(faces)
    pictures = archive.pictures(range(len(archive)))
    if len(pictures) < SYNC_FRAMES:
        raise InputError(f"too short for the sync expert: {len(pictures)} frames, expected {SYNC_FRAMES} or more")
    network = _expert(expert)
    crops = np.stack([area_reduce(picture, BASE_SIZE) for picture in pictures])
    seen, heard = clip_vectors(network, crops, sound_features(sound, network.config.audio))
    whole = estimate_offset(seen, heard)
    if whole.confidence < MIN_CONFIDENCE:
        if trusted and abs(whole.offset) <= NEAR:
            return Fraction(0)
        raise InputError(
            f"lips and sound do not belong together (confidence {whole.confidence:.3f}, expected {MIN_CONFIDENCE:.3f})"
        )
    if abs(whole.offset) == MAX_SHIFT:
        raise InputError(f"out of sync by {MAX_SHIFT} frames or more")
    middle = len(crops) // 2
    if middle >= HALF:
        parts = [
            estimate_offset({start: vector for start, vector in seen.items() if (start < middle) == first}, heard)
            for first in (True, False)
        ]
        if min(part.confidence for part in parts) >= MIN_CONFIDENCE and abs(parts[0].offset - parts[1].offset) > 2:
            raise InputError(
                f"sound drifts: late by {parts[0].offset} frames in the first half, {parts[1].offset} in the second"
            )
    return Fraction(round(10 * peak(whole)), 10 * FPS)


@lru_cache(maxsize=1)
def _expert(path: str) -> SyncExpert:
    return load_network(path, kind=SyncExpert)
