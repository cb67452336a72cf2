"""A face that is tracked once and then speaks any number of sounds."""

import json
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from aside import aside, give_usual_rights
from digest import file_digest
from errors import InputError, printable
from face.crop import is_shown
from models.config import BASE_SIZE, ReferenceRule

_FORMAT = "3"
_BY_FRAME = "transforms", "shot", "shares", "portrait_shown"
"""Parts that hold a row a frame."""
_DAMAGE = ValueError, KeyError, TypeError, ZeroDivisionError, OverflowError, RecursionError
"""What values that no prepared face has may raise."""


@dataclass(frozen=True)
class FaceSettings:
    """What a face is prepared for: crop and reference as in `face` of the config, which face, px of the crops, how many
    references, the largest size of its pictures."""

    crop: str
    reference: ReferenceRule
    index: int
    size: int
    references: int
    max_size: str


@dataclass(frozen=True)
class PreparedFace:
    """Everything about a face's video that does not depend on what it says.

    times: s after the first frame. transforms (T, 2, 3): frame px to px of the 128 crop, NaN where the face is not
    shown. shot (T,) int. references (K, R, 128, 128, 3) uint8 RGB: key frames as stage 1 sees them, R mouths, the most
    closed first, of each of K key poses; shares (T, K, R) float32: how much of each a frame shows. portraits
    (P, size, size, 3) uint8 RGB: the references of stage 2; portrait_shown (T,) int: which of them a frame sees.
    """

    video: Path
    settings: FaceSettings
    times: list[Fraction]
    transforms: np.ndarray
    shot: np.ndarray
    references: np.ndarray
    shares: np.ndarray
    portraits: np.ndarray
    portrait_shown: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """(T,) bool: where the face is shown."""
        return is_shown(self.transforms)

    def still(self, frame: int, picture: Path) -> "PreparedFace":
        """One frame, which `picture` shows, with the references that it has here."""
        alone = {name: getattr(self, name)[frame : frame + 1] for name in _BY_FRAME}
        return replace(self, video=picture, times=[Fraction(0)], **alone)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, bound to the video by its digest; written aside, then renamed.

        Raises InputError where it cannot be written.
        """
        path = Path(path)
        tensors = {
            "times": np.array([(time.numerator, time.denominator) for time in self.times], np.int64),
            "transforms": self.transforms.astype(np.float64),
            "shot": self.shot.astype(np.int64),
            "references": self.references,
            "shares": self.shares,
            "portraits": self.portraits,
            "portrait_shown": self.portrait_shown.astype(np.int64),
        }
        metadata = {
            "prepared_face": _FORMAT,
            "video": printable(os.path.relpath(self.video.resolve(), path.resolve().parent)),
            "sha256": file_digest(self.video),
            "settings": json.dumps(vars(self.settings)),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside(path) as part:
                save_file(tensors, part, metadata)
                give_usual_rights(part)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path} cannot be written ({error}); choose another place for the prepared face"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> "PreparedFace":
        """Raises InputError for a file that is none, and where its video is gone or another one by now."""
        path = Path(path)
        try:
            with safe_open(str(path), "np") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if metadata.get("prepared_face") != _FORMAT:
                raise ValueError("it says nothing of being one of this version")
            settings = FaceSettings(**json.loads(metadata["settings"]))
            times = [Fraction(int(above), int(below)) for above, below in tensors["times"]]
            frames, size, mouths = len(times), settings.size, settings.references
            poses, portraits = len(tensors["references"]), len(tensors["portraits"])
            parts = {
                "transforms": ((frames, 2, 3), np.float64),
                "shot": ((frames,), np.int64),
                "references": ((poses, mouths, BASE_SIZE, BASE_SIZE, 3), np.uint8),
                "shares": ((frames, poses, mouths), np.float32),
                "portraits": ((portraits, size, size, 3), np.uint8),
                "portrait_shown": ((frames,), np.int64),
            }
            fit = all(
                tensors[name].shape == shape and tensors[name].dtype == kind for name, (shape, kind) in parts.items()
            )
            kept, digest = metadata["video"], metadata["sha256"]
        except (OSError, SafetensorError, *_DAMAGE) as error:
            raise InputError(f"{path} is no prepared face ({error}); make one with --face VIDEO --prepare") from error
        fit = fit and bool(np.isin(tensors["portrait_shown"], np.arange(portraits)).all())
        fit &= all(before < after for before, after in pairwise(times))
        if not fit or not times:
            raise InputError(f"{path} is damaged: its parts do not fit each other; prepare the face again")
        video = _find_video(path, kept)
        if file_digest(video) != digest:
            raise InputError(f"{video} is not the video that {path} was prepared from; prepare it again")
        return cls(video, settings, times, **{name: tensors[name] for name in parts})


def _find_video(face: Path, kept: str) -> Path:
    """Where it was, seen from the prepared face, or beside that."""
    for place in (face.resolve().parent / kept, face.resolve().parent / Path(kept).name):
        if os.path.isfile(place):  # no folder, pipe or device, and where it may not be looked at, none
            return place
        if "\\udc" in place.name and place.parent.is_dir():  # its bytes were written out, they are not UTF-8
            alike = [path for path in place.parent.iterdir() if printable(path.name) == place.name]
            if alike:
                return alike[0]
    raise InputError(f"{face} was prepared from {Path(kept).name}, which is gone; put it beside the prepared face")
