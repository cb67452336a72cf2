"""Stage-1 samples: windows of consecutive frames with their sound and reference faces."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.augment import AugmentConfig, augment_faces
from datasets.clips import FPS, load_clips, locate
from datasets.frames import FrameStore
from errors import InputError
from face.topology import EAR_POINTS, EAR_POINTS_MIRRORED, LIPS
from media.audio import audio_windows

LIP_BOX_MARGIN = (10, 8)
"""Pixels of the 128 crop by which the box of the real lips is widened, across and down."""
FAR_FRAMES = 10
"""A far reference lies at least this many frames from the window."""


@dataclass
class DataConfig:
    """`data` section of the base config."""

    path: str = "data"
    min_face_px: float = 0.0
    window: int = 1
    """Consecutive frames a sample; losses that look at motion (sync) need 5."""
    reference: Literal["random", "far", "closed"] = "far"
    cache: Literal["auto", "memory", "disk"] = "auto"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"window is {self.window}, expected 1 or more frames")


class BaseDataset(Dataset):
    """Sample k depends on (seed, k) alone, so a resumed run sees the same data in the same order.

    An item holds faces (T, 3, 128, 128), references (R, 3, 128, 128) uint8, audio (T, ...) float32, lip_box (T, 4) px
    (x0, y0, x1, y1) and ear_points (T, 20, 2): lip and chin points in px of the crop, less the clip's mean.
    """

    def __init__(self, data: DataConfig, augment: AugmentConfig, split: str, audio: str, references: int, seed: int):
        self.config, self.augment, self.audio, self.references, self.seed = data, augment, audio, references, seed
        clips = [clip for clip in load_clips(data.path, split, data.min_face_px) if clip.info.frames >= data.window]
        if not clips:
            raise InputError(f"{data.path}: no clip of split {split!r} has data.window = {data.window} frames")
        self.store = FrameStore(clips, data.cache)
        self.features = [clip.features(audio) for clip in clips]
        landmarks = [clip.landmarks for clip in clips]
        self.ear_points = [points[:, EAR_POINTS] - points[:, EAR_POINTS].mean(0) for points in landmarks]
        self.lip_boxes = [lip_boxes(points) for points in landmarks]
        self.gaps = [points[:, 14, 1] - points[:, 13, 1] for points in landmarks]
        self._windows = np.cumsum([clip.info.frames - data.window + 1 for clip in clips])

    def __len__(self) -> int:
        """Distinct windows; samples are drawn from them at random, without end."""
        return int(self._windows[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, start = locate(self._windows, int(rng.integers(len(self))))
        frames = np.arange(start, start + self.config.window)
        silent = rng.random() < self.augment.silence
        if silent:  # muted sound belongs to a closed mouth, in that frame's own pose
            frames = np.full(self.config.window, self.gaps[clip].argmin())
        references = choose_references(self.config.reference, self.gaps[clip], frames, self.references, rng)
        faces = self.store.get(clip, np.concatenate([frames, references]))
        faces, flipped = augment_faces(faces, self.augment, rng)
        points, boxes = self.ear_points[clip][frames], self.lip_boxes[clip][frames]
        if flipped:
            points = self.ear_points[clip][frames][:, EAR_POINTS_MIRRORED] * np.float32([-1, 1])
            boxes = np.stack([127 - boxes[:, 2], boxes[:, 1], 127 - boxes[:, 0], boxes[:, 3]], 1)
        # The sequence begins with digital silence, so windows long before it are silence as the front end hears it.
        heard = frames - 10 * FPS if silent else frames
        audio = audio_windows(self.features[clip], heard, Fraction(FPS), self.audio)
        images = torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2)))
        return {"faces": images[:len(frames)], "references": images[len(frames):],
                "audio": torch.from_numpy(np.ascontiguousarray(audio, np.float32)),
                "lip_box": torch.from_numpy(boxes), "ear_points": torch.from_numpy(np.ascontiguousarray(points))}

    def ear_batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio windows and ear points of `size` random frames, without pictures."""
        audio, points = [], []
        for _ in range(size):
            clip, _ = locate(self._windows, int(rng.integers(len(self))))
            frame = rng.integers(len(self.gaps[clip]), size=1)
            audio.append(audio_windows(self.features[clip], frame, Fraction(FPS), self.audio)[0])
            points.append(self.ear_points[clip][frame[0]])
        return torch.from_numpy(np.stack(audio).astype(np.float32)), torch.from_numpy(np.stack(points))


def choose_references(policy: Literal["random", "far", "closed"], gaps: np.ndarray, frames: np.ndarray, count: int,
                      rng: np.random.Generator) -> np.ndarray:
    """`count` reference frames for the window `frames` of a clip whose lips open by gaps (n,): the most closed mouths,
    any frames, or frames at least FAR_FRAMES away (a third of a short clip)."""
    if policy == "closed":
        return np.argsort(gaps)[:count]
    choices = np.arange(len(gaps))
    if policy == "far":
        distance = np.minimum(np.abs(choices - frames[0]), np.abs(choices - frames[-1]))
        far = choices[distance >= min(FAR_FRAMES, len(gaps) // 3)]
        choices = far if len(far) else choices
    return rng.choice(choices, count)


def lip_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Box (frames, 4) round the lips of (frames, 478, 2), widened by LIP_BOX_MARGIN, in px of the 128 crop."""
    lips = landmarks[:, LIPS]
    return np.concatenate([lips.min(1) - LIP_BOX_MARGIN, lips.max(1) + LIP_BOX_MARGIN], 1).astype(np.float32)


def batches(dataset: Dataset, batch: int, first_step: int, steps: int, workers: int) -> DataLoader:
    """Batches of steps first_step .. steps - 1; step s holds samples s * batch .. s * batch + batch - 1."""
    return DataLoader(dataset, batch_size=batch, sampler=range(first_step * batch, steps * batch), num_workers=workers,
                      persistent_workers=False, prefetch_factor=4 if workers else None, drop_last=True)
