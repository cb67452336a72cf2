"""What stage 2 learns from: stage-1 faces of whole clips, and their landmarks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aside import aside
from datasets.archive import write_archive
from datasets.clips import Clip
from datasets.damage import readable
from digest import file_digest
from engine.device import pick_device
from engine.memory import keep_freed_memory
from engine.stages import paint_clip
from errors import InputError
from face.landmark_net import LandmarkNet
from models.checkpoint import load_network
from models.config import BASE_SIZE
from models.fold import folded
from models.hyperlips import HyperLipsBase

DONE = "base_track.npz"
"""Written last: a clip that has it has both."""


def generate_clip(clip: Clip, network: HyperLipsBase, painter: str, landmarks: LandmarkNet) -> None:
    """Write base.zip and then base_track.npz of one clip; `painter` tells by what it was painted."""
    base = paint_clip(network, clip, clip.faces(range(clip.info.frames), size=BASE_SIZE))
    points, seen = landmarks.landmarks(base)
    (clip.folder / DONE).unlink(missing_ok=True)
    write_archive(clip.folder / "base.zip", base)
    with aside(clip.folder / DONE) as part:
        np.savez(part, landmarks=points.astype(np.float32), visible=seen, painter=painter)


def paint_clips(clips: Sequence[Clip], data: Path, checkpoint: Path, device: str, again: bool = False) -> None:
    """Stage-1 faces of those clips that these weights have not painted yet, or of all, `again`; prints how many.

    Damaged clips of the data set `data` are named and left out, see datasets.damage.
    """
    network = load_painter(checkpoint, device)
    landmarks = LandmarkNet(network.device)
    painter = painter_of(checkpoint, network)
    painted: list[Clip] = []

    def paint(clip: Clip) -> None:
        if again or clip.painted_by != painter:
            generate_clip(clip, network, painter, landmarks)
            painted.append(clip)

    whole = readable(tqdm(clips, unit="clip", desc="stage 1"), paint, data)
    print(f"{len(painted)} clips painted, {len(whole) - len(painted)} were there already")


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
