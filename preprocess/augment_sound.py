"""Features of noisy variants of every clip's sound, for `augment.sound` in training.

    python -m preprocess.augment_sound --data DATA [--variants 2] [--noise RECORDINGS]

A variant has background noise at 5 to 20 dB (hiss to rumble, other clips' voices, or the recordings), and may have a
room, a coloured microphone, a telephone's band and another level. Writes mel_1.npy, whisper_1.npy, mel_2.npy ... into
the clips' folders. Restartable; a variant depends on the seed, its number, the clip's id, and the backgrounds there
are.
"""

import argparse
import os
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.clips import Clip, load_clips, variant_name
from errors import InputError, run_cli
from media.audio import SOUND_SUFFIXES, read_audio
from preprocess.sound_variants import coloured_noise, stretch_of, vary_sound
from speech.features import sound_features

DTYPES = {"mel": np.float32, "whisper": np.float16}
VOICES = 3, 6
"""Range of the number of other clips that speak at once in the background."""

_WORK: list[Callable[[Clip], int]] = []


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
        return sum(stretch_of(read_audio(others[speaker].path("audio.flac")), count, rng) for speaker in speakers)


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
        wave = vary_sound(read_audio(clip.path("audio.flac")), partial(backgrounds, clip), rng)
        for kind in missing:
            aside = clip.folder / f"{kind}_{variant}.part"
            with aside.open("wb") as file:
                np.save(file, sound_features(wave, kind).astype(DTYPES[kind]))
            os.replace(aside, clip.folder / variant_name(kind, variant))
        written += 1
    return written


def _worker_setup(work: Callable[[Clip], int]) -> None:
    """`work` holds the list of all clips: it travels once a process, not once a clip."""
    torch.set_num_threads(1)
    _WORK[:] = [work]


def _work(clip: Clip) -> int:
    return _WORK[0](clip)


def find_recordings(folder: Path | None) -> list[Path]:
    """Sound files below `folder`, in order. Raises InputError where there is none."""
    if folder is None:
        return []
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SOUND_SUFFIXES)
    if not found:
        raise InputError(f"--noise {folder}: found no sound in it (looked for {', '.join(SOUND_SUFFIXES)})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DATA")
    parser.add_argument("--variants", type=int, default=2, metavar="N", help="of each clip's sound (default 2)")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="recorded backgrounds, e.g. MUSAN's noise folder")
    parser.add_argument("--splits", nargs="+", default=["train"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)"
    )
    parser.add_argument("--again", action="store_true", help="also variants that are there already")
    args = parser.parse_args()
    if args.variants < 1:
        raise InputError(f"--variants {args.variants}: expected 1 or more")
    clips = [clip for split in args.splits for clip in load_clips(args.data, split)]
    work = partial(
        write_variants,
        backgrounds=Backgrounds(clips, find_recordings(args.noise)),
        variants=args.variants,
        seed=args.seed,
        again=args.again,
    )
    with ProcessPoolExecutor(max(args.workers, 1), initializer=_worker_setup, initargs=(work,)) as pool:
        written = sum(tqdm(pool.map(_work, clips), total=len(clips), unit="clip", desc="sound"))
    print(f"{written} variants written, {len(clips) * args.variants - written} were there already")


if __name__ == "__main__":
    run_cli(main)
