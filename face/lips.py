"""Measures of the mouth from landmarks: lip gap, eye distance, boxes round the lips."""

import numpy as np

from face.topology import LIP_GAP, LIPS, RIGID

LIP_BOX_MARGIN = (10, 8)
"""Pixels of the 128 crop by which the box of the real lips is widened, across and down."""


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip gap (points 13, 14) over eye distance of (frames, 478, 2): (frames,), 0 closed, about 0.4 wide open.

    Eye distance is between the centres of the two eyes' corner pairs (33, 133) and (263, 362).
    """
    upper, lower = LIP_GAP
    return np.linalg.norm(landmarks[:, upper] - landmarks[:, lower], axis=1) / eye_distance(landmarks)


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """Distance (frames,) between the centres of the two eyes' corner pairs, of (frames, 478, 2)."""
    right, left = landmarks[:, RIGID[:2]].mean(1), landmarks[:, RIGID[2:4]].mean(1)
    return np.linalg.norm(right - left, axis=1)


def lip_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Box (frames, 4) round the lips of (frames, 478, 2), widened by LIP_BOX_MARGIN, in px of the 128 crop."""
    lips = landmarks[:, LIPS]
    return np.concatenate([lips.min(1) - LIP_BOX_MARGIN, lips.max(1) + LIP_BOX_MARGIN], 1).astype(np.float32)
