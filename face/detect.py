"""Faces in one picture after another: one small interface, two backends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from errors import InputError
from face.topology import LIP_GAP, RIGID

MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "face_landmarker.task"


@dataclass(frozen=True)
class Face:
    """box_xyxy (4,) px round the landmarks, forehead to chin; score 0..1; landmarks (P, 2) px, pixel centres at integers."""

    box_xyxy: np.ndarray
    score: float
    landmarks: np.ndarray


class Detector(Protocol):
    """What the tracker needs of a backend."""

    points: int
    """Landmarks a face has: 478 or 68."""
    lip_gap: tuple[int, int]
    """Landmarks whose distance tells how far the mouth is open."""

    def detect(self, image_rgb: np.ndarray, time_s: float) -> list[Face]:
        """Faces of (H, W, 3) uint8, which is shown at `time_s` seconds."""

    def reset(self) -> None:
        """Forget earlier pictures: the next one comes after a cut."""

    def rigid(self, landmarks: np.ndarray) -> np.ndarray:
        """The ten rigid points (10, 2) of (P, 2) landmarks, in the order of the crop template."""


def make_detector(name: Literal["mediapipe", "face_alignment"], max_faces: int = 5, device: str = "cpu") -> Detector:
    """`mediapipe` runs on the CPU whatever `device` says. Raises InputError for another name or missing weights."""
    if name == "mediapipe":
        return MediapipeDetector(max_faces)
    if name == "face_alignment":
        from face.detect_68 import FaceAlignmentDetector  # imports a package of its own, of use to few
        return FaceAlignmentDetector(max_faces, device)
    raise InputError(f"face backend {name!r}: expected mediapipe or face_alignment")


class MediapipeDetector:
    """MediaPipe's face landmarker in VIDEO mode: finds and follows, but lags too much to measure lips with."""

    points = 478
    lip_gap = LIP_GAP

    def __init__(self, max_faces: int = 5):
        """Raises InputError where the model file is missing."""
        if not MODEL.is_file():
            raise InputError(f"{MODEL} is missing; restore it from the repository")
        self.max_faces = max_faces
        self._landmarker = None
        self._last_ms = -1

    def detect(self, image_rgb: np.ndarray, time_s: float) -> list[Face]:
        """See Detector. Times that repeat or go back count as 1 ms later than the last."""
        import mediapipe  # takes seconds, which training need not wait for
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image_rgb))
        self._last_ms = max(round(time_s * 1000), self._last_ms + 1)
        if self._landmarker is None:
            with _quiet_stderr():  # its C++ part prints while starting, whatever the log settings
                self._landmarker = self._create()
                result = self._landmarker.detect_for_video(image, self._last_ms)
        else:
            result = self._landmarker.detect_for_video(image, self._last_ms)
        scale = np.float32([image_rgb.shape[1], image_rgb.shape[0]])
        faces = []
        for points in result.face_landmarks:
            landmarks = np.array([(point.x, point.y) for point in points], np.float32) * scale - 0.5
            faces.append(Face(np.concatenate([landmarks.min(0), landmarks.max(0)]), 1.0, landmarks))
        return faces

    def reset(self) -> None:
        """See Detector: a new landmarker, as the old one would look where the face was."""
        if self._landmarker is not None:
            self._landmarker.close()
        self._landmarker = None
        self._last_ms = -1

    def rigid(self, landmarks: np.ndarray) -> np.ndarray:
        """See Detector."""
        return landmarks[list(RIGID)]

    def _create(self):
        from mediapipe.tasks.python import BaseOptions, vision
        options = vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(MODEL)),
                                               running_mode=vision.RunningMode.VIDEO, num_faces=self.max_faces)
        return vision.FaceLandmarker.create_from_options(options)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what C code writes to descriptor 2 nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
