"""Processes that end when the one that started them does, and work spread over them."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Called in a new process: it gets signal `number` when `parent`, the process that started it, is gone, however
    that ended; to be exact, when the thread is that did, so start it from one that lives on. On Linux; elsewhere this
    does nothing.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent:  # it went before that
        os.kill(os.getpid(), number)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """What came of one item: a result, or how the process that worked on it died, e.g. SIGKILL."""

    item: Item
    result: Result | None = None
    death: str | None = None


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int, setup: Callable[[], object] = lambda: None
) -> Iterator[Done[Item, Result]]:
    """`work` of every item in that many processes, each of which calls `setup` first; in the order they get done.

    A process that dies takes only the item it worked on with it, and another one begins in its place. What `work`
    raises is raised here, and ends all of them. They end with the process that called this.
    """
    todo = iter(items)
    crew: list[_Worker] = []

    def employ(worker: _Worker | None) -> None:
        """Give the next item, if there is one, to this worker or to a new one."""
        for item in todo:
            worker = worker or _Worker(work, setup)
            worker.give(item)
            crew.append(worker)
            return
        if worker is not None:
            worker.end()

    try:
        for _ in range(max(processes, 1)):
            employ(None)
        while crew:
            ready = wait([worker.pipe for worker in crew])
            for worker in [worker for worker in crew if worker.pipe in ready]:
                crew.remove(worker)
                done = worker.take()
                employ(None if done.death else worker)
                yield done
    finally:
        for worker in crew:
            worker.end()


class _Worker:
    """One process and the item it works on."""

    def __init__(self, work: Callable[[Any], Any], setup: Callable[[], object]):
        self.pipe, other = multiprocessing.Pipe()
        self.item: Any = None
        self._process: BaseProcess = multiprocessing.Process(
            target=_serve, args=(other, work, setup, os.getpid()), daemon=True
        )
        self._process.start()
        other.close()  # so that the pipe ends with the worker

    def give(self, item: Any) -> None:
        self.item = item
        with contextlib.suppress(BrokenPipeError):  # take() finds out
            self.pipe.send(item)

    def take(self) -> Done:
        """What came of the item. Raises what `work` raised."""
        try:
            result, error, trace = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return Done(self.item, death=self._death())
        if error is not None:
            self.end()
            raise error from RuntimeError(f"in a worker:\n{trace}")
        return Done(self.item, result)

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _death(self) -> str:
        self._process.join()
        self.pipe.close()
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(pipe: Connection, work: Callable[[Any], Any], setup: Callable[[], object], parent: int) -> None:
    """A worker's life: it is ended from outside."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent sees to it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    setup()
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(_answer(work, item))


def _answer(work: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None, str]:
    try:
        return work(item), None, ""
    except Exception as error:
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that does not travel
            return None, RuntimeError(repr(error)), trace
        return None, error, trace
