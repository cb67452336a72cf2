"""What is to be scored: finished videos by name, by list, or side by side in one file."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from errors import InputError
from media.audio import SOUND_SUFFIXES
from media.source import VIDEO_SUFFIXES
from media.text import read_text
from media.video import VideoReader
from metrics.pairs import View

OURS = "generated"
"""Line of the one method there is."""
BESIDE = "ours"
"""Line of ours beside other methods."""
MUTED, SWAPPED = "muted", "swapped"
REENCODED, COPY, CHANCE = "re-encoded", "copy-input", "chance"
OWN_LINES = {BESIDE, MUTED, SWAPPED, REENCODED, COPY, CHANCE}
"""Names that no method may have."""


@dataclass(frozen=True)
class Job:
    """One clip to score.

    generated: views by line. audio: sound that drove them, None to take each file's own or else the real one's. person:
    "" where unknown. offset_s: s by which the real clip's sound is late, None if unknown. from_s: frames before it are
    not scored. transforms (frames, 2, 3): view px of the real face to px of 128, NaN without it; None: not tracked yet.
    extras: the same face, driven by silence (MUTED) and by the sound of the job called `driver` (SWAPPED).
    """

    name: str
    real: View
    generated: Mapping[str, View]
    audio: Path | None = None
    person: str = ""
    offset_s: float | None = None
    from_s: float = 0.0
    transforms: np.ndarray | None = field(default=None, compare=False)
    extras: Mapping[str, View] = field(default_factory=dict)
    driver: str | None = None


def matched(
    videos: list[Path], real: Path, generated: list[str], audio: Path | None, must: bool
) -> tuple[list[Job], list[str]]:
    """Jobs of the real `videos` (below the folder `real`, or that file), and what is missing.

    generated: `[NAME=]PATH`, each a file or a folder with files of the same name, suffix aside; audio: likewise. must:
    leave out a video without any generated one. Raises InputError where nothing matches.
    """
    methods = dict(
        _named(entry, f"{OURS} {k + 1}" if len(generated) > 1 else OURS) for k, entry in enumerate(generated)
    )
    if len(methods) < len(generated) or OWN_LINES & methods.keys():
        raise InputError(
            "found --generated names that repeat, or are lines of our own; give every method a name of its own, "
            f"--generated NAME=PATH, none of {', '.join(sorted(OWN_LINES))}"
        )
    jobs, missing, partners = [], [], _Partners(real)
    for path in videos:
        views = {}
        for name, place in methods.items():
            found = partners(path, Path(place), VIDEO_SUFFIXES)
            if found is None:
                missing.append(f"{path}: no video of that name in {place}")
            else:
                views[name] = View(found)
        sound = None if audio is None else partners(path, audio, SOUND_SUFFIXES, VIDEO_SUFFIXES)
        if audio is not None and sound is None:
            missing.append(f"{path}: no sound of that name in {audio}")
        if views or not must:
            jobs.append(Job(job_name(path, real), View(path), views, sound))
    if not jobs:
        raise InputError(
            f"found no video in {', '.join(methods.values())} named like one in {real}; name them alike, or use --list"
        )
    return jobs, missing


def job_name(path: Path, root: Path) -> str:
    """A file's path below `root` without its suffix, in one word; its own name where `root` is no folder above it."""
    below = path.relative_to(root) if root.is_dir() else Path(path.name)
    return "_".join(below.with_suffix("").parts)


class _Partners:
    """Files that belong to those below `root`, by their names without suffix. Each folder is listed once."""

    def __init__(self, root: Path):
        self._root = root
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def __call__(self, path: Path, place: Path, *kinds: Collection[str]) -> Path | None:
        """The file that belongs to `path` in another folder, of the first kind (suffixes) there is; or `place` itself
        where both are files. Raises InputError where there are several.
        """
        root = self._root
        if not place.is_dir():
            if not place.is_file():
                raise InputError(f"found no file or folder {place}; check the path")
            if root.is_dir():
                raise InputError(f"found a folder {root} and a file {place}; expected two files or two folders")
            return place
        named = self._names(place / (path.parent.relative_to(root) if root.is_dir() else "")).get(path.stem, [])
        found = next(filter(None, ([file for file in named if file.suffix.lower() in kind] for kind in kinds)), [])
        if len(found) > 1:
            raise InputError(f"{path}: found {' and '.join(map(str, found))}, expected one; take the others away")
        return next(iter(found), None)

    def _names(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            names: dict[str, list[Path]] = defaultdict(list)
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                names[file.stem].append(file)
            self._listed[folder] = names
        return self._listed[folder]


def _named(entry: str, default: str) -> tuple[str, str]:
    name, equals, place = entry.partition("=")
    return (name, place) if equals and not Path(entry).exists() else (default, entry)


def listed(path: Path) -> list[Job]:
    """Jobs of a file of tab-separated lines real, generated [, sound]; relative paths begin at its folder."""
    if not path.is_file():
        raise InputError(f"--list {path}: no such file")
    jobs = []
    for number, line in enumerate(read_text(path, f"--list {path}").splitlines(), 1):
        fields = [part.strip() for part in line.split("\t")]
        if not line.strip() or line.startswith("#"):
            continue
        if not 2 <= len(fields) <= 3:
            raise InputError(
                f"--list {path}, line {number}: found {len(fields)} fields, expected real, generated and maybe sound, "
                "with tabs between"
            )
        real, generated, *sound = ((path.parent / part) for part in fields)
        jobs.append(Job(real.stem, View(real), {OURS: View(generated)}, sound[0] if sound else None))
    if not jobs:
        raise InputError(
            f"--list {path}: no pair in it; expected lines of real, generated and maybe sound, with tabs between"
        )
    return jobs


def numbered(jobs: list[Job]) -> list[Job]:
    """The jobs, of which those that share a name have a number in it: files and drivers go by it."""
    count, numbers = Counter(job.name for job in jobs), defaultdict[str, Iterator[int]](lambda: itertools.count(1))
    taken, told_apart = set(count), []
    for job in jobs:
        if count[job.name] > 1:
            name = next(name for k in numbers[job.name] if (name := f"{job.name} ({k})") not in taken)
            taken.add(name)
            job = replace(job, name=name)
        told_apart.append(job)
    return told_apart


def columns(path: Path, text: str) -> Job:
    """The job of a side-by-side video: `text` = `[NAME=]x,y,w,h;...` px, the real one first."""
    views = {}
    width, height = VideoReader(path).size
    for number, entry in enumerate(text.split(";"), 1):
        name, numbers = _named(entry.strip(), "real" if number == 1 else f"column {number}")
        try:
            x, y, w, h = (int(value) for value in numbers.split(","))
        except ValueError as error:
            raise InputError(
                f"--columns: found {entry!r}, expected x,y,w,h in px, with ; between rectangles"
            ) from error
        if not (0 <= x < x + w <= width and 0 <= y < y + h <= height and min(w, h) >= 16):
            raise InputError(
                f"--columns: {entry!r} leaves the {width}x{height} picture of {path}, or is smaller than 16 px"
            )
        if name in views or name in OWN_LINES:
            raise InputError(f"--columns: name {name!r} repeats, or is a line of our own; give every rectangle its own")
        views[name] = View(path, (x, y, x + w, y + h))
    (_, real), *others = views.items()
    return Job(path.stem, real, dict(others))
