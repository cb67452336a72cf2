"""Stage-1 faces and their landmarks for every clip: the inputs of stage 2.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA

Each clip is painted from references of its own, the most closed mouth first. Restartable; clips that other weights
painted are painted again. Those that cannot be read are named and left out.
"""

import argparse
from pathlib import Path

from datasets.clips import Clip, clips_of
from datasets.damage import readable
from errors import number, run_cli
from preprocess.shard import add_shard_argument, shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="C", help="stage-1 weights")
    parser.add_argument("--data", required=True, type=Path, metavar="DATA", help="the data set")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], help="those that are there are painted")
    parser.add_argument(
        "--min-face-px", type=number, default=0.0, help="only clips whose faces are this wide in the source"
    )
    add_shard_argument(parser, "clips")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--again", action="store_true", help="also clips that these weights have painted already")
    args = parser.parse_args()
    share = shard(clips_of(args.data, args.splits, args.min_face_px), args.shard)
    clips = readable(share, Clip.check, args.data)
    # Imports torch, which mistakes in the arguments need not wait for.
    from preprocess.base_faces import paint_clips

    paint_clips(clips, args.data, args.checkpoint, args.device, args.again)


if __name__ == "__main__":
    run_cli(main)
