"""The `face_alignment` backend: S3FD finds faces, 2DFAN places 68 points. Slow on a CPU."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import torch

from errors import InputError
from face.crop import TEMPLATE
from face.detector import Face
from face.topology import BRIDGE_68, CORNERS_68, LIP_GAP_68

WEIGHTS = ("s3fd-619a316812.pth", "2DFAN4-11f355bf06.pth.tar")
DETECTION_SIDE = 640
"""Longer side, px, of the picture that S3FD searches; the points are placed at full resolution."""


class FaceAlignmentDetector:
    """Every picture is searched anew: nothing is followed, so there is nothing to reset."""

    lip_gap = LIP_GAP_68
    least_side: int | None = None
    """Points are placed in faces of any size, however large the picture."""

    def __init__(self, max_faces: int = 5, device: str = "cpu"):
        """Loads the networks, which the package fetches at first use. Raises InputError where it cannot."""
        import face_alignment  # a package that only this backend needs

        folder = Path(torch.hub.get_dir()) / "checkpoints"
        try:
            self._net = face_alignment.FaceAlignment(face_alignment.LandmarksType.TWO_D, device=device, compile=False)
        except (OSError, RuntimeError, EOFError) as error:
            missing = [name for name in WEIGHTS if not (folder / name).is_file()]
            found = f"{' and '.join(missing)} missing and not to be fetched" if missing else "its weights do not load"
            raise InputError(
                f"face backend face_alignment: {found} ({error}); put {' and '.join(WEIGHTS)} into "
                f"{folder}, or use the mediapipe backend"
            ) from error
        self.max_faces = max_faces

    def detect(self, image_rgb: np.ndarray, time_s: float) -> list[Face]:
        """See Detector; `time_s` is not used."""
        scale = min(1.0, DETECTION_SIDE / max(image_rgb.shape[:2]))
        area = cv2.INTER_AREA
        small = cv2.resize(image_rgb, None, fx=scale, fy=scale, interpolation=area) if scale < 1 else image_rgb.copy()
        found = [np.asarray(box, float) for box in self._net.face_detector.detect_from_image(small)]
        found = sorted(found, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))[: self.max_faces]
        if not found:
            return []
        boxes = [np.append(box[:4] / scale, box[4]) for box in found]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            all_points = self._net.get_landmarks_from_image(image_rgb, detected_faces=boxes)
        faces = []
        for box, points in zip(boxes, all_points, strict=True):
            faces.append(Face(np.float32(box[:4]), points[:, :2].astype(np.float32)))
        return faces

    def search(self, image_rgb: np.ndarray) -> list[Face]:
        """See Detector."""
        return self.detect(image_rgb, 0.0)

    def reset(self) -> None:
        """See Detector."""

    def rigid(self, landmarks: np.ndarray) -> np.ndarray:
        """See Detector: eye corners are the same points; the nose's four are resampled at the template's heights."""
        heights = TEMPLATE[4:, 1]
        along = (heights - heights[0]) / (heights[-1] - heights[0]) * (len(BRIDGE_68) - 1)
        bridge = landmarks[list(BRIDGE_68)]
        nose = np.stack([np.interp(along, np.arange(len(BRIDGE_68)), bridge[:, axis]) for axis in (0, 1)], 1)
        return np.concatenate([landmarks[list(CORNERS_68)], nose]).astype(np.float32)
