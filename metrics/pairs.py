"""Videos to compare: views of files, the real face in one, and which frames of another belong to its frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from chunks import evenly
from face.crop import CropTransform
from face.detect import make_detector
from face.follow import follow
from media.video import Frame, Rect, VideoReader, VideoWriter
from nearest import nearest

MAX_PICTURE_LAG = 12
"""Frames searched for a shift of the whole picture."""
_LAG_FRAMES = 500
"""Frames, spread over a video, that are compared for it."""
_THUMB_WIDTH = 64
_LAG_GAIN = 0.75
"""A shift is believed only if it leaves at most this share of the difference without it, ..."""
_LAG_LEAST = 0.1
"""... and removes at least so many grey levels of it: a picture that hardly moves tells nothing."""
_SHAPE_TOLERANCE = 0.02


class NoFace(Exception):
    """A clip cannot be scored because no face is found in it."""


@dataclass(frozen=True)
class View:
    """A video, or the rectangle (x0, y0, x1, y1) px of one that shows several side by side."""

    path: Path
    rect: Rect | None = None

    def area(self, frame: Frame) -> Rect:
        """The rectangle within one of its frames."""
        return self.rect or (0, 0, *frame.size)

    def size(self, reader: VideoReader) -> tuple[int, int]:
        """(width, height) px."""
        x0, y0, x1, y1 = self.rect or (0, 0, *reader.size)
        return x1 - x0, y1 - y0

    def face(self, frame: Frame, transform: CropTransform, size: int) -> np.ndarray:
        """(size, size, 3) uint8: the crop a transform (view px to px of 128) cuts out of the view."""
        return transform.cut_from(frame, size, self.area(frame))

    def thumbnail(self, frame: Frame) -> np.ndarray:
        """Small grey picture, uint8, to recognise the frame by."""
        x0, y0, x1, y1 = self.area(frame)
        height = max(2, round(_THUMB_WIDTH * (y1 - y0) / (x1 - x0)))
        return cv2.resize(frame.planes[0][y0:y1, x0:x1], (_THUMB_WIDTH, height), interpolation=cv2.INTER_AREA)


@dataclass
class Shown:
    """What one reading of a view tells of its frames: times (s since the first) and thumbnails (frames, h, 64)."""

    view: View
    reader: VideoReader
    times: np.ndarray
    thumbs: np.ndarray

    @property
    def fps(self) -> float:
        return float(self.reader.fps)


@dataclass
class FaceClip(Shown):
    """A view whose largest face was followed. transforms (frames, 2, 3): view px to px of 128, NaN without a face."""

    transforms: np.ndarray


@dataclass(frozen=True)
class Match:
    """Which frame of a generated view belongs to each frame of the real one.

    view: the generated one. frames (real frames,) int, -1 where there is none. lag: frames of the real video by which
    the whole picture is late. scale: real view px to generated view px, per axis. own: the generated face's own
    transforms, where the crop of the real one cannot be used. notes: what a reader of the scores must know.
    """

    view: View
    frames: np.ndarray
    lag: int
    scale: tuple[float, float]
    notes: list[str]
    own: np.ndarray | None = None

    def transform(self, index: int, real: np.ndarray) -> np.ndarray:
        """Transform of the generated frame that belongs to frame `index`, whose own is `real` (2, 3); may be NaN."""
        if self.own is not None:
            return self.own[self.frames[index]]
        moved = real.copy()
        moved[:, :2] /= self.scale
        moved[:, 2] += moved[:, :2] @ np.full(2, 0.5) - real[:, :2] @ np.full(2, 0.5)
        return moved


def look(view: View) -> Shown:
    """Read a view once."""
    reader = VideoReader(view.path)
    times, thumbs = zip(*((float(frame.time), view.thumbnail(frame)) for frame in reader), strict=True)
    return Shown(view, reader, np.array(times), np.array(thumbs))


def find_face(view: View, transforms: np.ndarray | None = None) -> FaceClip:
    """Read a view once and follow its largest face, unless its `transforms` are known. Raises NoFace."""
    if transforms is not None:
        return FaceClip(**vars(look(view)), transforms=transforms)
    reader = VideoReader(view.path)
    thumbs = []

    def watched() -> Iterator[Frame]:
        for frame in reader:
            thumbs.append(view.thumbnail(frame))
            yield frame

    faces = follow(watched(), make_detector("mediapipe"), area=view.rect)
    if not faces:
        raise NoFace(f"no face found in {view.path}")
    return FaceClip(view, reader, np.array(faces[0].times, float), np.array(thumbs), faces[0].transforms)


def match(real: FaceClip, generated: Shown) -> Match:
    """Pair the frames of two views by time, after a shift of the whole picture that their thumbnails show.

    A picture of another shape gets its own face crop. Raises NoFace where none is found in it.
    """
    notes = []
    (width, height), (other_width, other_height) = real.view.size(real.reader), generated.view.size(generated.reader)
    same = abs(other_width - width) <= 1 and abs(other_height - height) <= 1  # an odd size is padded, not scaled
    scale = (1.0, 1.0) if same else (other_width / width, other_height / height)
    own = None
    if abs(scale[0] / scale[1] - 1) > _SHAPE_TOLERANCE:
        own = find_face(generated.view).transforms
        notes.append(
            f"a picture of another shape ({other_width}x{other_height}, real {width}x{height}): cropped by its own "
            "face, so picture rows compare registered faces"
        )
    elif scale != (1, 1):
        notes.append(f"another size ({other_width}x{other_height}, real {width}x{height}): scaled")
    if abs(generated.fps / real.fps - 1) > 0.001:
        notes.append(
            f"another rate ({generated.fps:.5g} fps, real {real.fps:.5g}): paired by nearest time, jitter means little"
        )
    lag = 0 if own is not None else picture_lag(real, generated)
    if lag:
        notes.append(
            f"the whole picture is {abs(lag)} frames {'late' if lag > 0 else 'early'}: picture rows are scored "
            "after aligning, lip rows at lag 0 are not"
        )
    frames = nearest_frames(real.times + lag / real.fps, generated.times, generated.fps)
    missing = [real.times[k] for k in np.flatnonzero(frames < 0)]
    extra = generated.times[-1] - real.times[-1]
    if len(missing) > abs(lag) + 1 or extra * real.fps > 1.5 + abs(lag):
        notes.append(
            f"another length ({len(generated.times)} frames of {generated.times[-1] + 1 / generated.fps:.2f} s, real "
            f"{real.times[-1] + 1 / real.fps:.2f} s): scored where both are shown"
        )
    return Match(generated.view, frames, lag, scale, notes, own)


def picture_lag(real: Shown, generated: Shown) -> int:
    """Frames of the real video by which the generated picture as a whole is late; 0 unless clearly another."""
    chosen = evenly(range(len(real.times)), _LAG_FRAMES)
    height, width = real.thumbs.shape[1:]
    wanted, times = real.thumbs[chosen].astype(np.float32), real.times[chosen]
    costs = {}
    for lag in range(-MAX_PICTURE_LAG, MAX_PICTURE_LAG + 1):
        frames = nearest_frames(times + lag / real.fps, generated.times, generated.fps)
        both = np.flatnonzero(frames >= 0)
        if len(both) >= len(frames) / 2:
            found = [cv2.resize(image, (width, height)) for image in generated.thumbs[frames[both]]]
            costs[lag] = float(np.abs(wanted[both] - np.array(found, np.float32)).mean())
    best = min(costs, key=costs.__getitem__, default=0)
    if best == 0 or 0 not in costs:
        return best
    clear = costs[best] <= _LAG_GAIN * costs[0] and costs[0] - costs[best] >= _LAG_LEAST
    return best if clear else 0


def nearest_frames(wanted: np.ndarray, times: np.ndarray, fps: float) -> np.ndarray:
    """Index of the frame of increasing `times` (s) nearest to each wanted one; -1 more than half a frame outside."""
    half = 0.501 / fps
    return np.where((wanted < times[0] - half) | (wanted > times[-1] + half), -1, nearest(times, wanted))


def reencode(view: View, output: Path, crf: float) -> View:
    """The view through our own writer, without sound: what a perfect method's file would hold."""
    reader = VideoReader(view.path)
    size = view.size(reader)
    with VideoWriter(output, size, reader.fps, colour=reader.colour, crf=crf) as writer:
        for frame in reader:
            writer.write(frame if view.rect is None else frame.rgb(view.rect), time=Fraction(frame.time))
    return View(output)
