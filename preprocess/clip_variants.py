"""Noisy variants of the sound of a data set's clips: where the noise comes from, and what is written."""

import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from aside import aside
from datasets.clips import Clip, variant_name
from media.audio import read_audio
from preprocess.feature_files import DTYPES, write_features
from preprocess.sound_variants import coloured_noise, stretch_of, vary_sound

VOICES = 3, 6
"""Range of the number of other clips that speak at once in the background."""


@dataclass(frozen=True)
class Backgrounds:
    """Where noise comes from: made up, other clips, recordings; each kind there is comes equally often."""

    clips: list[Clip]
    recordings: list[Path]

    def __call__(self, own: Clip, count: int, rng: np.random.Generator) -> np.ndarray:
        others = [clip for clip in self.clips if clip.info.id != own.info.id]
        kind = rng.choice(["made", *["voices"] * bool(others), *["recording"] * bool(self.recordings)])
        if kind == "made":
            return coloured_noise(count, rng)
        if kind == "recording":
            return stretch_of(read_audio(self.recordings[rng.integers(len(self.recordings))]), count, rng)
        speakers = rng.integers(len(others), size=rng.integers(VOICES[0], VOICES[1] + 1))
        return np.sum([stretch_of(others[speaker].sound(), count, rng) for speaker in speakers], axis=0)


def write_variants(clip: Clip, backgrounds: Backgrounds, variants: int, seed: int, again: bool) -> int:
    """Write the features of the clip's variants 1 .. `variants` that are not there yet; returns how many were
    written.
    """
    written = 0
    for variant in range(1, variants + 1):
        missing = [kind for kind in DTYPES if again or not (clip.folder / variant_name(kind, variant)).is_file()]
        if not missing:
            continue
        rng = np.random.default_rng((seed, variant, zlib.crc32(clip.info.id.encode())))
        wave = vary_sound(clip.sound(), partial(backgrounds, clip), rng)
        for kind in missing:
            with aside(clip.folder / variant_name(kind, variant)) as part:
                write_features(part, wave, kind)
        written += 1
    return written
