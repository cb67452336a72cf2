"""README's picture: frames of the demo's source above what it was made to say.

python inference.py && python -m scripts.demo_picture
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from errors import run_cli
from media.picture import write_picture
from media.video import VideoReader

ROOT = Path(__file__).resolve().parent.parent


def strip(video: Path, count: int, rect: tuple[int, int, int, int], height: int) -> np.ndarray:
    """`count` frames spread over the video, each cut to rect (x, y, w, h) and `height` px high, side by side, RGB."""
    x, y, w, h = rect
    frames = [frame.rgb()[y : y + h, x : x + w] for frame in VideoReader(video)]
    chosen = np.linspace(0, len(frames) - 1, count + 2).round().astype(int)[1:-1]
    size = round(height * w / h), height
    return np.concatenate([cv2.resize(frames[k], size, interpolation=cv2.INTER_AREA) for k in chosen], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT / "assets" / "grid_s1_demo.mp4")
    parser.add_argument("--result", type=Path, default=ROOT / "results" / "demo.mp4")
    parser.add_argument("--output", type=Path, default=ROOT / "assets" / "demo.jpg")
    parser.add_argument("--rect", type=int, nargs=4, default=(95, 70, 170, 190), metavar=("X", "Y", "W", "H"))
    parser.add_argument("--frames", type=int, default=9)
    args = parser.parse_args()
    rows = [strip(video, args.frames, args.rect, 150) for video in (args.source, args.result)]
    width = min(row.shape[1] for row in rows)
    picture = np.concatenate([row[:, :width] for row in rows])
    write_picture(args.output, picture)
    print(args.output)


if __name__ == "__main__":
    run_cli(main)
