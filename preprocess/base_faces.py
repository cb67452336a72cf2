"""What stage 2 learns from: stage-1 faces of whole clips, and their landmarks."""

import os
from pathlib import Path

import numpy as np

from datasets.archive import write_archive
from datasets.clips import Clip
from engine.loop import pick_device
from engine.memory import keep_freed_memory
from engine.prepared import file_digest
from engine.stages import paint_clip
from errors import InputError
from face.landmark_net import MIN_PRESENCE, LandmarkNet
from models.checkpoint import load_network
from models.config import BASE_SIZE
from models.fold import folded
from models.hyperlips import HyperLipsBase

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


def load_painter(checkpoint: Path, device: str) -> HyperLipsBase:
    """Stage-1 weights that paint a data set's faces. Raises InputError for others."""
    keep_freed_memory()
    network = load_network(checkpoint, pick_device(device), HyperLipsBase)
    if network.feed.crop != "template":
        raise InputError(f"{checkpoint} wants faces cut as {network.feed.crop}; the data set's are registered ones")
    return folded(network)
