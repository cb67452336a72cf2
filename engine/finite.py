"""What is not finite on a device that is not to be waited for: noted there in every step, read now and then."""

from collections.abc import Mapping

import torch
from torch import Tensor

from errors import InputError

_GROWTH, _BACKOFF, _PATIENCE = 2.0, 0.5, 2000
"""Factors of a loss scale, and steps without an overflow after which it grows."""


class Finite:
    """Whether the values of every step were finite. Only `read` waits for the device."""

    def __init__(self) -> None:
        self._notes: list[tuple[int, str, list[str], Tensor]] = []

    def note(self, step: int, what: str, values: Mapping[str, Tensor]) -> None:
        """Take down numbers by name; `what` they are, for a message."""
        flags = torch.stack([value.detach().float() for value in values.values()]).isfinite()
        self._notes.append((step, what, list(values), flags))

    def read(self) -> InputError | None:
        """What to say of the first step in which one was not; forgets what was taken down."""
        notes, self._notes = self._notes, []
        flags = iter(torch.cat([flags for *_, flags in notes]).tolist() if notes else [])
        for step, what, names, _ in notes:
            if bad := [name for name in names if not next(flags)]:
                return diverged(step, f"{what} {', '.join(bad)}")
        return None


class LossScale:
    """What an fp16 loss is multiplied with, so that small gradients do not vanish (arXiv 1710.03740, section 3.2).

    It stays on the device: halved where a gradient overflows, doubled after many steps in which none did.
    """

    def __init__(self, device: torch.device):
        self.value = torch.full((), 2.0**16, device=device)
        self._good = torch.zeros((), dtype=torch.int32, device=device)

    def update(self, overflow: Tensor) -> None:
        """overflow (): 1 or 0, float."""
        torch._amp_update_scale_(self.value, self._good, overflow, _GROWTH, _BACKOFF, _PATIENCE)

    def state(self) -> list[float]:
        """For a checkpoint; waits for the device."""
        return [self.value.item(), self._good.item()]

    def load(self, state: list[float]) -> None:
        """Go on from what `state` gave."""
        self.value.fill_(state[0])
        self._good.fill_(int(state[1]))


def diverged(step: int, what: str) -> InputError:
    """What to say where `what` is not finite."""
    return InputError(
        f"step {step}: {what} is not finite; the last checkpoint is kept: "
        "lower optim.lr or look at the data, then run the same command again"
    )
