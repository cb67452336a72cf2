"""Cut a stretch, and maybe a rectangle, out of a video: material to adapt the weights to one person.

python -m scripts.cut_video --video V.mp4 --seconds 0 6 --output me.mp4 [--rect X Y W H]
"""

import argparse
from fractions import Fraction
from itertools import islice
from pathlib import Path

from errors import InputError, exact, run_cli
from media.audio import SAMPLE_RATE, read_audio
from media.video import CUT_CRF, VideoReader, VideoWriter, check_no_source


def cut(video: Path, output: Path, start: Fraction, end: Fraction, rect: tuple[int, int, int, int] | None) -> int:
    """Write the frames that begin from `start` to before `end` s, cut to rect (x, y, w, h) px, with the sound from the
    first of them on; returns how many.

    Raises InputError where there are none, or the rectangle leaves the picture.
    """
    reader = VideoReader(video, max_size=None)
    x, y, w, h = rect or (0, 0, *reader.size)
    if min(x, y) < 0 or min(w, h) < 16 or x + w > reader.size[0] or y + h > reader.size[1]:
        raise InputError(
            f"--rect {x} {y} {w} {h} leaves the {reader.size[0]}x{reader.size[1]} picture of {video}, "
            "or is smaller than 16 px"
        )
    check_no_source(output, video)
    times = reader.times
    chosen = [index for index, time in enumerate(times) if 0 <= start <= time < end]
    begin = times[chosen[0]] if chosen else start
    sound = read_audio(video)[int(begin * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
    if not chosen or not len(sound):
        raise InputError(
            f"{video} has no {'sound' if chosen else 'picture'} from {float(start):g} to {float(end):g} s; "
            f"it ends at {float(times[-1]):.2f} s"
        )
    with VideoWriter(output, (w, h), reader.fps, reader.colour, audio=(sound, SAMPLE_RATE), crf=CUT_CRF) as writer:
        for frame in islice(reader, chosen[0], chosen[-1] + 1):
            writer.write(frame if rect is None else frame.rgb((x, y, x + w, y + h)), times[frame.index] - begin)
    return writer.frames_written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, metavar="V", help="the video")
    parser.add_argument("--output", type=Path, required=True, metavar="O", help="the part of it")
    parser.add_argument("--seconds", type=exact, nargs=2, required=True, metavar=("FROM", "TO"), help="when")
    parser.add_argument("--rect", type=int, nargs=4, metavar=("X", "Y", "W", "H"), help="px: where (default: all)")
    args = parser.parse_args()
    start, end = args.seconds
    print(f"{args.output}: {cut(args.video, args.output, start, end, args.rect)} frames")


if __name__ == "__main__":
    run_cli(main)
