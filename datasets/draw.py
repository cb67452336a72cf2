"""Which windows of which clips a training sees."""

from dataclasses import dataclass

import numpy as np

from datasets.clips import Clip, load_clips
from datasets.references import ReferencePolicy
from errors import InputError


@dataclass
class DrawConfig:
    """What the `data` sections of both stages share."""

    path: str = "data"
    min_face_px: float = 0.0
    """Clips whose faces are narrower in the source are left out."""
    window: int = 1
    """Consecutive frames a sample; losses that look at motion (sync) need 5."""
    reference: ReferencePolicy = "far"
    balance: float = 0.0
    """How far persons are drawn alike: 0 draws every window alike, 1 every person, however much there is of them."""
    workers: int = 1

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InputError(f"window is {self.window}, expected 1 or more frames")
        if not 0 <= self.balance <= 1:
            raise InputError(f"balance is {self.balance}, expected 0 to 1")


class WindowDraw:
    """Random windows of `window` consecutive frames of clips that have as many; persons drawn alike as far as `balance` says."""

    def __init__(self, clips: list[Clip], window: int, balance: float):
        self.window = window
        self.counts = np.array([clip.info.frames - window + 1 for clip in clips])
        self._shares = np.cumsum(draw_shares(self.counts, [clip.info.person for clip in clips], balance))

    def __len__(self) -> int:
        """Distinct windows; they are drawn without end."""
        return int(self.counts.sum())

    def clip(self, rng: np.random.Generator) -> int:
        return min(int(np.searchsorted(self._shares, rng.random(), side="right")), len(self._shares) - 1)

    def frames(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A clip, and the numbers of `window` frames of it."""
        clip = self.clip(rng)
        start = int(rng.integers(self.counts[clip]))
        return clip, np.arange(start, start + self.window)


def clips_with(window: int, data: str, split: str, min_face_px: float) -> list[Clip]:
    """load_clips, less those shorter than `window` frames. Raises InputError where none is left."""
    clips = [clip for clip in load_clips(data, split, min_face_px) if clip.info.frames >= window]
    if not clips:
        raise InputError(f"{data}: no clip of split {split!r} has data.window = {window} frames")
    return clips


def draw_shares(windows: np.ndarray, persons: list[str], balance: float) -> np.ndarray:
    """Probability (clips,) of each clip: as its `windows`, divided by the windows of its person to the power of `balance`.

    An unknown person "" is nobody in particular: each of those clips counts as its own.
    """
    names = np.array([person or f"clip {number}" for number, person in enumerate(persons)])
    person = np.unique(names, return_inverse=True)[1]
    weights = windows / np.bincount(person, windows)[person] ** balance
    return weights / weights.sum()
