"""Batches that lie on several processes: losses that compare samples with each other see all of them.

Gradients are right when they are averaged over the processes, as DistributedDataParallel does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

_apart = False


def gather(values: Tensor) -> Tensor:
    """Rows (N, ...) of every process, in the order of the processes: (processes * N, ...), with gradients to all of
    them.

    Every process has to call it, with as many rows. Without other processes, and inside `alone`, the rows themselves.
    """
    if _apart or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return values
    return _Gather.apply(values)


@contextmanager
def alone() -> Iterator[None]:
    """What runs inside concerns this process only (validation, a measurement): `gather` gathers nothing."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


class _Gather(torch.autograd.Function):
    """The loss of every process depends on the rows of every other: their gradients are summed on the way back."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        rows = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, values.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
