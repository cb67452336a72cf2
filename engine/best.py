"""Averaged weights as validation scores them, and the best of them."""

import math
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from engine.config import to_yaml
from engine.ema import Ema
from engine.limits import validations_since_best
from engine.options import TrainConfig
from engine.runlog import RunLog
from engine.task import Task
from errors import InputError
from models.checkpoint import read_metadata, save_network
from models.hyperlips import HyperLipsBase


class Best:
    """Scores the averaged weights of a run and keeps the best; in process 0 only."""

    def __init__(self, path: Path, config: TrainConfig, task: Task, ema: Ema, log: RunLog, device: torch.device):
        """path: of the weights that are kept."""
        self.path, self._config, self._task = path, config, task
        self._ema, self._log, self._device = ema, log, device

    def score(self, step: int, share: float) -> bool:
        """Validate, unless that was done at this step. Returns whether there have been enough validations without a
        better one. share: of the run that is over, 0 to 1.
        """
        if step not in self._log.validated:
            self._score_anew(step)
        if self._task.show is not None:
            self._task.show(step, share, self._log.validated)
        scores = [values[self._task.best] for values in self._log.validated.values()]
        return 0 < self._config.run.patience <= validations_since_best(scores, self._task.lower)

    def _score_anew(self, step: int) -> None:
        trained = self._task.objective.network
        network = type(trained)(trained.config).to(self._device)
        network.load_state_dict(self._ema.average)
        if isinstance(network, HyperLipsBase):
            network.feed = trained.feed
        scores = self._task.validate(network.eval(), step, self._log)
        if self._is_best(scores[self._task.best]):
            self._keep(network, step, scores)
        self._log.scalars(step, scores, "val")  # last: a validation that is logged is done and never repeated
        if self._task.show is None:
            print(f"{step:7d}  val  " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()), flush=True)

    def _is_best(self, score: float) -> bool:
        if not self.path.is_file():
            return True
        kept = float(read_metadata(self.path)[self._task.best])
        return math.isnan(kept) or (score <= kept if self._task.lower else score >= kept)

    def _keep(self, network: nn.Module, step: int, scores: dict[str, float]) -> None:
        details = {name: f"{value:.9g}" for name, value in scores.items()}
        details |= {"step": str(step), "training": to_yaml(self._config), "code": self._log.version}
        try:
            save_network(self.path, network, details)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.path} could not be written ({error}); free space and run the same command again"
            ) from error
