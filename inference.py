"""Make the face in a video or picture speak new audio.

    python inference.py                                                  the built-in demo -> results/demo.mp4
    python inference.py --face VIDEO --audio SOUND --output OUT.mp4
    python inference.py --face VIDEO --prepare ME.face                   track once ...
    python inference.py --face ME.face --audio SOUND --output OUT.mp4    ... speak any number of sounds
    python inference.py --face DIR --audio DIR --output DIR              all pairs of the same name; one may be a file
    python inference.py --person runs/me --audio SOUND --output OUT.mp4  somebody whom adapt.py knows

The work is engine.pipeline.lip_sync; this is its command line.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aside import begin, temporary_folder
from engine.bar import bar
from engine.config import add_config_arguments, load_config
from engine.options import PREPARED, InferenceConfig, is_prepared
from engine.person import Person
from errors import InputError, run_cli
from media.size import parse_size
from media.source import check_there

if TYPE_CHECKING:
    from engine.report import Report

ROOT = Path(__file__).resolve().parent
DEMO_FACE = ROOT / "assets" / "grid_s1_demo.mp4"
DEMO_AUDIO = ROOT / "assets" / "grid_s1_demo.m4a"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--face", metavar="VIDEO_OR_IMAGE", help=f"who speaks; a prepared face (*{PREPARED}); or a folder"
    )
    parser.add_argument("--audio", metavar="AUDIO_OR_VIDEO", help="what is said; or a folder")
    parser.add_argument("--output", metavar="OUT.mp4", help="default results/demo.mp4 for the demo")
    parser.add_argument("--prepare", metavar=f"ME{PREPARED}", help="track the face, keep that, and paint nothing")
    parser.add_argument(
        "--person",
        type=Path,
        metavar="DIR",
        help="what adapt.py made: its weights, and its face unless --face is given",
    )
    parser.add_argument("--base", metavar="CKPT", help="stage-1 weights (default: the shipped ones)")
    stage2 = parser.add_mutually_exclusive_group()
    stage2.add_argument("--hr", metavar="CKPT", help="stage-2 weights (default: the shipped ones)")
    stage2.add_argument("--base-only", action="store_true", help="paste the 128 px face of stage 1")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--face-index", type=int, metavar="K", help="0 the largest face, 1 the next, ...")
    parser.add_argument(
        "--audio-track", type=int, metavar="K", help="which sound track, from 0 (default: the first that is not silent)"
    )
    parser.add_argument(
        "--max-size", metavar="WxH", help="larger pictures are scaled down (default 4096x2304), or none"
    )
    parser.add_argument("--lossless", action="store_true", help="keep every pixel bit by bit; large files")
    parser.add_argument("--watermark", action="store_true", help="draw a small visible mark into every frame")
    add_config_arguments(parser, InferenceConfig)
    parser.add_argument(
        "--demo", choices=("video", "still"), help="the built-in clip, or a portrait (astronaut Eileen Collins)"
    )
    return parser.parse_args()


def take_person(args: argparse.Namespace) -> None:
    """`--person` stands for the weights of its folder, and for its face where no other is given.

    Raises InputError where it does not go with the other options, or is no such folder.
    """
    if args.person is None:
        return
    if args.base or args.hr or args.base_only or args.demo:
        raise InputError("--person brings its own weights; leave out --base, --hr, --base-only and --demo")
    person = Person(args.person)
    person.check()
    args.base, args.hr, args.face = str(person.base), str(person.hr), args.face or str(person.face)


def check_arguments(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together, and for files that are not there."""
    if args.prepare is not None:
        if args.face is None or is_prepared(args.face) or args.audio is not None or args.output is not None:
            raise InputError("--prepare takes a video by --face, no prepared one, and neither --audio nor --output")
        if not is_prepared(args.prepare):
            raise InputError(f"--prepare {args.prepare}: expected a name that ends in {PREPARED}")
    elif (args.face is None) != (args.audio is None):
        raise InputError(
            f"found --{'audio' if args.audio else 'person' if args.person else 'face'} alone; give both --face (or "
            "--person) and --audio, or neither for the demo"
        )
    elif args.face is not None and args.output is None:
        raise InputError("--output is missing: say where the video goes, e.g. --output results/out.mp4")
    if args.face is not None and args.demo is not None:
        raise InputError("found --demo beside --face; the demo has a face of its own, leave one out")
    for source in (args.face, args.audio):
        if source is not None:
            check_there(Path(source))


def configure(args: argparse.Namespace) -> InferenceConfig:
    config = load_config(InferenceConfig, args.config, args.set)
    config.base = args.base or config.base
    config.hr = None if args.base_only else args.hr or config.hr
    config.device = args.device or config.device
    if args.face_index is not None:
        config.face.index = args.face_index
    config.audio.track = config.audio.track if args.audio_track is None else args.audio_track
    if args.max_size is not None:
        parse_size(args.max_size)
        config.max_size = args.max_size
    config.lossless |= args.lossless
    config.watermark |= args.watermark
    return config


def demo_still(folder: Path) -> Path:
    """The public-domain portrait inside scikit-image as a picture file."""
    from skimage import data

    from media.picture import write_picture

    path = folder / "astronaut.png"
    write_picture(path, data.astronaut())
    return path


def speak_folders(args: argparse.Namespace, config: InferenceConfig) -> int:
    """All pairs of files; prints a line as each is done, at the end the table, and returns the exit code: 1 where some
    failed.
    """
    from engine.folders import plan, speak, table

    pairs, outcomes = plan(Path(args.face), Path(args.audio), Path(args.output)), []
    try:
        for outcome in speak(pairs, config, bar):
            outcomes.append(outcome)
            print(f"{len(outcomes)}/{len(pairs)} {outcome.pair.output}: {outcome}", flush=True)
            if outcome.report is not None:
                tell(outcome.report)
    finally:  # of what was done before a signal, too
        if outcomes:
            print(f"\n{table(outcomes)}")
    return 1 if any(outcome.state == "failed" for outcome in outcomes) else 0


def tell(report: "Report") -> None:
    """Print what the user should know of a video that was made."""
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for start, end in report.passed:
        missing = f"no face, or no mouth in the picture, from {start:.2f} s to {end:.2f} s of the source"
        print(f"note: {missing}; shown as it was", file=sys.stderr)


def main() -> None:
    args = parse_arguments()
    take_person(args)
    check_arguments(args)
    config = configure(args)
    if args.prepare is not None:
        begin(Path(args.prepare)).unlink()  # before tracking: what cannot be written is told at once
    # These import torch, which mistakes in the arguments need not wait for.
    from engine.pipeline import LipSync, lip_sync
    from engine.prepared import PreparedFace

    if args.prepare is not None:
        LipSync(config).prepare(args.face, bar).save(args.prepare)
        print(f"{args.prepare}: ready for --face")
        return
    if args.face is not None and (Path(args.face).is_dir() or Path(args.audio).is_dir()):
        sys.exit(speak_folders(args, config))
    face, audio = args.face or DEMO_FACE, args.audio or DEMO_AUDIO
    output = Path(args.output or ROOT / "results" / "demo.mp4")
    with contextlib.ExitStack() as stack:
        if args.demo == "still":
            face = demo_still(Path(stack.enter_context(temporary_folder())))
        if is_prepared(face):
            face = PreparedFace.load(face)
        report = lip_sync(face, audio, output, config, watch=bar)
    tell(report)
    print(f"{output}: {report}")


if __name__ == "__main__":
    run_cli(main)
