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
        """Report after `done` steps, when it is time: loss terms, rate, frames/s and the share of time spent waiting."""
        if done % self.every:
            return
        seconds = time.perf_counter() - self._start
        report = {**{name: value.item() for name, value in values.items()}, "loss": loss.item(), "lr": lr,
                  "frames_per_s": (done - self._mark) * self.frames_per_step / seconds, "waiting": self._waited / seconds}
        self.run_log.scalars(done, report)
        print(f"{done:7d}  " + "  ".join(f"{name} {value:.4g}" for name, value in report.items()), flush=True)
        self.restart(done)
