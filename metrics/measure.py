"""One pass over the real video and everything compared with it, in step, holding a few crops at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chunks import chunks
from face.crop import CropTransform, is_shown, rescale
from face.landmark_net import landmark_net
from face.lips import eye_distance, lip_gap
from face.topology import RIGID
from media.video import Frame, VideoReader
from metrics import landmark
from metrics.pairs import FaceClip, Match
from metrics.scorers import Batch, ClipScore
from models.config import BASE_SIZE

SIZE = 256
"""px of the crops that pictures are compared on."""
BATCH = 8
_FRAMING_PX, _FRAMING_SCALE = 6.0, 0.07
"""Of 128: how far, and how much larger or smaller, a generated face may be before a note says so."""


@dataclass
class Measured:
    """What was found in one generated video. gap (real frames,): inner-lip gap, NaN where unknown; values: rows."""

    gap: np.ndarray
    match: Match
    values: dict[str, float]
    notes: list[str] = field(default_factory=list)

    def file_time(self, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gap as the file shows it (without the alignment of whole pictures), and the part of a real series
        (frames,) from the file's beginning on that is shown at the same time."""
        count, lag = len(self.gap), self.match.lag
        return self.gap[max(-lag, 0) : count - max(lag, 0)], real[max(lag, 0) : count - max(-lag, 0)]


def measure(
    real: FaceClip, matches: Mapping[str, Match], scores: Mapping[str, Sequence[ClipScore]]
) -> tuple[np.ndarray, dict[str, Measured]]:
    """The real lip gap (frames,), and what was measured of every other video by name. scores: those wanted of it."""
    count = len(real.times)
    real_points = np.full((count, 478, 2), np.nan, np.float32)
    others = {name: _Other(found, scores.get(name, ()), count) for name, found in matches.items()}
    for chunk in chunks(real.reader, BATCH):
        known = [frame for frame in chunk if is_shown(real.transforms[frame.index])]
        cut = {frame.index: real.view.face(frame, CropTransform(real.transforms[frame.index]), SIZE) for frame in known}
        crops = _with_face(cut, real_points)
        for other in others.values():
            other.take(crops, real_points, real.transforms)
    return lip_gap(real_points), {name: other.summary(real_points) for name, other in others.items()}


def _with_face(crops: dict[int, np.ndarray], points: np.ndarray) -> dict[int, np.ndarray]:
    """Those of the crops (by real frame) that show a face; its landmarks, px of 128, go into points[frame]."""
    if not crops:
        return {}
    found, seen = landmark_net().landmarks(np.stack(list(crops.values())))
    where = np.array(list(crops))[seen]
    points[where] = rescale(found[seen], SIZE, BASE_SIZE)
    return {index: crops[index] for index in where.tolist()}


class _Other:
    """A video on its way through in step with the real one. points (real frames, 478, 2): landmarks, px of 128."""

    def __init__(self, found: Match, scores: Sequence[ClipScore], count: int):
        self._match, self._scores = found, scores
        self._points = np.full((count, 478, 2), np.nan, np.float32)
        self._frames = iter(VideoReader(found.view.path))
        self._frame: Frame | None = None

    def take(self, real: dict[int, np.ndarray], real_points: np.ndarray, transforms: np.ndarray) -> None:
        """Look at what belongs to the next real crops, by frame; transforms (frames, 2, 3): the real ones."""
        shown = {index: self._face(index, transforms[index]) for index in real}
        crops = _with_face({index: face for index, face in shown.items() if face is not None}, self._points)
        if not crops or not self._scores:
            return
        where = np.array(list(crops))
        pictures = np.stack([real[index] for index in crops]), np.stack(list(crops.values()))
        batch = Batch(where, *pictures, real_points[where], self._points[where])
        for score in self._scores:
            score.add(batch)

    def _face(self, index: int, transform: np.ndarray) -> np.ndarray | None:
        """The crop that belongs to a frame of the real video; None where none is shown or it has no face of its own."""
        wanted = int(self._match.frames[index])
        if wanted < 0:
            return None
        while self._frame is None or self._frame.index < wanted:
            self._frame = next(self._frames, None)
            if self._frame is None:
                raise ValueError(f"{self._match.view.path} has fewer frames than at its first reading")
        transform = self._match.transform(index, transform)
        if not np.isfinite(transform).all():
            return None
        return self._match.view.face(self._frame, CropTransform(transform), SIZE)

    def summary(self, real_points: np.ndarray) -> Measured:
        gap, real_gap = lip_gap(self._points), lip_gap(real_points)
        notes = list(self._match.notes)
        wanted, seen = np.isfinite(real_gap) & (self._match.frames >= 0), np.isfinite(gap)
        values: dict[str, float] = {"frames": float(seen.sum())}
        if seen.sum() < wanted.sum():
            notes.append(f"no face seen in {wanted.sum() - seen.sum()} of {wanted.sum()} frames")
        if seen.any():
            values["articulation"] = landmark.articulation(gap, real_gap)
            values["lmd"] = landmark.landmark_distance(self._points[seen], real_points[seen])
            values["jitter"] = landmark.jitter(self._points, real_points, landmark.resting(real_gap))
            values["jitter_all"] = landmark.jitter(self._points, real_points, np.isfinite(real_gap))
            notes += _framing(self._points[seen], real_points[seen])
        for score in self._scores:
            values.update(score.result())
        return Measured(gap, self._match, values, notes)


def _framing(points: np.ndarray, real_points: np.ndarray) -> list[str]:
    """A note where the generated face is not where the real one is: another scene, or another crop of it."""
    rigid = list(RIGID)
    shift = np.linalg.norm(np.median((points - real_points)[:, rigid].mean(1), axis=0))
    scale = float(np.median(eye_distance(points) / eye_distance(real_points)))
    if shift <= _FRAMING_PX and abs(scale - 1) <= _FRAMING_SCALE:
        return []
    note = (
        f"framed differently from the real video (face {shift:.0f} of 128 px away, {scale:.2f} times as large): "
        "LMD and picture rows compare different places"
    )
    return [note]
