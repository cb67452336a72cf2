"""Run state on disk: everything that an exact resume needs, written aside and renamed."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aside import aside
from errors import InputError
from models.checkpoint import BROKEN

_RECORD = "record"


class DamagedCheckpoint(InputError):
    """A checkpoint that was not written whole, or did not stay so."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read: the steps done, the run's record of itself, and the states of its objects."""

    path: Path
    step: int
    record: dict[str, Any]
    states: dict[str, Any]


class RunState:
    """Named objects with state_dict/load_state_dict (networks, optimisers, EMA), and the step.

    Data order and random numbers need no state of their own: they depend on the seed and the step, see datasets and
    engine.fit.
    """

    def __init__(self, folder: Path, keep: int, **objects: Any):
        self.folder, self.keep, self.objects = folder, keep, objects

    def save(self, step: int, record: dict[str, Any]) -> Path:
        """Write step_<step>.pt, with what there is to record beside the objects, and drop all but the newest `keep`.

        Raises InputError where it cannot be written, a full disk for one; what was saved before stays.
        """
        path = self.folder / f"step_{step:08d}.pt"
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob(".step_*.part.pt"):  # a run writes alone
                stale.unlink()
            with aside(path) as part:
                torch.save({"step": step, _RECORD: record, **state}, part)
        except (OSError, RuntimeError) as error:  # RuntimeError: how torch reports a write that stopped short
            raise InputError(
                f"checkpoint {path} could not be written ({error}); free space and run the same command again"
            ) from error
        for old in self.checkpoints()[: -self.keep]:
            old.unlink()
        return path

    def newest(self) -> Path | None:
        return next(iter(self.checkpoints()[::-1]), None)

    def newest_whole(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that can be read, None where there is none at all, and a line for each damaged one
        before it, which is renamed to *.damaged.

        Raises InputError where all are damaged.
        """
        damaged: dict[Path, DamagedCheckpoint] = {}
        for path in self.checkpoints()[::-1]:
            try:
                self.read(path)
            except DamagedCheckpoint as error:
                damaged[path] = error
                continue
            for other in damaged:
                os.replace(other, other.with_suffix(".damaged"))
            return path, [f"{error}: the run goes on from {path.name}" for error in damaged.values()]
        if damaged:
            newest = next(iter(damaged.values()))
            raise InputError(f"{newest}, and no other is whole; remove {self.folder.parent} to begin anew")
        return None, []

    def read(self, path: Path) -> Saved:
        """Raises InputError for a checkpoint that is not there or unreadable, DamagedCheckpoint for a broken one."""
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise InputError(
                f"found no {path}, which the first process resumes from; run.folder has to lie on a file system "
                "that all machines share"
            ) from error
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); see to that, then run the same command again"
            ) from error
        except (pickle.UnpicklingError, *BROKEN) as error:
            raise DamagedCheckpoint(f"{path} is damaged ({type(error).__name__})") from error
        if not isinstance(state, dict) or not isinstance(state.get("step"), int):
            raise DamagedCheckpoint(f"{path} is damaged (no checkpoint of a run)")
        return Saved(path, state.pop("step"), state.pop(_RECORD, {"config": state.pop("config", "")}), state)

    def load(self, saved: Saved) -> None:
        """Give the objects the states of a checkpoint. Raises InputError for one of another run."""
        missing = set(self.objects) ^ set(saved.states)
        if missing:
            raise InputError(
                f"{saved.path} does not fit this run: {', '.join(sorted(missing))} on one side only; "
                "use another name or remove the run folder"
            )
        for name, thing in self.objects.items():
            try:
                thing.load_state_dict(saved.states[name])
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, KeyError) as error:
                raise InputError(
                    f"{saved.path} does not fit this run: its {name} is of another shape; the run began with other "
                    "settings: use another name or remove the run folder"
                ) from error

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step_*.pt"))
