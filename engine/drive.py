"""One sound through one prepared face: crop, both stages, paste-back, side by side."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, dropwhile, groupby, takewhile, tee
from typing import Any

import numpy as np

from ahead import ahead
from chunks import chunks
from engine.networks import Networks, SoundSource
from engine.prepared import PreparedFace
from engine.report import Report, Watch
from engine.stages import encode_references, paint_base, paint_hr, to_network
from engine.timeline import gaps, median_step, shown_frames
from face.crop import CropTransform, area_reduce
from face.mask import paste_mask
from face.paste import paste_face, paste_rect, sampled_part
from face.smooth import smoothed
from media.video import Frame, VideoReader
from models.config import BASE_SIZE
from models.hyperlips import Memory
from speech.stream import WholeSound

_FIRST = 4
"""Frames painted at a time at the beginning, where the first one is waited for."""
_CHUNK_BYTES = 64 << 20
"""What frames that go through the chain together may take: some eleven such chunks are on their way. 1080p has 21
frames in it, 4096x2304 four."""


@dataclass
class _Face:
    """The face of one frame: what is cut out, then what stage 1 painted, and the landmarks of that."""

    crop: CropTransform
    picture: np.ndarray
    """See `_seen`."""
    base: np.ndarray = field(default_factory=lambda: np.zeros(0))
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seen: bool = False
    """Whether the landmark net sees a face in what stage 1 painted."""


@dataclass
class _Item:
    """One frame on its way through the chain; without a face it passes through."""

    frame: Frame
    shown: Fraction
    stretch: int
    """Frames in a row of one shot that show the face share a number."""
    face: _Face | None = None


class Drive:
    """One sound through one prepared face. Iterate over it once; `report` fills on the way.

    A whole sound is painted `batch` frames at a time, fewer at the beginning and of large pictures; of one that comes
    in pieces every frame is painted as soon as its sound is there, at most 0.5 s after it was spoken.
    """

    def __init__(
        self,
        engine: Networks,
        face: PreparedFace,
        sound: SoundSource,
        watch: Watch,
        span: tuple[Fraction, Fraction] | None,
        reader: VideoReader | None,
    ):
        self._started = time.perf_counter()
        self.report = Report()
        with self.report.time("sound"):
            self._sound = engine.sound(sound, self.report.notes)
        self._engine, self._face, self._watch, self._span = engine, face, watch, span
        self._reader = reader or engine.read(face.video)
        width, height = self._reader.size
        most = max(1, _CHUNK_BYTES // (3 * width * height // 2))
        self._batch = min(engine.config.batch, most) if isinstance(self._sound, WholeSound) else 1
        self._memory: Memory = {}
        self._remembered = self._stretch = 0

    def __iter__(self) -> Iterator[tuple[Frame, Fraction]]:
        face, report, reader = self._face, self.report, self._reader
        step = median_step(face.times, reader.fps)
        untouched = np.zeros(len(face.times), bool)
        with report.time("set-up"):
            self._precision = self._engine.precision
            self._references = encode_references(self._engine.base, face.references, self._precision[0])
            if self._engine.hr is not None:
                self._portraits = to_network(face.portraits, self._engine.hr)
        # A whole sound's stages run side by side; one that comes in pieces is painted as soon as it can be.
        count = 0
        beside: Callable[[Iterable], Any] = iter
        if isinstance(self._sound, WholeSound):
            beside, count = ahead, round(self._sound.duration / step)
        shown: Iterator = shown_frames(reader, face.times, step, self._sound.lasts)
        if self._span is not None:
            first, before = self._span
            shown = takewhile(lambda pair: pair[1] < before, dropwhile(lambda pair: pair[1] < first, shown))
        frames = report.timed("decode", shown)
        few = min(_FIRST, self._batch)
        cropped = beside(chunks(self._cropped(frames), self._batch, few))
        based = beside(self._based(chunk, step / 2) for chunk in cropped)
        # Each is smoothed with the one after it, so that of the first ones one less is there at first.
        smoothed_chunks = chunks(_smoothed(chain.from_iterable(based)), self._batch, max(few - 1, 1))
        with closing(beside(self._finished(chunk) for chunk in smoothed_chunks)) as finished:
            for item in self._watch(chain.from_iterable(finished), "paint", count):
                report.frames += 1
                if item.face is None:
                    report.untouched += 1
                    untouched[item.frame.index] = True
                yield item.frame, item.shown
        report.passed = gaps(untouched, face.times, step)
        report.elapsed = time.perf_counter() - self._started
        report.notes += [note for note in reader.notes if note not in report.notes]

    def _cropped(self, frames: Iterable[tuple[Frame, Fraction]]) -> Iterator[_Item]:
        present, shots, last = self._face.present, self._face.shot, None
        for frame, shown in frames:
            visible, shot = present[frame.index], shots[frame.index]
            self._stretch += (visible, shot) != last
            last = visible, shot
            item = _Item(frame, shown, self._stretch)
            if visible:
                with self.report.time("crop"):
                    crop = CropTransform(self._face.transforms[frame.index])
                    item.face = _Face(crop, _seen(crop, frame, self._engine.size))
            yield item

    def _based(self, chunk: list[_Item], half: Fraction) -> list[_Item]:
        """Stage 1, and the landmarks of what it painted. half: s from a frame's beginning to its middle."""
        engine = self._engine
        for items, faces in _runs(chunk, engine.base.config.gru == "recurrent"):
            if items[0].stretch != self._remembered:
                self._memory, self._remembered = {}, items[0].stretch
            with self.report.time("sound"):
                windows = np.stack([self._sound.window(item.shown + half) for item in items])
            with self.report.time("base"):
                small = np.stack([area_reduce(face.picture, BASE_SIZE) for face in faces])
                shares = self._face.shares[[item.frame.index for item in items]]
                base = paint_base(
                    engine.base,
                    windows,
                    small,
                    self._references,
                    shares,
                    engine.gain,
                    self._precision[0],
                    self._memory,
                )
            with self.report.time("landmarks"):
                points, seen = engine.landmarks.landmarks(base)
            for face, image, found, sure in zip(faces, base, points, seen, strict=True):
                face.base, face.landmarks, face.seen = image, found, bool(sure)
        return chunk

    def _finished(self, chunk: list[_Item]) -> list[_Item]:
        """Stage 2 and paste-back."""
        size, hr = self._engine.size, self._engine.hr
        for items, faces in _runs(chunk, False):
            painted = np.stack([face.base for face in faces])
            with self.report.time("paste"):
                masks = np.stack([paste_mask(face.landmarks, size) for face in faces])
            if hr is not None:
                with self.report.time("hr"):
                    landmarks = np.stack([face.landmarks for face in faces])
                    pictures = np.stack([face.picture for face in faces])
                    shown = self._face.portrait_shown[[item.frame.index for item in items]]
                    precision, part = self._precision[1], sampled_part(masks)
                    painted = paint_hr(hr, painted, landmarks, pictures, self._portraits, shown, precision, part)
            with self.report.time("paste"):
                frames = [item.frame for item in items]
                for frame, face, image, mask in zip(frames, faces, painted, masks, strict=True):
                    rect = paste_rect(mask, face.crop, frame.size)
                    frame.write_rgb(rect, paste_face(frame.rgb(rect), rect, image, mask, face.crop))
        return chunk


def _seen(crop: CropTransform, frame: Frame, size: int) -> np.ndarray:
    """What networks see of a face, (size, size, 3) uint8 RGB: the lower half, which they paint, stays black."""
    picture = np.zeros((size, size, 3), np.uint8)
    picture[: size // 2] = crop.cut_from(frame, size, rows=BASE_SIZE // 2)
    return picture


def _runs(chunk: list[_Item], split: bool) -> list[tuple[list[_Item], list[_Face]]]:
    """The items that show the face, with their faces; `split`: those of one stretch apart from those of another."""
    shown = [(item, item.face) for item in chunk if item.face is not None]
    runs = groupby(shown, key=lambda pair: pair[0].stretch if split else 0)
    return [([item for item, _ in run], [face for _, face in run]) for run in (list(run) for _, run in runs)]


def _smoothed(items: Iterable[_Item]) -> Iterator[_Item]:
    """Items whose landmarks are smoothed over their neighbours; one frame of look-ahead."""
    given, looked_at = tee(items)
    for item, landmarks in zip(given, smoothed(map(_landmarks, looked_at)), strict=True):
        if item.face is not None and landmarks is not None:
            item.face.landmarks = landmarks
        yield item


def _landmarks(item: _Item) -> tuple[np.ndarray | None, int | None]:
    """What the smoother takes of a frame: its landmarks, and the stretch they may be smoothed in."""
    if item.face is None:
        return None, None
    return item.face.landmarks, item.stretch if item.face.seen else None
