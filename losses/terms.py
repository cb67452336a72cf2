"""Named loss terms and their weights: one dict each, summed and logged by iterating."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def weighted(terms: Mapping[str, Callable[[], Tensor]], weights: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate the terms whose weight is not zero; returns their weighted sum and the unweighted values by name."""
    values = {name: term() for name, term in terms.items() if weights[name] != 0}
    total = torch.stack([weights[name] * value.float() for name, value in values.items()]).sum()
    return total, values
