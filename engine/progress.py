"""Batches with the time spent waiting for them, and one printed and logged line every so many steps."""

import time
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from engine.runlog import RunLog


class Progress:
    """`for step, batch in progress.batches(loader, first)`, then `progress.log(done, ...)` once a step."""

    def __init__(self, log: RunLog, every: int, frames_per_step: int, device: torch.device):
        self.run_log, self.every, self.frames_per_step, self.device = log, every, frames_per_step, device
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin counting anew, so that time spent on other things (validation) is not counted as training."""
        self._mark, self._start, self._waited = step, time.perf_counter(), 0.0
        self._sums: dict[str, Tensor] = {}

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
            batch = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
            self._waited += time.perf_counter() - asked
            yield step, batch
            step += 1

    def log(self, done: int, loss: Tensor, values: dict[str, Tensor], lr: float) -> None:
        """Take in one step's terms; every so many steps report their means, the rate, frames/s and the share of time waiting."""
        for name, value in {**values, "loss": loss}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach()
        if done % self.every:
            return
        seconds = time.perf_counter() - self._start
        count = done - self._mark
        report = {**{name: total.item() / count for name, total in self._sums.items()}, "lr": lr,
                  "frames_per_s": count * self.frames_per_step / seconds, "waiting": self._waited / seconds}
        self.run_log.scalars(done, report)
        print(f"{done:7d}  " + "  ".join(f"{name} {value:.4g}" for name, value in report.items()), flush=True)
        self.restart(done)
