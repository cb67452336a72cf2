"""Signals that end a run: noted at once, obeyed when a checkpoint is written."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = signal.SIGTERM, signal.SIGINT
_ECHO = 2.0
"""Seconds within which the same request may come twice: from whoever signals the group, and from the launcher."""


class Stopped(SystemExit):
    """A run that stopped for a signal: exit code 128 + its number, as shells have it (143 for SIGTERM)."""


class StopSignals:
    """Context in which SIGTERM and SIGINT are only noted. A later one acts as it would without this."""

    def __init__(self) -> None:
        self.number, self._noted = 0, 0.0
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def seen(self) -> bool:
        return self.number != 0

    def stopped(self) -> Stopped:
        """The exception to leave with; another process may have had the signal."""
        return Stopped(128 + (self.number or signal.SIGTERM))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within it nothing is lost by stopping: raises Stopped as soon as a signal comes, or now if one did."""
        if self.seen:
            raise self.stopped()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.seen and time.monotonic() - self._noted > _ECHO:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        if not self.seen:
            self.number, self._noted = number, time.monotonic()
        if self._at_once:
            raise self.stopped()
