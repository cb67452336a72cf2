"""Stage-2 samples: a stage-1 face, its sketch, the masked and reference crops, and the real crop at full size."""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import blurred, degrade_references, draw_change
from datasets.base import channels_first
from datasets.clips import Clip
from datasets.config import HRAugmentConfig, HRDataConfig
from datasets.damage import Damaged, read_array, readable
from datasets.draw import WindowDraw, clips_with
from datasets.frames import FrameStore
from datasets.key_frames import PORTRAITS
from datasets.references import drawn_references
from errors import InputError
from face.sketch import draw_sketches
from models.config import BASE_SIZE, HRConfig, SyncConfig
from speech.windows import sound_windows


class HRDataset(Dataset):
    """Sample k depends on (seed, k) alone. An item, uint8 where nothing is said, T = window:

    base (T, 3, 128, 128), sketch (T, 1, 128, 128), face (T, 3, S, S), lip_box (T, 4) float32 px of the 128
    crop; with a model that sees one also reference (3, S, S); with a sync expert's config also sync_audio (...)
    float32, the window's sound as that expert hears it.
    """

    def __init__(
        self,
        clips: list[Clip],
        data: HRDataConfig,
        augment: HRAugmentConfig,
        model: HRConfig,
        seed: int,
        expert: SyncConfig | None = None,
        thorough: bool = False,
    ):
        """thorough: read every picture first, for those that cannot do without the ones they want."""
        self.config, self.augment, self.model, self.seed = data, augment, model, seed
        size = BASE_SIZE * model.scale
        clips = readable(clips_with(clips, data.window), _check_painted, data.path)
        if thorough:
            clips = readable(clips, _verify, data.path)
        small = min(clip.info.size for clip in clips)
        self.painter = one_painter(clips, data.path)
        if small < size:
            raise InputError(
                f"{data.path}: holds crops of {small} px, this network paints {size} px; "
                f"extract with --size {size} --again"
            )
        self.store = FrameStore(clips, data.cache, {"faces.zip": size, "base.zip": BASE_SIZE})
        self.clips = self.store.clips
        self.expert = expert
        self.sounds = [clip.features(expert.audio) for clip in self.clips] if expert else []
        self.landmarks = [clip.base_landmarks for clip in self.clips]
        self.boxes = [clip.lips.boxes for clip in self.clips]
        self.moves = [clip.moves for clip in self.clips]
        self.draw = WindowDraw(self.clips, data.window, data.balance)

    def __len__(self) -> int:
        return len(self.draw)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, frames = self.draw.frames(rng)
        drawn = drawn_references(self.config.reference, self.moves[clip], frames, 1, rng, PORTRAITS)
        return self.sample(clip, frames, int(drawn.frames[0, 0]), rng)

    def sample(
        self, clip: int, frames: np.ndarray, reference: int, rng: np.random.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """The item of some consecutive frames; without `rng` nothing is changed (validation)."""
        shown = [reference] if self.model.reference else []
        faces, base = self.store.get(clip, np.array([*frames, *shown])), self.store.get(clip, frames, "base.zip")
        boxes, landmarks = self.boxes[clip][frames], self.landmarks[clip][frames]
        if rng is not None:
            change = draw_change(self.augment, rng)
            faces, base, boxes, landmarks = (
                change.faces(faces),
                change.faces(base),
                change.boxes(boxes),
                change.points(landmarks),
            )
            if shown:
                faces = np.concatenate([faces[:-1], degrade_references(faces[-1:], self.augment, rng)])
            base = blurred(base, rng) if rng.random() < self.augment.base_blur else base
        item = {
            "base": channels_first(base),
            "sketch": torch.from_numpy(draw_sketches(landmarks, self.model.sketch)),
            "face": channels_first(faces[: len(frames)]),
            "lip_box": torch.from_numpy(boxes),
        }
        if shown:
            item["reference"] = channels_first(faces[-1:])[0]
        if self.expert:
            item["sync_audio"] = torch.from_numpy(sound_windows(self.sounds[clip], frames[:1], self.expert)[0])
        return item


def one_painter(clips: list[Clip], data: str) -> str:
    """What painted the stage-1 faces of the clips of a data set. Raises InputError where different weights did."""
    painter, *others = {clip.painted_by or "" for clip in clips}
    if others:
        raise InputError(
            f"{data}: {1 + len(others)} different weights painted its stage-1 faces; run preprocess.generate_base "
            "again with those you want: it paints what others painted"
        )
    return painter


def _check_painted(clip: Clip) -> None:
    """Raises Damaged where a clip's stage-1 faces cannot be read, or cannot be there, and InputError where they are
    only missing.
    """
    if not (clip.folder / "base.zip").is_file():
        clip.verify()
    track = clip.path("base_track.npz")
    painted = len(clip.archive("base.zip")), *(len(read_array(track, name)) for name in ("landmarks", "visible"))
    if {*painted} != {len(clip.archive("faces.zip"))}:
        raise Damaged(f"{clip.folder}/base.zip does not fit the clip; run preprocess.generate_base with --again")


def _verify(clip: Clip) -> None:
    clip.verify()
    clip.verify("base.zip")
