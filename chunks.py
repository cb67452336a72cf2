"""Some items at a time, lazily; or some of them, evenly chosen."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int, first: int | None = None) -> Iterator[list[Item]]:
    """Lists of `size` items, `first` of them in the first one; the last one shorter; each made when it is asked for."""
    iterator = iter(items)
    chunk = list(islice(iterator, first or size))
    while chunk:
        yield chunk
        chunk = list(islice(iterator, size))


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` of the items, from the first to the last."""
    return [items[round(k)] for k in np.linspace(0, len(items) - 1, min(count, len(items)))]
