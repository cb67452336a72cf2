"""Batches with the time spent waiting for them, and one printed and logged line every so many steps."""

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from engine.distributed import World
from engine.runlog import RunLog


class Progress:
    """`for step, batch in progress.batches(loader, first)`, then `progress.log(done, ...)` once a step.

    `frames_per_step` counts those of all processes; `log` is where process 0 writes; `printed`: whether the lines are.
    """

    def __init__(self, log: RunLog | None, every: int, frames_per_step: int, world: World, printed: bool = True):
        self.printed = printed
        self.run_log, self.every, self.frames_per_step, self.world = log, every, frames_per_step, world
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin counting anew, so that time spent on other things (validation) is not counted as training."""
        self._mark, self._start, self._waited = step, time.perf_counter(), 0.0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def batches(self, loader: Iterable[dict[str, Tensor]], first: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield (step, batch on the device) from step `first` on."""
        self.restart(first)
        iterator = iter(loader)
        step = first
        while True:
            asked = time.perf_counter()
            batch = next(iterator, None)
            if batch is None:
                return
            batch = {name: value.to(self.world.device, non_blocking=True) for name, value in batch.items()}
            self._waited += time.perf_counter() - asked
            yield step, batch
            step += 1

    def log(self, done: int, values: dict[str, Tensor], rates: dict[str, float]) -> None:
        """Take in one step's values; every so many steps report their means (over the processes too), the learning
        rates, frames/s and the share of time spent waiting for data.
        """
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()
            self._counts[name] = self._counts.get(name, 0) + 1
        if done % self.every:
            return
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        seconds = time.perf_counter() - self._start
        report = self.world.mean(
            {**dict(zip(self._sums, means.tolist(), strict=True)), "waiting": self._waited / seconds}
        )
        report |= {"frames_per_s": (done - self._mark) * self.frames_per_step / seconds, **rates}
        if self.run_log is not None:
            self.run_log.scalars(done, report)
        if self.run_log is not None and self.printed:
            print(f"{done:7d}  " + "  ".join(f"{name} {value:.4g}" for name, value in report.items()), flush=True)
        self.restart(done)
