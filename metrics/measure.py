"""One pass over the real video and everything compared with it, in step, holding a few crops at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from face.crop import CropTransform, rescale
from face.landmark_net import MIN_PRESENCE, LandmarkNet
from face.lips import eye_distance, lip_gap
from face.topology import RIGID
from media.video import Frame
from metrics import landmark
from metrics.pairs import FaceClip, Match, Progress, Shown
from metrics.scorers import Batch, ClipContext, ClipScore, Scorer

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
    real: FaceClip,
    others: Mapping[str, tuple[Shown, Match]],
    scorers: Sequence[Scorer],
    contexts: Mapping[str, ClipContext],
    net: LandmarkNet,
    progress: Progress | None = None,
) -> tuple[np.ndarray, dict[str, Measured]]:
    """The real lip gap (frames,), and what was measured of every other video by name.

    scorers: used on all of `others`, each with its context of `contexts`.
    """
    count = len(real.times)
    real_points = np.full((count, 478, 2), np.nan, np.float32)
    points = {name: real_points.copy() for name in others}
    scores: dict[str, list[ClipScore]] = {name: [scorer.start(contexts[name]) for scorer in scorers] for name in others}
    walkers = {name: _Walker(shown, found) for name, (shown, found) in others.items()}
    for frames in _chunks(real, count):
        index = np.array([frame.index for frame in frames])
        if progress is not None:
            progress(len(frames))
        usable = np.isfinite(real.transforms[index, 0, 0])
        crops = [
            real.view.face(frame, CropTransform(real.transforms[frame.index]), SIZE) if seen else None
            for frame, seen in zip(frames, usable, strict=True)
        ]
        usable[usable] = _landmarks(net, [image for image in crops if image is not None], real_points, index[usable])
        for name, walker in walkers.items():
            found = {k: walker.face(int(k), real.transforms[k]) for k in index[usable]}
            found = {k: image for k, image in found.items() if image is not None}
            where = np.array(list(found), int)
            if not len(where):
                continue
            seen = _landmarks(net, list(found.values()), points[name], where)
            where = where[seen]
            if len(where) and scores[name]:
                pictures = np.stack([crops[k - index[0]] for k in where])
                batch = Batch(
                    where, pictures, np.stack([found[k] for k in where]), real_points[where], points[name][where]
                )
                for score in scores[name]:
                    score.add(batch)
    gap = lip_gap(real_points)
    return gap, {name: _summary(points[name], real_points, scores[name], others[name][1]) for name in others}


def _chunks(real: FaceClip, count: int) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for frame in real.reader:
        chunk.append(frame)
        if len(chunk) == BATCH or frame.index == count - 1:
            yield chunk
            chunk = []


class _Walker:
    """Goes through a generated video in step with the real one."""

    def __init__(self, shown: Shown, found: Match):
        self._view, self._match = shown.view, found
        self._frames = iter(shown.reader)
        self._frame: Frame | None = None

    def face(self, index: int, transform: np.ndarray) -> np.ndarray | None:
        """The crop that belongs to a frame of the real video; None where none is shown or it has no face of its own."""
        wanted = int(self._match.frames[index])
        if wanted < 0:
            return None
        while self._frame is None or self._frame.index < wanted:
            self._frame = next(self._frames, None)
            if self._frame is None:
                raise ValueError(f"{self._view.path} has fewer frames than at its first reading")
        transform = self._match.transform(index, transform)
        return self._view.face(self._frame, CropTransform(transform), SIZE) if np.isfinite(transform).all() else None


def _landmarks(net: LandmarkNet, crops: list[np.ndarray], points: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Write landmarks of crops, px of 128, into points[where]; returns which show a face (the others stay NaN)."""
    if not crops:
        return np.zeros(0, bool)
    found, presence = net.landmarks(np.stack(crops))
    seen = presence > MIN_PRESENCE
    points[where[seen]] = rescale(found[seen], SIZE, 128)
    return seen


def _summary(points: np.ndarray, real_points: np.ndarray, scores: list[ClipScore], found: Match) -> Measured:
    gap, real_gap = lip_gap(points), lip_gap(real_points)
    notes = list(found.notes)
    wanted, seen = np.isfinite(real_gap) & (found.frames >= 0), np.isfinite(gap)
    values: dict[str, float] = {"frames": float(seen.sum())}
    if seen.sum() < wanted.sum():
        notes.append(f"no face seen in {wanted.sum() - seen.sum()} of {wanted.sum()} frames")
    if seen.any():
        values["articulation"] = landmark.articulation(gap, real_gap)
        values["lmd"] = landmark.landmark_distance(points[seen], real_points[seen])
        values["jitter"] = landmark.jitter(points, real_points, landmark.resting(real_gap))
        notes += _framing(points[seen], real_points[seen])
    for score in scores:
        values.update(score.result())
    return Measured(gap, found, values, notes)


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
