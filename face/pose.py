"""Which way a head looks: yaw, pitch and roll from the ten rigid points."""

import numpy as np
from scipy.ndimage import gaussian_filter1d

from nearest import nearest

SHAPE = np.array(
    [
        (-22.9, -4.2, 12.1),
        (-9.1, -3.4, 9.2),
        (22.9, -4.2, 12.1),
        (9.1, -3.4, 9.2),
        (0.0, -6.9, -0.4),
        (0.0, -2.8, -2.8),
        (0.0, 0.8, -5.6),
        (0.0, 4.2, -8.8),
        (0.0, 7.8, -11.9),
        (0.0, 12.1, -13.2),
    ]
)
"""(10, 3): the rigid points of a mean face, eyes 32 apart, x to the right and y down in the picture, z away from the
camera. Procrustes mean of the landmark net's 3D points in 456 frames of 51 people, made symmetric; the net's depths are
taken 1.1 times, where the projected shape fits the points best."""

SMOOTH_FRAMES = 3.0
"""Sigma of the Gaussian mean that poses are smoothed with."""


def head_pose(rigid: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll (n, 3) in degrees of rigid points (n, 10, 2), px of any picture; NaN points give NaN.

    The nearest scaled rotation to the least-squares map from SHAPE (weak perspective). Yaw grows as the nose moves to
    the right of the picture, pitch as it moves down, roll clockwise; roll is taken off first, so a picture that is
    turned, moved or scaled keeps its yaw and pitch.
    """
    points = np.asarray(rigid, float)
    known = np.isfinite(points).all((1, 2))
    shape, angles = SHAPE - SHAPE.mean(0), np.full((len(points), 3), np.nan)
    centred = points[known] - points[known].mean(1, keepdims=True)
    u, _, v = np.linalg.svd(centred.transpose(0, 2, 1) @ np.linalg.pinv(shape).T, full_matrices=False)
    across, down = (u @ v).transpose(1, 0, 2)  # rows of the rotation: picture axes in the shape's
    away = np.cross(across, down)
    pitch = np.arcsin(np.clip(away[:, 1], -1, 1))
    yaw = np.arctan2(away[:, 0], away[:, 2])
    # The picture's axes after yaw and pitch alone; roll is what is left.
    level = np.stack([np.cos(yaw), np.zeros_like(yaw), -np.sin(yaw)], -1)
    roll = np.arctan2((down * level).sum(-1), (across * level).sum(-1))
    angles[known] = np.degrees(np.stack([yaw, pitch, roll], -1))
    return angles


def smooth_pose(pose: np.ndarray, shot: np.ndarray | None = None) -> np.ndarray:
    """Poses (n, ...) as Gaussian means over time; NaN frames take no part, and get the mean of those near them.

    shot (n,) int: nothing is smoothed across a change of it. A frame with none near takes the nearest known one; NaN
    where a shot has none at all.
    """
    shot = np.zeros(len(pose), int) if shot is None else shot
    smooth = np.full(np.shape(pose), np.nan)
    for part in (np.flatnonzero(shot == number) for number in np.unique(shot)):
        known = part[np.isfinite(pose[part]).reshape(len(part), -1).all(1)]
        if len(known):
            shown = np.asarray(pose, float)[known[nearest(known, part)]]
            smooth[part] = gaussian_filter1d(shown, SMOOTH_FRAMES, axis=0, mode="nearest")
    return smooth
