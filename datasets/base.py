"""Stage-1 samples: windows of consecutive frames with their sound and reference faces."""

from fractions import Fraction

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import degrade_references, draw_change
from datasets.clips import FPS, Clip
from datasets.config import AugmentConfig, DataConfig
from datasets.draw import WindowDraw, clips_with
from datasets.frames import FrameStore
from datasets.references import drawn_references
from face.topology import SPEECH_POINTS_MIRRORED
from models.config import BaseConfig, SyncConfig
from speech.windows import audio_windows, sound_windows


class BaseDataset(Dataset):
    """Sample k depends on (seed, k) alone, so a resumed run sees the same data in the same order.

    An item holds faces (T, 3, 128, 128) and references (K, R, 3, 128, 128) uint8, their shares (T, K, R) as References
    has them, audio (T, ...) float32, lip_box (T, 4) px (x0, y0, x1, y1) and speech_points (T, 20, 2): lip and chin
    points in px of the crop, less the clip's mean; voiced (), 0 where the sample is muted and shows one resting mouth,
    which says nothing of sync or motion. With a sync expert's config also sync_audio (...) float32: the window's sound
    as that expert hears it.
    """

    def __init__(
        self,
        clips: list[Clip],
        data: DataConfig,
        augment: AugmentConfig,
        model: BaseConfig,
        seed: int,
        expert: SyncConfig | None = None,
        convention: str = "centred",
    ):
        """convention: which window of the sound belongs to a frame, see audio_windows. Raises InputError where no clip
        has a window of data.window frames.
        """
        self.config, self.augment, self.model, self.seed = data, augment, model, seed
        self.store = FrameStore(clips_with(clips, data.window), data.cache)
        clips = self.store.clips
        self.features = [self._heard(clip) for clip in clips]
        self.expert, self.convention = expert, convention
        self.sync_features = self._heard_by(expert) if expert else []
        self.speech_points = [clip.lips.speech - clip.lips.speech[clip.visible].mean(0) for clip in clips]
        self.lip_boxes = [clip.lips.boxes for clip in clips]
        self.moves = [clip.moves for clip in clips]
        self.draw = WindowDraw(clips, data.window, data.balance)

    def __len__(self) -> int:
        return len(self.draw)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, frames = self.draw.frames(rng)
        silent = rng.random() < self.augment.silence
        if silent:  # muted sound belongs to a closed mouth, in that frame's own pose
            frames = np.full(self.config.window, rng.choice(self.moves[clip].closed))
        count = self.model.references
        references = drawn_references(self.config.reference, self.moves[clip], frames, count, rng)
        faces = self.store.get(clip, np.concatenate([frames, references.frames.ravel()]))
        change = draw_change(self.augment, rng)
        faces = change.faces(faces)
        faces, shown = faces[: len(frames)], degrade_references(faces[len(frames) :], self.augment, rng)
        points, boxes = change.motions(self.speech_points[clip][frames]), change.boxes(self.lip_boxes[clip][frames])
        if change.mirrored:
            points = points[:, SPEECH_POINTS_MIRRORED]
        # The sequence begins with digital silence, so windows long before it are silence as the front end hears it.
        heard = np.full_like(frames, -10 * FPS) if silent else frames
        audio = self._windows(clip, heard, rng)
        item = {
            "faces": channels_first(faces),
            "references": channels_first(shown).unflatten(0, references.frames.shape),
            "shares": torch.from_numpy(references.shares),
            "audio": torch.from_numpy(np.ascontiguousarray(audio, np.float32)),
            "lip_box": torch.from_numpy(boxes),
            "speech_points": torch.from_numpy(np.ascontiguousarray(points)),
            "voiced": torch.tensor(float(not silent)),
        }
        if self.expert:
            item["sync_audio"] = torch.from_numpy(sound_windows(self.sync_features[clip], heard[:1], self.expert)[0])
        return item

    def _heard(self, clip: Clip) -> list[np.ndarray]:
        """Features of the clip's sound, then of its noisy variants if any are wanted."""
        variants = clip.variants(self.model.audio) if self.augment.sound else 0
        return [clip.features(self.model.audio, variant) for variant in range(variants + 1)]

    def _heard_by(self, expert: SyncConfig) -> list[np.ndarray]:
        """Features of the clips' sounds for the expert, the same ones where it has the network's front end."""
        if expert.audio == self.model.audio:
            return [features[0] for features in self.features]
        return [clip.features(expert.audio) for clip in self.store.clips]

    def _windows(self, clip: int, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The sound of some frames, or a noisy variant of it."""
        noisy = self.augment.sound and rng.random() < self.augment.sound
        features = self.features[clip][rng.integers(1, len(self.features[clip])) if noisy else 0]
        model = self.model
        return audio_windows(features, frames, Fraction(FPS), model.audio, model.audio_window, self.convention)

    def audio_batch(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio windows and speech points of `size` random frames, without pictures."""
        audio, points = [], []
        for _ in range(size):
            clip, frames = self.draw.frames(rng)
            audio.append(self._windows(clip, frames[:1], rng)[0])
            points.append(self.speech_points[clip][frames[0]])
        return torch.from_numpy(np.stack(audio).astype(np.float32)), torch.from_numpy(np.stack(points))


def channels_first(images: np.ndarray) -> torch.Tensor:
    """(n, H, W, 3) -> (n, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
