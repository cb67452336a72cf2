"""Which of the values in a sorted row is nearest."""

import numpy as np


def nearest(row: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the value of the increasing `row` (n,) that is nearest to each wanted one, the earlier of two."""
    after = np.searchsorted(row, wanted).clip(max=len(row) - 1)
    before = (after - 1).clip(0)
    return np.where(wanted - row[before] <= row[after] - wanted, before, after)
