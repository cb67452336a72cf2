"""One visitor's work: look at a face, preview a moment, make the video. Knows nothing of how the page is drawn."""

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from digest import file_digest
from engine.pipeline import LipSync, lip_sync
from engine.prepared import FaceSettings, PreparedFace
from engine.report import Report, Watch
from engine.timeline import median_step, source_frame
from errors import InputError
from face.crop import CropTransform
from face.follow import Followed
from face.pose import head_pose
from media.audio import SAMPLE_RATE, channels, read_audio
from media.picture import write_picture
from media.source import open_input
from media.video import STILL_FPS, VideoReader
from media.watermark import mark
from metrics.alone import score_alone
from nearest import nearest
from page.settings import command
from page.studio import Studio
from page.voice import speak, speak_command

LOOK_FRAMES = 25
"""Frames at a video's beginning in which faces are looked for before the long run."""
THUMBNAIL = 192
"""px"""
_LOUD_S, _BEFORE_S, _AFTER_S = 0.2, 3.0, 1.0
"""s: over which loudness is taken, and what the networks hear before and after the loudest moment in a preview."""
_POLL_S = 0.2
_MICROSECONDS = 1_000_000

Voice = Path | str
"""A sound file, or a text to be read."""


class Stopped(Exception):
    """The visitor stopped the work, or left."""


@dataclass
class Stage:
    """How far one stage of the work is: items `done` of about `count`, over `seconds`."""

    name: str
    count: int
    done: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Made:
    """A finished video. rows: what the sync expert says of it. command: the line that makes the same."""

    path: Path
    report: Report
    rows: dict[str, float]
    command: str


@dataclass
class Progress:
    """The stages so far, in order; `before`: visitors whose turn comes first; `made` at the end."""

    stages: list[Stage] = field(default_factory=list)
    before: int = 0
    made: Made | None = None


@dataclass(frozen=True)
class Look:
    """The faces at the beginning of a video or in a picture. whole: that is all of it."""

    path: Path
    digest: str
    settings: FaceSettings
    faces: list[Followed]
    whole: bool


class Session:
    """A visitor. Files lie in a folder that `close` removes; `stop` ends what is being done, and leaves nothing of it.

    One piece of work at a time; everything raises InputError for what the visitor can mend, and Stopped.
    """

    def __init__(self, studio: Studio):
        self._studio, self.folder = studio, studio.new_folder()
        self._looks: dict[tuple, Look] = {}
        """By what pictures depend on: see `_current`."""
        self._face_file: Path | None = None
        self._kept: Path | None = None
        self._held: set[Path] = set()
        self._stop, self._busy = threading.Event(), threading.Lock()

    def look(self, path: Path) -> list[np.ndarray]:
        """Pictures (THUMBNAIL, THUMBNAIL, 3) uint8 RGB of the faces to choose from, the largest first."""
        self.choose(path)
        looks = self._looks  # of this file, also where another is chosen meanwhile
        with self._turn():
            found = looks[_eyes(self._studio.default)] = self._looked(path, self._studio.default)
            return [self._thumbnail(found, face) for face in found.faces]

    @property
    def face(self) -> Path | None:
        """The file that was chosen last, also where no face was found in it."""
        return self._face_file

    def choose(self, path: Path | None) -> None:
        """This file is the face from now on, though nothing is known of it before `look`; None: no file is."""
        self._face_file, self._looks = path, {}  # in this order: whoever looks meanwhile does so at the new file
        self.hold(path)

    def hold(self, path: Path | None) -> None:
        """This upload, if it is one, goes when this visitor leaves, unless another one gave the same."""
        if path is not None and path not in self._held:
            self._held.add(path)
            self._studio.uploads.hold(path)

    def picture(self, pixels: np.ndarray) -> Path:
        """A picture (H, W, 3) uint8 RGB as a file of this visitor's."""
        path = self.folder / f"{secrets.token_hex(8)}.png"
        write_picture(path, pixels)
        return path

    def preview(self, choice: int, voice: Voice | None, changes: Sequence[str] = ()) -> np.ndarray:
        """What the `choice`th face of the look shows at the loudest moment: (H, W, 3) uint8 RGB."""
        with self._turn() as folder:
            engine = self._engine(choice, changes)
            wave = read_audio(self._sound(voice, folder), engine.config.audio.track)
            moment = loudest(wave)
            first = max(0, moment - round(_BEFORE_S * SAMPLE_RATE))
            heard = wave[first : moment + round(_AFTER_S * SAMPLE_RATE)]
            face = self._still(engine, choice, moment / SAMPLE_RATE, folder)
            since = (moment - first) * STILL_FPS // SAMPLE_RATE / STILL_FPS
            [(frame, _)] = engine.drive(face, heard, span=(since, since + 1 / STILL_FPS))
            if engine.config.watermark:
                mark(frame)
            return frame.rgb()

    def make(self, choice: int, voice: Voice | None, changes: Sequence[str] = ()) -> Iterator[Progress]:
        """The whole video: how far it is, several times a second, and at last with what was made."""
        progress, errors = Progress(), list[BaseException]()

        def work() -> None:
            try:
                with self._turn(progress) as folder:
                    progress.made = self._make(choice, voice, changes, folder, self._watch(progress))
            except BaseException as error:  # told to whoever waits for the video
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                yield replace(progress, stages=list(progress.stages), made=None)
                thread.join(_POLL_S)
        finally:
            if thread.is_alive():
                self.stop()
                thread.join()
        if errors:
            raise errors[0]
        yield progress

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        """Stop, and remove every file of this visitor."""
        self.stop()
        with self._busy:
            shutil.rmtree(self.folder, ignore_errors=True)
            held, self._held = self._held, set()  # another upload may come meanwhile
            for path in held:
                self._studio.uploads.release(path)

    @contextmanager
    def _turn(self, progress: Progress | None = None) -> Iterator[Path]:
        """A folder to work in while it is this visitor's turn; whatever is left in it goes with it."""
        if not self._busy.acquire(blocking=False):
            raise InputError("found work under way; wait until it is done, or stop it first")
        try:
            self._stop.clear()

            def waiting(before: int) -> None:
                self._check_stop()
                if progress is not None:
                    progress.before = before

            with self._studio.turns.turn(waiting), tempfile.TemporaryDirectory(dir=self.folder) as folder:
                waiting(0)
                yield Path(folder)
        finally:
            self._busy.release()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _watch(self, progress: Progress) -> Watch:
        def watch(items: Iterable, what: str, count: int) -> Iterator:
            stage, started = Stage(what, count), time.perf_counter()
            progress.stages.append(stage)
            for item in items:
                self._check_stop()
                yield item
                stage.done += 1
                stage.seconds = time.perf_counter() - started
            stage.count = stage.done

        return watch

    def _engine(self, choice: int, changes: Sequence[str]) -> LipSync:
        return self._studio.engine([*changes, f"face.index={choice}"])

    def _looked(self, path: Path, engine: LipSync) -> Look:
        reader = engine.read(path)
        self._check_length(path, reader.frame_count / reader.fps, "picture")

        def beginning(items: Iterable, what: str, count: int) -> Iterator:
            for item in islice(items, LOOK_FRAMES):
                self._check_stop()
                yield item

        digest = file_digest(path)
        try:
            found = engine.faces(reader, beginning)
        except InputError:
            if reader.frame_count <= LOOK_FRAMES:
                raise
            found = engine.faces(engine.read(path), self._watch(Progress()))
        seen = len(found[0].times)
        return Look(path, digest, engine.settings, found, whole=reader.frame_count <= seen)

    def _current(self, engine: LipSync, choice: int) -> Look:
        """The look through this engine's eyes, which shows that face too: another largest picture has other pixels."""
        looks, eyes = self._looks, _eyes(engine)
        path = self._face_file
        if path is None:
            raise InputError("found no face; give a video or picture that shows one")
        if eyes not in looks:  # or nothing was looked at, since the file was given while other work was under way
            looks[eyes] = self._looked(path, engine)
        if choice >= (seen := len(looks[eyes].faces)):
            raise InputError(
                f"found only {seen} faces where the largest picture is {engine.settings.max_size}, expected "
                f"{choice + 1} or more; choose another face, or another largest picture"
            )
        return looks[eyes]

    def _thumbnail(self, look: Look, face: Followed) -> np.ndarray:
        best = int(np.nanargmax(np.where(face.present, -np.abs(head_pose(face.track.rigid)[:, 0]), np.nan)))
        frame = next(islice(self._studio.default.read(look.path), best, None))
        return CropTransform(face.transforms[best]).cut_from(frame, THUMBNAIL)

    def _still(self, engine: LipSync, choice: int, seconds: float, folder: Path) -> PreparedFace:
        """The frame of the look that is nearest to what is shown at `seconds`, as a face of one picture."""
        look = self._current(engine, choice)
        found, reader = look.faces[choice], engine.read(look.path)
        prepared = engine.prepared(reader, found)
        times, known = np.array(found.times, float), np.flatnonzero(found.present)
        step = float(median_step(found.times, reader.fps))
        if look.whole and (after := seconds - times[-1] - step) >= 0:  # it runs backwards then
            seconds = times[source_frame(len(times) + int(after / step), len(times))]
        index = int(known[nearest(times[known], np.array(seconds))])
        picture = folder / "moment.png"
        write_picture(picture, next(islice(reader, index, None)).rgb())
        return prepared.still(index, picture)

    def _make(self, choice: int, voice: Voice | None, changes: Sequence[str], folder: Path, watch: Watch) -> Made:
        look = self._current(self._engine(choice, changes), choice)
        sound = self._sound(voice, folder)
        face = self._face(look, choice, changes, watch)
        engine = self._engine(face.settings.index, changes)
        made = folder / f"{look.path.stem}_speaks.mp4"
        report = lip_sync(face, sound, made, engine=engine, watch=watch)
        shown = [source_frame(number, len(face.times)) for number in range(report.frames)]
        frames = watch(VideoReader(made, max_size=None), "measure", report.frames)
        rows = score_alone(made, face.transforms[shown], self._studio.sync, frames)
        return Made(self._keep(made), report, rows, self._command(look, voice, engine, changes))

    def _keep(self, made: Path) -> Path:
        """Put a video in the place of the one before, under another path: browsers keep what they fetched."""
        before, place = self._kept, Path(tempfile.mkdtemp(dir=self.folder))
        self._kept = made.replace(place / made.name)
        if before is not None:
            shutil.rmtree(before.parent, ignore_errors=True)
        return self._kept

    def _face(self, look: Look, choice: int, changes: Sequence[str], watch: Watch) -> PreparedFace:
        """The face that was chosen in the look, followed through the whole video; kept for the next sound."""
        engine = self._engine(choice, changes)

        def prepare() -> PreparedFace:
            reader = engine.read(look.path)
            found = look.faces if look.whole else engine.faces(reader, watch)
            index = choice if look.whole else same_face(look.faces[choice], found)
            return self._engine(index, changes).prepared(reader, found[index])

        kept = self._studio.faces.get((look.digest, engine.settings), prepare)
        return replace(kept, video=look.path)

    def _command(self, look: Look, voice: Voice | None, engine: LipSync, changes: Sequence[str]) -> str:
        chosen = engine.settings.index
        index = [f"face.index={chosen}"] if chosen != self._studio.default.settings.index else []
        said, name = ("", voice.name) if isinstance(voice, Path) else speak_command(str(voice))
        line = command(look.path.name, name, self._studio.config, [*self._studio.changes, *changes, *index])
        return f"{said}\n{line}" if said else line

    def _sound(self, voice: Voice | None, folder: Path) -> Path:
        """The sound file, of a length that is allowed. Raises InputError where there is none."""
        if isinstance(voice, str) and len(voice) > (most := self._studio.limits.letters):
            raise InputError(f"found a text of {len(voice)} letters, expected at most {most}; shorten it")
        if voice is None:
            raise InputError("found no voice; give a sound, or a text where this machine can read one")
        sound = speak(voice, folder) if isinstance(voice, str) else voice
        with open_input(sound) as container:  # a file of hours is not decoded to find that out
            self._check_length(sound, (container.duration or 0) / _MICROSECONDS, "sound")
        heard = 0.0  # what a browser records tells no duration, and others may tell a wrong one
        with closing(channels(sound, self._studio.default.config.audio.track)) as pieces:
            for rate, wave in pieces:
                heard += wave.shape[1] / rate
                self._check_length(sound, heard, "sound")
        return sound

    def _check_length(self, path: Path, seconds: float | Fraction, what: str) -> None:
        """Raises InputError for what plays too long."""
        if seconds > (most := self._studio.limits.seconds):
            raise InputError(
                f"{path.name}: found {round(float(seconds), 2):g} s of {what}, expected at most {most:g}; cut it, or "
                "start the page with a larger --longest"
            )


def _eyes(engine: LipSync) -> tuple:
    """What the faces that an engine sees depend on."""
    return engine.settings.crop, engine.settings.max_size


def loudest(wave: np.ndarray) -> int:
    """The sample of (samples,) round which it is loudest."""
    width = min(round(_LOUD_S * SAMPLE_RATE), len(wave))
    power = np.cumsum(np.concatenate([[0.0], wave.astype(np.float64) ** 2]))
    return int(np.argmax(power[width:] - power[:-width])) + width // 2


def same_face(looked: Followed, found: Sequence[Followed]) -> int:
    """Which of the faces of a whole video is the one seen at its beginning."""
    count = len(looked.times)
    middles = looked.track.box.reshape(count, 2, 2).mean(1)

    def distance(other: Followed) -> float:
        apart = np.linalg.norm(other.track.box[:count].reshape(-1, 2, 2).mean(1) - middles, axis=1)
        return float(np.nanmedian(apart)) if np.isfinite(apart).any() else np.inf

    return min(range(len(found)), key=lambda number: distance(found[number]))
