"""Score talking-face videos: one table of honest metrics, for finished videos of any method or for weights of ours.

    python evaluate.py --real R.mp4 --generated G.mp4 [--audio A.wav]         a finished pair, or two folders
    python evaluate.py --list PAIRS.tsv                                       real, generated [, sound] on each line
    python evaluate.py --real SIDE_BY_SIDE.mp4 --columns "10,10,256,256;..."  one file, the real one first
    python evaluate.py --clips DIR --base CKPT [--hr CKPT] [--offsets FILE]   generates first: own, no, another's sound

Files of two folders are matched by name.

Exit code 1: some clip or generated video could not be scored (no face in it, or unreadable), or a result not be
written, the others were; 2: wrong input, and nothing was scored.
"""

import argparse
import errno
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aside import temporary_folder
from engine.config import add_config_arguments, load_config
from engine.options import SYNC_EXPERT, EvaluateConfig
from errors import InputError, check, number, run_cli

if TYPE_CHECKING:
    from metrics.jobs import Job
    from metrics.table import Outcome

WEIGHTS = "sync", "syncnet", "lpips", "identity"
"""Scorers whose weights an option --NAME-weights gives."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is scored").add_argument
    what("--real", metavar="PATH", type=Path, help="the real video, or a folder of them")
    what(
        "--generated",
        metavar="[NAME=]PATH",
        action="append",
        default=[],
        help="the generated one, or a folder; again for another method",
    )
    what("--audio", metavar="PATH", type=Path, help="sound that drove it, or a folder (default: its own)")
    what("--list", metavar="FILE", type=Path, help="tab-separated lines: real, generated, and maybe sound")
    what(
        "--columns", metavar="X,Y,W,H;...", help="rectangles of a side-by-side file, [NAME=]x,y,w,h, the real one first"
    )
    what("--clips", metavar="DIR", type=Path, help="real clips to generate from (a video file, or a folder)")
    what("--base", metavar="CKPT", help="stage-1 weights to generate with (also with --real: adds our line)")
    what("--hr", metavar="CKPT", help="stage-2 weights (without: the face of stage 1 is pasted)")
    what("--offsets", metavar="FILE", type=Path, help="known sound offsets: tab-separated file, offset_ms [, set]")
    what(
        "--from",
        dest="from_s",
        metavar="SECONDS",
        type=number,
        default=0.0,
        help="score only what is shown from then on, e.g. where the weights were adapted to the beginning",
    )
    what("--keep", metavar="DIR", type=Path, help="keep generated videos here")
    weights = parser.add_argument_group("weights of further scorers").add_argument
    weights(
        "--sync-weights",
        metavar="FILE",
        type=Path,
        default=SYNC_EXPERT,
        help="our sync expert (default: the shipped one)",
    )
    weights("--syncnet-weights", metavar="FILE", type=Path, help="SyncNet v2 in its published layout: LSE-C, LSE-D")
    weights(
        "--lpips-weights",
        metavar="FILE",
        type=Path,
        help="state dict of lpips.LPIPS(net='alex'); needs requirements-metrics.txt",
    )
    weights(
        "--identity-weights",
        metavar="FILE",
        type=Path,
        help="ONNX face network, 112 px RGB in 0..255; needs requirements-metrics.txt",
    )
    output = parser.add_argument_group("output").add_argument
    output("--json", metavar="FILE", type=Path, help="everything")
    output("--csv", metavar="FILE", type=Path, help="a line for each clip and video")
    output("--report", metavar="DIR", type=Path, help="a page with the table, plots and faces side by side")
    parser.add_argument("--device", help="auto, cpu or cuda (generation)")
    add_config_arguments(parser, EvaluateConfig)
    return parser.parse_args(arguments)


def configure(args: argparse.Namespace) -> EvaluateConfig:
    config = load_config(EvaluateConfig, args.config, args.set)
    config.inference.base = args.base = args.base or config.inference.base
    config.inference.hr = args.hr = args.hr or config.inference.hr
    config.inference.device = args.device or config.inference.device
    return config


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError unless exactly one kind of input is given, and whole, with weights that are there."""
    kinds = [f"--{name}" for name in ("real", "list", "clips") if getattr(args, name) is not None]
    weights = [args.base, args.hr, *(getattr(args, f"{name}_weights") for name in WEIGHTS)]
    check(
        len(kinds) != 1
        and f"found {' and '.join(kinds) or 'nothing to score'}; expected one of --real (with --generated or "
        "--columns), --list, --clips; see --help",
        args.clips is not None
        and not args.base
        and "found --clips without --base; say which stage-1 weights generate, e.g. --base "
        "checkpoints/base_light.safetensors",
        args.real is not None
        and not (args.generated or args.columns or args.base)
        and "found --real alone; expected --generated PATH, --columns or --base CKPT beside it",
        args.columns is not None
        and args.real is None
        and "found --columns without --real; it names the rectangles of a side-by-side file, --real FILE",
        (bool(args.generated) or args.audio is not None)
        and (args.real is None or args.columns is not None)
        and "found --generated or --audio; they go with --real, and not with --columns, which names all there is",
        args.from_s < 0 and f"found --from {args.from_s:g}, expected 0 or more seconds",
        args.hr is not None and not args.base and "found --hr without --base; give both, or neither",
        args.keep is not None and not args.base and "found --keep without --base; it keeps what those weights generate",
        args.keep is not None
        and any(
            root is not None and args.keep.resolve().is_relative_to(root.resolve()) for root in (args.clips, args.real)
        )
        and f"found --keep {args.keep} in the folder of the real videos, expected another: there they would be taken "
        "for real ones the next time",
        *(f"found no file {path}; check the path" for path in weights if path and not Path(path).is_file()),
    )


def make_folders(args: argparse.Namespace) -> None:
    """Where the results go. Raises InputError, before anything is scored, where nothing can be written."""
    for folder in (args.json and args.json.parent, args.csv and args.csv.parent, args.report, args.keep):
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                if not os.access(folder, os.W_OK):
                    raise PermissionError(errno.EACCES, "nothing can be written in it")
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}; choose another place for the results") from error
    if folders := [path for path in (args.json, args.csv) if path is not None and path.is_dir()]:
        raise InputError(f"{folders[0]} is a folder; expected the name of a file for the results")


def plan(args: argparse.Namespace, config: EvaluateConfig) -> tuple[list["Job"], list[str]]:
    """What is compared, and what is missing. Raises InputError where nothing matches."""
    from metrics.jobs import Job, columns, job_name, listed, matched, numbered
    from metrics.pairs import View
    from preprocess.sources import Persons, Source, offset_of, read_offsets

    offsets, persons = read_offsets(args.offsets), Persons(config.person)
    missing: list[str] = []
    if args.list is not None:
        jobs = listed(args.list)
    elif args.columns is not None:
        jobs = [columns(path, args.columns) for path in _videos(args.real)]
    elif args.clips is not None:
        jobs = [Job(job_name(path, args.clips), View(path), {}) for path in _videos(args.clips)]
    else:
        jobs, missing = matched(_videos(args.real), args.real, args.generated, args.audio, must=not args.base)
    root = args.real or args.clips
    finished = []
    for job in numbered(jobs):
        path = job.real.path
        folder = root if root is not None and root.is_dir() else path.parent
        source = Source.below(path, folder)
        offset = offset_of(source, offsets)
        finished.append(
            replace(job, person=persons(source), offset_s=None if offset is None else float(offset), from_s=args.from_s)
        )
    return finished, missing


def _videos(path: Path) -> list[Path]:
    from preprocess.sources import find_sources

    if path.is_dir():
        return [source.path for source in find_sources([path])]
    if not path.is_file():
        raise InputError(f"found no file or folder {path}; expected a video or a folder of videos; check the path")
    return [path]


def tell(outcome: "Outcome", args: argparse.Namespace) -> bool:
    """Table on the terminal, notes on stderr, files where asked for; whether all of these could be written."""
    from metrics.report import write_report
    from metrics.table import markdown, markdown_clips, write_csv, write_json

    notes = [f"{result.job.name}: {note}" for result in outcome.results for note in result.notes]
    for note in (*outcome.notes, *notes):
        print(f"note: {note}", file=sys.stderr)
    for problem in outcome.skipped:
        print(f"skipped: {problem}", file=sys.stderr)
    print(markdown(outcome.summary), markdown_clips(outcome.results), sep="\n\n")
    whole = True
    for path, write in ((args.json, write_json), (args.csv, write_csv), (args.report, write_report)):
        if path is None:
            continue
        try:
            write(path, outcome)
        except OSError as error:  # the others are written all the same
            print(f"error: {path} could not be written ({error.strerror}); free space or give another", file=sys.stderr)
            whole = False
        else:
            print(f"written: {path}", file=sys.stderr)
    return whole


def main() -> None:
    args = parse_arguments()
    config = configure(args)
    check_arguments(args)
    jobs, missing = plan(args, config)
    make_folders(args)
    # These import torch, which mistakes in the arguments need not wait for.
    from engine.evaluate import Speaker, evaluate
    from metrics.select import make_scorers
    from metrics.table import Outcome

    scorers, notes = make_scorers({name: getattr(args, f"{name}_weights") for name in WEIGHTS}, config.perceptual_step)
    with temporary_folder() as temporary:
        speaker = None
        if args.base:
            speaker = Speaker(config.inference, args.keep or Path(temporary), extras=args.clips is not None)
        results, skipped = evaluate(jobs, scorers, config.inference.crf, speaker)
        outcome = Outcome(results, notes, [*missing, *skipped], asdict(config))
        whole = tell(outcome, args)
    if outcome.skipped or not whole:
        sys.exit(1)


if __name__ == "__main__":
    run_cli(main)
