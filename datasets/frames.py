"""Pictures of a whole split: decoded once into memory where they fit, otherwise read from the clips' archives."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from chunks import chunks
from datasets.clips import Clip
from datasets.config import Cache
from datasets.damage import readable
from models.config import BASE_SIZE
from workers import cores

FACES = {"faces.zip": BASE_SIZE}
"""What stage 1 and the sync expert look at, see FrameStore."""
MEMORY_SHARE = 0.25
"""Of the memory there is: decoded pictures are kept when they fit in it."""
_AT_ONCE = 64
"""Pictures of a clip that are decoded before they are put there: at their full size a long clip would take as much
again.
"""


class FrameStore:
    """Pictures of many clips by (clip, frame). `cache`: auto | memory | disk.

    sizes: of which archives, and the px at which theirs are wanted; those of all of them are kept, or none.
    clips: those there are, without the ones whose pictures turned out to be damaged when they were read into memory.
    """

    def __init__(self, clips: list[Clip], cache: Cache = "auto", sizes: Mapping[str, int] = FACES):
        self.clips, self._sizes = clips, sizes
        self._starts = np.cumsum([0, *(clip.info.frames for clip in clips)])
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's: each of them keeps its own
        frame = sum(3 * size**2 for size in sizes.values())
        fits = self._starts[-1] * frame <= MEMORY_SHARE * memory_bytes() / processes
        kept = bool(clips) and (cache == "memory" or (cache == "auto" and fits))
        self._memory = self._load() if kept else {}

    def get(self, clip: int, indices: np.ndarray, archive: str = "faces.zip") -> np.ndarray:
        """(n, S, S, 3) uint8 RGB, S as wanted of that archive."""
        if self._memory:
            return self._memory[archive][self._starts[clip] + indices]
        return self._read(clip, indices, archive)

    def _read(self, clip: int, indices: np.ndarray, archive: str) -> np.ndarray:
        return self.clips[clip].faces(indices.tolist(), archive, self._sizes[archive])

    def _load(self) -> dict[str, np.ndarray]:
        count = self._starts[-1]
        memory = {archive: np.empty((count, size, size, 3), np.uint8) for archive, size in self._sizes.items()}
        places = range(len(self.clips))

        def load(clip: int) -> None:
            for archive, pictures in memory.items():
                for part in chunks(range(self.clips[clip].info.frames), _AT_ONCE):
                    indices = np.array(part)
                    pictures[self._starts[clip] + indices] = self._read(clip, indices, archive)

        with ThreadPoolExecutor(cores()) as pool:
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
