"""Stage-1 samples: windows of consecutive frames with their sound and reference faces."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import AugmentConfig, degrade_references, draw_change
from datasets.clips import FPS, Clip
from datasets.draw import DrawConfig, WindowDraw, clips_with
from datasets.frames import FrameStore
from datasets.references import choose_references, drawn_bank
from face.topology import EAR_POINTS, EAR_POINTS_MIRRORED, LIPS
from media.audio import audio_windows
from metrics.sync import sound_windows
from models.hyperlips import BaseConfig
from models.syncnet import SyncConfig

LIP_BOX_MARGIN = (10, 8)
"""Pixels of the 128 crop by which the box of the real lips is widened, across and down."""

KEY_POSES_DRAWN = 2
"""Key poses that a sample sees: the two nearest hold nearly all of its shares."""


@dataclass
class DataConfig(DrawConfig):
    """`data` section of the base config."""

    cache: Literal["auto", "memory", "disk"] = "auto"


class BaseDataset(Dataset):
    """Sample k depends on (seed, k) alone, so a resumed run sees the same data in the same order.

    An item holds faces (T, 3, 128, 128), references (R, 3, 128, 128) uint8, audio (T, ...) float32, lip_box (T, 4) px
    (x0, y0, x1, y1) and ear_points (T, 20, 2): lip and chin points in px of the crop, less the clip's mean. References
    that are encoded apart are (K, S, 3, 128, 128), K = KEY_POSES_DRAWN, with shares (T, K, S) float32. With a sync
    expert's config also sync_audio (...) float32: the window's sound as that expert hears it; and voiced (), 0 where
    the sample is muted and shows one resting mouth, which is nothing to judge.
    """

    def __init__(
        self,
        data: DataConfig,
        augment: AugmentConfig,
        split: str,
        model: BaseConfig,
        seed: int,
        expert: SyncConfig | None = None,
    ):
        self.config, self.augment, self.model, self.seed = data, augment, model, seed
        clips = clips_with(data.window, data.path, split, data.min_face_px)
        self.store = FrameStore(clips, data.cache)
        self.features = [self._heard(clip) for clip in clips]
        self.expert = expert
        self.sync_features = [clip.features(expert.audio) for clip in clips] if expert else []
        points = [clip.landmarks[:, EAR_POINTS] for clip in clips]
        self.ear_points = [moving - moving[clip.visible].mean(0) for clip, moving in zip(clips, points, strict=True)]
        self.lip_boxes = [lip_boxes(clip.landmarks) for clip in clips]
        self.gaps = [clip.openness for clip in clips]
        self.draw = WindowDraw(clips, data.window, data.balance)

    def __len__(self) -> int:
        return len(self.draw)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, frames = self.draw.frames(rng)
        silent = rng.random() < self.augment.silence
        if silent:  # muted sound belongs to a closed mouth, in that frame's own pose
            frames = np.full(self.config.window, np.nanargmin(self.gaps[clip]))
        references, shares = self._references(clip, frames, rng)
        faces = self.store.get(clip, np.concatenate([frames, references.ravel()]))
        change = draw_change(self.augment, rng)
        faces = change.faces(faces)
        faces, shown = faces[: len(frames)], degrade_references(faces[len(frames) :], self.augment, rng)
        points, boxes = change.motions(self.ear_points[clip][frames]), change.boxes(self.lip_boxes[clip][frames])
        if change.mirrored:
            points = points[:, EAR_POINTS_MIRRORED]
        # The sequence begins with digital silence, so windows long before it are silence as the front end hears it.
        heard = frames - 10 * FPS if silent else frames
        audio = self._windows(clip, heard, rng)
        item = {
            "faces": channels_first(faces),
            "references": channels_first(shown).unflatten(0, references.shape),
            "audio": torch.from_numpy(np.ascontiguousarray(audio, np.float32)),
            "lip_box": torch.from_numpy(boxes),
            "ear_points": torch.from_numpy(np.ascontiguousarray(points)),
        }
        if shares is not None:
            item["shares"] = torch.from_numpy(shares)
        if self.expert:
            item["voiced"] = torch.tensor(float(not silent))
            item["sync_audio"] = torch.from_numpy(sound_windows(self.sync_features[clip], heard[:1], self.expert)[0])
        return item

    def _references(
        self, clip: int, frames: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Numbers of the reference frames of a window and, where they are encoded apart, their shares in its frames."""
        count = self.model.references
        if self.model.apart:
            return drawn_bank(self.store.clips[clip].pose, self.gaps[clip], frames, count, KEY_POSES_DRAWN, rng)
        return choose_references(self.config.reference, self.gaps[clip], frames, count, rng), None

    def _heard(self, clip: Clip) -> list[np.ndarray]:
        """Features of the clip's sound, then of its noisy variants if any are wanted."""
        variants = clip.variants(self.model.audio) if self.augment.sound else 0
        return [clip.features(self.model.audio, variant) for variant in range(variants + 1)]

    def _windows(self, clip: int, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The sound of some frames, or a noisy variant of it."""
        noisy = self.augment.sound and rng.random() < self.augment.sound
        features = self.features[clip][rng.integers(1, len(self.features[clip])) if noisy else 0]
        return audio_windows(features, frames, Fraction(FPS), self.model.audio, self.model.audio_window)

    def ear_batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio windows and ear points of `size` random frames, without pictures."""
        audio, points = [], []
        for _ in range(size):
            clip, frames = self.draw.frames(rng)
            audio.append(self._windows(clip, frames[:1], rng)[0])
            points.append(self.ear_points[clip][frames[0]])
        return torch.from_numpy(np.stack(audio).astype(np.float32)), torch.from_numpy(np.stack(points))


def channels_first(images: np.ndarray) -> torch.Tensor:
    """(n, H, W, 3) -> (n, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def lip_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Box (frames, 4) round the lips of (frames, 478, 2), widened by LIP_BOX_MARGIN, in px of the 128 crop."""
    lips = landmarks[:, LIPS]
    return np.concatenate([lips.min(1) - LIP_BOX_MARGIN, lips.max(1) + LIP_BOX_MARGIN], 1).astype(np.float32)
