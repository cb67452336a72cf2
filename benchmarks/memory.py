"""Peak memory of the shipped chain at 1280x720 against the length of what it is given: forwards, and forwards and
backwards.

    python -m benchmarks.memory [--minutes 1 60] [--fps 5] [--base-only]

Every row is a process of its own, which tracks a face, paints it and writes the video.
"""

import argparse
import resource
import sys
from fractions import Fraction
from pathlib import Path

from aside import temporary_folder
from benchmarks.fresh import fresh
from errors import InputError, exact, run_cli

SIZE = 1280, 720
FPS = Fraction(25)
FACE = Path(__file__).resolve().parent.parent / "assets" / "grid_s1_demo.mp4"


def film(path: Path, seconds: int, fps: Fraction = FPS) -> Path:
    """The demo's frames at SIZE, there and back for so long."""
    import cv2

    from engine.timeline import source_frame
    from media.video import VideoReader, VideoWriter

    pictures = [cv2.resize(frame.rgb(), SIZE) for frame in VideoReader(FACE)][: int(FPS)]
    with VideoWriter(path, SIZE, fps, preset="ultrafast") as writer:
        for number in range(int(seconds * fps)):
            writer.write(pictures[source_frame(number, len(pictures))])
    return path


def peak_mib() -> float:
    """The most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def sound(path: Path, seconds: int) -> Path:
    """Noise for so long."""
    import numpy as np

    from media.audio import SAMPLE_RATE, write_flac

    write_flac(path, 0.1 * np.random.default_rng(0).standard_normal(seconds * SAMPLE_RATE, np.float32))
    return path


def measure(video: Path, heard: Path, output: Path, base_only: bool) -> tuple[int, float]:
    """Frames made, and peak_mib, of a face that speaks a sound; to be called in a fresh process."""
    from engine.options import InferenceConfig
    from engine.pipeline import lip_sync

    config = InferenceConfig()
    config.hr = None if base_only else config.hr
    return lip_sync(video, heard, output, config).frames, peak_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[0.1, 1.0], metavar="M", help="lengths, the first to compare with"
    )
    parser.add_argument(
        "--fps", type=exact, default=FPS, metavar="F", help="frames a second; few make an hour short to wait for"
    )
    parser.add_argument("--base-only", action="store_true", help="without stage 2")
    args = parser.parse_args()
    lengths = [round(60 * minutes) for minutes in args.minutes]
    if min(lengths) < 2:
        raise InputError(f"--minutes {min(args.minutes):g}: expected 0.04, 2 s, or more")
    if args.fps < 1:
        raise InputError(f"--fps {args.fps}: expected 1 or more")
    print("| picture, min | sound, min | way | frames | peak, MiB | of the first |\n|---|---|---|---|---|---|")
    with temporary_folder() as place:
        folder = Path(place)
        short = film(folder / "short.mp4", lengths[0] // 2, args.fps)
        for way in ("forwards", "forwards and backwards"):
            first = None
            for seconds in lengths:
                turned = way != "forwards"
                video = short if turned else film(folder / "video.mp4", seconds, args.fps)
                heard = sound(folder / "sound.flac", seconds)
                frames, peak = fresh(measure, video, heard, folder / "out.mp4", args.base_only)
                first = first or peak
                shown = lengths[0] // 2 if turned else seconds
                print(
                    f"| {shown / 60:.2f} | {seconds / 60:.2f} | {way} | {frames} | {peak:.0f} | {peak / first:.0%} |",
                    flush=True,
                )


if __name__ == "__main__":
    run_cli(main)
