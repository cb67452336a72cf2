"""A new person in one command: the shipped weights adapted to somebody's videos.

    python adapt.py --video ME.mp4 [--video MORE.mp4] --output runs/me
    python inference.py --person runs/me --audio SOUND --output OUT.mp4

The last tenth is not trained on: before_after.png and before_after.mp4 show it as it is, by the general and by the
adapted weights. Ctrl-C or SIGTERM keeps the best so far; the same command goes on.
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from digest import file_digest
from engine.bar import ScoreBar, bar
from engine.config import add_config_arguments, load_config
from engine.options import AdaptConfig, InferenceConfig
from engine.person import Adaptation, Person
from errors import InputError, run_cli
from models.config import BASE_SIZE

STEPS = "videos", "face", "stage1", "faces", "stage2", "film"
_RESERVE = 0.05
"""Share of the minutes that is kept for the film."""
_LEAST = 0.1
"""Share of the minutes that a stage gets at least, however long the videos took."""
_OWN = re.compile(r"stage[12]\.(model|feed|data\.path$|run\.(folder|name|device|minutes)$)")
"""Keys of the config that are not for the user to say: the weights say them, or options of this script."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--video", nargs="+", action="extend", required=True, type=Path, metavar="ME.mp4", help="somebody who speaks"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the person's folder, e.g. runs/me")
    parser.add_argument("--minutes", type=float, metavar="M", help="about how long it may take in all (default 15)")
    parser.add_argument("--base", metavar="CKPT", help="stage-1 weights to start from (default: the shipped ones)")
    parser.add_argument("--hr", metavar="CKPT", help="stage-2 weights to start from (default: the shipped ones)")
    parser.add_argument("--device", help="auto, cpu or cuda")
    add_config_arguments(parser, AdaptConfig, "adapt.yaml")
    return parser.parse_args()


def configure(args: argparse.Namespace) -> AdaptConfig:
    """The config, with what the options and the folder say. Raises InputError for mistakes in it."""
    minutes = [] if args.minutes is None else [f"minutes={args.minutes}"]
    config = load_config(AdaptConfig, args.config, [*args.set, *minutes])
    if own := [key for key in (text.partition("=")[0] for text in args.set) if _OWN.match(key)]:
        raise InputError(
            f"found {', '.join(own)}; expected none of a stage's model, feed, data.path, run.folder, run.name, "
            "run.device and run.minutes: the weights, --output, --device and --minutes say them"
        )
    config.base, config.hr = args.base or config.base, args.hr or config.hr
    config.device = args.device or config.device
    stages: dict[str, Any] = {"stage1": config.stage1, "stage2": config.stage2}
    for name, stage in stages.items():
        stage.run.folder, stage.run.name, stage.run.device = str(args.output), name, config.device
        stage.data.path = str(args.output / "data")
    return config


def begin(args: argparse.Namespace, config: AdaptConfig) -> Adaptation:
    """Where the folder stands. Raises InputError for files that cannot be used, and for another person's folder."""
    for path in map(Path, (*args.video, config.base, config.hr)):
        if not path.is_file():
            raise InputError(f"found no file {path}; check the path")
    if args.output.exists() and not args.output.is_dir():
        raise InputError(f"--output {args.output} is a file, expected a folder for the person")
    begun = {
        "videos": [file_digest(path) for path in args.video],
        "base": file_digest(Path(config.base)),
        "hr": file_digest(Path(config.hr)),
    }
    return Adaptation.of(args.output, begun)


def adapt(videos: list[Path], config: AdaptConfig, state: Adaptation) -> None:
    """Every step that is not done yet. A signal, SystemExit or KeyboardInterrupt, leaves all that is done kept."""
    from datasets.clips import load_clips
    from datasets.splits import TRAIN, VAL, validation_clips
    from engine import train_base, train_hr
    from engine.before_after import write_both
    from engine.pipeline import LipSync
    from engine.start import load_start
    from models.hr_decoder import HRDecoder
    from models.hyperlips import HyperLipsBase
    from preprocess.base_faces import paint_clips
    from preprocess.person_videos import first_used, read_videos

    folder, person, data = state.folder, Person(state.folder), state.folder / "data"
    base, hr = load_start(Path(config.base), HyperLipsBase), load_start(Path(config.hr), HRDecoder)
    config.stage1.model, config.stage1.feed, config.stage2.model = base.config, base.feed, hr.config
    if not base.config.encodes_references and config.stage1.data.reference == "pose":  # such are not mixed by pose
        config.stage1.data.reference = "span"
    general = InferenceConfig(base=config.base, hr=config.hr, device=config.device)

    def left() -> float:
        return config.minutes * (1 - _RESERVE) - state.seconds / 60

    least = _LEAST * config.minutes
    try:
        state.run("videos", lambda: read_videos(videos, data, BASE_SIZE * hr.config.scale, config.sync))
    except InputError:
        shutil.rmtree(data, ignore_errors=True)
        state.forget()
        raise
    # Before any training, so that whatever is stopped later can speak.
    state.run("face", lambda: LipSync(general).prepare(first_used(videos, data), bar).save(person.face))

    config.stage1.run.minutes = state.give("stage1", max(config.share * left(), least))
    state.run("stage1", lambda: train_base.train(config.stage1, Path(config.base), ScoreBar("stage 1")))
    painter, _ = best_so_far(folder, config)
    state.run("faces", lambda: paint_clips(load_clips(data, TRAIN), data, painter, config.device))
    config.stage2.run.minutes = state.give("stage2", max(left(), least))
    state.run("stage2", lambda: train_hr.train(config.stage2, Path(config.hr), ScoreBar("stage 2")))

    person.export(*best_so_far(folder, config))
    adapted = InferenceConfig(base=str(person.base), hr=str(person.hr), device=config.device)
    weights = {"general": general, "adapted": adapted}
    state.run("film", lambda: write_both(folder, validation_clips(config.stage1.data, VAL), weights, config.film))


def best_so_far(folder: Path, config: AdaptConfig) -> tuple[Path, Path]:
    """Weights of both stages: the adapted ones where there are some, else those it began with."""
    made = [folder / stage / "best.safetensors" for stage in ("stage1", "stage2")]
    general = Path(config.base), Path(config.hr)
    base, hr = (best if best.is_file() else start for best, start in zip(made, general, strict=True))
    return base, hr


def keep_best(config: AdaptConfig, person: Person) -> str:
    """After a signal: export the best so far; returns what to tell."""
    made = [stage for stage in ("stage1", "stage2") if (person.folder / stage / "best.safetensors").is_file()]
    if not made or not person.face.is_file():
        return f"stopped before anything was learned; the same command goes on in {person.folder}"
    person.export(*best_so_far(person.folder, config))
    return (
        f"stopped: the best so far ({' and '.join(made)}) is kept, and speaks by --person {person.folder}; "
        "the same command goes on"
    )


def main() -> None:
    args = parse_arguments()
    config = configure(args)
    args.video = list(dict.fromkeys(args.video))
    state = begin(args, config)
    person = Person(args.output)
    use = f"python inference.py --person {args.output} --audio SPEECH.wav --output OUT.mp4"
    if set(STEPS) <= set(state.done):
        print(f"{args.output} is done already; another --output begins anew. Use it: {use}")
        return
    from engine.lock import run_lock
    from preprocess.person_videos import check_length

    check_length(args.video)

    with run_lock(args.output):
        try:
            adapt(args.video, config, state)
        except (SystemExit, KeyboardInterrupt):  # a signal, in a training or anywhere else
            print(keep_best(config, person), flush=True)
            raise
    print(
        f"{args.output}: done in {state.seconds / 60:.1f} min; before_after.png and .mp4 show the rest. Use it: {use}"
    )


if __name__ == "__main__":
    run_cli(main)
