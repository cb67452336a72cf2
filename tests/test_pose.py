"""Head pose from ten points, and the bank of key frames that it chooses."""

import numpy as np
import pytest

from datasets.references import CELL, KEY_POSES, pose_references, spanning_references
from face.pose import SHAPE, head_pose, smooth_pose

RNG = np.random.default_rng(0)
LIP_GAPS = RNG.permutation(200) / 200
TURNING = np.stack([20 * np.sin(np.arange(200) / 20), np.zeros(200)], 1)
"""A head that turns 20 degrees to either side."""
FRONTAL = np.zeros(200)


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Points (10, 2) of the mean face, seen after roll, pitch and yaw in degrees (the nose goes right, down)."""
    y, p, r = np.radians([-yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (SHAPE @ (about_z @ about_x @ about_y).T)[:, :2]


@pytest.mark.parametrize("angles", [(0, 0, 0), (25, 0, 0), (0, 15, 0), (0, 0, -30), (-30, 10, 7), (12, -14, 170)])
def test_pose_is_read_from_points_wherever_they_are(angles):
    points = turned(*angles)
    assert head_pose(np.stack([points, 3 * points + 100])) == pytest.approx(np.array([angles] * 2), abs=1e-6)


def test_a_nose_to_the_right_and_down_is_positive_yaw_and_pitch():
    nose = turned(20, 0, 0)[9] - turned(0, 0, 0)[9]
    assert nose[0] > 4 and abs(nose[1]) < 1
    assert turned(0, 20, 0)[9, 1] > turned(0, 0, 0)[9, 1]


def test_unknown_points_have_no_pose_until_smoothing_borrows_one():
    points = np.stack([turned(10, 0, 0)] * 5)
    points[2] = np.nan
    pose = head_pose(points)
    assert np.isnan(pose[2]).all() and np.isfinite(pose[[0, 1, 3, 4]]).all()
    assert smooth_pose(pose)[:, 0] == pytest.approx([10] * 5)
    assert np.isnan(smooth_pose(np.full((3, 2), np.nan))).all()


def test_poses_are_not_smoothed_across_shots():
    pose = np.repeat([[0.0, 0.0], [40.0, 0.0]], 5, axis=0)
    shots = np.repeat([0, 1], 5)
    assert smooth_pose(pose, shots) == pytest.approx(pose)
    assert 1 < smooth_pose(pose)[4, 0] < 39


def test_a_clip_that_does_not_turn_has_the_closed_and_the_wide_frame():
    for lip_gaps in (LIP_GAPS, np.array([0.3]), np.where(np.arange(200) % 3, np.nan, LIP_GAPS)):
        pose, yaw = RNG.uniform(-1, 1, (len(lip_gaps), 2)), np.zeros(len(lip_gaps))
        chosen = pose_references(lip_gaps, yaw, pose, 2)
        assert chosen.frames.tolist() == [spanning_references(lip_gaps, yaw, 2).tolist()]
        assert (chosen.shares == 1).all() and chosen.shares.shape == (len(lip_gaps), 1)


def test_every_pose_has_a_closed_and_a_wide_mouth_near():
    chosen = pose_references(LIP_GAPS, FRONTAL, TURNING, 2)
    assert 3 <= len(chosen.frames) <= KEY_POSES
    assert LIP_GAPS[chosen.frames[:, 0]].max() < 0.1 and LIP_GAPS[chosen.frames[:, 1]].min() > 0.8
    shown = TURNING[chosen.frames[chosen.shares.argmax(1), 0]]
    assert np.abs(TURNING - shown).max() < 3 * CELL


def test_unseen_frames_are_no_key_frames():
    lip_gaps = np.where(np.arange(200) % 3, np.nan, LIP_GAPS)
    assert not (pose_references(lip_gaps, FRONTAL, TURNING, 2).frames % 3).any()


def test_key_poses_give_way_to_each_other_within_a_few_frames():
    shares = pose_references(LIP_GAPS, FRONTAL, TURNING, 1).shares
    assert shares.sum(1) == pytest.approx(1, abs=1e-5) and shares.dtype == np.float32
    assert np.abs(np.diff(shares, axis=0)).max() < 0.4
    assert (shares.max(1) == 1).mean() > 0.5  # most frames show one key pose alone, and cost no more than before
