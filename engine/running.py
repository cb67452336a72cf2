"""The processes of a training, which hold its run folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from engine.distributed import World, distributed
from engine.lock import run_lock
from engine.options import TrainConfig
from errors import InputError, no_space


@contextmanager
def running(config: TrainConfig) -> Iterator[World]:
    """The processes that train together, the first of which holds the run folder from here on: before data are loaded.

    Raises InputError for a run folder that cannot be written or is written by another process, and for a full disk.
    """
    with distributed(config.run.device) as world:
        lock = run_lock(Path(config.run.folder) / config.run.name) if world.main else nullcontext()
        try:
            with lock, _quiet_when_full():
                yield world
        except OSError as error:
            if not no_space(error):
                raise
            raise InputError(
                f"the disk of {config.run.folder} is full; the last checkpoint is kept: free space and run the same "
                "command again"
            ) from error


@contextmanager
def _quiet_when_full() -> Iterator[None]:
    """TensorBoard writes in a thread of its own, whose error is raised here too: its traceback would say no more."""
    before = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if not no_space(args.exc_value):
            before(args)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = before
