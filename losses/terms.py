"""Named loss terms and their weights: one dict each, summed and logged by iterating."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from errors import InputError
from models.syncnet import SYNC_FRAMES

LATE = 10**9
"""A step by which every scheduled term has set in."""


@dataclass
class JudgedTerms:
    """Weights of the terms in which other networks judge, the same in both stages' `loss` sections; 0 leaves a term
    out.
    """

    sync: float = 0.0
    """1 - cosine of a frozen sync expert; needs `sync_expert` and data.window: 5."""
    sync_expert: str = "checkpoints/sync_light.safetensors"
    sync_from: int = 0
    """Step at which the sync term sets in."""
    sync_ramp: int = 1000
    """Steps in which it then grows to its weight."""
    adversarial: float = 0.0
    """Against a discriminator that learns along."""
    adversarial_from: int = 0
    adversarial_ramp: int = 1000
    adversary_width: int = 8
    """Channels of the discriminator's first stage; 32 as published."""

    def check_window(self, window: int) -> None:
        """Raises InputError where the sync expert would not get the frames it judges."""
        if self.sync and window != SYNC_FRAMES:
            raise InputError(
                f"data.window is {window}, expected {SYNC_FRAMES}: the sync expert judges {SYNC_FRAMES} frames; "
                "set it, or loss.sync: 0"
            )


def weighted(
    terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate the terms whose weight is not zero; returns their weighted sum and the unweighted values by name."""
    values = {name: term() for name, term in terms.items() if weights[name] != 0}
    total = torch.stack([weights[name] * value.float() for name, value in values.items()]).sum()
    return total, values


def scheduled(weights: Mapping[str, float], step: int, *names: str) -> dict[str, float]:
    """The weights at `step`: those of `names` set in and grow as their `<name>_from` and `<name>_ramp` say, see
    `ramp`.
    """
    return {
        **weights,
        **{name: weights[name] * ramp(step, weights[f"{name}_from"], weights[f"{name}_ramp"]) for name in names},
    }


def ramp(step: int, start: int, length: int) -> float:
    """Share of its weight that a term has at `step`: 0 before `start`, then linearly to 1 within `length` steps."""
    return min(max((step - start + 1) / max(length, 1), 0.0), 1.0)
