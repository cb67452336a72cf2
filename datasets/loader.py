"""Batches of a training, in an order that depends on the step alone."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from datasets.damage import Damaged
from errors import InputError, warn
from workers import cores, end_with

_ATTEMPTS = 10
"""Samples tried in the place of one: with half of the clips damaged, one in a thousand finds none."""
_MOST_WORKERS = 16
"""Of a process where nobody says how many: at 3 ms a window, see BENCHMARKS.md, they give 5000 a second."""
_ELSEWHERE = 1 << 40
"""Added to a sample's number: beyond those of any training."""


def batches(
    dataset: Dataset,
    batch: int,
    first_step: int,
    steps: int,
    workers: int,
    rank: int = 0,
    processes: int = 1,
    pinned: bool = False,
) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of steps first_step .. steps - 1; step s holds samples s * batch .. s * batch + batch - 1.

    Of `processes` that train together, number `rank` gets its equal share of each batch, in order. Raises the
    InputError of a sample that cannot be read as it is, from whichever process. pinned: in memory from which a GPU
    copies faster.
    """
    share = batch // processes
    starts = range(first_step * batch + rank * share, steps * batch, batch)
    loader = DataLoader(
        _Told(dataset),
        batch_sampler=(list(range(start, start + share)) for start in starts),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=partial(_set_up_worker, os.getpid()),
        collate_fn=_collate,
        pin_memory=pinned,
    )
    for loaded in loader:
        if isinstance(loaded, InputError):
            raise loaded
        yield loaded


def loader_workers(wanted: int | None, device: torch.device) -> int:
    """Loader processes of this process: as many as are wanted, else as `data.workers` says of null."""
    if wanted is not None:
        return wanted
    if device.type == "cpu":
        return 1
    share = cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min(max(share - 1, 1), _MOST_WORKERS)


class _Told(Dataset):
    """Hands an InputError on as the sample: one raised in a worker would arrive wrapped in its traceback.

    In the place of a sample of a damaged clip comes another one, the same every time.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: int) -> dict[str, torch.Tensor] | InputError:
        problem: InputError | None = None
        for attempt in range(_ATTEMPTS):
            try:
                return self.dataset[index + attempt * _ELSEWHERE]
            except Damaged as error:
                warn(f"left out where it is met: {error}")
                problem = error
            except InputError as error:
                return error
        assert problem is not None
        return problem


def _collate(items: list) -> dict[str, torch.Tensor] | InputError:
    return next((item for item in items if isinstance(item, InputError)), None) or default_collate(items)


def _set_up_worker(parent: int, worker: int) -> None:
    """A worker ends with the main process, and by no signal: whoever signals the whole process group (Ctrl-C, torchrun,
    Slurm) leaves it to the main process when to stop.
    """
    end_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Before multiprocessing waits for its children at the end: it asks them by SIGTERM, which workers do not hear."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # the loader's handler would raise for those that are killed
    for worker in multiprocessing.active_children():
        worker.kill()
