"""Stage-1 faces and their landmarks for every clip: the inputs of stage 2.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA

Each clip is painted from references of its own, the most closed mouth first. Restartable; clips that other weights
painted are painted again.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from datasets.clips import clips_of
from errors import run_cli
from preprocess.shard import add_shard_argument, shard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="C", help="stage-1 weights")
    parser.add_argument("--data", required=True, type=Path, metavar="DATA")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], help="those that are there are painted")
    parser.add_argument(
        "--min-face-px", type=float, default=0.0, help="only clips whose faces are this wide in the source"
    )
    add_shard_argument(parser, "clips")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--again", action="store_true", help="also clips that these weights have painted already")
    args = parser.parse_args()
    clips = shard(clips_of(args.data, args.splits, args.min_face_px), args.shard)
    # These import torch, which mistakes in the arguments need not wait for.
    from face.landmark_net import LandmarkNet
    from preprocess.base_faces import generate_clip, load_painter, painter_of

    network = load_painter(args.checkpoint, args.device)
    landmarks = LandmarkNet(next(network.parameters()).device)
    painter = painter_of(args.checkpoint, network)
    todo = [clip for clip in clips if args.again or clip.painted_by != painter]
    for clip in tqdm(todo, unit="clip", desc="stage 1"):
        generate_clip(clip, network, painter, landmarks)
    print(f"{len(todo)} clips painted, {len(clips) - len(todo)} were there already")


if __name__ == "__main__":
    run_cli(main)
