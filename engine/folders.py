"""Folders of faces and sounds: every pair speaks, each face is tracked once, and one failure does not end the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from engine.options import PREPARED, InferenceConfig
from engine.pipeline import LipSync, Watch, lip_sync, unwatched
from engine.prepared import PreparedFace
from errors import InputError, check
from media.audio import SOUND_SUFFIXES
from media.source import PICTURE_SUFFIXES, VIDEO_SUFFIXES

FACES = {*VIDEO_SUFFIXES, *PICTURE_SUFFIXES, PREPARED}
SOUNDS = {*SOUND_SUFFIXES, *VIDEO_SUFFIXES}


@dataclass(frozen=True)
class Pair:
    """A face, what it says, and where that goes."""

    face: Path
    audio: Path
    output: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a pair: `done`, `skipped` (it was there already) or `failed`, and a word on it."""

    pair: Pair
    state: str
    words: str


def plan(face: Path, audio: Path, output: Path) -> list[Pair]:
    """All pairs of one face with many sounds, or of many faces with one; of two folders, the files of one name.

    Raises InputError for a folder without such files, two files of one name, names that have no partner, and where
    `output` is no folder.
    """
    faces, sounds = _named(face, FACES, "face"), _named(audio, SOUNDS, "sound")
    check(output.is_file() and f"--output {output} is a file, expected a folder for the videos of the pairs")
    if face.is_dir() and audio.is_dir():
        alone = sorted(faces.keys() ^ sounds.keys())
        check(
            bool(alone)
            and f"{face} and {audio} are matched by name, and in one of them only: {', '.join(alone[:5])}; "
            "add the other or take it away"
        )
        pairs = [(name, faces[name], sounds[name]) for name in faces]
    else:
        pairs = [(name if face.is_dir() else other, faces[name], sounds[other]) for name in faces for other in sounds]
    return [Pair(shown, heard, output / f"{name}.mp4") for name, shown, heard in pairs]


def speak(pairs: list[Pair], config: InferenceConfig, watch: Watch = unwatched) -> Iterator[Outcome]:
    """Make the videos that are not there yet, in order."""
    engine = LipSync(config)
    for face, group in groupby(pairs, key=lambda pair: pair.face):
        prepared: PreparedFace | InputError | None = None
        for pair in group:
            if pair.output.exists():
                yield Outcome(pair, "skipped", "it was there already")
                continue
            try:
                prepared = prepared or _prepared(engine, face, watch)
                if isinstance(prepared, InputError):
                    raise prepared
                report = lip_sync(prepared, pair.audio, pair.output, engine=engine, watch=watch)
                yield Outcome(pair, "done", str(report))
            except InputError as error:
                yield Outcome(pair, "failed", str(error))


def _prepared(engine: LipSync, face: Path, watch: Watch) -> PreparedFace | InputError:
    """The face, or what is wrong with it: a video that cannot be used is looked at once."""
    try:
        return PreparedFace.load(face) if face.suffix == PREPARED else engine.prepare(face, watch)
    except InputError as error:
        return error


def _named(path: Path, suffixes: set[str], what: str) -> dict[str, Path]:
    """The files of a folder by name without suffix, in order; of a file, itself."""
    if not path.is_dir():
        return {path.stem: path}
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    named = {file.stem: file for file in files}
    check(
        not files and f"found no {what} in {path} (looked for {', '.join(sorted(suffixes))})",
        len(named) < len(files) and f"{path} holds several files of one name; their videos would be one",
    )
    return named
