"""Which frames of a clip become references."""

import numpy as np
import pytest

from datasets.references import FAR_FRAMES, choose_references, spanning_references

OPENNESS = np.random.default_rng(0).permutation(101) / 100
"""Every hundredth from 0 to 1 once."""


def test_references_span_from_closed_to_wide():
    assert OPENNESS[spanning_references(OPENNESS, 1)].tolist() == [0]
    assert OPENNESS[spanning_references(OPENNESS, 2)] == pytest.approx([0, 0.95])
    assert spanning_references(np.array([0.3]), 2).tolist() == [0, 0]  # a picture has one face


@pytest.mark.parametrize("policy", ["far", "span"])
def test_far_references_keep_their_distance(policy):
    rng, window = np.random.default_rng(1), np.arange(40, 45)
    chosen = np.array([choose_references(policy, OPENNESS, window, 2, rng) for _ in range(300)])
    assert np.abs(chosen[..., None] - window).min() >= FAR_FRAMES
    short = choose_references(policy, OPENNESS[:2], np.arange(2), 2, rng)
    assert set(short) <= {0, 1}


def test_training_spans_roughly_and_sometimes_shows_one_frame_twice():
    rng = np.random.default_rng(2)
    chosen = np.array([choose_references("span", OPENNESS, np.arange(5), 2, rng) for _ in range(500)])
    same = chosen[:, 0] == chosen[:, 1]
    assert 0.05 < same.mean() < 0.16
    closed, wide = OPENNESS[chosen[~same]].T
    assert closed.max() < 0.3 and wide.min() > 0.65 and len(set(closed)) > 10
    assert OPENNESS[choose_references("closed", OPENNESS, np.arange(5), 2, rng)].tolist() == [0, 0.01]
