"""Named loss terms and their weights: one dict each, summed and logged by iterating."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

LATE = 10**9
"""A step by which every scheduled term has set in."""


def weighted(
    terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate the terms whose weight is not zero; returns their weighted sum and the unweighted values by name."""
    values = {name: term() for name, term in terms.items() if weights[name] != 0}
    total = torch.stack([weights[name] * value.float() for name, value in values.items()]).sum()
    return total, values


def scheduled(weights: Mapping[str, float], step: int) -> dict[str, float]:
    """The weights at `step`: those that have a `<name>_from` and a `<name>_ramp` set in and grow as these say, see
    `ramp`.
    """
    late = [name for name in weights if f"{name}_from" in weights]
    return {
        **weights,
        **{name: weights[name] * ramp(step, weights[f"{name}_from"], weights[f"{name}_ramp"]) for name in late},
    }


def ramp(step: int, start: float, length: float) -> float:
    """Share of its weight that a term has at `step`: 0 before `start`, then linearly to 1 within `length` steps."""
    return min(max((step - start + 1) / max(length, 1), 0.0), 1.0)
