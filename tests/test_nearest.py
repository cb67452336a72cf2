"""The nearest value of a sorted row."""

import numpy as np

from nearest import nearest


def test_the_nearest_frame_is_the_one_that_comparing_all_would_choose():
    rng = np.random.default_rng(0)
    for trial in range(200):
        steps = rng.choice([0.02, 0.04, 0.08], rng.integers(1, 60)) if trial % 2 else rng.exponential(0.04, 40) + 1e-4
        times = rng.uniform(0, 1e4) * (trial % 3) + np.cumsum(steps)
        wanted = times[0] - 0.1 + np.arange(rng.integers(1, 80)) / 50  # lies in the middle of two frames, too
        by_hand = np.abs(times[None] - wanted[:, None]).argmin(1)
        assert np.array_equal(nearest(times, wanted), by_hand)
