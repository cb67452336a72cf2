"""What was done to a file, and how its progress is shown."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Watch = Callable[[Iterable, str, int], Iterable]
"""(items, what is done to them, about how many) -> the items: shows progress."""


def unwatched(items: Iterable, what: str, count: int) -> Iterable:
    """A Watch that shows nothing."""
    return items


@dataclass
class Report:
    """What was done to one file. `passed` are the stretches (s) of the source without a face, or with its mouth outside
    the picture, that were shown as they were, in `untouched` of the frames."""

    frames: int = 0
    untouched: int = 0
    elapsed: float = 0.0
    """s until the last frame: from the first look at the face in lip_sync, from the sound on in a Drive alone."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """s by stage; stages run side by side, so they add up to more than has elapsed."""
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU s by stage of the threads that run the stages, without those that help them."""
    passed: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start, spent = time.perf_counter(), time.thread_time()
        yield
        self.seconds[stage] += time.perf_counter() - start
        self.cpu[stage] += time.thread_time() - spent

    def timed(self, stage: str, items: Iterable) -> Iterator:
        """Pass `items` on, counting the time spent making them to `stage`."""
        iterator = iter(items)
        while True:
            with self.time(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        return f"{self.frames} frames, {self.frames / max(self.elapsed, 1e-9):.1f} frames/s (s by stage: {stages})"
