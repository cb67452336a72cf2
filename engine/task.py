"""What a train script gives to the training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.objective import Objective
from engine.runlog import RunLog

Show = Callable[[int, float, Mapping[int, Mapping[str, float]]], None]
"""(steps done, share of the run that is over, 0 to 1, scores of the validations so far by step)."""


@dataclass
class Task:
    """What a script trains, and how it is scored."""

    objective: Objective
    dataset: Any
    """A torch Dataset with a length; sample k depends on (seed, k) alone."""
    frames: int
    """Frames in a sample, for frames/s."""
    validate: Callable[[Any, int, RunLog | None], dict[str, float]]
    """(network with the averaged weights in eval mode, step, log) -> scores. Runs in every process, so that each may
    look at its share; the log and the scores are those of process 0, others have None and need not tell any."""
    best: str
    """The score that decides which weights are kept as best.safetensors."""
    lower: bool = False
    """Whether less of it is better."""
    groups: list[dict] | None = None
    """Parameter groups, see make_optimizer; default: all trainable ones of the objective alike."""
    init: Path | None = None
    """Weights that a new run starts from."""
    prepare: Callable[[RunLog], None] | None = None
    """Called before the first step of a new run without `init`, in process 0 only: what comes before the pictures."""
    painter: str = ""
    """What painted the stage-1 faces that it learns from; another one makes them another data set."""
    watch: Callable[[int, Tensor, dict[str, Tensor]], str | None] | None = None
    """(steps done, loss, terms) of every step in process 0 -> a warning to print, or None."""
    show: Show | None = None
    """Called after every step and validation in process 0, in the place of their printed lines."""
