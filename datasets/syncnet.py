"""Samples of the sync expert.

A window is five consecutive lower faces at 25 fps and the sound that belongs to them, both named by their first frame.
"""

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.augment import draw_change
from datasets.clips import Clip, locate
from datasets.config import SyncAugmentConfig, SyncDataConfig
from datasets.draw import WindowDraw, clips_with
from datasets.frames import FrameStore
from models.config import BASE_SIZE, SYNC_FRAMES, SyncConfig
from speech.windows import sound_windows


class SyncDataset(Dataset):
    """Sample k depends on (seed, k) alone: windows of one clip.

    An item holds frames (W, 15, 64, 128) uint8, frame after frame; audio (W + S, ...) float32, whose first W belong to
    the frames; starts (W + S,), the sounds' first frames; clip (), its number.
    """

    def __init__(
        self,
        clips: list[Clip],
        data: SyncDataConfig,
        augment: SyncAugmentConfig,
        expert: SyncConfig,
        seed: int,
    ):
        """Raises InputError where no clip has the windows that `data` asks for."""
        self.config, self.augment, self.expert, self.seed = data, augment, expert, seed
        windows = 1 + (data.windows - 1) * data.apart
        asked = (
            f"the {windows + SYNC_FRAMES - 1} frames with a face that data.windows = {data.windows} windows "
            f"{data.apart} frames apart need"
        )
        self.store = FrameStore(clips_with(clips, SYNC_FRAMES, windows, asked), data.cache)
        self.features = [clip.features(expert.audio) for clip in self.store.clips]
        self.draw = WindowDraw(self.store.clips, SYNC_FRAMES, 0)
        self._ends = np.cumsum(self.draw.counts)

    def __len__(self) -> int:
        """Distinct windows; samples are drawn from them at random, without end."""
        return len(self.draw)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, index))
        clip, _ = locate(self._ends, int(rng.integers(len(self))))
        seen = self.draw.starts[clip]  # windows that show the face in every frame
        starts = seen[self._apart(len(seen), rng)]
        heard = np.concatenate([starts, rng.choice(seen, self.config.sounds)])
        frames = self._frames(clip, starts, rng)
        return {
            "frames": torch.from_numpy(frames),
            "starts": torch.from_numpy(heard),
            "clip": torch.tensor(clip),
            "audio": torch.from_numpy(sound_windows(self.features[clip], heard, self.expert)),
        }

    def _apart(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers of the sample's windows among `count`, in order, every two at least `apart` from each other."""
        number, spare = self.config.windows, self.config.apart - 1
        chosen = rng.choice(count - (number - 1) * spare, number, replace=False)
        return np.sort(chosen) + spare * np.arange(number)

    def _frames(self, clip: int, starts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(W, 15, 64, 128) uint8, all changed alike, so that within a clip only what moves tells the windows apart."""
        indices = (starts[:, None] + np.arange(SYNC_FRAMES)).flatten()
        faces = draw_change(self.augment, rng).faces(self.store.get(clip, indices))[:, BASE_SIZE // 2 :]
        return faces.transpose(0, 3, 1, 2).reshape(len(starts), 3 * SYNC_FRAMES, BASE_SIZE // 2, BASE_SIZE)
