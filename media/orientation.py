"""Which way up a picture is shown: quarter turns, and mirroring as in selfies."""

import math
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from media.source import PHOTO_ERRORS, photo_header

_EXIF_TAG = 0x0112
_EXIF = {
    1: (0, False),
    2: (0, True),
    3: (2, False),
    4: (2, True),
    5: (3, True),
    6: (3, False),
    7: (1, True),
    8: (1, False),
}


@dataclass(frozen=True)
class Orientation:
    """What makes stored pixels upright: `turns` quarter turns anticlockwise, then left and right exchanged."""

    turns: int = 0
    mirrored: bool = False

    def applied(self, plane: np.ndarray) -> np.ndarray:
        """The plane (H, W, ...), upright."""
        turned = np.rot90(plane, self.turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return stored[::-1] if self.turns % 2 else stored


def orientation_of(picture: av.VideoFrame, path: Path, notes: list[str]) -> Orientation:
    """Of a decoded picture of `path`: its display matrix, or a photo's EXIF tag."""
    try:
        matrix = picture.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stubs know one kind of many
    except KeyError:
        return Orientation()
    except ValueError:  # EXIF beside it: side data that PyAV has no name for hides the rest
        return _by_exif(path) or Orientation(round(picture.rotation / 90) % 4)
    return _by_matrix(np.frombuffer(bytes(matrix), np.int32).astype(float), notes)


def _by_exif(path: Path) -> Orientation | None:
    try:
        with photo_header(path) as image:
            return Orientation(*_EXIF.get(image.getexif().get(_EXIF_TAG, 1), (0, False)))
    except PHOTO_ERRORS:
        return None


def _by_matrix(matrix: np.ndarray, notes: list[str]) -> Orientation:
    """matrix: FFmpeg's nine numbers; a point (p, q) of the stored picture is shown at (a p + c q, b p + d q)."""
    a, b, _, c, d = matrix[:5]
    mirrored = a * d - b * c < 0
    clockwise = math.degrees(math.atan2(b, -a if mirrored else a))
    turns = round(clockwise / 90)
    if abs(clockwise - 90 * turns) > 1:
        notes.append(f"a rotation of {clockwise:.0f} degrees was taken for {90 * turns}")
    return Orientation(-turns % 4, mirrored)
