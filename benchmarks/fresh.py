"""Work in a process of its own, so that one measurement tells nothing of another's memory."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import TypeVar

from workers import end_with

Result = TypeVar("Result")


def fresh(work: Callable[..., Result], *given: object) -> Result:
    """What `work` gives in a new process, which ends with this one."""
    with ProcessPoolExecutor(1, get_context("spawn"), end_with, (os.getpid(),)) as pool:
        process = pool.submit(os.getpid).result()
        try:
            return pool.submit(work, *given).result()
        except BaseException:  # a signal, too: leaving the pool would wait for the work
            with suppress(ProcessLookupError):  # which may have been what went wrong
                os.kill(process, signal.SIGKILL)
            raise
