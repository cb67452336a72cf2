"""The two-stage chain on a file: track, crop, stage 1, sketch, stage 2, paste back.

from engine.pipeline import LipSync, lip_sync
lip_sync("face.mp4", "speech.wav", "out.mp4")                      # a file
for frame, seconds in LipSync().frames("face.mp4", "speech.wav"): ...   # frames as they are made
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datasets.references import bank_shares, reference_bank, spanning_references
from engine.chunks import chunks
from engine.loop import pick_device
from engine.pictures import from_network, to_network
from engine.precision import PrecisionName, choose_precision
from engine.sound import sound_features
from engine.timeline import gaps, median_step, shown_frames
from errors import InputError, check_counts
from face.crop import area_reduce, box_transforms, crop, fit_transforms
from face.detect import make_detector
from face.landmark_net import LandmarkNet
from face.mask import paste_mask
from face.paste import paste_face, paste_rect
from face.pose import head_pose, smooth_pose
from face.sketch import draw_sketch
from face.track import Track, track_faces
from media.audio import SAMPLE_RATE, audio_window_at, read_audio
from media.video import Frame, VideoReader, VideoWriter
from models.checkpoint import load_network
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase, face_input
from models.reference_encoder import mix_references

CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"


@dataclass
class FaceConfig:
    """`face` section."""

    backend: Literal["mediapipe", "face_alignment"] = "mediapipe"
    crop: Literal["template", "box"] = "template"
    """`box`: upright boxes, as published weights were trained on."""
    index: int = 0
    """Which face: 0 the largest track, 1 the next."""
    reference: Literal["closed", "first"] = "closed"
    """As many frames as stage 1 wants: the most closed mouth, the others on to a wide one, rather frontal; or the first
    frame (published).
    """


@dataclass
class AudioConfig:
    """`audio` section."""

    window: Literal["centred", "published"] = "centred"
    """`published`: the mel window convention of published training."""
    articulation: float = 1.4
    """How far the lips move: what the sound says beyond silence is taken this many times. Networks trained on a mean
    error move too little on people they do not know (14 unseen people: .63 of the real motion at 1, .83 at 1.5, in time
    all the
    same)."""

    def __post_init__(self) -> None:
        if not 0 <= self.articulation <= 3:
            raise InputError(
                f"articulation is {self.articulation}, expected 0 to 3; 1 leaves the lips as the network moves them"
            )


@dataclass
class InferenceConfig:
    """Everything about inference that is not a file name."""

    base: str = str(CHECKPOINTS / "base_light.safetensors")
    hr: str | None = str(CHECKPOINTS / "hr_light_256.safetensors")
    """Stage-2 weights; None pastes the 128 px face of stage 1."""
    face: FaceConfig = field(default_factory=FaceConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    batch: int = 8
    crf: int = 18
    device: str = "auto"
    precision: PrecisionName = "auto"

    def __post_init__(self) -> None:
        check_counts(self, "batch")


@dataclass
class Report:
    """What was done to one file. `passed` are the stretches (s) without a face, shown as they were."""

    frames: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    passed: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - start

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
        total = sum(self.seconds.values())
        stages = ", ".join(f"{name} {value / max(total, 1e-9):.0%}" for name, value in self.seconds.items())
        return f"{self.frames} frames, {self.frames / max(total, 1e-9):.1f} frames/s ({stages})"


@dataclass
class _Item:
    """One frame on its way through the chain; `transform` is None where it passes through."""

    frame: Frame
    shown: Fraction
    transform: np.ndarray | None = None
    shot: int = 0
    face: np.ndarray | None = None
    base: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    sketch: np.ndarray | None = None


class LipSync:
    """Loaded networks and landmark models; use it for one file after another."""

    def __init__(self, config: InferenceConfig | None = None):
        """Raises InputError where a checkpoint is missing or holds another network."""
        self.config = config or InferenceConfig()
        self.device = pick_device(self.config.device)
        self.base = load_network(self.config.base, self.device, HyperLipsBase)
        self.hr = None if self.config.hr is None else load_network(self.config.hr, self.device, HRDecoder)
        self.size = 128 * (1 if self.hr is None else self.hr.config.scale)
        self.landmarks = LandmarkNet()
        silence = sound_features(np.zeros(2 * SAMPLE_RATE, np.float32), self.base.config.audio)
        self.silence = torch.from_numpy(self._window(silence, Fraction(1))[None])
        self.report = Report()

    def frames(self, face: str | Path, audio: str | Path) -> Iterator[tuple[Frame, Fraction]]:
        """Yield (frame, time in s) in order, with the mouth repainted; `self.report` fills on the way.

        Raises InputError for unreadable files, a sound without samples, or a picture without a face.
        """
        self.report = Report()
        wave = read_audio(audio)
        reader = VideoReader(face)
        times, track, transforms = self._track(reader)
        with self.report.time("sound"):
            features = sound_features(wave, self.base.config.audio)
        references, shares = self._references(reader, track, transforms)
        small = np.stack([area_reduce(reference, 128) for reference in references])
        half = median_step(times, reader.fps) / 2
        self._choose_precision(features, references, small, shares)
        shown_to_base = self._encoded(small, shares)
        duration = Fraction(len(wave), SAMPLE_RATE)
        shown = self.report.timed("decode", shown_frames(reader, times, duration))
        items = (self._crop(frame, when, transforms, track) for frame, when in shown)
        based = (
            item
            for chunk in chunks(items, self.config.batch)
            for item in self._paint_base(chunk, features, half, shown_to_base, shares)
        )
        for chunk in chunks(_smoothed(based), self.config.batch):
            for item in self._finish(chunk, references[0]):
                self.report.frames += 1
                yield item.frame, item.shown
        self.report.notes += reader.notes

    def _track(self, reader: VideoReader) -> tuple[list[Fraction], Track, np.ndarray]:
        config, times = self.config.face, []

        def pictures() -> Iterator[tuple[np.ndarray, float]]:
            for frame in reader:
                times.append(Fraction(frame.time))
                yield frame.rgb(), float(frame.time)

        with self.report.time("track"):
            tracks = track_faces(pictures(), make_detector(config.backend, device=self.device.type))
        if not tracks:
            raise InputError(f"{reader.path}: no face found in any frame; expected a video or picture that shows one")
        if not 0 <= config.index < len(tracks):
            raise InputError(
                f"{reader.path}: --face-index {config.index} but only {len(tracks)} faces found; count from 0"
            )
        track = tracks[config.index]
        self.report.passed = gaps(~track.present, times, reader.fps)
        fit = (
            box_transforms(track.box, track.present, track.shot)
            if config.crop == "box"
            else fit_transforms(track.rigid, track.present, track.shot)
        )
        return times, track, fit

    def _references(
        self, reader: VideoReader, track: Track, transforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(R, size, size, 3) uint8, a most closed mouth first: fixed faces of one shot, so that nothing flickers.

        Where stage 1 encodes them apart also the shares (T, K, S) of R = K x S key frames in every frame.
        """
        usable = np.flatnonzero(track.present & ~track.interpolated)
        count, turned = self.base.config.references, 0.3 * np.abs(track.yaw)
        shares = None
        if self.config.face.reference == "first":
            chosen = usable[:1].repeat(count)
            shares = np.ones((len(track.present), 1, count), np.float32) if self.base.config.apart else None
        else:
            closed = usable[(track.lip_gap + turned)[usable].argmin()]
            usable = usable[track.shot[usable] == track.shot[closed]]
            if self.base.config.apart:
                pose = smooth_pose(head_pose(track.rigid)[:, :2], track.shot)
                openness = np.full(len(pose), np.nan)
                openness[usable] = track.lip_gap[usable]
                bank = reference_bank(pose, openness, count)
                chosen, shares = bank.frames.ravel(), bank_shares(bank, np.nan_to_num(pose))
            else:
                chosen = usable[spanning_references((track.lip_gap - turned)[usable], count)]
                chosen[0] = closed
        with self.report.time("decode"):
            frames = {
                frame.index: crop(frame.rgb(), transforms[frame.index], self.size)
                for frame in islice(reader, int(chosen.max()) + 1)
                if frame.index in chosen
            }
        return np.stack([frames[index] for index in chosen]), shares

    def _encoded(self, references: np.ndarray, shares: np.ndarray | None) -> list[torch.Tensor]:
        """What stage 1 takes of its references (R, 128, 128, 3): the pictures themselves, or the maps of key frames."""
        pictures = to_network(references, self.base)[None]
        if shares is None:
            return [pictures]
        with torch.inference_mode(), self.base_precision.autocast(self.device):
            return self.base.encode_references(pictures.unflatten(1, shares.shape[1:]).float() / 255)

    def _crop(self, frame: Frame, shown: Fraction, transforms: np.ndarray, track: Track) -> _Item:
        if not track.present[frame.index]:
            return _Item(frame, shown)
        with self.report.time("crop"):
            transform = transforms[frame.index]
            return _Item(frame, shown, transform, int(track.shot[frame.index]), crop(frame.rgb(), transform, self.size))

    def _paint_base(
        self,
        chunk: list[_Item],
        features: np.ndarray,
        half: Fraction,
        references: list[torch.Tensor],
        shares: np.ndarray | None,
    ) -> list[_Item]:
        """Stage 1 and its landmarks for the items that show a face."""
        items = [item for item in chunk if item.transform is not None]
        if not items:
            return chunk
        with self.report.time("base"), torch.inference_mode():
            windows = np.stack([self._window(features, item.shown + half, self.config.audio.window) for item in items])
            faces = np.stack([area_reduce(item.face, 128) for item in items])
            held = None if shares is None else shares[[item.frame.index for item in items]]
            base = self._base(torch.from_numpy(windows), faces, references, held)
        with self.report.time("landmarks"):
            points = self.landmarks.landmarks(base)[0]
        for item, image, found in zip(items, base, points, strict=True):
            item.base, item.landmarks = image, found
        return chunk

    def _window(self, features: np.ndarray, seconds: Fraction, convention: str = "centred") -> np.ndarray:
        """What stage 1 hears of a frame whose middle is shown at `seconds`."""
        config = self.base.config
        return audio_window_at(features, seconds, config.audio, config.audio_window, convention)

    def _base(
        self, windows: torch.Tensor, faces: np.ndarray, references: list[torch.Tensor], shares: np.ndarray | None
    ) -> np.ndarray:
        """Faces of stage 1 for references as `_encoded` gives them, and their shares in each of the frames, if any."""
        seen, mixed = to_network(faces, self.base), None
        with self.base_precision.autocast(self.device):
            encoded = self.base.encode_audio(torch.cat([windows, self.silence]).to(self.device))
            vectors = [torch.lerp(level[-1:], level[:-1], self.config.audio.articulation) for level in encoded]
            if shares is None:
                seen = face_input(seen, references[0].expand(len(faces), -1, -1, -1, -1))
            else:
                seen, mixed = (
                    face_input(seen),
                    mix_references(references, torch.from_numpy(shares[None]).to(seen.device)),
                )
            output = self.base.paint(vectors, seen, len(faces), mixed)
        return from_network(output, self.base)

    def _finish(self, chunk: list[_Item], reference: np.ndarray) -> list[_Item]:
        """Stage 2 and paste-back."""
        items = [item for item in chunk if item.transform is not None]
        if not items:
            return chunk
        faces = [item.base for item in items]
        if self.hr is not None:
            with self.report.time("hr"), torch.inference_mode():
                sketches = np.stack([draw_sketch(item.landmarks, points=self.hr.config.sketch) for item in items])
                faces = self._hr(np.stack(faces), sketches, np.stack([item.face for item in items]), reference)
        with self.report.time("paste"):
            for item, painted in zip(items, faces, strict=True):
                rect = paste_rect(item.transform, item.frame.size)
                mask = paste_mask(item.landmarks, self.size)
                blended = paste_face(item.frame.rgb(rect), rect, painted, mask, item.transform)
                item.frame.write_rgb(rect, blended)
        return chunk

    def _hr(self, base: np.ndarray, sketches: np.ndarray, faces: np.ndarray, reference: np.ndarray) -> np.ndarray:
        lines = torch.from_numpy(sketches).to(self.device)[:, None].float().div(255).expand(-1, 3, -1, -1)
        inputs = [to_network(base, self.hr).float() / 255, lines]
        if self.hr.config.reference:
            shown = to_network(reference[None], self.hr)[None].expand(len(base), 1, -1, -1, -1)
            inputs.append(face_input(to_network(faces, self.hr), shown))
        with self.hr_precision.autocast(self.device):
            return from_network(self.hr(*inputs), self.hr)

    def _choose_precision(
        self, features: np.ndarray, references: np.ndarray, small_references: np.ndarray, shares: np.ndarray | None
    ) -> None:
        windows = torch.from_numpy(np.repeat(self._window(features, Fraction(0))[None], self.config.batch, 0))
        faces, small = (np.repeat(shown[:1], self.config.batch, 0) for shown in (references, small_references))

        def try_base(precision):
            self.base_precision = precision
            held = None if shares is None else shares[:1].repeat(len(small), 0)
            with torch.inference_mode():
                self._base(windows, small, self._encoded(small_references, shares), held)

        def try_hr(precision):
            self.hr_precision = precision
            with torch.inference_mode():
                self._hr(small, small[..., 0], faces, references[0])

        with self.report.time("set-up"):
            self.base_precision = choose_precision(
                self.config.precision, self.base, try_base, f"infer {self.config.batch}"
            )
            if self.hr is not None:
                self.hr_precision = choose_precision(
                    self.config.precision, self.hr, try_hr, f"infer {self.config.batch}"
                )


def lip_sync(
    face: str | Path,
    audio: str | Path,
    output: str | Path,
    config: InferenceConfig | None = None,
    engine: LipSync | None = None,
) -> Report:
    """Make the face in `face` speak `audio`, into `output`; returns what was done. `engine` saves loading again.

    Raises InputError for bad input; no output is left then.
    """
    engine = engine or LipSync(config)
    reader = VideoReader(face)
    with VideoWriter(output, reader.size, reader.fps, reader.colour, audio_from=audio, crf=engine.config.crf) as writer:
        for frame, shown in engine.frames(face, audio):
            with engine.report.time("encode"):
                writer.write(frame, shown)
    engine.report.notes += writer.notes
    return engine.report


def _smoothed(items: Iterable[_Item]) -> Iterator[_Item]:
    """Landmarks smoothed 1-2-1 over neighbours of the same shot, one frame of look-ahead."""
    before: np.ndarray | None = None
    item: _Item | None = None
    for following in items:
        if item is not None:
            before = _smooth(item, before, following)
            yield item
        if item is None or following.shot != item.shot:
            before = None
        item = following
    if item is not None:
        _smooth(item, before, None)
        yield item


def _smooth(item: _Item, before: np.ndarray | None, following: _Item | None) -> np.ndarray | None:
    """Smooth the landmarks of `item`; returns its raw ones, for the frame after it."""
    raw = item.landmarks
    if raw is None:
        return None
    after = following.landmarks if following is not None and following.shot == item.shot else None
    item.landmarks = (2 * raw + (raw if before is None else before) + (raw if after is None else after)) / 4
    return raw
