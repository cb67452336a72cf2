"""A file's sound, decoded where it is asked for."""

from collections import deque
from pathlib import Path

import numpy as np

from errors import InputError
from media.audio import mono
from media.track import choose_track


class FileSound:
    """What `read_audio` gives, of which only slices of samples are held: an hour would take 230 MB. Slices that move on
    are decoded once; one that goes back begins the file anew.
    """

    def __init__(self, path: str | Path, track: int | None = None, notes: list[str] | None = None):
        """As for `read_audio`; the file is read once, for its length."""
        notes = [] if notes is None else notes
        self._source = path, choose_track(path, track, notes)
        self._length = sum(map(len, mono(*self._source, notes)))
        self._begin()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        """(samples,) float32. Raises InputError where the file is not what it was."""
        start, stop, _ = part.indices(self._length)
        if start < self._first:
            self._begin()
        while self._last < stop:
            self._take_one()
            while self._kept and self._first + len(self._kept[0]) <= start:
                self._first += len(self._kept.popleft())
        return np.concatenate([*self._kept, np.zeros(0, np.float32)])[start - self._first : stop - self._first]

    def _begin(self) -> None:
        self._pieces = mono(*self._source, [])  # what there is to say was said at the first reading
        self._kept: deque[np.ndarray] = deque()
        self._first = self._last = 0

    def _take_one(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise InputError(f"found another sound in {self._source[0]} than before, leave it alone while it is read")
        self._kept.append(piece)
        self._last += len(piece)
