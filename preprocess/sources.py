"""Which files a data set is made of: videos, the sound that belongs to them, persons, splits, known offsets."""

import csv
import glob
import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

from errors import InputError, check, printable
from media.audio import SOUND_SUFFIXES
from media.source import VIDEO_SUFFIXES
from media.text import read_text

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

_SPLITS = "train", "val", "test"
_VAL_SHARE = 0.05
"""Of the persons, with `--split hash`."""
_SLUG_PARTS = 5
"""Folders and file whose names make an id readable."""
_BEGINNING = 1 << 16
"""Bytes of a file that tell it from another one of its name and size."""
_LATEST = 60
"""Seconds by which a sound may be late or early."""
_LISTED_SUFFIXES = {*VIDEO_SUFFIXES, *SOUND_SUFFIXES, ".txt"}
"""What names in lists may end in: any other dot is part of the name."""


@dataclass(frozen=True)
class Source:
    """One video file of a data set. `relative` is its path below `root`, the folder given on the command line."""

    path: Path
    relative: str
    root: Path

    @classmethod
    def below(cls, path: Path, root: Path) -> "Source":
        """The file `path`, which lies in the folder `root`, at any depth."""
        return cls(path, path.relative_to(root).as_posix(), root.resolve())

    @cached_property
    def id(self) -> str:
        """Slug of the path plus 8 hex digits, since LRS2 and VoxCeleb have thousands of 00001.mp4.

        The digits are of the path below `root`, so that the same folder has the same ids wherever it lies, and of how
        the file begins: MEAD has a folder `video` for every person, and no other folder, given beside this one or
        later, may change the name or share it.
        """
        below = Path(self.root.name, self.relative).with_suffix("")
        slug = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(below.parts[-_SLUG_PARTS:])).strip("-")[-60:]
        return f"{slug}-{hashlib.sha1(os.fsencode(self.relative) + self._beginning).hexdigest()[:8]}"

    @property
    def _beginning(self) -> bytes:
        """The file's size and first bytes; nothing of one that cannot be read."""
        try:
            with self.path.open("rb") as file:
                return b"\0%d\0" % os.fstat(file.fileno()).st_size + file.read(_BEGINNING)
        except OSError:
            return b""

    @property
    def place(self) -> str:
        """Digits that stand for where the file lies on this machine, whatever is in it."""
        return hashlib.sha1(os.fsencode(self.root / self.relative)).hexdigest()

    @property
    def name(self) -> str:
        """What people are told: the last folder's name and the path below it, printable whatever the bytes in it."""
        return printable(f"{self.root.name}/{self.relative}")


def find_sources(roots: list[Path]) -> list[Source]:
    """Every video below `roots`, once each, in a stable order, see files_below; of copies at the same place below two
    roots the first is taken. Raises InputError for a missing or unreadable folder, or one without videos.
    """
    sources: dict[Path, Source] = {}
    for root in roots:
        if not root.is_dir():
            raise InputError(f"no such folder: {root}")
        found = files_below(root, VIDEO_SUFFIXES)
        if not found:
            raise InputError(f"no video below {root} (looked for {', '.join(sorted(VIDEO_SUFFIXES))})")
        for path in found:
            source = Source.below(path, root)
            sources.setdefault(source.root / source.relative, source)
    unique: dict[str, Source] = {}
    for source in sources.values():
        unique.setdefault(source.id, source)
    return list(unique.values())


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Every file below that ends in one of the suffixes, in order, without hidden files and folders, which are another
    system's, another tool's or were not finished; links to folders are followed.

    A link that leads nowhere is a file too: whoever opens it says so. Raises InputError for an unreadable folder.
    """
    return sorted(path for path in _files(folder, set()) if path.suffix.lower() in suffixes)


def _files(folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
    """Everything below that is neither hidden nor a folder. above: folders that led here; a link may lead back."""
    try:
        status = folder.stat()
        entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"found a folder {folder} that cannot be read ({error.strerror}); check its rights") from error
    here = status.st_dev, status.st_ino
    if here in above:
        return
    for path in entries:
        if path.is_dir():
            yield from _files(path, above | {here})
        else:
            yield path


def find_sound(source: Source, notes: list[str]) -> Path | None:
    """The separate sound file of a silent video: beside it, or in the twin tree of MEAD and VoxCeleb2. notes: where
    there are several, a line is added that says which was taken.
    """
    candidates = [source.path]
    for video, sound in _SOUND_TREES:
        parts = list(source.path.parts)
        positions = [k for k, part in enumerate(parts) if part == video]
        if positions:
            parts[positions[-1]] = sound
            candidates.append(Path(*parts))
            # MEAD: video/<view>/<emotion>/... but audio/<emotion>/...
            if video == "video" and positions[-1] + 2 < len(parts):
                del parts[positions[-1] + 1]
                candidates.append(Path(*parts))
    found = list(dict.fromkeys(path for candidate in candidates for path in _sounds_named(candidate)))
    if len(found) > 1:
        notes.append(f"its sound is {found[0].name}, others of that name were left: {', '.join(map(str, found[1:]))}")
    return next(iter(found), None)


def _sounds_named(name: Path) -> list[Path]:
    """The sound files of a name, whatever its suffix, in the order of SOUND_SUFFIXES."""
    beside = [path for path in name.parent.glob(f"{glob.escape(name.stem)}.*") if path.stem == name.stem]
    found = [path for path in beside if path.suffix.lower() in SOUND_SUFFIXES and path.is_file()]
    return sorted(found, key=lambda path: (SOUND_SUFFIXES.index(path.suffix.lower()), path.name))


class Persons:
    """`--person parent | REGEX | =NAME | none`: how a path names its speaker."""

    def __init__(self, rule: str):
        self.rule = rule
        try:
            self.pattern = re.compile("" if rule.startswith("=") else rule)
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
        return "" if match is None else next(filter(None, match.groups()), match[0])


class Splits:
    """`--split hash | train | val | test | FILE[,FILE...]`: which split a source belongs to.

    A list holds one entry a line: a path or its tail, a folder, a file stem or a person, optionally with a word after
    it or VoxCeleb's digit before it for the split; without one the list's own name (train.txt, val.txt) says it.
    """

    def __init__(self, rule: str):
        self.rule = rule
        self.entries = {} if rule in ("hash", *_SPLITS) else self._read(rule.split(","))

    def __call__(self, source: Source, person: str) -> str | None:
        """The split, or None for a source that no list names."""
        if self.rule in _SPLITS:
            return self.rule
        if self.rule == "hash":  # by what stays the same where the data lies elsewhere
            key = hashlib.sha1(os.fsencode(person or f"{source.root.name}/{source.relative}")).digest()
            return "val" if int.from_bytes(key[:4], "big") / 2**32 < _VAL_SHARE else "train"
        parts = Path(source.relative).with_suffix("").parts
        whole = (source.root / source.relative).with_suffix("").as_posix()
        tails = ["/".join(parts[start:]) for start in range(len(parts))]
        names = [whole, *tails, *parts, re.sub(r"_\d+$", "", parts[-1]), *([person] if person else [])]
        return next((self.entries[key] for key in map(_normal, names) if key in self.entries), None)

    def check(self, sources: list[Source], persons: Persons) -> None:
        """Raises InputError where lists were given and none of the sources is in them."""
        if self.entries and all(self(source, persons(source)) is None for source in sources):
            raise InputError(
                f"--split {self.rule}: found no entry that names one of the {len(sources)} videos, such as "
                f"{sources[0].name}; expected paths or their tails, folders, file names without suffix or persons, one "
                "a line"
            )

    @staticmethod
    def _read(files: list[str]) -> dict[str, str]:
        entries: dict[str, str] = {}
        known: dict[str, dict[str, str]] = {}
        for name in files:
            path = Path(name)
            if not path.is_file():
                raise InputError(f"--split {name}: found neither hash, train, val, test nor a list file of that name")
            words = re.split("[^a-z]+", re.sub("(list|set)(?![a-z])", "", path.stem.lower()))
            default = next((split for word, split in _SPLIT_WORDS.items() if word in words), None)
            lines = [line.strip() for line in read_text(path, f"--split {name}").splitlines()]
            for line in filter(None, lines):
                found = dict(_readings(line, default))
                if not found:
                    raise InputError(
                        f"--split {name}: line {line!r} names no split, nor does the file's name; "
                        "name the list train.txt or val.txt"
                    )
                if (before := known.setdefault(_normal(line), found)) != found:
                    splits = " and ".join(sorted({*before.values(), *found.values()}))
                    raise InputError(f"--split {name}: line {line!r} is listed for {splits}; leave it in one list")
                entries |= found
            if not any(lines):
                raise InputError(f"--split {name}: found an empty list; expected one entry a line")
        return entries


def _readings(line: str, default: str | None) -> Iterator[tuple[str, str]]:
    """What a line may mean, (key, split): names hold spaces, and words that elsewhere name a split."""
    fields = [field.strip().strip('"') for field in re.split(r"[\t,]", line)]
    if len(fields) > 1:
        named = next((_SPLIT_WORDS[field.lower()] for field in fields if field.lower() in _SPLIT_WORDS), default)
        name = next((field for field in fields if field and field.lower() not in _SPLIT_WORDS), "")
    else:
        name, named = _without_word(fields[0], default)
    # LRS2 has codes behind its names: 6330311066473698535/00011 NF MV0
    for text in (re.sub(r"( [A-Z]{2}\d?)+$", "", name), name.split("=")[0], name):
        if text and named is not None:
            yield _normal(text), named
    if default is not None:
        yield _normal(line), default


def _without_word(text: str, default: str | None) -> tuple[str, str | None]:
    """A line's name and its split: a word or digit before or behind it. Where the list's own name says the split, a
    digit belongs to the name.
    """
    first, _, after = text.partition(" ")
    before, _, last = text.rpartition(" ")
    for word, rest in ((first, after), (last, before)):
        if rest and word.lower() in _SPLIT_WORDS and not (word.isdigit() and default is not None):
            return rest.strip(), _SPLIT_WORDS[word.lower()]
    return text, default


def _normal(name: str) -> str:
    """A name as it is looked up: with plain slashes, composed letters, and without the suffix of a video or sound."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./").strip("/ ")
    suffix = os.path.splitext(name)[1]
    return name.removesuffix(suffix) if suffix.lower() in _LISTED_SUFFIXES else name


Offsets = Mapping[str, Mapping[str, Fraction]]
"""By file name and set ("" where none is given): seconds by which the sound is late."""


def read_offsets(path: Path | None) -> Offsets:
    """A table of known sound offsets.

    Tab-separated with columns `file` and `offset_ms`, optionally `set` (the end of the folder's path); # lines are
    comments. Raises InputError for another table, for two offsets of one file, and for more than a minute.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise InputError(f"--offsets {path}: no such file")
    lines = [line for line in read_text(path, f"--offsets {path}").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines, delimiter="\t"))
    if not rows or not {"file", "offset_ms"} <= set(rows[0]):
        raise InputError(f"--offsets {path}: expected a tab-separated table with columns file and offset_ms")
    offsets: dict[str, dict[str, Fraction]] = defaultdict(dict)
    for row in rows:
        name, group = row["file"], row.get("set") or ""
        try:
            seconds = Fraction(row["offset_ms"]) / 1000
        except (ValueError, TypeError, ZeroDivisionError) as error:
            raise InputError(f"--offsets {path}: {error}; expected milliseconds in offset_ms") from error
        before = offsets[name].setdefault(group, seconds)
        check(
            abs(seconds) > _LATEST and f"--offsets {path}: {name} by {row['offset_ms']} ms, expected a minute at most",
            before != seconds and f"--offsets {path}: {name} is given twice with other offsets; leave one",
        )
    return offsets


def offset_of(source: Source, offsets: Offsets) -> Fraction | None:
    """The known offset of a source in seconds, None where none is known."""
    groups = offsets.get(source.path.name, {})
    folder = source.path.resolve().parent.as_posix() if groups else ""
    for group, offset in sorted(groups.items(), key=lambda item: -len(item[0])):  # "" last, which fits any folder
        if not group or folder == group or folder.endswith("/" + group):
            return offset
    return None
