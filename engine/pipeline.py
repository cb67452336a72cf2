"""The two-stage chain on files: track once, then paint any number of sounds.

from engine.pipeline import LipSync, lip_sync
lip_sync("face.mp4", "speech.wav", "out.mp4")                      # a file
engine = LipSync()
face = engine.prepare("face.mp4")                                  # tracked once, see PreparedFace
for frame, seconds in engine.drive(face, "speech.wav"): ...        # frames as they are made
for frame, seconds in engine.drive(face, microphone()): ...        # pieces of a sound as they are spoken
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain, dropwhile, groupby, islice, takewhile, tee
from pathlib import Path
from typing import Any

import numpy as np

from datasets.references import ClipMoves, Portraits, usual_references
from engine.ahead import ahead
from engine.chunks import chunks
from engine.device import pick_device
from engine.memory import keep_freed_memory
from engine.options import InferenceConfig
from engine.precision import Precision, choose_precision
from engine.prepared import FaceSettings, PreparedFace, file_digest
from engine.stages import encode_references, paint_base, paint_hr, silent_window
from engine.timeline import gaps, median_step, shown_frames
from errors import InputError
from face.crop import CropTransform, area_reduce
from face.detect import make_detector
from face.follow import Followed, follow
from face.landmark_net import MIN_PRESENCE, LandmarkNet
from face.mask import paste_mask
from face.paste import paste_face, paste_rect, sampled_part
from face.smooth import smoothed
from media.audio import SAMPLE_RATE, read_audio
from media.video import Frame, VideoReader, VideoWriter, parse_size
from media.watermark import mark
from models.checkpoint import load_network
from models.config import BASE_SIZE, check_references
from models.fold import folded
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase, Memory
from speech.stream import LiveSound, Sound, WholeSound

SoundSource = str | Path | np.ndarray | Iterable[np.ndarray]
"""A file; a whole sound (samples,) float32 at 16 kHz; or its pieces, as they come."""
Watch = Callable[[Iterable, str, int], Iterable]
"""(items, what is done to them, about how many) -> the items: shows progress."""


def unwatched(items: Iterable, what: str, count: int) -> Iterable:
    """A Watch that shows nothing."""
    return items


@dataclass
class Report:
    """What was done to one file. `passed` are the stretches (s) without a face, or with its mouth outside
    the picture, shown as they were."""

    frames: int = 0
    elapsed: float = 0.0
    """s until the last frame: from the first look at the face in lip_sync, from the sound on in a Drive alone."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """s by stage; stages run side by side, so they add up to more than has elapsed."""
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU s by stage of the threads that run the stages, without those that help them."""
    passed: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start, spent = time.perf_counter(), time.thread_time()
        yield
        self.seconds[stage] += time.perf_counter() - start
        self.cpu[stage] += time.thread_time() - spent

    def timed(self, stage: str, items: Iterable) -> Iterator:
        """Pass `items` on, counting the time spent making them to `stage`."""
        iterator = iter(items)
        while True:
            with self.time(stage):
                item = next(iterator, None)
            if item is None:
                return
            yield item

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {value:.1f}" for name, value in self.seconds.items())
        return f"{self.frames} frames, {self.frames / max(self.elapsed, 1e-9):.1f} frames/s (s by stage: {stages})"


@dataclass
class _Face:
    """The face of one frame: what is cut out, then what stage 1 painted, and the landmarks of that."""

    crop: CropTransform
    picture: np.ndarray
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


class LipSync:
    """Loaded networks and landmark models; use it for one file after another."""

    def __init__(self, config: InferenceConfig | None = None):
        """Raises InputError where a checkpoint is missing or holds another network."""
        self.config = config or InferenceConfig()
        self.device = pick_device(self.config.device)
        keep_freed_memory()
        self.base = folded(load_network(self.config.base, self.device, HyperLipsBase))
        self.hr = None if self.config.hr is None else folded(load_network(self.config.hr, self.device, HRDecoder))
        self.size = BASE_SIZE * (1 if self.hr is None else self.hr.config.scale)
        self.landmarks = LandmarkNet(self.device)
        face, audio, feed = self.config.face, self.config.audio, self.base.feed
        self.gain = feed.motion_gain if audio.motion_gain is None else audio.motion_gain
        self.window = audio.window or feed.window
        self.settings = FaceSettings(
            crop=face.crop or feed.crop,
            reference=face.reference or feed.reference,
            index=face.index,
            size=self.size,
            references=self.base.config.references,
            max_size=self.config.max_size,
        )
        check_references(self.base.config, self.settings.reference)

    def prepare(self, face: str | Path, watch: Watch = unwatched) -> PreparedFace:
        """Track a face and choose its references. Raises InputError for an unreadable file, or one without that
        face.
        """
        reader, index = self.read(face), self.settings.index
        found = self.faces(reader, watch)
        if not 0 <= index < len(found):
            raise InputError(f"{reader.path}: --face-index {index} but only {len(found)} faces found; count from 0")
        return self.prepared(reader, found[index])

    def faces(self, reader: VideoReader, watch: Watch = unwatched) -> list[Followed]:
        """Every face of what `read` opened, the largest first. Raises InputError where there is none."""
        detector = make_detector(self.config.face.backend, device=str(self.device))
        found = follow(watch(reader, "track", reader.frame_count), detector, self.settings.crop)
        if not found:
            raise InputError(
                f"{reader.path}: no face found in any frame; expected a video or picture that shows one, with its mouth"
            )
        return found

    def prepared(self, reader: VideoReader, found: Followed) -> PreparedFace:
        """One of its faces, with references chosen."""
        pictures = self._pictures(reader, found)
        return PreparedFace(reader.path, self.settings, found.times, found.transforms, found.track.shot, *pictures)

    def drive(
        self,
        face: PreparedFace,
        sound: SoundSource,
        watch: Watch = unwatched,
        span: tuple[Fraction, Fraction] | None = None,
    ) -> "Drive":
        """Frames of the face speaking a sound, in order, each with the time (s) it is shown at; see Drive.

        span: (from, before) s, what is shown outside it is left out.
        Raises InputError for a face that was prepared otherwise, or an unreadable sound or one without samples.
        """
        if face.settings != self.settings:
            wanted, found = vars(self.settings), vars(face.settings)
            differs = ", ".join(
                f"{name} {found[name]} (wanted {wanted[name]})" for name in wanted if found[name] != wanted[name]
            )
            raise InputError(
                f"the face of {face.video} was prepared with {differs}; prepare it again for these weights"
            )
        return Drive(self, face, sound, watch, span)

    def _pictures(self, reader: VideoReader, found: Followed) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """references, shares, portraits and portrait_shown of a PreparedFace, all of one shot."""
        track, rule = found.track, self.settings.reference
        clip = ClipMoves.of(track.lip_gap, track.rigid, track.shot)
        clip = clip.only(found.present & ~track.interpolated)
        portrait = int(usual_references("first", clip, 1).frames[0, 0]) if rule == "first" else clip.portrait
        clip = clip.only(track.shot == track.shot[portrait])
        chosen = usual_references(rule, clip, self.settings.references)
        portraits = Portraits.fixed(portrait, len(track.shot)) if rule == "first" else clip.portraits
        frames = chosen.frames.ravel().tolist()
        wanted = {*frames, *portraits.frames.tolist()}
        cut = {
            frame.index: CropTransform(found.transforms[frame.index]).cut(frame.rgb(), self.size)
            for frame in islice(reader, max(wanted) + 1)
            if frame.index in wanted
        }
        small = np.stack([area_reduce(cut[index], BASE_SIZE) for index in frames])
        large = np.stack([cut[index] for index in portraits.frames.tolist()])
        return small.reshape(*chosen.frames.shape, *small.shape[1:]), chosen.shares, large, portraits.shown

    def read(self, face: str | Path) -> VideoReader:
        """The video or picture, no larger than the config allows."""
        return VideoReader(face, parse_size(self.config.max_size))

    def sound(self, source: SoundSource, notes: list[str]) -> Sound:
        """The sound as stage 1 hears it; `notes` takes what the user should be told.

        Raises InputError for an unreadable file or a sound without samples.
        """
        shape = self.base.config.audio, self.base.config.audio_window, self.window
        if isinstance(source, (str, Path)):
            source = read_audio(source, self.config.audio.track, notes)
        if isinstance(source, np.ndarray):
            if not len(source):
                raise InputError("found a sound without samples, expected some; give another sound")
            return WholeSound(source, *shape)
        return LiveSound(source, *shape)

    @cached_property
    def provenance(self) -> str:
        """What a file says of itself: that it is synthetic, by what, and from which weights."""
        weights = [Path(path) for path in (self.config.base, self.config.hr) if path is not None]
        painted = ", ".join(f"{path.name} sha256 {file_digest(path)}" for path in weights)
        return f"Synthetic video: HyperLips painted the mouth to another sound, with {painted}"

    @cached_property
    def precision(self) -> tuple[Precision, Precision]:
        """Of stage 1 and of stage 2, chosen by measurement at the first use where the config leaves it open."""
        count, kind = self.config.batch, self.config.precision
        windows = np.repeat(silent_window(self.base)[None], count, 0)
        small, large = (np.zeros((count, size, size, 3), np.uint8) for size in (BASE_SIZE, self.size))
        references = np.zeros((1, self.settings.references, BASE_SIZE, BASE_SIZE, 3), np.uint8)
        shares = np.ones((count, *references.shape[:2]), np.float32)
        landmarks = np.zeros((count, 478, 2))

        def try_base(precision: Precision) -> None:
            encoded = encode_references(self.base, references, precision)
            paint_base(self.base, windows, small, encoded, shares, self.gain, precision)

        base = choose_precision(kind, self.base, try_base, f"infer {count}")
        base.cast(self.base)
        if (hr := self.hr) is None:
            return base, base

        def try_hr(precision: Precision) -> None:
            paint_hr(hr, small, landmarks, large, large, precision)

        large_one = choose_precision(kind, hr, try_hr, f"infer {count}")
        large_one.cast(hr)
        return base, large_one


class Drive:
    """One sound through one prepared face. Iterate over it once; `report` fills on the way.

    A whole sound is painted `batch` frames at a time; of one that comes in pieces every frame is painted as soon as its
    sound is there, at most 0.5 s after it was spoken.
    """

    def __init__(
        self,
        engine: LipSync,
        face: PreparedFace,
        sound: SoundSource,
        watch: Watch,
        span: tuple[Fraction, Fraction] | None,
    ):
        self._started = time.perf_counter()
        self.report = Report(notes=list(face.notes))
        with self.report.time("sound"):
            self._sound = engine.sound(sound, self.report.notes)
        self._engine, self._face, self._watch, self._span = engine, face, watch, span
        self._batch = engine.config.batch if isinstance(self._sound, WholeSound) else 1
        self._memory: Memory = {}
        self._remembered = self._stretch = 0

    def __iter__(self) -> Iterator[tuple[Frame, Fraction]]:
        face, report = self._face, self.report
        reader = self._engine.read(face.video)
        step = median_step(face.times, reader.fps)
        report.passed = gaps(~face.present, face.times, step)
        with report.time("set-up"):
            self._precision = self._engine.precision
            self._references = encode_references(self._engine.base, face.references, self._precision[0])
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
        cropped = beside(chunks(self._cropped(frames), self._batch))
        based = beside(self._based(chunk, step / 2) for chunk in cropped)
        smoothed_chunks = chunks(_smoothed(chain.from_iterable(based)), self._batch)
        with closing(beside(self._finished(chunk) for chunk in smoothed_chunks)) as finished:
            for item in self._watch(chain.from_iterable(finished), "paint", count):
                report.frames += 1
                yield item.frame, item.shown
        report.elapsed = time.perf_counter() - self._started
        report.notes += reader.notes

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
                    item.face = _Face(crop, crop.cut_from(frame, self._engine.size))
            yield item

    def _based(self, chunk: list[_Item], half: Fraction) -> list[_Item]:
        """Stage 1, and the landmarks of what it painted. half: s from a frame's beginning to its middle."""
        engine = self._engine
        for items, faces in _runs(chunk, engine.base.config.gru == "recurrent"):
            if items[0].stretch != self._remembered:
                self._memory, self._remembered = {}, items[0].stretch
            with self.report.time("base"):
                windows = np.stack([self._sound.window(item.shown + half) for item in items])
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
                points, presence = engine.landmarks.landmarks(base)
            for face, image, found, logit in zip(faces, base, points, presence, strict=True):
                face.base, face.landmarks, face.seen = image, found, bool(logit > MIN_PRESENCE)
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
                    landmarks, pictures = (
                        np.stack([getattr(face, name) for face in faces]) for name in ("landmarks", "picture")
                    )
                    shown = self._face.portraits[self._face.portrait_shown[[item.frame.index for item in items]]]
                    precision, part = self._precision[1], sampled_part(masks)
                    painted = paint_hr(hr, painted, landmarks, pictures, shown, precision, part)
            with self.report.time("paste"):
                frames = [item.frame for item in items]
                for frame, face, image, mask in zip(frames, faces, painted, masks, strict=True):
                    rect = paste_rect(face.crop, frame.size)
                    frame.write_rgb(rect, paste_face(frame.rgb(rect), rect, image, mask, face.crop))
        return chunk


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


def lip_sync(
    face: str | Path | PreparedFace,
    audio: str | Path | np.ndarray,
    output: str | Path,
    config: InferenceConfig | None = None,
    engine: LipSync | None = None,
    watch: Watch = unwatched,
) -> Report:
    """Make a face speak a sound, into `output`; returns what was done. `engine` saves loading again, a PreparedFace
    tracking.

    Raises InputError for bad input; no output is left then.
    """
    engine = engine or LipSync(config)
    started = time.perf_counter()
    reader = engine.read(face.video if isinstance(face, PreparedFace) else face)
    sound = {"audio": (audio, SAMPLE_RATE)} if isinstance(audio, np.ndarray) else {"audio_from": audio}
    config = engine.config
    with VideoWriter(
        output,
        reader.size,
        reader.fps,
        reader.colour,
        audio_track=config.audio.track,
        crf=config.crf,
        qp=0 if config.lossless else None,
        comment=engine.provenance,
        **sound,
    ) as writer:  # before tracking: an output that cannot be written is told at once
        prepared = face if isinstance(face, PreparedFace) else engine.prepare(face, watch)
        tracked = time.perf_counter() - started
        drive = engine.drive(prepared, audio, watch)
        drive.report.seconds["track"] = tracked
        for frame, shown in drive:
            with drive.report.time("encode"):
                if config.watermark:
                    mark(frame)
                writer.write(frame, shown)
    drive.report.elapsed = time.perf_counter() - started
    drive.report.notes += [note for note in writer.notes if note not in drive.report.notes]
    return drive.report
