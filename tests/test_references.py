"""Which frames of a clip become references."""

import numpy as np
import pytest

from datasets.draw import window_starts
from datasets.references import FAR_FRAMES, choose_references, pose_references, spanning_references

LIP_GAPS = np.random.default_rng(0).permutation(101) / 100
"""Every hundredth from 0 to 1 once."""
FRONTAL = np.zeros(101)
USUAL = pose_references(LIP_GAPS, FRONTAL, np.zeros((101, 2)), 2)


def test_references_span_from_closed_to_wide():
    assert LIP_GAPS[spanning_references(LIP_GAPS, FRONTAL, 1)].tolist() == [0]
    assert LIP_GAPS[spanning_references(LIP_GAPS, FRONTAL, 2)] == pytest.approx([0, 0.95])
    assert spanning_references(np.array([0.3]), np.zeros(1), 2).tolist() == [0, 0]  # a picture has one face
    assert spanning_references(np.array([np.nan, 0.5, np.nan, 0.2]), np.zeros(4), 2).tolist() == [3, 1]
    # A turned face has to be shut further, and to open wider, to be taken.
    turned = spanning_references(np.array([0.0, 0.1, 0.6, 0.5]), np.array([0.5, 0, -0.5, 0]), 2)
    assert turned.tolist() == [1, 3]


@pytest.mark.parametrize("policy", ["random", "far", "closed", "span"])
def test_frames_without_a_face_are_no_references(policy):
    lip_gaps, rng = np.where(np.arange(101) % 3, np.nan, LIP_GAPS), np.random.default_rng(3)
    usual = pose_references(lip_gaps, FRONTAL, np.zeros((101, 2)), 2)
    chosen = np.array([choose_references(policy, lip_gaps, usual, np.arange(5), 2, rng) for _ in range(200)])
    assert not (chosen % 3).any()


def test_windows_begin_where_every_frame_shows_the_face():
    visible = np.array([1, 1, 1, 0, 1, 1], bool)
    assert window_starts(visible, 1).tolist() == [0, 1, 2, 4, 5] and window_starts(visible, 2).tolist() == [0, 1, 4]
    assert (
        window_starts(visible, 3).tolist() == [0]
        and not len(window_starts(visible, 4))
        and not len(window_starts(visible, 7))
    )


@pytest.mark.parametrize("policy", ["far", "span"])
def test_far_references_keep_their_distance(policy):
    rng, window = np.random.default_rng(1), np.arange(40, 45)
    chosen = np.array([choose_references(policy, LIP_GAPS, USUAL, window, 2, rng) for _ in range(300)])
    assert np.abs(chosen[..., None] - window).min() >= FAR_FRAMES
    short = choose_references(policy, LIP_GAPS[:2], USUAL, np.arange(2), 2, rng)
    assert set(short) <= {0, 1}


def test_training_spans_roughly_and_sometimes_shows_one_frame_twice():
    rng = np.random.default_rng(2)
    chosen = np.array([choose_references("span", LIP_GAPS, USUAL, np.arange(5), 2, rng) for _ in range(500)])
    same = chosen[:, 0] == chosen[:, 1]
    assert 0.05 < same.mean() < 0.16
    closed, wide = LIP_GAPS[chosen[~same]].T
    assert closed.max() < 0.3 and wide.min() > 0.65 and len(set(closed)) > 10
    assert LIP_GAPS[choose_references("closed", LIP_GAPS, USUAL, np.arange(5), 2, rng)] == pytest.approx([0, 0.95])
