"""Faces in one picture after another: two backends of the interface in face.detector."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from errors import InputError
from face.detector import Detector, Face
from face.topology import LIP_GAP, RIGID

MODEL = Path(__file__).resolve().parent.parent / "checkpoints" / "face_landmarker.task"
_QUIET = threading.Lock()
_SEARCH_SHARES = (1.0, 0.6, 0.4)
"""Sides of the parts searched, of the picture's shorter side: the detector sees 128 px and misses small faces."""


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

    lip_gap = LIP_GAP
    least_side: int | None = 360
    """It sees pictures at 128 px, where it misses faces below about a tenth of the longer side: those that it finds in
    1280x720 are some 60 px wide in a reduced picture, enough for its landmarks."""

    def __init__(self, max_faces: int = 5):
        """Raises InputError where the model file is missing."""
        if not MODEL.is_file():
            raise InputError(f"{MODEL} is missing; restore it from the repository")
        self.max_faces = max_faces
        self._landmarker: Any = None
        self._last_ms = -1

    def detect(self, image_rgb: np.ndarray, time_s: float) -> list[Face]:
        """See Detector. Times that repeat or go back count as 1 ms later than the last."""
        self._last_ms = max(round(time_s * 1000), self._last_ms + 1)
        image = _mediapipe_image(image_rgb)
        if self._landmarker is None:
            with _quiet_stderr():  # its C++ part prints while starting, whatever the log settings
                self._landmarker = _create("VIDEO", self.max_faces)
                result = self._landmarker.detect_for_video(image, self._last_ms)
        else:
            result = self._landmarker.detect_for_video(image, self._last_ms)
        return _faces(result, image_rgb.shape)

    def search(self, image_rgb: np.ndarray) -> list[Face]:
        """See Detector: one face at a time, in ever smaller parts of the picture, each looked at again from near."""
        height, width = image_rgb.shape[:2]
        found: list[Face] = []
        with _quiet_stderr(), closing(_create("IMAGE", 1)) as landmarker:
            for share in _SEARCH_SHARES:
                side = round(share * min(height, width))
                for x in _spread(width, side):
                    for y in _spread(height, side):
                        face = _look(landmarker, image_rgb, np.array([x, y, x + side, y + side]))
                        if face is not None:
                            face = _look(landmarker, image_rgb, _around(face.box_xyxy))
                        if face is not None and not any(_same(face, other) for other in found):
                            found.append(face)
        return sorted(found, key=lambda face: -np.prod(face.box_xyxy[2:] - face.box_xyxy[:2]))[: self.max_faces]

    def reset(self) -> None:
        """See Detector: a new landmarker, as the old one would look where the face was."""
        if self._landmarker is not None:
            self._landmarker.close()
        self._landmarker = None
        self._last_ms = -1

    def rigid(self, landmarks: np.ndarray) -> np.ndarray:
        """See Detector."""
        return landmarks[list(RIGID)]


def _spread(length: int, side: int) -> np.ndarray:
    """Where parts of `side` px begin that cover `length` and overlap by half."""
    return np.linspace(0, length - side, int(np.ceil(2 * (length - side) / side)) + 1).astype(int)


def _around(box: np.ndarray) -> np.ndarray:
    """A square twice as large as a box, with the same centre."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
    return np.concatenate([centre - half, centre + half])


def _look(landmarker, image_rgb: np.ndarray, part: np.ndarray) -> Face | None:
    """The face in a part (x0, y0, x1, y1) px of the picture, in px of the whole."""
    height, width = image_rgb.shape[:2]
    x0, y0, x1, y1 = np.clip(part, 0, (width, height, width, height)).astype(int)
    if min(x1 - x0, y1 - y0) < 16:
        return None
    inside = image_rgb[y0:y1, x0:x1]
    faces = _faces(landmarker.detect(_mediapipe_image(inside)), inside.shape)
    if not faces:
        return None
    shift = np.array([x0, y0], np.float32)
    return Face(faces[0].box_xyxy + np.tile(shift, 2), faces[0].landmarks + shift)


def _same(face: Face, other: Face) -> bool:
    """Whether two faces' centres are nearer than half of the smaller one's size."""
    sizes = [np.sqrt(np.prod(one.box_xyxy[2:] - one.box_xyxy[:2])) for one in (face, other)]
    offset = (face.box_xyxy - other.box_xyxy).reshape(2, 2).mean(0)
    return float(np.linalg.norm(offset)) < 0.5 * min(sizes)


def _create(mode: str, max_faces: int):
    from mediapipe.tasks.python import BaseOptions, vision  # takes seconds, which training need not wait for

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(MODEL)),
        running_mode=vision.RunningMode[mode],
        num_faces=max_faces,
    )
    return vision.FaceLandmarker.create_from_options(options)


def _mediapipe_image(image_rgb: np.ndarray):
    import mediapipe

    return mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image_rgb))


def _faces(result, shape: tuple[int, ...]) -> list[Face]:
    """MediaPipe's points are shares of the picture's size, counted from its edge."""
    scale, faces = np.array([shape[1], shape[0]], np.float32), []
    for points in result.face_landmarks:
        landmarks = np.array([(point.x, point.y) for point in points], np.float32) * scale - 0.5
        faces.append(Face(np.concatenate([landmarks.min(0), landmarks.max(0)]), landmarks))
    return faces


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what C code writes to descriptor 2 nowhere; one thread at a time, as all have the same descriptor."""
    with _QUIET:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
