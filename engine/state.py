"""Run state on disk: everything that an exact resume needs, written aside and renamed."""

import os
from pathlib import Path
from typing import Any

import torch

from errors import InputError


class RunState:
    """Named objects with state_dict/load_state_dict (networks, optimisers, schedulers, EMA), and the step.

    The data order needs no state of its own: a sample depends on (seed, number), see datasets.
    """

    def __init__(self, folder: Path, keep: int, **objects: Any):
        self.folder, self.keep, self.objects = folder, keep, objects

    def save(self, step: int) -> Path:
        """Write step_<step>.pt and drop all but the newest `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:08d}.pt"
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        aside = path.with_suffix(".part")
        try:
            torch.save({"step": step, "torch_rng": torch.get_rng_state(), **state}, aside)
        except (OSError, RuntimeError) as error:
            aside.unlink(missing_ok=True)
            raise InputError(f"checkpoint {path} could not be written ({error}); free space and run the same command again") from error
        os.replace(aside, path)
        for old in self.checkpoints()[:-self.keep]:
            old.unlink()
        return path

    def resume(self) -> int:
        """Load the newest checkpoint if there is one; returns the step to go on from (0 for a new run)."""
        checkpoints = self.checkpoints()
        if not checkpoints:
            return 0
        state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
        missing = set(self.objects) ^ (set(state) - {"step", "torch_rng"})
        if missing:
            raise InputError(f"{checkpoints[-1]} does not fit this run: {', '.join(sorted(missing))} on one side only; "
                             "use another name or remove the run folder")
        for name, thing in self.objects.items():
            thing.load_state_dict(state[name])
        torch.set_rng_state(state["torch_rng"])
        return state["step"]

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step_*.pt"))
