"""Head pose from ten points, and the bank of key frames that it chooses."""

import numpy as np
import pytest

from datasets.references import (
    CELL,
    FAR_FRAMES,
    KEY_POSES,
    bank_shares,
    drawn_bank,
    reference_bank,
    spanning_references,
)
from face.pose import SHAPE, head_pose, smooth_pose

RNG = np.random.default_rng(0)
OPENNESS = RNG.permutation(200) / 200
TURNING = np.stack([20 * np.sin(np.arange(200) / 20), np.zeros(200)], 1)
"""A head that turns 20 degrees to either side."""


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
    for openness in (OPENNESS, np.array([0.3]), np.where(np.arange(200) % 3, np.nan, OPENNESS)):
        pose = RNG.uniform(-1, 1, (len(openness), 2))
        bank = reference_bank(pose, openness, 2)
        assert bank.frames.tolist() == [spanning_references(openness, 2).tolist()]
        assert (bank_shares(bank, pose) == 1).all()


def test_every_pose_has_a_closed_and_a_wide_mouth_near():
    bank = reference_bank(TURNING, OPENNESS, 2)
    assert 3 <= len(bank) <= KEY_POSES
    assert OPENNESS[bank.frames[:, 0]].max() < 0.1 and OPENNESS[bank.frames[:, 1]].min() > 0.8
    assert bank.poses == pytest.approx(TURNING[bank.frames])
    assert np.abs(TURNING[:, None, None] - bank.poses).sum(-1).min(1).max() < 2 * CELL


def test_unseen_frames_are_no_key_frames():
    openness = np.where(np.arange(200) % 3, np.nan, OPENNESS)
    assert not (reference_bank(TURNING, openness, 2).frames % 3).any()


def test_shares_sum_to_one_and_are_smooth_in_pose():
    bank = reference_bank(TURNING, OPENNESS, 2)
    yaw = np.linspace(-60, 60, 12001)
    shares = bank_shares(bank, np.stack([yaw, np.zeros_like(yaw)], 1))
    assert shares.shape == (12001, len(bank), 2)
    assert shares.sum(1) == pytest.approx(1, abs=1e-5)
    assert np.abs(np.diff(shares, axis=0)).max() < 0.02  # a hundredth of a degree


def test_a_key_frame_holds_most_of_its_own_pose():
    bank = reference_bank(TURNING, OPENNESS, 1)
    shares = bank_shares(bank, bank.poses[:, 0])[:, :, 0]
    assert (shares.argmax(1) == np.arange(len(bank))).all()


def test_training_sees_nothing_near_in_time():
    rng, window = np.random.default_rng(1), np.arange(60, 65)
    for _ in range(50):
        frames, shares = drawn_bank(TURNING, OPENNESS, window, 2, 3, rng)
        assert frames.shape == (3, 2) and shares.shape == (5, 3, 2) and shares.dtype == np.float32
        assert np.abs(frames[..., None] - window).min() >= FAR_FRAMES
        assert shares.sum(1) == pytest.approx(1, abs=1e-5)


def test_training_pads_a_clip_that_does_not_turn_with_empty_shares():
    frames, shares = drawn_bank(np.zeros((40, 2)), OPENNESS[:40], np.arange(3), 2, 2, np.random.default_rng(2))
    assert (frames[0] == frames[1]).all()
    assert (shares[:, 0] == 1).all() and (shares[:, 1] == 0).all()


def test_training_draws_other_mouths_each_time():
    rng = np.random.default_rng(3)
    drawn = [drawn_bank(TURNING, OPENNESS, np.arange(100, 105), 2, 2, rng)[0] for _ in range(100)]
    assert len({tuple(frames.ravel()) for frames in drawn}) > 30
    assert 2 <= sum(len(set(frames.ravel())) == 1 for frames in drawn) <= 25  # a portrait has one face
