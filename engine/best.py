"""The best of the weights that validation has scored."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from engine.resume import SCORING, scored_otherwise
from engine.runlog import RunLog
from engine.task import Task
from errors import InputError
from models.checkpoint import read_metadata, save_network


class Best:
    """Keeps the best of a run's averaged weights, and knows when they get no better; in process 0 only."""

    def __init__(self, path: Path, record: Mapping[str, Any], patience: int, task: Task, log: RunLog, begins: bool):
        """path: of the weights that are kept; where scores have become others since, or the run `begins` and they are
        an earlier one's, they get another name, and the comparison begins anew. record: see engine.resume.
        """
        self.path, self._record, self._patience, self._task = path, record, patience, task
        self._log = log
        if not (kept := self._kept()):
            return
        changes = scored_otherwise({**kept, "config": kept["training"]}, record)
        if begins or changes:
            earlier = path.with_stem(f"{path.stem}_{int(kept['step']):08d}")
            os.replace(path, earlier)
            why = f"scores are others now ({', '.join(changes)})" if changes else "the run begins anew"
            print(f"{why}: the best of the earlier ones is {earlier}")

    def lacks(self, step: int) -> bool:
        """Whether the validation of this step is still to be done: not if that was before the run stopped."""
        return step not in self._log.validated or not self.path.is_file()

    def add(self, step: int, network: nn.Module, scores: dict[str, float]) -> None:
        """Take in a validation: what the averaged weights, those of `network`, scored at this step."""
        if self._is_best(scores[self._task.best]):
            self._keep(network, step, scores)
        self._log.scalars(step, scores, "val")  # last: a validation that is logged is done and never repeated
        if self._task.show is None:
            print(f"{step:7d}  val  " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()), flush=True)

    def enough(self, step: int, share: float) -> bool:
        """Whether there have been enough validations without a better one. share: of the run that is over, 0 to 1."""
        if self._task.show is not None:
            self._task.show(step, share, self._log.validated)
        best = int(self._kept()["step"])
        return 0 < self._patience <= sum(validated > best for validated in self._log.validated)

    def _kept(self) -> dict[str, str]:
        """What the best weights so far say of themselves; nothing before there are some."""
        return read_metadata(self.path) if self.path.is_file() else {}

    def _is_best(self, score: float) -> bool:
        kept = float(self._kept().get(self._task.best, math.nan))
        return math.isnan(kept) or (score <= kept if self._task.lower else score >= kept)

    def _keep(self, network: nn.Module, step: int, scores: dict[str, float]) -> None:
        details = {name: f"{value:.9g}" for name, value in scores.items()}
        details |= {"step": str(step), "training": self._record["config"], "code": self._log.version}
        try:
            save_network(self.path, network, details | {key: self._record[key] for key in SCORING})
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.path} could not be written ({error}); free space and run the same command again"
            ) from error
