"""Stage-2 samples: a stage-1 face, its sketch, the masked and reference crops, and the real crop at full size."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import HRAugmentConfig, blurred, degrade_references, draw_change
from datasets.base import choose_references, lip_boxes
from datasets.clips import load_clips, locate
from errors import InputError
from face.sketch import SketchPoints, draw_sketch, smooth_landmarks


@dataclass
class HRDataConfig:
    """`data` section of the HR config. Faces narrower than `min_face_px` in the source hold no detail to learn."""

    path: str = "data"
    min_face_px: float = 150.0
    reference: Literal["random", "far", "closed"] = "far"
    workers: int = 1


class HRDataset(Dataset):
    """Sample k depends on (seed, k) alone. An item, uint8 where nothing is said:

    base (3, 128, 128), sketch (1, 128, 128), face and reference (3, S, S), lip_box (4,) float32 px of the 128 crop.
    """

    def __init__(self, data: HRDataConfig, augment: HRAugmentConfig, split: str, size: int, seed: int,
                 sketch: SketchPoints = 478):
        self.config, self.augment, self.size, self.seed, self.sketch = data, augment, size, seed, sketch
        self.clips = load_clips(data.path, split, data.min_face_px)
        small = min(clip.info.size for clip in self.clips)
        for clip in self.clips:
            clip.path("base.zip")
        if small < size:
            raise InputError(f"{data.path}: holds crops of {small} px, this network paints {size} px; "
                             f"extract with --size {size}")
        self.landmarks = [smooth_landmarks(clip.base_landmarks) for clip in self.clips]
        self.boxes = [lip_boxes(clip.landmarks) for clip in self.clips]
        self.gaps = [clip.landmarks[:, 14, 1] - clip.landmarks[:, 13, 1] for clip in self.clips]
        self.ends = np.cumsum([clip.info.frames for clip in self.clips])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, frame = locate(self.ends, int(rng.integers(len(self))))
        reference, = choose_references(self.config.reference, self.gaps[clip], np.array([frame]), 1, rng)
        return self.sample(clip, frame, int(reference), rng)

    def sample(self, clip: int, frame: int, reference: int, rng: np.random.Generator | None = None) -> dict[str, torch.Tensor]:
        """The item of one frame; without `rng` nothing is changed (validation)."""
        faces = self.clips[clip].faces([frame, reference], size=self.size)
        base = self.clips[clip].faces([frame], "base.zip")
        boxes, landmarks = self.boxes[clip][[frame]], self.landmarks[clip][frame]
        if rng is not None:
            change = draw_change(self.augment, rng)
            faces, base, boxes, landmarks = change.faces(faces), change.faces(base), change.boxes(boxes), change.points(landmarks)
            faces = np.concatenate([faces[:1], degrade_references(faces[1:], self.augment, rng)])
            base = blurred(base, rng) if rng.random() < self.augment.base_blur else base
        sketch = torch.from_numpy(draw_sketch(landmarks, points=self.sketch))[None]
        return {"base": _chw(base[0]), "sketch": sketch, "face": _chw(faces[0]), "reference": _chw(faces[1]),
                "lip_box": torch.from_numpy(boxes[0])}


def _chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
