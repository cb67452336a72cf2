"""Make the face in a video or picture speak new audio.

    python inference.py                                                  the built-in demo -> results/demo.mp4
    python inference.py --face VIDEO --audio SOUND --output OUT.mp4

The work is engine.pipeline.lip_sync; this is its command line.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from engine.config import add_config_arguments, load_config
from engine.pipeline import InferenceConfig, lip_sync
from errors import InputError, run_cli

ROOT = Path(__file__).resolve().parent
DEMO_FACE = ROOT / "assets" / "grid_s1_demo.mp4"
DEMO_AUDIO = ROOT / "assets" / "grid_s1_demo.m4a"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face", metavar="VIDEO_OR_IMAGE", help="who speaks")
    parser.add_argument("--audio", metavar="AUDIO_OR_VIDEO", help="what is said")
    parser.add_argument("--output", metavar="OUT.mp4", help="default results/demo.mp4 for the demo")
    parser.add_argument("--base", metavar="CKPT", help="stage-1 weights (default: the shipped ones)")
    stage2 = parser.add_mutually_exclusive_group()
    stage2.add_argument("--hr", metavar="CKPT", help="stage-2 weights (default: the shipped ones)")
    stage2.add_argument("--base-only", action="store_true", help="paste the 128 px face of stage 1")
    parser.add_argument("--device", help="auto, cpu or cuda")
    parser.add_argument("--face-index", type=int, metavar="K", help="0 the largest face, 1 the next, ...")
    add_config_arguments(parser, ROOT / "configs" / "inference.yaml")
    parser.add_argument(
        "--demo", choices=("video", "still"), help="the built-in clip, or a portrait (astronaut Eileen Collins)"
    )
    return parser.parse_args()


def configure(args: argparse.Namespace) -> InferenceConfig:
    config = load_config(InferenceConfig, args.config, args.set)
    config.base = args.base or config.base
    config.hr = None if args.base_only else args.hr or config.hr
    config.device = args.device or config.device
    if args.face_index is not None:
        config.face.index = args.face_index
    return config


def demo_still(folder: Path) -> Path:
    """The public-domain portrait inside scikit-image as a picture file."""
    import cv2
    from skimage import data

    path = folder / "astronaut.png"
    if not cv2.imwrite(str(path), cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)):
        raise InputError(f"found no space for a picture in {folder}; free some or set TMPDIR to another folder")
    return path


def temporary_folder() -> tempfile.TemporaryDirectory:
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        raise InputError(
            f"found no folder for temporary files ({error.strerror}); set TMPDIR to one that can be written"
        ) from error


def main() -> None:
    args = parse_arguments()
    config = configure(args)
    if (args.face is None) != (args.audio is None):
        raise InputError(
            f"found --{'face' if args.face else 'audio'} alone; give both --face and --audio, or neither for the demo"
        )
    if args.face is not None and args.demo is not None:
        raise InputError("found --demo beside --face; the demo has a face of its own, leave one out")
    sources = [Path(source).resolve() for source in (args.face, args.audio) if source is not None]
    if args.output is not None and Path(args.output).resolve() in sources:
        raise InputError(f"--output {args.output} is a source itself; choose another name")
    if args.face is not None and args.output is None:
        raise InputError("--output is missing: say where the video goes, e.g. --output results/out.mp4")
    face, audio = args.face or DEMO_FACE, args.audio or DEMO_AUDIO
    output = Path(args.output or ROOT / "results" / "demo.mp4")
    if args.demo == "still":
        with temporary_folder() as folder:
            report = lip_sync(demo_still(Path(folder)), audio, output, config)
    else:
        report = lip_sync(face, audio, output, config)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for start, end in report.passed:
        print(f"note: no face from {start:.2f} s to {end:.2f} s of the source; shown as it was", file=sys.stderr)
    print(f"{output}: {report}")


def stop(number: int, _: FrameType | None) -> None:
    """End on a signal as on an error, so that no half-written file is left; a second one does not disturb that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    run_cli(main)
