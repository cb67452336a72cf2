"""Head pose from ten points."""

import numpy as np
import pytest
from conftest import peak_memory

from face.pose import SHAPE, head_pose, smooth_pose


def turned(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Points (10, 2) of the mean face, seen after roll, pitch and yaw in degrees (the nose goes right, down)."""
    y, p, r = np.radians([-yaw, pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return (SHAPE @ (about_z @ about_x @ about_y).T)[:, :2]


def test_the_mean_face_is_symmetric_and_its_nose_is_three_quarters_of_the_eye_distance_ahead():
    left, right, nose = SHAPE[:2], SHAPE[2:4], SHAPE[4:]
    eyes = np.stack([left.mean(0), right.mean(0)])
    assert (right == left * [-1, 1, 1]).all() and not nose[:, 0].any()
    assert np.ptp(eyes[:, 0]) == pytest.approx(32)
    assert (eyes[0, 2] - nose[-1, 2]) / 32 == pytest.approx(0.745, abs=0.001) and (np.diff(nose[:, 1]) > 0).all()


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


def test_smoothing_a_long_shot_takes_memory_in_proportion():
    pose = np.random.default_rng(0).normal(size=(50_000, 2))
    pose[::3] = np.nan
    with peak_memory() as peak:
        smooth = smooth_pose(pose)
        assert peak() < 20 * pose.nbytes
    assert np.isfinite(smooth).all()
