"""Peak memory of the chain at 1280x720 against the length of what it is given: forwards, and forwards and backwards.

    python -m benchmarks.memory [--seconds 6] [--times 10] [--base-only]

Every row is a process of its own, which tracks a face, paints it and writes the video.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from errors import InputError, run_cli

SIZE = 1280, 720
FPS = Fraction(25)
FACE = Path(__file__).resolve().parent.parent / "assets" / "grid_s1_demo.mp4"


def film(path: Path, seconds: int) -> Path:
    """The demo's frames at SIZE, there and back for so long."""
    import cv2

    from media.video import VideoReader, VideoWriter

    pictures = [cv2.resize(frame.rgb(), SIZE) for frame in VideoReader(FACE)][: int(FPS)]
    with VideoWriter(path, SIZE, FPS, preset="ultrafast") as writer:
        for index in _turns(len(pictures), seconds * int(FPS)):
            writer.write(pictures[index])
    return path


def _turns(length: int, frames: int) -> Iterator[int]:
    """0 to length - 1 and back, over and over."""
    for number in range(frames):
        place = number % (2 * length - 2)
        yield min(place, 2 * length - 2 - place)


def peak_mib() -> float:
    """The most memory that this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))


def measure(video: Path, seconds: int, output: Path, base_only: bool) -> tuple[int, float]:
    """Frames made, and peak_mib, of a sound of so long; to be called in a fresh process."""
    import numpy as np

    from engine.options import InferenceConfig
    from engine.pipeline import lip_sync
    from media.audio import SAMPLE_RATE

    config = InferenceConfig()
    config.hr = None if base_only else config.hr
    wave = 0.1 * np.random.default_rng(0).standard_normal(seconds * SAMPLE_RATE, np.float32)
    return lip_sync(video, wave, output, config).frames, peak_mib()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=6, help="of the shorter one")
    parser.add_argument("--times", type=int, default=10, help="the longer one is so many times as long")
    parser.add_argument("--base-only", action="store_true", help="without stage 2")
    args = parser.parse_args()
    if min(args.seconds, args.times) < 1:
        raise InputError(f"--seconds {args.seconds} --times {args.times}: expected 1 or more each")
    short, long = args.seconds, args.seconds * args.times
    number = count()
    print("| video, s | sound, s | frames | peak, MiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        films = {seconds: film(Path(folder) / f"{seconds}.mp4", seconds) for seconds in (short, long)}
        for video, sound in ((short, short), (long, long), (short, 2 * short), (short, 2 * long)):
            output = Path(folder) / f"out_{next(number)}.mp4"
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                frames, peak = fresh.submit(measure, films[video], sound, output, args.base_only).result()
            print(f"| {video} | {sound} | {frames} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    run_cli(main)
