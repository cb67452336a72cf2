"""Which windows of which clips a training sees."""

import numpy as np

from datasets.clips import Clip
from errors import InputError


class WindowDraw:
    """Random windows of `window` consecutive frames that all show the face, of clips that have some.

    Persons are drawn alike as far as `balance` says. starts: of each clip the first frames of its windows, `counts` of
    them.
    """

    def __init__(self, clips: list[Clip], window: int, balance: float):
        self.window = window
        self.starts = [window_starts(clip.visible, window) for clip in clips]
        self.counts = np.array([len(starts) for starts in self.starts])
        self._shares = np.cumsum(draw_shares(self.counts, [clip.info.person for clip in clips], balance))

    def __len__(self) -> int:
        """Distinct windows; they are drawn without end."""
        return int(self.counts.sum())

    def clip(self, rng: np.random.Generator) -> int:
        return min(int(np.searchsorted(self._shares, rng.random(), side="right")), len(self._shares) - 1)

    def frames(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A clip, and the numbers of `window` frames of it."""
        clip = self.clip(rng)
        return clip, self.at(clip, int(rng.integers(self.counts[clip])))

    def at(self, clip: int, number: int) -> np.ndarray:
        """Frames of window `number` of the clip's `counts[clip]`."""
        return self.starts[clip][number] + np.arange(self.window)


def window_starts(visible: np.ndarray, window: int) -> np.ndarray:
    """First frames of the windows of a clip in which the face is seen in every frame; visible (frames,) bool."""
    return (
        np.flatnonzero(np.convolve(visible, np.ones(window, int), "valid") == window)
        if len(visible) >= window
        else np.zeros(0, int)
    )


def clips_with(clips: list[Clip], window: int, windows: int = 1, asked: str = "") -> list[Clip]:
    """Those of some clips of a split that have so many windows of `window` frames that all show the face.

    Raises InputError where none has them. asked: what is asked for, where it is not data.window alone.
    """
    found = [clip for clip in clips if len(window_starts(clip.visible, window)) >= windows]
    if not found:
        data, split = clips[0].folder.parent.parent, clips[0].info.split
        asked = asked or f"data.window = {window} frames in a row that show the face"
        raise InputError(f"{data}: no clip of split {split!r} has {asked}")
    return found


def draw_shares(windows: np.ndarray, persons: list[str], balance: float) -> np.ndarray:
    """Probability (clips,) of each clip: as its `windows`, divided by the windows of its person to the power of
    `balance`.

    An unknown person "" is nobody in particular: each of those clips counts as its own.
    """
    names = np.array([person or f"clip {number}" for number, person in enumerate(persons)])
    person = np.unique(names, return_inverse=True)[1]
    weights = windows / np.bincount(person, windows)[person] ** balance
    return weights / weights.sum()
