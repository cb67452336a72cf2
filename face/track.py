"""Who is where in a whole video: every face followed through every shot, in one pass that keeps no pictures."""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

import cv2
import numpy as np

from face.detector import Detector, Face

MAX_GAP_S = 0.4
"""A face lost for no longer than this is interpolated."""
HISTOGRAM_CUT = 0.2, 4.0, 0.5
"""A cut lies between two frames if more than this share of pixels changes its colour bin: the first number where it is
also more than the second times the share of the frame before, the third in any case."""
JUMP = 0.5
"""Of a face's size: how far it moves from one frame to the next only if there is a cut between them."""
SAME = 0.3
"""Of a face's size: how near two detections in one frame are only if they show the same face."""
RETURN = 1.0
"""Of a face's size: how far from where it was lost a face is taken for the same one."""
GROWTH = 1.5
"""How much a face's size changes from one frame to the next only if there is a cut between them."""
_SIZE_CLASS = 1.1
"""Faces whose size differs by less than about this factor count as equally large."""
_ROW = 25
"""Values of a face in a frame: rigid points (20), box (4), lip gap."""
_BLIP = 3
"""A face seen in fewer frames of a longer shot is taken for a false alarm."""


@dataclass(frozen=True)
class Track:
    """One face over ALL frames of a video; where it is not present the arrays hold NaN.

    present (T,) bool: detected, or interpolated over a short gap. interpolated (T,) bool. shot (T,) int: counts shots.
    rigid (T, 10, 2) and box (T, 4): px in the frame. lip_gap (T,): inner lip gap over eye distance, good enough to find
    a closed mouth.
    """

    present: np.ndarray
    interpolated: np.ndarray
    rigid: np.ndarray
    box: np.ndarray
    shot: np.ndarray
    lip_gap: np.ndarray


@dataclass
class _Trail:
    """One face within one shot: the frames it was detected in, and what was measured there."""

    shot: int
    frames: array = field(default_factory=lambda: array("l"))
    _rows: array = field(default_factory=lambda: array("f"))
    """Row after row in one growing block: small arrays kept between the pictures would pin the memory these leave."""

    def add(self, frame: int, row: np.ndarray) -> None:
        """row (25,): rigid points (20), box (4), lip gap."""
        self.frames.append(frame)
        self._rows.extend(row.tolist())

    @property
    def rows(self) -> np.ndarray:
        """(frames, 25) float32."""
        return np.array(self._rows, np.float32).reshape(-1, _ROW)

    @property
    def last_box(self) -> np.ndarray:
        return np.array(self._rows[-_ROW:], np.float32)[20:24]

    @property
    def area(self) -> float:
        boxes = self.rows[:, 20:24]
        return float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).mean())


def track_faces(frames: Iterable[tuple[np.ndarray, float]], detector: Detector) -> list[Track]:
    """Follow every face of (image (H, W, 3) uint8 RGB, time in s) pairs; returns tracks, largest face first.

    A shot ends where the colours or all faces jump; detection starts anew there. Within a shot a face is the one
    nearest to where it was. Across shots the k-th largest face of each belongs to track k; equally large ones are
    ordered by time on screen.
    """
    trails: list[_Trail] = []
    current: list[_Trail] = []  # those of this shot: a scan of all would grow with the square of a film's length
    shots: list[int] = []
    times: list[float] = []
    shot, previous, last_change = 0, None, 1.0
    try:
        for index, (image, time_s) in enumerate(frames):
            colours = _colours(image)
            change = 0.0 if previous is None else float(np.abs(colours - previous).sum()) / 2
            least, ratio, most = HISTOGRAM_CUT
            if previous is None or change > min(most, max(least, ratio * last_change)):
                shot, current = shot + (previous is not None), []
                detector.reset()
            previous, last_change = colours, change
            faces = detector.detect(image, time_s)
            if _all_jumped(current, faces, index):
                shot, current = shot + 1, []
                detector.reset()
                faces = detector.detect(image, time_s)
            shots.append(shot)
            times.append(time_s)
            begun = _follow(current, faces, index, shot, detector)
            trails += begun
            current += begun
        if len(times) == 1:  # a still: nothing to follow, so spend the time on finding
            trails = _follow([], detector.search(image), 0, 0, detector) or trails
    finally:
        detector.reset()
    return _join(trails, np.array(shots, int), np.array(times, float))


def _colours(image: np.ndarray) -> np.ndarray:
    """Histogram (512,) of a few thousand pixels' colours, sum 1."""
    step = max(1, min(image.shape[:2]) // 48)
    sample = np.ascontiguousarray(image[::step, ::step])
    counts = cv2.calcHist([sample], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3)
    return counts.ravel() / counts.sum()


def _place(box: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) and size (px) of a face."""
    return (box[:2] + box[2:]) / 2, float(np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1))))


def _distance(trail: _Trail, box: np.ndarray) -> tuple[float, float]:
    """How far a box is from where the trail ended, in face sizes, and by what factor its size differs."""
    (centre, size), (last, last_size) = _place(box), _place(trail.last_box)
    return float(np.linalg.norm(centre - last)) / max(size, last_size), max(size / last_size, last_size / size)


def _all_jumped(trails: list[_Trail], faces: list[Face], index: int) -> bool:
    """Whether faces were followed up to the frame before this one, and none of this frame's can be one of them."""
    followed = [trail for trail in trails if trail.frames[-1] == index - 1]
    if not followed or not faces:
        return False
    moves = [_distance(trail, face.box_xyxy) for trail in followed for face in faces]
    return all(distance > JUMP or growth > GROWTH for distance, growth in moves)


def _follow(trails: list[_Trail], faces: list[Face], index: int, shot: int, detector: Detector) -> list[_Trail]:
    """Append each face to the nearest trail of its shot, nearest pair first; returns the trails that begin here."""
    pairs = []
    for number, face in enumerate(faces):
        for trail in trails:
            distance, growth = _distance(trail, face.box_xyxy)
            limit = JUMP if trail.frames[-1] == index - 1 else RETURN
            if distance < limit and growth < GROWTH * limit / JUMP:
                # The one that was there a moment ago wins over one lost at the same place.
                pairs.append((distance + 0.1 * (index - 1 - trail.frames[-1]), number, trail))
    free, taken = set(range(len(faces))), set()
    begun: list[_Trail] = []
    for _, number, trail in sorted(pairs, key=lambda pair: pair[0]):
        if number in free and id(trail) not in taken:
            free.remove(number)
            taken.add(id(trail))
            trail.add(index, _measure(faces[number], detector))
    for number in sorted(free):
        seen_now = [trail for trail in (*trails, *begun) if trail.frames[-1] == index]
        if all(_distance(trail, faces[number].box_xyxy)[0] > SAME for trail in seen_now):
            trail = _Trail(shot)
            trail.add(index, _measure(faces[number], detector))
            begun.append(trail)
    return begun


def _measure(face: Face, detector: Detector) -> np.ndarray:
    """Rigid points (20), box (4) and lip gap of one face, as one float32 row."""
    rigid = detector.rigid(face.landmarks).astype(float)
    eyes = max(float(np.linalg.norm(rigid[:2].mean(0) - rigid[2:4].mean(0))), 1e-3)
    upper, lower = face.landmarks[list(detector.lip_gap)]
    gap = float(np.linalg.norm(upper - lower)) / eyes
    return np.concatenate([rigid.ravel(), face.box_xyxy, [gap]]).astype(np.float32)


def _join(trails: list[_Trail], shots: np.ndarray, times: np.ndarray) -> list[Track]:
    lengths = np.bincount(shots, minlength=1)
    members: list[list[_Trail]] = []
    for shot, found in groupby(trails, key=lambda trail: trail.shot):
        seen = [trail for trail in found if len(trail.frames) >= min(_BLIP, lengths[shot] / 4)]
        for rank, trail in enumerate(sorted(seen, key=_rank)):
            if rank == len(members):
                members.append([])
            members[rank].append(trail)
    return [_track(joined, shots, times) for joined in members]


def _rank(trail: _Trail) -> tuple[float, int, int]:
    return -round(np.log(trail.area) / (2 * np.log(_SIZE_CLASS))), -len(trail.frames), trail.frames[0]


def _track(trails: list[_Trail], shots: np.ndarray, times: np.ndarray) -> Track:
    count = len(shots)
    values = np.full((count, _ROW), np.nan, np.float32)
    interpolated = np.zeros(count, bool)
    for trail in trails:
        frames, rows = np.array(trail.frames), trail.rows
        values[frames] = rows
        for before in np.flatnonzero(np.diff(frames) > 1):
            first, last = frames[before], frames[before + 1]
            # From the first picture without the face to the first with it again.
            if times[last] - times[first + 1] <= MAX_GAP_S + 1e-6:
                missing = np.arange(first + 1, last)
                share = ((times[missing] - times[first]) / max(times[last] - times[first], 1e-9))[:, None]
                values[missing] = (1 - share) * rows[before] + share * rows[before + 1]
                interpolated[missing] = True
    return Track(
        present=~np.isnan(values[:, 0]),
        interpolated=interpolated,
        rigid=values[:, :20].reshape(count, 10, 2),
        box=values[:, 20:24],
        shot=shots,
        lip_gap=values[:, 24],
    )
