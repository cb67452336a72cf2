"""Stage-2 samples: a stage-1 face, its sketch, the masked and reference crops, and the real crop at full size."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import AugmentConfig, augment_faces
from datasets.base import choose_references, lip_boxes
from datasets.clips import load_clips, locate
from errors import InputError
from face.sketch import draw_sketch, smooth_landmarks


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

    def __init__(self, data: HRDataConfig, augment: AugmentConfig, split: str, size: int, seed: int):
        self.config, self.augment, self.size, self.seed = data, augment, size, seed
        self.clips = load_clips(data.path, split, data.min_face_px)
        small = min(clip.info.size for clip in self.clips)
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
        faces = self.clips[clip].faces([frame, reference])
        base = self.clips[clip].faces([frame], "base.zip")[0]
        box, landmarks = self.boxes[clip][frame], self.landmarks[clip][frame]
        sketch = draw_sketch(landmarks)
        if rng is not None:
            seed = rng.integers(2**31)
            faces, flipped = augment_faces(faces, self.augment, np.random.default_rng(seed))
            base = augment_faces(base[None], self.augment, np.random.default_rng(seed))[0][0]
            if flipped:
                sketch, box = sketch[:, ::-1], np.float32([127 - box[2], box[1], 127 - box[0], box[3]])
        return {"base": _chw(base), "sketch": torch.from_numpy(np.ascontiguousarray(sketch))[None],
                "face": _chw(faces[0]), "reference": _chw(faces[1]), "lip_box": torch.from_numpy(box)}


def _chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
