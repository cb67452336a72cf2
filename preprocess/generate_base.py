"""Stage-1 faces and their landmarks for every clip: the inputs of stage 2.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA

Each clip is painted from references of its own, the most closed mouth first. Restartable; clips that other weights
painted are painted again.
"""

import argparse
import hashlib
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.archive import write_archive
from datasets.clips import FPS, Clip, load_clips
from engine.loop import pick_device
from engine.validate import clip_references, generate
from errors import run_cli
from face.landmark_net import LandmarkNet
from media.audio import audio_windows
from models.checkpoint import load_network
from models.hyperlips import HyperLipsBase
from preprocess.shard import add_shard_argument, shard

DONE = "base_track.npz"
"""Written last: a clip that has it has both."""


def generate_clip(
    clip: Clip, network: HyperLipsBase, weights: str, landmarks: LandmarkNet, device: torch.device
) -> None:
    """Write base.zip and then base_track.npz of one clip; `weights` is the digest that tells by which ones it was
    painted.
    """
    config, count = network.config, clip.info.frames
    faces = clip.faces(range(count), size=128)
    references, shares = clip_references(clip, config)
    windows = audio_windows(clip.features(config.audio), count, Fraction(FPS), config.audio, config.audio_window)
    base = generate(network, windows, faces, faces[references], device, shares)
    (clip.folder / DONE).unlink(missing_ok=True)
    write_archive(clip.folder / "base.zip", base)
    aside = clip.folder / "base_track.part.npz"
    np.savez(aside, landmarks=landmarks.landmarks(base)[0].astype(np.float32), weights=weights)
    os.replace(aside, clip.folder / DONE)


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
    device = pick_device(args.device)
    network = load_network(args.checkpoint, device, HyperLipsBase)
    landmarks = LandmarkNet()
    clips = shard(
        [clip for split in args.splits for clip in load_clips(args.data, split, args.min_face_px)], args.shard
    )
    weights = hashlib.sha256(Path(args.checkpoint).read_bytes()).hexdigest()
    todo = [clip for clip in clips if args.again or clip.painted_by != weights]
    for clip in tqdm(todo, unit="clip", desc="stage 1"):
        generate_clip(clip, network, weights, landmarks, device)
    print(f"{len(todo)} clips painted, {len(clips) - len(todo)} were there already")


if __name__ == "__main__":
    run_cli(main)
