"""Features of noisy variants of every clip's sound, for `augment.sound` in training.

    python -m preprocess.augment_sound --data DATA [--variants 2] [--noise RECORDINGS]

A variant has background noise at 5 to 20 dB (hiss to rumble, other clips' voices, or the recordings), and may have a
room, a coloured microphone, a telephone's band and another level. Writes mel_1.npy, whisper_1.npy, mel_2.npy ... into
the clips' folders. Restartable; a variant depends on the seed, its number, the clip's id, and the backgrounds there
are.
"""

import argparse
from functools import partial
from pathlib import Path

from tqdm import tqdm

from datasets.clips import Clip, clips_of
from datasets.damage import readable
from errors import InputError, run_cli, warn
from media.audio import SOUND_SUFFIXES, mono
from preprocess.sources import files_below
from workers import cores, spread


def find_recordings(folder: Path | None) -> list[Path]:
    """Sound files below `folder`, see files_below; those that cannot be read are named and left out. Raises InputError
    where there is none.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise InputError(f"--noise {folder}: found no such folder; check the path")
    found = [path for path in files_below(folder, SOUND_SUFFIXES) if _is_sound(path)]
    if not found:
        raise InputError(f"--noise {folder}: found no sound in it (looked for {', '.join(SOUND_SUFFIXES)})")
    return found


def _is_sound(path: Path) -> bool:
    try:
        next(mono(path))
    except InputError as error:
        warn(f"left out: {error}")
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DATA", help="the data set")
    parser.add_argument("--variants", type=int, default=2, metavar="N", help="of each clip's sound (default 2)")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="recorded backgrounds, e.g. MUSAN's noise folder")
    parser.add_argument("--splits", nargs="+", default=["train"], help="of the clips (default train)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    parser.add_argument("--workers", type=int, default=cores(), metavar="N", help="processes (default: all cores)")
    parser.add_argument("--again", action="store_true", help="also variants that are there already")
    args = parser.parse_args()
    if args.variants < 1:
        raise InputError(f"--variants {args.variants}: expected 1 or more")
    clips = readable(clips_of(args.data, args.splits), Clip.check, args.data)
    recordings = find_recordings(args.noise)
    # This imports torch, which mistakes in the arguments need not wait for.
    from engine.threads import use_one_core
    from preprocess.clip_variants import Backgrounds, write_variants

    work = partial(
        write_variants,
        backgrounds=Backgrounds(clips, recordings),
        variants=args.variants,
        seed=args.seed,
        again=args.again,
    )
    written = 0
    use_one_core()
    for done in tqdm(spread(work, clips, args.workers, use_one_core), total=len(clips), unit="clip", desc="sound"):
        if done.death:
            raise InputError(f"clip {done.item.folder}: its worker died ({done.death}); the same command goes on")
        written += done.result
    print(f"{written} variants written, {len(clips) * args.variants - written} were there already")


if __name__ == "__main__":
    run_cli(main)
