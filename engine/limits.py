"""When a run ends before its last step because its time is over."""

import math
from time import monotonic


class Clock:
    """Wall-clock time that a run trained and validated, over all its starts, and how much of it there may be."""

    def __init__(self, minutes: float | None, before: float = 0.0):
        """minutes: the limit, None for none. before: s of earlier starts."""
        self._limit = math.inf if minutes is None else 60 * minutes
        self._before = before
        self._started: float | None = None

    def start(self) -> None:
        """Count from now on."""
        self._started = monotonic()

    @property
    def seconds(self) -> float:
        return self._before + (0.0 if self._started is None else monotonic() - self._started)

    @property
    def share(self) -> float:
        """How much of the time is over, 0 to 1; 0 without a limit."""
        return min(self.seconds / self._limit, 1.0)

    @property
    def over(self) -> bool:
        return self.seconds >= self._limit

    def length(self, done: int, steps: int) -> int:
        """Steps that a run of at most `steps` will have had when its time is over, at its pace so far."""
        return min(steps, math.ceil(done / self.share)) if self.share and done else steps
