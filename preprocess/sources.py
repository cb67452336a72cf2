"""Which files a data set is made of: videos, the sound that belongs to them, persons, splits, known offsets."""

import csv
import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from errors import InputError
from media.audio import SOUND_SUFFIXES

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".mpg", ".mpeg", ".webm", ".m4v"}

_SOUND_TREES = (("video", "audio"), ("mp4", "aac"))
"""Folder names whose twin holds the sound: MEAD keeps video/<view>/ and audio/, VoxCeleb2 mp4/ and aac/."""

_SPLIT_WORDS = {
    "train": "train",
    "pretrain": "train",
    "trainval": "train",
    "1": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "2": "val",
    "test": "test",
    "3": "test",
}
"""Words of official lists; VoxCeleb's iden_split.txt uses 1, 2, 3."""


@dataclass(frozen=True)
class Source:
    """One video file of a data set. `relative` is its path below the folder given on the command line."""

    path: Path
    relative: str
    root: Path

    @property
    def id(self) -> str:
        """Slug of the relative path plus 8 hex digits, since LRS2 and VoxCeleb have thousands of 00001.mp4."""
        name = f"{self.root.name}/{self.relative}"
        slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).with_suffix("").as_posix()).strip("-")[-60:]
        return f"{slug}-{hashlib.sha1(name.encode()).hexdigest()[:8]}"


def find_sources(roots: list[Path]) -> list[Source]:
    """Every video below `roots`, in a stable order. Raises InputError for a missing folder or one without videos."""
    sources = []
    for root in roots:
        if not root.is_dir():
            raise InputError(f"no such folder: {root}")
        found = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
        if not found:
            raise InputError(f"no video below {root} (looked for {', '.join(sorted(VIDEO_SUFFIXES))})")
        sources += [Source(path, path.relative_to(root).as_posix(), root.resolve()) for path in found]
    return sources


def find_sound(source: Source) -> Path | None:
    """The separate sound file of a silent video: beside it, or in the twin tree of MEAD and VoxCeleb2."""
    candidates = [source.path]
    for video, sound in _SOUND_TREES:
        parts = list(source.path.parts)
        positions = [k for k, part in enumerate(parts) if part == video]
        if positions:
            parts[positions[-1]] = sound
            candidates.append(Path(*parts))
            if video == "video":  # MEAD: video/<view>/<emotion>/... but audio/<emotion>/...
                del parts[positions[-1] + 1]
                candidates.append(Path(*parts))
    for candidate in candidates:
        for suffix in SOUND_SUFFIXES:
            if candidate.with_suffix(suffix).is_file():
                return candidate.with_suffix(suffix)
    return None


class Persons:
    """`--person parent | REGEX | =NAME | none`: how a path names its speaker."""

    def __init__(self, rule: str):
        self.rule = rule
        try:
            self.pattern = re.compile(rule)
        except re.error as error:
            raise InputError(
                f"--person {rule}: found neither parent, none, =NAME nor a regular expression: {error}"
            ) from error

    def __call__(self, source: Source) -> str:
        """The speaker's name, or "" where it is unknown."""
        if self.rule == "none":
            return ""
        if self.rule == "parent":
            return source.path.parent.name
        if self.rule.startswith("="):
            return self.rule[1:]
        match = self.pattern.search(source.relative)
        return "" if match is None else (match[1] if match.groups() else match[0])


class Splits:
    """`--split hash | train | val | FILE[,FILE...]`: which split a source belongs to.

    A list holds one entry a line: a path or its tail, a folder or a file stem, optionally with a word or VoxCeleb's
    digit for the split; without one the list's own name (train.txt, val.txt) says it.
    """

    def __init__(self, rule: str, val_share: float = 0.05):
        self.rule, self.val_share = rule, val_share
        self.entries = {} if rule in ("hash", "train", "val") else self._read(rule.split(","))

    def __call__(self, source: Source, person: str) -> str | None:
        """The split, or None for a source that no list names."""
        if self.rule in ("train", "val"):
            return self.rule
        if self.rule == "hash":
            key = hashlib.sha1((person or source.id).encode()).digest()
            return "val" if int.from_bytes(key[:4], "big") / 2**32 < self.val_share else "train"
        parts = Path(source.relative).with_suffix("").parts
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        names = [*tails, *parts, re.sub(r"_\d+$", "", parts[-1])]
        return next((self.entries[name] for name in names if name in self.entries), None)

    @staticmethod
    def _read(files: list[str]) -> dict[str, str]:
        entries = {}
        for name in files:
            path = Path(name)
            if not path.is_file():
                raise InputError(f"--split {name}: found neither hash, train, val nor a list file of that name")
            default = next(
                (split for word, split in _SPLIT_WORDS.items() if not word.isdigit() and word in path.stem), None
            )
            for line in path.read_text(encoding="utf-8").splitlines():
                words = line.replace(",", " ").split()
                split = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), default)
                names = [word for word in words if word not in _SPLIT_WORDS]
                if names and split is None:
                    raise InputError(
                        f"--split {name}: line {line!r} names no split, nor does the file's name; "
                        "name the list train.txt or val.txt"
                    )
                if names:
                    entries[names[0].split("=")[0].removesuffix(Path(names[0]).suffix)] = split
        return entries


def read_offsets(path: Path | None) -> dict[tuple[str, str], Fraction]:
    """A table of known sound offsets: (set, file name) -> seconds by which the sound is late ("" where no set is
    given).

    Tab-separated with columns `file` and `offset_ms`, optionally `set` (the end of the folder's path); # lines are
    comments.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise InputError(f"--offsets {path}: no such file")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t"))
    if not rows or not {"file", "offset_ms"} <= set(rows[0]):
        raise InputError(f"--offsets {path}: expected a tab-separated table with columns file and offset_ms")
    try:
        return {(row.get("set") or "", row["file"]): Fraction(row["offset_ms"]) / 1000 for row in rows}
    except (ValueError, TypeError) as error:
        raise InputError(f"--offsets {path}: {error}; expected milliseconds in offset_ms") from error


def offset_of(source: Source, offsets: dict[tuple[str, str], Fraction]) -> Fraction | None:
    """The known offset of a source in seconds, None where none is known."""
    folder = source.path.resolve().parent.as_posix()
    for (group, name), offset in offsets.items():
        if name == source.path.name and (not group or folder == group or folder.endswith("/" + group)):
            return offset
    return None
