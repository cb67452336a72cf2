"""Items by the batch, lazily."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter, each made when it is asked for."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
