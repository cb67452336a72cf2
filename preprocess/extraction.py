"""One video to clips of a data set: face followed, cut into pieces, crops, landmarks and sound features written."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from chunks import chunks
from datasets.archive import write_archive
from datasets.clips import FPS, ClipInfo, publish_clip, variant_name
from digest import file_digest
from engine.memory import keep_freed_memory
from engine.threads import use_one_core
from errors import InputError
from face.crop import CropTransform, rescale, scale_of, shot_stretches
from face.detect import make_detector
from face.follow import Followed, follow
from face.landmark_net import landmark_net
from media.audio import SAMPLE_RATE, has_audio, read_audio, shifted, write_flac
from media.track import SILENT_NOTE
from media.video import Frame, VideoReader
from models.config import BASE_SIZE
from nearest import nearest
from preprocess.feature_files import DTYPES, write_features
from preprocess.jobs import Job
from preprocess.sources import Source, find_sound
from preprocess.sync_check import sound_offset

MIN_SECONDS, MAX_SECONDS = 1, 20
MIN_VISIBLE = 0.5
"""Share of a clip's crops in which the landmark net must see a face: below it the track is something else."""
LANDMARK_BATCH = 8


@dataclass(frozen=True)
class Piece:
    """An uninterrupted stretch of one face, resampled to 25 fps: source frame and place of every output frame, and when
    (s) it begins."""

    frames: np.ndarray
    start: float
    transforms: np.ndarray


def set_up() -> None:
    """For processes side by side, and see use_one_core."""
    use_one_core()
    keep_freed_memory()


def extract_source(job: Job) -> None:
    """Write the clips of one video, then its record of what was kept and rejected."""
    job.forget()
    notes: list[str] = []
    aside = job.settings.output / "aside" / f"{job.source.id}-{os.getpid()}"
    try:
        rejected = list(_extract(job, aside, notes))
    except InputError as error:
        rejected = [str(error)]
    except MemoryError:
        rejected = ["too little memory for it"]
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    job.finish(rejected, notes)


def _extract(job: Job, aside: Path, notes: list[str]) -> Iterator[str]:
    """Publish every good clip of a video; yield the reason for each one that is not. notes: what else there is to say
    is added to them.
    """
    source, settings = job.source, job.settings
    wave = _heard(source, notes)
    reader = VideoReader(source.path)
    faces = follow(reader, make_detector(settings.backend))
    notes += [note for note in reader.notes if note not in notes]
    if not faces:
        yield "no face found"
        return
    pieces = list(_pieces(faces[0]))
    if not pieces:
        yield f"no face for {MIN_SECONDS} s in a row"
    digest = file_digest(source.path)
    walk = _Walk(reader)
    for number, piece in enumerate(pieces):
        face_px = float(BASE_SIZE / np.median(scale_of(piece.transforms)))
        name = f"piece {number} at {piece.start:.2f} s: " if len(pieces) > 1 else ""
        if face_px < settings.min_face_px:
            yield f"{name}face {face_px:.0f} px wide, below --min-face {settings.min_face_px:.0f}"
            continue
        aside.mkdir(parents=True)
        landmarks, visible = _write_faces(aside / "faces.zip", walk, piece, settings.size)
        if visible.mean() < MIN_VISIBLE:
            shutil.rmtree(aside)
            yield f"{name}landmarks found in {visible.mean():.0%} of the crops only"
            continue
        offset, sound = job.offset, _cut_sound(wave, piece, job.offset)
        if settings.sync_expert:
            try:
                offset += sound_offset(settings.sync_expert, aside / "faces.zip", sound, settings.trusted)
            except InputError as error:
                shutil.rmtree(aside)
                yield f"{name}{error}"
                continue
            sound = _cut_sound(wave, piece, offset)
        np.savez(aside / "track.npz", landmarks=landmarks, transforms=piece.transforms, visible=visible)
        _write_sound(aside, sound)
        info = ClipInfo(
            id=f"{source.id}-{number:02d}" if len(pieces) > 1 else source.id,
            split=job.split,
            source=job.name,
            fps=FPS,
            frames=len(piece.frames),
            size=settings.size,
            person=job.person,
            seconds=len(piece.frames) / FPS,
            sha256=digest,
            face_px=round(face_px, 1),
            offset_ms=round(float(1000 * offset), 1),
        )
        publish_clip(aside, settings.output, info)


def _heard(source: Source, notes: list[str]) -> np.ndarray:
    """The sound (samples,) of a video; where that is missing or silent, of the file that belongs to it: what lips say
    in silence would be learned as silence. Raises InputError where there is none.
    """
    problem = InputError("no sound in the file, beside it or in a twin audio tree")
    for path in _recordings(source, notes):
        told: list[str] = []
        try:
            wave = read_audio(path, notes=told)
        except InputError as error:
            problem = error
            continue
        if SILENT_NOTE not in told:
            notes += told
            return wave
        problem = InputError(f"{path.name} is silent, and no other sound lies beside it or in a twin audio tree")
    raise problem


def _recordings(source: Source, notes: list[str]) -> Iterator[Path]:
    if has_audio(source.path):
        yield source.path
    if (beside := find_sound(source, notes)) is not None:
        yield beside


def _pieces(face: Followed) -> Iterator[Piece]:
    """Stretches of one shot in which the face is present, of 1 to 20 s, resampled to 25 fps by nearest timestamp."""
    times = np.array(face.times, float)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / FPS
    for stretch in shot_stretches(face.present, face.track.shot):
        seconds = times[stretch[-1]] - times[stretch[0]] + step
        if seconds < MIN_SECONDS:
            continue
        parts = int(np.ceil(seconds / MAX_SECONDS))
        for part in range(parts):
            count = int(seconds / parts * FPS + 1e-6)
            start = times[stretch[0]] + part * seconds / parts
            wanted = start + np.arange(count) / FPS
            frames = stretch[nearest(times[stretch], wanted)]
            yield Piece(frames, float(start), face.transforms[frames])


def _write_faces(path: Path, walk: "_Walk", piece: Piece, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Write the crops; returns landmarks (frames, 478, 2) in px of the 128 crop and visible (frames,)."""
    landmarks, visible = [], []

    def measured() -> Iterator[np.ndarray]:
        for batch in chunks(_crops(walk, piece, size), LANDMARK_BATCH):
            points, seen = landmark_net().landmarks(np.stack(batch))
            landmarks.append(rescale(points, size, BASE_SIZE))
            visible.append(seen)
            yield from batch

    write_archive(path, measured())
    return np.concatenate(landmarks).astype(np.float32), np.concatenate(visible)


class _Walk:
    """Reads a video once for all its pieces, which follow each other; one may begin with the frame that the one before
    ended with.
    """

    def __init__(self, reader: VideoReader):
        self._frames = iter(reader)
        self._last: Frame | None = None

    def up_to(self, index: int) -> Iterator[Frame]:
        """The frame read last, and those after it up to number `index`."""
        if self._last is not None:
            yield self._last
        while self._last is None or self._last.index < index:
            following = next(self._frames, None)
            if following is None:
                raise InputError(f"the video ends before frame {index}, which it had at its first reading")
            self._last = following
            yield following


def _crops(walk: _Walk, piece: Piece, size: int) -> Iterator[np.ndarray]:
    for frame in walk.up_to(int(piece.frames[-1])):
        places = piece.transforms[piece.frames == frame.index]
        if len(places):
            yield from (CropTransform(place).cut_from(frame, size) for place in places)


def _cut_sound(wave: np.ndarray, piece: Piece, offset: Fraction) -> np.ndarray:
    """Sound (samples,) of the piece, `offset` seconds later than its pictures; silence where the recording does not
    reach.
    """
    first = round((piece.start + float(offset)) * SAMPLE_RATE)
    return shifted(wave, first, len(piece.frames) * SAMPLE_RATE // FPS)


def _write_sound(folder: Path, sound: np.ndarray) -> None:
    write_flac(folder / "audio.flac", sound)
    for kind in DTYPES:
        write_features(folder / variant_name(kind, 0), sound, kind)
