"""Samples of the sync expert, the windows of a whole clip, and the offset between its sound and its picture.

A window is five consecutive lower faces at 25 fps and the sound that belongs to them, both named by their first frame.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import FaceAugmentConfig, draw_change
from datasets.clips import load_clips, locate
from datasets.frames import BASE_SIZE, FrameStore
from errors import InputError, check_counts
from metrics.sync import MAX_SHIFT, sound_windows, unit_vectors
from models.syncnet import SYNC_FRAMES, SyncConfig, SyncExpert

LOWER_FROM = BASE_SIZE // 2
"""First row of the crop that the expert sees."""
_BATCH = 32


@dataclass
class SyncDataConfig:
    """`data` section of the sync config."""

    path: str = "data"
    min_face_px: float = 0.0
    windows: int = 6
    """Windows of one clip in a sample, each out of sync with the others' sounds."""
    sounds: int = 12
    """Further sounds of that clip in a sample (contrastive loss only); a sound costs far less than a face."""
    apart: int = 3
    """Frames from which on two windows of a clip count as out of sync."""
    cache: Literal["auto", "memory", "disk"] = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.windows < 2:
            raise InputError(f"windows is {self.windows}, expected 2 or more: each gives another its wrong sound")
        if self.apart < 1:
            raise InputError(f"apart is {self.apart}, expected 1 or more frames")
        check_counts(self, "sounds", least=0)


@dataclass
class SyncAugmentConfig(FaceAugmentConfig):
    """`augment` section of the sync config; each change is the same for all faces of a sample, 0 switches it off."""

    shift: int = 0
    """Off by default: shifts of 3 px kept a small expert at chance."""


class SyncDataset(Dataset):
    """Sample k depends on (seed, k) alone: windows of one clip.

    An item holds frames (W, 15, 64, 128) uint8, frame after frame; audio (W + S, ...) float32, whose first W belong to
    the frames; starts (W + S,), the sounds' first frames; clip (), its number.
    """

    def __init__(self, data: SyncDataConfig, augment: SyncAugmentConfig, split: str, expert: SyncConfig, seed: int):
        self.config, self.augment, self.expert, self.seed = data, augment, expert, seed
        shortest = SYNC_FRAMES + (data.windows - 1) * data.apart
        clips = [clip for clip in load_clips(data.path, split, data.min_face_px) if clip.info.frames >= shortest]
        if not clips:
            raise InputError(
                f"{data.path}: no clip of split {split!r} has the {shortest} frames that "
                f"data.windows = {data.windows} windows {data.apart} frames apart need"
            )
        self.store = FrameStore(clips, data.cache)
        self.features = [clip.features(expert.audio) for clip in clips]
        self._counts = [clip.info.frames - SYNC_FRAMES + 1 for clip in clips]
        self._ends = np.cumsum(self._counts)

    def __len__(self) -> int:
        """Distinct windows; samples are drawn from them at random, without end."""
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, _ = locate(self._ends, int(rng.integers(len(self))))
        starts = self._apart(self._counts[clip], rng)
        heard = np.concatenate([starts, rng.integers(self._counts[clip], size=self.config.sounds)])
        frames = self._frames(clip, starts, rng)
        return {
            "frames": torch.from_numpy(frames),
            "starts": torch.from_numpy(heard),
            "clip": torch.tensor(clip),
            "audio": torch.from_numpy(sound_windows(self.features[clip], heard, self.expert)),
        }

    def _apart(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Starts of the sample's windows among `count`, in order, every two at least `apart` frames from each other."""
        number, spare = self.config.windows, self.config.apart - 1
        chosen = rng.choice(count - (number - 1) * spare, number, replace=False)
        return np.sort(chosen) + spare * np.arange(number)

    def _frames(self, clip: int, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(W, 15, 64, 128) uint8, all changed alike, so that within a clip only what moves tells the windows apart."""
        indices = (starts[:, None] + np.arange(SYNC_FRAMES)).flatten()
        faces = draw_change(self.augment, rng).faces(self.store.get(clip, indices))[:, LOWER_FROM:]
        return faces.transpose(0, 3, 1, 2).reshape(len(starts), 3 * SYNC_FRAMES, LOWER_FROM, BASE_SIZE)


@torch.inference_mode()
def clip_vectors(
    expert: SyncExpert, faces: np.ndarray, features: np.ndarray, every: int = 1
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Unit vectors of every `every`th face window and of all sounds up to MAX_SHIFT beyond both ends, by first frame.

    faces (n, 128, 128, 3) uint8 RGB at 25 fps; features: the sound's, of the expert's kind, from the first face on.
    """
    device = next(expert.parameters()).device
    last = len(faces) - SYNC_FRAMES
    starts = np.arange(0, last + 1, every)
    ordered = faces[..., ::-1] if expert.channel_order == "bgr" else faces
    lower = torch.from_numpy(np.ascontiguousarray(ordered[:, LOWER_FROM:].transpose(0, 3, 1, 2)))
    indices = torch.from_numpy(starts[:, None] + np.arange(SYNC_FRAMES)).split(_BATCH)
    seen = [unit_vectors(expert.face, lower[part].flatten(1, 2).to(device).float() / 255) for part in indices]
    heard = np.arange(-MAX_SHIFT, last + MAX_SHIFT + 1)
    sounds = torch.from_numpy(sound_windows(features, heard, expert.config)).split(_BATCH)
    listened = [unit_vectors(expert.audio, sound.to(device)) for sound in sounds]
    return (
        dict(zip(starts.tolist(), np.concatenate(seen), strict=True)),
        dict(zip(heard.tolist(), np.concatenate(listened), strict=True)),
    )
