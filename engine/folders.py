"""Folders of faces and sounds: every pair speaks, each face is tracked once, and one failure does not end the rest."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from engine.options import PREPARED, InferenceConfig, is_prepared
from engine.pipeline import LipSync, lip_sync
from engine.prepared import PreparedFace
from engine.report import Report, Watch, unwatched
from errors import InputError, check
from media.audio import SOUND_SUFFIXES
from media.source import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from media.video import VideoReader

FACES = {*VIDEO_SUFFIXES, *PICTURE_SUFFIXES, PREPARED}
SOUNDS = {*SOUND_SUFFIXES, *VIDEO_SUFFIXES}
State = Literal["made", "already there", "failed"]


@dataclass(frozen=True)
class Pair:
    """A face, what it says, and where that goes."""

    face: Path
    audio: Path
    output: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a pair. frames: of the video, 0 where there is none; seconds: that it took; words: why it failed, or
    what else there is to say, in one line; report: of what was made."""

    pair: Pair
    state: State
    frames: int = 0
    seconds: float = 0.0
    words: str = ""
    report: Report | None = None

    def __str__(self) -> str:
        return f"{self.state}: {self.words}" if self.words else self.state


def plan(face: Path, audio: Path, output: Path) -> list[Pair]:
    """All pairs of one face with many sounds, or of many faces with one; of two folders, the files of one name.

    Raises InputError for a folder without such files, two files of one name, names that have no partner, where `output`
    is no folder or one of sources, and where a video would have the name of a source.
    """
    faces, sounds = _named(face, FACES, "face"), _named(audio, SOUNDS, "sound")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, expected a folder for the videos of the pairs")
    if any(source.is_dir() and output.resolve() == source.resolve() for source in (face, audio)):
        raise InputError(
            f"--output {output} holds the sources, expected another folder: videos would be mixed up there"
        )
    if face.is_dir() and audio.is_dir():
        if alone := sorted(faces.keys() ^ sounds.keys()):
            raise InputError(
                f"{face} and {audio} are matched by name, and in one of them only: {', '.join(alone[:5])}; "
                "add the other or take it away"
            )
        pairs = [(name, faces[name], sounds[name]) for name in faces]
    else:
        pairs = [(name if face.is_dir() else other, faces[name], sounds[other]) for name in faces for other in sounds]
    planned = [Pair(shown, heard, output / f"{name}.mp4") for name, shown, heard in pairs]
    sources = {path.resolve() for pair in planned for path in (pair.face, pair.audio)}
    if taken := [str(pair.output) for pair in planned if pair.output.resolve() in sources]:
        raise InputError(f"{', '.join(taken[:5])} would be made, and is a source itself; choose another --output")
    return planned


def speak(pairs: list[Pair], config: InferenceConfig, watch: Watch = unwatched) -> Iterator[Outcome]:
    """Make the videos that are not there yet, in order."""
    engine = LipSync(config)
    for face, group in groupby(pairs, key=lambda pair: pair.face):
        prepared: PreparedFace | InputError | None = None
        for pair in group:
            started = time.monotonic()
            try:
                if pair.output.exists():
                    yield _there(pair)
                    continue
                prepared = prepared or _prepared(engine, face, watch)
                if isinstance(prepared, InputError):
                    raise prepared
                report = lip_sync(prepared, pair.audio, pair.output, engine=engine, watch=watch)
            except InputError as error:
                yield Outcome(pair, "failed", 0, time.monotonic() - started, " ".join(str(error).split()))
            else:
                yield Outcome(pair, "made", report.frames, time.monotonic() - started, report=report)


def table(outcomes: Sequence[Outcome]) -> str:
    """A row a pair and a last line with the counts, for a terminal."""
    rows = [("output", "frames", "seconds", "what happened")]
    for outcome in outcomes:
        rows.append((str(outcome.pair.output), str(outcome.frames), f"{outcome.seconds:.1f}", str(outcome)))
    name, frames, seconds = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [f"{row[0]:{name}}  {row[1]:>{frames}}  {row[2]:>{seconds}}  {row[3]}" for row in rows]
    states = [outcome.state for outcome in outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in get_args(State))
    return "\n".join([*lines, f"{len(states)} pairs: {counts}"])


def _there(pair: Pair) -> Outcome:
    try:
        return Outcome(pair, "already there", VideoReader(pair.output).frame_count, words=_changed(pair))
    except InputError:
        return Outcome(pair, "failed", words="it is there, but no video; remove it to have it made anew")


def _changed(pair: Pair) -> str:
    """What is to be said where the face or the sound is newer than the video."""
    newer = [str(path) for path in (pair.face, pair.audio) if path.stat().st_mtime > pair.output.stat().st_mtime]
    return f"{' and '.join(newer)} changed since; remove the video to have it made anew" if newer else ""


def _prepared(engine: LipSync, face: Path, watch: Watch) -> PreparedFace | InputError:
    """The face, or what is wrong with it: a video that cannot be used is looked at once."""
    try:
        return PreparedFace.load(face) if is_prepared(face) else engine.prepare(face, watch)
    except InputError as error:
        return error


def _named(path: Path, suffixes: set[str], what: str) -> dict[str, Path]:
    """The files of a folder by name without suffix, in order, without hidden ones; of a file, itself."""
    if not path.is_dir():
        return {path.stem: path}
    shown = (file for file in path.iterdir() if not file.name.startswith("."))
    files = sorted(file for file in shown if file.suffix.lower() in suffixes and file.is_file())
    named = {file.stem: file for file in files}
    twice = [file.name for file in files if named[file.stem] != file]
    check(
        not files and f"found no {what} in {path} (looked for {', '.join(sorted(suffixes))})",
        bool(twice) and f"{path} holds several files of one name ({', '.join(twice[:5])}); their videos would be one",
    )
    return named
