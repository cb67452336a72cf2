"""The data set on disk: one folder a clip, one line a clip in index.jsonl. Written by preprocess, read by everything else.

    DATA/index.jsonl            every clip's line (id, split, source, fps, frames, size, person, seconds, sha256, face_px)
    DATA/clips/<id>/clip.json   that line
                    faces.zip   stored zip of 000000.jpg ..., size x size crops
                    track.npz   landmarks (frames, points, 2) in px of the 128 crop, transforms (frames, 2, 3), visible (frames,)
                    audio.flac  16 kHz mono;   mel.npy (mel frames, 80);   whisper.npy (features, 384) float16
                    base.zip, base_track.npz   stage-1 faces and their landmarks, after preprocess.generate_base
"""

import dataclasses
import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from errors import InputError

FPS = 25
"""Clips are stored at 25 frames a second, where 5 frames are 16 mel frames."""

_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]


@dataclasses.dataclass(frozen=True)
class ClipInfo:
    """One line of the index. `face_px` is the width in source pixels of the 128 px crop: how much detail is real."""

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


class Clip:
    """One clip folder, read lazily."""

    def __init__(self, folder: Path, info: ClipInfo):
        self.folder, self.info = folder, info

    def faces(self, indices: Sequence[int], archive: str = "faces.zip") -> np.ndarray:
        """Frames `indices` of an archive as (n, size, size, 3) uint8 RGB."""
        return np.stack([self._decode(archive, index) for index in indices])

    def _decode(self, archive: str, index: int) -> np.ndarray:
        data = np.frombuffer(self._archive(archive).read(f"{index:06d}.jpg"), np.uint8)
        return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def _archive(self, name: str) -> zipfile.ZipFile:
        # A zip handle holds a file position, which forked workers would share: one handle a process.
        key = (name, os.getpid())
        if key not in self._archives:
            self._archives[key] = zipfile.ZipFile(self.path(name))
        return self._archives[key]

    @cached_property
    def _archives(self) -> dict[tuple[str, int], zipfile.ZipFile]:
        return {}

    @cached_property
    def landmarks(self) -> np.ndarray:
        """(frames, points, 2) float32, px of the 128 crop."""
        return np.load(self.path("track.npz"))["landmarks"]

    @cached_property
    def base_landmarks(self) -> np.ndarray:
        """(frames, points, 2) float32: landmarks of the stage-1 faces, px of the 128 crop."""
        return np.load(self.path("base_track.npz"))["landmarks"]

    def features(self, kind: str) -> np.ndarray:
        """The feature sequence of a front end: mel (n, 80) float32 or whisper (n, 384) float16."""
        return np.load(self.path(f"{kind}.npy"))

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            hint = "run preprocess.generate_base" if name.startswith("base") else "extract the clip again"
            raise InputError(f"clip {self.folder} has no {name}; {hint}")
        return path


def load_clips(data: str | Path, split: str, min_face_px: float = 0) -> list[Clip]:
    """The clips of `split` ("train" or "val") whose faces are at least `min_face_px` wide in the source.

    Raises InputError where the data set, its index or the split is missing, or a clip lacks a file.
    """
    data = Path(data)
    index = data / "index.jsonl"
    if not index.is_file():
        what = "no folder" if not data.is_dir() else "no index.jsonl in"
        raise InputError(f"{what} {data}: expected a data set written by python -m preprocess.extract_clips")
    infos = [ClipInfo(**json.loads(line)) for line in index.read_text(encoding="utf-8").splitlines()]
    chosen = [info for info in infos if info.split == split and info.face_px >= min_face_px]
    if not chosen:
        raise InputError(f"{data}: none of its {len(infos)} clips is in split {split!r} with faces of {min_face_px} px or more")
    clips = [Clip(data / "clips" / info.id, info) for info in chosen]
    for clip in clips:
        for name in ("faces.zip", "track.npz", "mel.npy", "whisper.npy"):
            clip.path(name)
    return clips


def locate(ends: np.ndarray, position: int) -> tuple[int, int]:
    """(clip, index within it) of a position in clips laid end to end; ends: where each stops."""
    clip = int(np.searchsorted(ends, position, side="right"))
    return clip, int(position - (ends[clip - 1] if clip else 0))


def write_archive(path: Path, images: Iterable[np.ndarray]) -> int:
    """Write RGB images as a stored zip of JPEGs (quality 95, 4:4:4), complete or not at all; returns their number."""
    count = 0
    aside = path.with_name(path.name + ".part")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for image in images:
            data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)[1]
            archive.writestr(f"{count:06d}.jpg", data.tobytes())
            count += 1
    os.replace(aside, path)
    return count


def publish_clip(aside: Path, data: Path, info: ClipInfo) -> None:
    """Give a finished clip folder its final name, so that an interrupted run never leaves half a clip."""
    (aside / "clip.json").write_text(json.dumps(dataclasses.asdict(info)), encoding="utf-8")
    final = data / "clips" / info.id
    shutil.rmtree(final, ignore_errors=True)
    os.replace(aside, final)


def merge_index(data: Path) -> list[ClipInfo]:
    """Rebuild index.jsonl from the clips' own files; safe to run after any number of shards."""
    infos = [ClipInfo(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(data.glob("clips/*/clip.json"))]
    aside = data / "index.jsonl.part"
    aside.write_text("".join(json.dumps(dataclasses.asdict(info)) + "\n" for info in infos), encoding="utf-8")
    os.replace(aside, data / "index.jsonl")
    return infos
