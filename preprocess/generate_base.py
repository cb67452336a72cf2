"""Stage-1 faces and their landmarks for every clip: the inputs of stage 2.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA

Each clip is painted from references of its own, the most closed mouth first. Restartable; clips that other weights
painted are painted again.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from datasets.archive import write_archive
from datasets.clips import Clip, load_clips
from engine.loop import pick_device
from engine.prepared import file_digest
from engine.stages import paint_clip
from errors import InputError, run_cli
from face.landmark_net import MIN_PRESENCE, LandmarkNet
from models.checkpoint import load_network
from models.config import BASE_SIZE
from models.hyperlips import HyperLipsBase
from preprocess.shard import add_shard_argument, shard

DONE = "base_track.npz"
"""Written last: a clip that has it has both."""


def generate_clip(clip: Clip, network: HyperLipsBase, painter: str, landmarks: LandmarkNet) -> None:
    """Write base.zip and then base_track.npz of one clip; `painter` tells by what it was painted."""
    base = paint_clip(network, clip, clip.faces(range(clip.info.frames), size=BASE_SIZE), network.feed.motion_gain)
    points, presence = landmarks.landmarks(base)
    (clip.folder / DONE).unlink(missing_ok=True)
    write_archive(clip.folder / "base.zip", base)
    aside = clip.folder / "base_track.part.npz"
    np.savez(aside, landmarks=points.astype(np.float32), visible=presence > MIN_PRESENCE, painter=painter)
    os.replace(aside, clip.folder / DONE)


def painter_of(checkpoint: Path, network: HyperLipsBase) -> str:
    """What tells stage-1 faces apart: the digest of the weights, and how far lips were moved."""
    return f"{file_digest(checkpoint)} gain {network.feed.motion_gain:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, metavar="C", help="stage-1 weights")
    parser.add_argument("--data", required=True, type=Path, metavar="DATA")
    parser.add_argument("--splits", nargs="+", default=["train", "val"])
    parser.add_argument(
        "--min-face-px", type=float, default=0.0, help="only clips whose faces are this wide in the source"
    )
    add_shard_argument(parser, "clips")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--again", action="store_true", help="also clips that these weights have painted already")
    args = parser.parse_args()
    network = load_network(args.checkpoint, pick_device(args.device), HyperLipsBase)
    if network.feed.crop != "template":
        raise InputError(
            f"{args.checkpoint} wants faces cut as {network.feed.crop}; the data set's are registered ones"
        )
    landmarks = LandmarkNet()
    clips = shard(
        [clip for split in args.splits for clip in load_clips(args.data, split, args.min_face_px)], args.shard
    )
    painter = painter_of(Path(args.checkpoint), network)
    todo = [clip for clip in clips if args.again or clip.painted_by != painter]
    for clip in tqdm(todo, unit="clip", desc="stage 1"):
        generate_clip(clip, network, painter, landmarks)
    print(f"{len(todo)} clips painted, {len(clips) - len(todo)} were there already")


if __name__ == "__main__":
    run_cli(main)
