"""The chain at 1280x720 on this machine: frames/s end to end and CPU-ms a frame by stage, beside decoding, tracking and
encoding alone, and beside the usual pipeline on the same frames.

    python -m benchmarks.chain [--seconds 10] [--usual-frames 4] [--base-only] [--runtime torch] [--training]

Every row is a process of its own, in which weights are loaded, and precision measured, before the clock starts. CPU-ms
are those of all threads; frames/s need a machine with nothing beside.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aside import temporary_folder
from benchmarks.fresh import fresh
from benchmarks.memory import FPS, film, peak_mib
from engine.options import InferenceConfig
from errors import InputError, run_cli

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline import LipSync

_STAGE_FRAMES = 100
"""Held in memory, so that decoding, tracking and encoding are told apart."""


@dataclass(frozen=True)
class Row:
    """What one way to make a video took: frames, s on the clock and of CPUs, and the peak of its process in MiB."""

    frames: int
    seconds: float
    cpu: float
    peak: float

    def cells(self, alone: "Row") -> list[str]:
        """Of a row of the table; `alone`: what the last column is a ratio to, in s a frame."""
        ratio = self.seconds / self.frames / (alone.seconds / alone.frames)
        return [
            f"{self.frames}",
            f"{self.frames / self.seconds:.2f}",
            f"{1000 * self.cpu / self.frames:.1f}",
            f"{self.peak:.0f}",
            f"{ratio:.2f}",
        ]


def _timed(work: Callable[[], int]) -> Row:
    start, spent = time.perf_counter(), _cpu_seconds()
    frames = work()
    return Row(frames, time.perf_counter() - start, _cpu_seconds() - spent, peak_mib())


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _loaded(config: InferenceConfig) -> "LipSync":
    from engine.pipeline import LipSync

    engine = LipSync(config)
    _ = engine.precision  # measured and kept
    return engine


def networks(config: InferenceConfig) -> str:
    """What paints."""
    return "; ".join(f"stage {number}: {one}" for number, one in enumerate(_loaded(config).precision, 1))


def _noise(seconds: int) -> "np.ndarray":
    import numpy as np

    from media.audio import SAMPLE_RATE

    return 0.1 * np.random.default_rng(0).standard_normal(seconds * SAMPLE_RATE, np.float32)


def new_face(video: Path, output: Path, seconds: int, config: InferenceConfig) -> Row:
    """Tracked and painted."""
    from engine.pipeline import lip_sync

    engine = _loaded(config)
    return _timed(lambda: lip_sync(video, _noise(seconds), output, engine=engine).frames)


def prepared_face(video: Path, output: Path, seconds: int, config: InferenceConfig) -> Row:
    """Tracked before the clock starts."""
    from engine.pipeline import lip_sync

    engine = _loaded(config)
    face = engine.prepare(video)
    return _timed(lambda: lip_sync(face, _noise(seconds), output, engine=engine).frames)


def decode_track_encode(video: Path, output: Path) -> Row:
    """What any pipeline on a video has to do, with this one's reader, tracker and writer."""
    from face.detect import make_detector
    from face.follow import follow
    from media.video import VideoReader, VideoWriter

    detector = make_detector("mediapipe")

    def work() -> int:
        reader = VideoReader(video)
        with VideoWriter(output, reader.size, reader.fps, reader.colour) as writer:

            def written():
                for frame in reader:
                    writer.write(frame, frame.time)
                    yield frame

            return len(follow(written(), detector)[0].times)

    return _timed(work)


def usual(video: Path, output: Path, frames: int) -> Row:
    """See benchmarks.usual."""
    from benchmarks.usual import usual_pipeline

    return _timed(lambda: usual_pipeline(video, output, frames))


def by_stage(video: Path, output: Path, seconds: int, config: InferenceConfig) -> dict[str, float]:
    """CPU-ms a frame of every stage, one thread each."""
    from engine.pipeline import lip_sync
    from engine.threads import use_one_core
    from face.detect import make_detector
    from face.follow import follow
    from media.video import VideoReader, VideoWriter

    use_one_core()
    engine = _loaded(config)
    frames, decode = _spent(lambda: list(islice(VideoReader(video), _STAGE_FRAMES)))
    stages = {"decode (a new face: three times)": decode / len(frames)}
    stages["track"] = _spent(lambda: follow(frames, make_detector("mediapipe")))[1] / len(frames)

    def encode() -> None:
        with VideoWriter(output, frames[0].size, FPS, frames[0].colour) as writer:
            for frame in frames:
                writer.write(frame, frame.time)

    stages["encode"] = _spent(encode)[1] / len(frames)
    report = lip_sync(engine.prepare(video), _noise(seconds), output, engine=engine)
    inner = ("sound", "crop", "base", "landmarks", "hr", "paste")
    return stages | {name: 1000 * report.cpu[name] / report.frames for name in inner if name in report.cpu}


def _spent(work: Callable) -> tuple:
    """What `work` gives, and the CPU-ms it took."""
    start = _cpu_seconds()
    return work(), 1000 * (_cpu_seconds() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10, help="of the video")
    parser.add_argument(
        "--usual-frames", type=int, default=4, help="how many the usual pipeline paints; 0: leave it out"
    )
    parser.add_argument("--base-only", action="store_true", help="without stage 2")
    parser.add_argument("--runtime", choices=("auto", "torch", "openvino"), default="auto", help="of the networks")
    parser.add_argument("--training", action="store_true", help="also the presets' frames/s in training")
    args = parser.parse_args()
    if args.seconds < 1 or args.usual_frames < 0:
        raise InputError(f"--seconds {args.seconds} --usual-frames {args.usual_frames}: expected 1, and 0, or more")
    config = InferenceConfig(runtime=args.runtime)
    config.hr = None if args.base_only else config.hr
    with temporary_folder() as folder:
        video, output = film(Path(folder) / "film.mp4", args.seconds), Path(folder) / "out.mp4"
        given = video, output, args.seconds, config
        print(fresh(networks, config) + "\n")
        alone = fresh(decode_track_encode, video, output)
        print("| 1280x720 | frames | frames/s | CPU-ms a frame | peak, MiB | s a frame, ratio |")
        print("|---|---|---|---|---|---|")
        _print("decode + track + encode", alone.cells(alone))
        _print("a new face", fresh(new_face, *given).cells(alone))
        _print("a prepared face", fresh(prepared_face, *given).cells(alone))
        if args.usual_frames:
            _print("the usual pipeline", fresh(usual, video, output, args.usual_frames).cells(alone))
        print("\n| stage, one thread each | CPU-ms a frame |\n|---|---|")
        for name, spent in fresh(by_stage, *given).items():
            _print(name, [f"{spent:.1f}"])
    if args.training:
        from benchmarks.presets import print_presets

        print_presets(rounds=3)


def _print(name: str, cells: list[str]) -> None:
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run_cli(main)
