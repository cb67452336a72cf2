"""Training on several processes, one a GPU, on one machine or more: `torchrun --nproc-per-node 4 train_base.py ...`"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.device import pick_device
from errors import InputError
from losses.gather import alone

Result = TypeVar("Result")
_PATIENCE = timedelta(days=7)
"""How long processes wait for what another one does for all of them, such as validation."""


class World:
    """The processes that train together. `rank` of `size`; `main` is the one that writes and prints."""

    def __init__(self, rank: int, size: int, device: torch.device):
        self.rank, self.size, self.device, self.main = rank, size, device, rank == 0
        self._patient: Any = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None

    def say(self, text: str) -> None:
        """Print a line once, at once; an empty one not at all."""
        if self.main and text:
            print(text, flush=True)

    def share(self, batch: int) -> int:
        """This process's part of a batch. Raises InputError where it does not divide."""
        if batch % self.size:
            raise InputError(
                f"run.batch is {batch} for {self.size} processes, expected a multiple: it is the batch of all "
                "of them together"
            )
        return batch // self.size

    def wrap(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """The module whose backward averages gradients over the processes; all begin with the weights of the first.

        unused: some parameters may get no gradient, which costs a walk through the graph and a wait in every step.
        """
        if self.size == 1:
            return module
        # With SyncBatchNorm all take the same statistics: there are none to tell each other.
        told = not any(isinstance(layer, nn.SyncBatchNorm) for layer in module.modules())
        return DistributedDataParallel(module, find_unused_parameters=unused, broadcast_buffers=told)

    def sync_norms(self, module: nn.Module) -> None:
        """BatchNorm over all processes, in place."""
        if self.size > 1 and self.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(module)

    def spread(self, *modules: nn.Module) -> None:
        """Give every process the weights and statistics of the first."""
        if self.size > 1:
            for value in (value for module in modules for value in module.state_dict().values()):
                dist.broadcast(value, 0)

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, if it is set on any process."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self._patient)
        return values.bool().tolist()

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Means over the processes, which all have the same names."""
        if self.size == 1:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(total, group=self._patient)
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def from_main(self, make: Callable[[], Result]) -> Result:
        """What `make` gives on the first process, on every process. The others wait as long as it takes."""
        if self.size == 1:
            return make()
        with alone():
            box: list[Any] = [make() if self.main else None]
        self._meet()
        dist.broadcast_object_list(box, 0, group=self._patient)
        return box[0]

    def own(self, items: Sequence[Result]) -> list[Result]:
        """This process's share of some items: every `size`-th of them, on the first process from the first on."""
        return list(items[self.rank :: self.size])

    def gather(self, make: Callable[[], list[Result]]) -> list[Result]:
        """What every process makes of its `own` items, one of each, on every process in the order of all items.

        An InputError of one process is raised on all of them.
        """
        if self.size == 1:
            return make()
        made: list[Result] | InputError
        try:
            made = make()
        except InputError as error:
            made = error
        self._meet()
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, made, group=self._patient)
        for part in parts:
            if isinstance(part, InputError):
                raise part
        return [part[place] for place in range(max(map(len, parts))) for part in parts if place < len(part)]

    def _meet(self) -> None:
        """Wait for all processes, as long as it takes. Looked at now and then rather than waited for: a process inside
        wait() hears no signal.
        """
        work = dist.barrier(group=self._patient, async_op=True)
        assert work is not None  # it is asynchronous
        while not work.is_completed():
            time.sleep(0.01)
        work.wait()


@contextmanager
def distributed(device: str) -> Iterator[World]:
    """The World that torchrun's environment describes, or a single process. `device` as in run.device.

    Raises InputError for more processes on a machine than it has GPUs, and for an environment that lacks something.
    """
    told = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if told[1] in ("", "1"):  # managed clusters say so of a single process, too
        yield World(0, 1, pick_device(device))
        return
    if not all(map(str.isdecimal, told)):
        raise InputError(
            f"found RANK, WORLD_SIZE and LOCAL_RANK {', '.join(map(repr, told))} in the environment, expected numbers; "
            "start several processes by torchrun"
        )
    rank, size, local = map(int, told)
    chosen = pick_device(device)
    if chosen.type == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"this is process {local + 1} of its machine, which has {torch.cuda.device_count()} GPUs; "
                "start one process a GPU: torchrun --nproc-per-node"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
        dist.init_process_group("nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()
