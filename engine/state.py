"""Run state on disk: everything that an exact resume needs, written aside and renamed."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from errors import InputError


class RunState:
    """Named objects with state_dict/load_state_dict (networks, optimisers, schedulers, EMA), and the step.

    Data order and random numbers need no state of their own: they depend on the seed and the step, see datasets and
    engine.fit.
    """

    def __init__(self, folder: Path, keep: int, **objects: Any):
        self.folder, self.keep, self.objects = folder, keep, objects

    def save(self, step: int, config: str = "") -> Path:
        """Write step_<step>.pt, with the run's config as text, and drop all but the newest `keep`.

        Raises InputError where it cannot be written, a full disk for one; what was saved before stays.
        """
        path = self.folder / f"step_{step:08d}.pt"
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        aside = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save({"step": step, "config": config, **state}, aside)
            os.replace(aside, path)
        except (OSError, RuntimeError) as error:  # RuntimeError: how torch reports a write that stopped short
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise InputError(
                f"checkpoint {path} could not be written ({error}); free space and run the same command again"
            ) from error
        for old in self.checkpoints()[: -self.keep]:
            old.unlink()
        return path

    def newest(self) -> Path | None:
        return next(iter(self.checkpoints()[::-1]), None)

    def load(self, path: Path) -> int:
        """Load a checkpoint; returns the step to go on from. Raises InputError for one that is damaged or of another
        run.
        """
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
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}); without it the run goes on from the checkpoint "
                "before it, "
                "or begins anew where there is none"
            ) from error
        missing = set(self.objects) ^ (set(state) - {"step", "config"})
        if missing:
            raise InputError(
                f"{path} does not fit this run: {', '.join(sorted(missing))} on one side only; "
                "use another name or remove the run folder"
            )
        for name, thing in self.objects.items():
            try:
                thing.load_state_dict(state[name])
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, KeyError) as error:
                raise InputError(
                    f"{path} does not fit this run: its {name} is of another shape; the run began with other settings: "
                    "use another name or remove the run folder"
                ) from error
        return state["step"]

    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step_*.pt"))
