"""Frames of a whole split: decoded once into memory where they fit, otherwise read from the clips' archives."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from datasets.clips import Clip
from datasets.damage import readable
from models.config import BASE_SIZE

MEMORY_SHARE = 0.25
"""Of the memory there is: decoded frames are kept when they fit in it."""


class FrameStore:
    """128 px faces of many clips by (clip, frame). `cache`: auto | memory | disk.

    clips: those there are, without the ones whose pictures turned out to be damaged when they were read into memory.
    """

    def __init__(self, clips: list[Clip], cache: Literal["auto", "memory", "disk"] = "auto"):
        self.clips = clips
        counts = [clip.info.frames for clip in clips]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's: each of them keeps its own
        fits = self._starts[-1] * BASE_SIZE**2 * 3 <= MEMORY_SHARE * memory_bytes() / processes
        self._memory = self._load() if cache == "memory" or (cache == "auto" and fits) else None

    def get(self, clip: int, indices: np.ndarray) -> np.ndarray:
        """(n, 128, 128, 3) uint8."""
        if self._memory is not None:
            return self._memory[self._starts[clip] + indices]
        return self._read(clip, indices)

    def _read(self, clip: int, indices: np.ndarray) -> np.ndarray:
        return self.clips[clip].faces(indices.tolist(), size=BASE_SIZE)

    def _load(self) -> np.ndarray:
        memory = np.empty((self._starts[-1], BASE_SIZE, BASE_SIZE, 3), np.uint8)
        places = range(len(self.clips))

        def load(clip: int) -> None:
            memory[self._starts[clip] : self._starts[clip + 1]] = self._read(
                clip, np.arange(self.clips[clip].info.frames)
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            loaded = [pool.submit(load, clip) for clip in places]
            shown = tqdm(places, desc="decode", unit="clip", leave=False, mininterval=1)
            kept = readable(shown, lambda clip: loaded[clip].result(), self.clips[0].folder.parent.parent)
        self.clips, self._starts = [self.clips[clip] for clip in kept], self._starts[kept]
        return memory


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The machine's RAM, or what a container may take of it. limit: the file that says so, "max" for all."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(ram, int(limit.read_text()))
    except (OSError, ValueError):
        return ram
