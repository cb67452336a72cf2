"""The data set on disk: one folder a clip, one line a clip in index.jsonl. Written by preprocess, read by everything
else. preprocess/README.md lists the files with their shapes.
"""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from aside import aside
from datasets.archive import Archive
from datasets.damage import EXTRACT_AGAIN, Damaged, read_array, readable
from datasets.references import ClipMoves, References, usual_references
from errors import InputError, warn
from face.crop import area_reduce
from face.lips import lip_boxes, lip_gap
from face.smooth import smooth_stretches
from face.topology import RIGID, SPEECH_POINTS
from media.audio import SAMPLE_RATE, read_audio
from models.config import ReferenceRule
from speech.rates import SEQUENCES

INDEX = "index.jsonl"
FPS = 25
"""Clips are stored at 25 frames a second, where 5 frames are 16 mel frames."""
WHOLE_STEP = 5
"""Frames in which both kinds of sound features have whole numbers: 16 and 10. Clips are cut at multiples of it."""


@dataclasses.dataclass(frozen=True)
class ClipInfo:
    """One line of the index. `face_px` is the width in source pixels of the 128 px crop: how much detail is real.
    `offset_ms`: by how much the source's sound was late; the clip's is in step."""

    id: str
    split: str
    source: str
    fps: int
    frames: int
    size: int
    person: str
    seconds: float
    sha256: str
    face_px: float
    offset_ms: float = 0.0

    def __post_init__(self) -> None:
        """Raises ValueError for values of another kind, and for an id that could lead out of the data set."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), field.type
            number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
            if not (isinstance(value, str) if kind is str else number and math.isfinite(value)):
                raise ValueError(f"{field.name} is {value!r}")
        if self.id in ("", ".", "..") or any(sign in self.id for sign in "/\\\0"):
            raise ValueError(f"the id {self.id!r} is no plain name")


@dataclasses.dataclass(frozen=True)
class Lips:
    """What is made of a clip's landmarks, of each of its frames, and kept: small beside them."""

    moves: ClipMoves
    """What references are chosen by."""
    boxes: np.ndarray
    """lip_boxes (frames, 4) float32, px of the 128 crop."""
    speech: np.ndarray
    """SPEECH_POINTS (frames, 20, 2) float32, px of the 128 crop."""


class Clip:
    """One clip folder, or a part of it that is a clip of its own, read lazily."""

    def __init__(self, folder: Path, info: ClipInfo, start: int = 0):
        """Of the frames in the folder `info.frames`, from `start`, in WHOLE_STEPs."""
        self.folder, self.info, self.start = folder, info, start
        self._archives: dict[str, Archive] = {}

    def part(self, start: int, stop: int, split: str) -> "Clip":
        """Frames `start`, in WHOLE_STEPs, to `stop` - 1. split: what theirs is called."""
        info = dataclasses.replace(self.info, split=split, frames=stop - start, seconds=(stop - start) / FPS)
        return Clip(self.folder, info, self.start + start)

    def _own(self, values: np.ndarray, rate: int = FPS, more: int = 0) -> np.ndarray:
        """What belongs to its frames of a whole folder's values, `rate` a second; `more`: that stand round them."""
        stop = self.start + self.info.frames
        return values[self.start * rate // FPS : stop * rate // FPS + more]

    def faces(self, indices: Sequence[int], archive: str = "faces.zip", size: int | None = None) -> np.ndarray:
        """Frames `indices` of an archive as (n, size, size, 3) uint8 RGB: area means of the stored ones, as they are by
        default.
        """
        pictures = self.archive(archive).pictures([index + self.start for index in indices])
        return np.stack(pictures if size is None else [area_reduce(picture, size) for picture in pictures])

    def archive(self, name: str) -> Archive:
        """One of the clip's archives, looked through once."""
        if name not in self._archives:
            self._archives[name] = Archive(self.path(name))
        return self._archives[name]

    @property
    def landmarks(self) -> np.ndarray:
        """(frames, points, 2) float32, px of the 128 crop. Read anew every time: of an hour they are 344 MB."""
        return self._own(read_array(self.path("track.npz"), "landmarks"))

    @cached_property
    def visible(self) -> np.ndarray:
        """(frames,) bool: where the landmark net sees a face; elsewhere the landmarks are a guess."""
        return self._own(read_array(self.path("track.npz"), "visible"))

    @cached_property
    def lips(self) -> Lips:
        """Of its landmarks."""
        landmarks, seen = self.landmarks, self.visible
        gaps = np.where(seen, lip_gap(landmarks), np.nan)
        rigid = np.where(seen[:, None, None], landmarks[:, RIGID], np.nan)
        return Lips(ClipMoves.of(gaps, rigid), lip_boxes(landmarks), landmarks[:, SPEECH_POINTS])

    @property
    def moves(self) -> ClipMoves:
        """What references are chosen by; lip_gaps are lip_gap of the landmarks."""
        return self.lips.moves

    def references(self, rule: ReferenceRule, count: int) -> References:
        """The references, `count` mouths, that inference would show."""
        return usual_references(rule, self.moves, count)

    @cached_property
    def base_landmarks(self) -> np.ndarray:
        """(frames, points, 2) float32: landmarks of the stage-1 faces, px of the 128 crop, smoothed as inference
        smooths them: not across frames in which no face is seen.
        """
        path = self.path("base_track.npz")
        return self._own(smooth_stretches(read_array(path, "landmarks"), read_array(path, "visible")))

    @property
    def painted_by(self) -> str | None:
        """What painted the stage-1 faces, "" where it is not known; None where there are no faces."""
        path = self.folder / "base_track.npz"
        try:
            return str(read_array(path, "painter")) if path.is_file() else None
        except Damaged:
            return ""

    def features(self, kind: str, variant: int = 0) -> np.ndarray:
        """The feature sequence of a front end: mel (n, 80) float32 or whisper (n, 384) float16; variant 0 is the sound
        itself. Whisper's begin with what is before a part, in the place of the silence before a whole clip.

        Raises InputError for a file that is missing or damaged.
        """
        return self._own(read_array(self.path(variant_name(kind, variant))), *SEQUENCES[kind])

    def sound(self) -> np.ndarray:
        """(samples,) float32 at 16 kHz, from the clip's first frame to its last."""
        return self._own(read_audio(self.path("audio.flac")), SAMPLE_RATE)

    def variants(self, kind: str) -> int:
        """How many variants of the sound there are beside it. Raises InputError where there is none."""
        self.path(variant_name(kind, 1))
        return next(
            count for count in itertools.count(1) if not (self.folder / variant_name(kind, count + 1)).is_file()
        )

    def path(self, name: str) -> Path:
        """Of one of the clip's files. Raises InputError, with what to do, where it is missing: Damaged where
        extraction wrote it.
        """
        path = self.folder / name
        if path.is_file():
            return path
        data, missing = self.folder.parent.parent, f"clip {self.folder} has no {name}"
        if name.startswith("base"):
            further = f" --splits {self.info.split}" if self.info.split == "test" else ""
            raise InputError(f"{missing}; run python -m preprocess.generate_base --checkpoint C --data {data}{further}")
        if "_" in name:
            raise InputError(
                f"{missing}; run python -m preprocess.augment_sound --data {data}, or set augment.sound: 0"
            )
        raise Damaged(f"{missing}; {EXTRACT_AGAIN}")

    def check(self) -> None:
        """Raises Damaged where a file that extraction wrote is missing, cut short or of another length, of a whole
        clip. Pictures are looked at when they are read.
        """
        frames, found = self.info.frames, len(self.archive("faces.zip"))
        landmarks, visible = (read_array(self.path("track.npz"), name) for name in ("landmarks", "visible"))
        known = landmarks.shape[:1] == visible.shape == (frames,) and np.isfinite(landmarks).all()
        fits = found == frames and known
        for kind in ("mel", "whisper"):
            features = read_array(self.path(variant_name(kind, 0)))
            fits &= features.ndim == 2 and len(features) >= frames and bool(np.isfinite(features).all())
        if not fits:
            raise Damaged(f"clip {self.folder} is damaged: its parts do not fit each other; {EXTRACT_AGAIN}")

    def verify(self, archive: str = "faces.zip") -> None:
        """Read every picture of an archive. Raises Damaged for one that is not as it was written."""
        self.archive(archive).verify()


def load_clips(data: str | Path, split: str, min_face_px: float = 0) -> list[Clip]:
    """The clips of `split` whose faces are at least `min_face_px` wide in the source.

    Clips that cannot be read are named and left out. Raises InputError where the data set, its index or the split is
    missing, or more than half of the clips cannot be read.
    """
    return readable(clips_of(data, [split], min_face_px), Clip.check, data)


def clips_of(data: str | Path, splits: Sequence[str], min_face_px: float = 0) -> list[Clip]:
    """Clips of several splits, of which only one has to be there; whether they can be read is not looked at."""
    data = Path(data)
    infos = read_index(data)
    chosen = [info for split in splits for info in infos if info.split == split and info.face_px >= min_face_px]
    if not chosen:
        raise InputError(f"{data}: {_why_none(infos, splits, min_face_px)}")
    return [Clip(data / "clips" / info.id, info) for info in chosen]


def read_index(data: str | Path) -> list[ClipInfo]:
    """Every line of a data set's index. Raises InputError where the data set or its index is missing or damaged."""
    data = Path(data)
    index = data / INDEX
    try:
        if not index.is_file():
            what = "no folder" if not data.is_dir() else f"no {INDEX} in"
            raise InputError(f"{what} {data}: expected a data set written by python -m preprocess.extract_clips")
        return [ClipInfo(**json.loads(line)) for line in index.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise InputError(f"{index} cannot be read ({error.strerror}); see to its rights") from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(f"{index} is damaged ({error}); run python -m preprocess.extract_clips again") from error


def _why_none(infos: list[ClipInfo], splits: Sequence[str], min_face_px: float) -> str:
    """Why a data set has no clip of these splits, and what to do."""
    wanted = " or ".join(map(repr, splits))
    if not infos:
        return (
            "it holds no clip; rejected.csv there says why, mend that and run python -m preprocess.extract_clips again"
        )
    if widths := [info.face_px for info in infos if info.split in splits]:
        return (
            f"its {len(widths)} clips of split {wanted} show faces of {max(widths):g} px at most, and min_face_px asks "
            f"for {min_face_px:g}; lower that, or add larger faces"
        )
    there = ", ".join(f"{count} in {split!r}" for split, count in Counter(info.split for info in infos).items())
    return (
        f"none of its {len(infos)} clips is in split {wanted} ({there}); choose a split that is there, or run "
        "preprocess.extract_clips with another --split, which clips that are there take over"
    )


def locate(ends: np.ndarray, position: int) -> tuple[int, int]:
    """(clip, index within it) of a position in clips laid end to end; ends: where each stops."""
    clip = int(np.searchsorted(ends, position, side="right"))
    return clip, int(position - (ends[clip - 1] if clip else 0))


def variant_name(kind: str, variant: int) -> str:
    """File of a feature sequence; variant 0 is the sound itself."""
    return f"{kind}_{variant}.npy" if variant else f"{kind}.npy"


def publish_clip(folder: Path, data: Path, info: ClipInfo) -> None:
    """Give a finished clip folder its final name, so that an interrupted run never leaves half a clip."""
    (folder / "clip.json").write_text(json.dumps(dataclasses.asdict(info)), encoding="utf-8")
    final = data / "clips" / info.id
    shutil.rmtree(final, ignore_errors=True)
    os.replace(folder, final)


def relabel_clip(folder: Path, person: str, split: str) -> None:
    """Change what a clip says of itself; merge_index takes it over. A damaged one is left alone."""
    path = folder / "clip.json"
    try:
        info = ClipInfo(**json.loads(path.read_text(encoding="utf-8")) | {"person": person, "split": split})
    except (OSError, ValueError, TypeError):
        return
    with aside(path) as part:
        part.write_text(json.dumps(dataclasses.asdict(info)), encoding="utf-8")


def merge_index(data: Path) -> list[ClipInfo]:
    """Rebuild index.jsonl from the clips' own files; safe to run after any number of shards. Those that cannot be read
    are named and left out.
    """
    infos = []
    for path in sorted(data.glob("clips/*/clip.json")):
        try:
            infos.append(ClipInfo(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:  # another shard makes that clip again
            continue
        except (ValueError, TypeError) as error:
            warn(f"left out: {path} is damaged ({error}); {EXTRACT_AGAIN}")
    with aside(data / INDEX) as part:
        part.write_text("".join(json.dumps(dataclasses.asdict(info)) + "\n" for info in infos), encoding="utf-8")
    return infos
