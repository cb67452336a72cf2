"""Stages side by side: what makes items runs in a thread of its own, a little ahead of what uses them."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

_END = object()
_POLL_S = 0.1
"""How long a thread waits at most before it looks whether it is still wanted."""


def ahead(items: Iterable[Item]) -> Generator[Item, None, None]:
    """The items in their order, made by another thread; two at most wait, and one is in hand.

    An exception arrives where the next item would have. When this generator is closed, for an error or an interruption
    of whoever uses the items, the thread ends and closes `items` in turn. Worth it where making and using let go of the
    interpreter (OpenCV, PyAV, torch).
    """
    waiting: queue.Queue = queue.Queue(2)
    unwanted = threading.Event()

    def offer(thing: object) -> None:
        while not unwanted.is_set():
            try:
                return waiting.put(thing, timeout=_POLL_S)
            except queue.Full:
                continue

    def make() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                offer((item, None))
                if unwanted.is_set():
                    return
            offer((_END, None))
        except BaseException as error:  # told to whoever waits for the item
            offer((_END, error))
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        unwanted.set()
        thread.join()
