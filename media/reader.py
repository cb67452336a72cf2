"""Reading videos and stills: upright frames with true times, forwards and backwards, in bounded memory."""

from array import array
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np

from errors import InputError
from media.clock import Walk, read_clock
from media.frame import Colour, Frame, Planes, is_rgb, levels_of, pad_even, planes_of, to_420
from media.orientation import Orientation, orientation_of
from media.photo import compose, flattened, is_composed
from media.size import MAX_SIZE, fitted
from media.source import PHOTO_ERRORS, PROBE_FRAMES, check_size, decode, open_input, photo_header, picture_stream, tell

STILL_FPS = Fraction(25)
_CHUNK_FRAMES = 64
_CHUNK_BYTES = 256 << 20
_NO_TIME = -(1 << 63)
_RGB = 0
"""What a decoder of PNG says of the colours of a grey one, too; no tag of the video that is made of it."""


class VideoReader:
    """The first picture stream of a file. Iterate over it (again and again) for its frames in order.

    fps: average rate; size: (width, height) in px, upright and even; source_size: before padding; is_still: one
    picture; is_variable: the steps between frames differ; colour: tags; notes: what the user should be told. max_size:
    larger pictures are scaled down to these sides (longer, shorter) in px, None leaves them as they are.
    Raises InputError for a file that is missing, unreadable, without a picture, or whose picture is too large.
    """

    def __init__(self, path: str | Path, max_size: tuple[int, int] | None = MAX_SIZE):
        self.path = Path(path)
        self.notes: list[str] = []
        self._max_size = max_size
        self._number, self._time_base, self.fps = 0, Fraction(1), STILL_FPS
        with open_input(path) as container:
            self._composed = is_composed(container)
            image = self._composed or container.format.name == "image2" or container.format.name.endswith("_pipe")
            if self._composed:
                self._keep_shape(compose(self.path), Fraction(1))
            else:
                stream = _pictures(container, self.path)
                self._number, self._time_base = stream.index, stream.time_base or Fraction(1)
                shown = self._probe(container, stream)
                self.fps = _rate(stream)
        self._count = 1
        self._stamps = array("q")  # empty until the file has been read through
        self._keys: list[int] = []
        self._timed = self.is_variable = False
        if not image:
            self._read_packets(shown)
        self.is_still = self._count == 1
        if self.is_still:
            self.fps = STILL_FPS

    @property
    def frame_count(self) -> int:
        """Number of frames: an estimate until the file has been read through once."""
        return len(self._stamps) or self._count

    @property
    def times(self) -> list[Fraction]:
        """Time of every frame in s after the first one. Reads the file through if that has not been done."""
        self._read_through()
        return self._times(self._stamps)

    @property
    def told_times(self) -> list[Fraction]:
        """`times` as the file's packets tell them: nothing is decoded, so a frame that cannot be is there, too."""
        if not self._timed:
            return [index / self.fps for index in range(self.frame_count)]
        stamps = self._file_clock.stamps
        return [int(stamp - stamps[0]) * self._time_base for stamp in stamps]

    def __iter__(self) -> Iterator[Frame]:
        shown, keys = array("q"), []
        clock = self._clock()
        told = [] if self._stamps else self.notes  # damage is told of once
        for index, picture in enumerate(self._pictures(told)):
            shown.append(_NO_TIME if picture.pts is None else picture.pts)
            if picture.key_frame:
                keys.append(index)
            yield Frame(index, clock.next(shown[-1]), self._planes(picture), self.colour)
        self._stamps, self._keys = shown, keys

    def reversed_frames(self) -> Iterator[Frame]:
        """The same frames from last to first, at most 64 in memory.

        Pieces between key frames are decoded one after another from the end. Where a file cannot be entered at its key
        frames, each piece is decoded from the start instead: slow, but with the same result.
        """
        self._read_through()
        times = self._times(self._stamps)
        chunk = max(1, min(_CHUNK_FRAMES, _CHUNK_BYTES * 2 // (3 * self.size[0] * self.size[1])))
        stop = len(times)
        while stop:
            key = max((key for key in self._keys if key < stop), default=0)
            start = max(key, stop - chunk)
            planes = self._stretch(start, stop, key)
            while planes:
                stop -= 1
                yield Frame(stop, times[stop], planes.pop(), self.colour)

    def _stretch(self, start: int, stop: int, key: int) -> list[Planes]:
        """Planes of frames start..stop - 1, entering the file at frame `key` if possible."""
        wanted = self._stamps[start:stop]
        if key and _NO_TIME not in wanted and not self._file_clock.restarts:
            with open_input(self.path) as container:
                stream = _pictures(container, self.path)
                try:
                    container.seek(self._stamps[key], stream=stream)
                except av.FFmpegError:
                    return self._from_start(start, stop)
                found: list[Planes] = []
                for picture in decode(container, stream):
                    if not found and picture.pts != wanted[0]:
                        if picture.pts is not None and picture.pts > max(wanted):
                            break
                        continue
                    if picture.pts != wanted[len(found)]:
                        break
                    found.append(self._planes(picture))
                    if len(found) == len(wanted):
                        return found
        return self._from_start(start, stop)

    def _from_start(self, start: int, stop: int) -> list[Planes]:
        with closing(self._pictures()) as pictures:
            return [self._planes(picture) for picture in islice(pictures, start, stop)]

    def _pictures(self, notes: list[str] | None = None) -> Generator[av.VideoFrame]:
        """Decoded pictures from the start."""
        if self._composed:
            yield compose(self.path)
            return
        with open_input(self.path) as container:
            stream = _pictures(container, self.path)
            stream.thread_type = "AUTO"
            with closing(decode(container, stream, notes)) as pictures:
                yield from pictures

    def _read_through(self) -> None:
        if not self._stamps:
            for _ in self:
                pass

    def _times(self, shown: array) -> list[Fraction]:
        clock = self._clock()
        return [clock.next(pts) for pts in shown]

    def _clock(self) -> "_Clock":
        walk = self._file_clock.walk(self._number) if self._timed else None
        return _Clock(self.fps, walk, self._time_base, self.notes)

    def _probe(self, container: av.container.InputContainer, stream: av.VideoStream) -> list[int | None]:
        """Timestamps of the first decoded pictures; sets size, orientation and colour from the very first."""
        check_size(self.path, (stream.codec_context.width, stream.codec_context.height))
        shown: list[int | None] = []
        for picture in decode(container, stream):
            if not shown:
                self._keep_shape(picture, stream.sample_aspect_ratio or Fraction(1))
            shown.append(picture.pts)
            if len(shown) == PROBE_FRAMES:
                break
        if not shown:
            _check_photo(self.path)
            raise InputError(
                f"found no picture that can be decoded in {self.path}, expected a video or an image, check that it "
                "plays"
            )
        return shown

    def _keep_shape(self, picture: av.VideoFrame, aspect: Fraction) -> None:
        self._decoded_size = picture.width, picture.height
        self._stored = fitted(self._decoded_size, self._max_size)
        if self._stored != self._decoded_size:
            self.notes.append(
                f"{picture.width}x{picture.height} was scaled down to {self._stored[0]}x{self._stored[1]}: larger ones "
                "are more than common players take (max_size; none keeps it)"
            )
        self._orientation = orientation_of(picture, self.path, self.notes)
        width, height = self._orientation.size(self._stored)
        self.source_size = width, height
        self.size = width + width % 2, height + height % 2
        if self.size != self.source_size:
            self.notes.append(
                f"odd size {width}x{height} was padded to {self.size[0]}x{self.size[1]} by repeating the edge"
            )
        aspect = 1 / aspect if self._orientation.turns % 2 else aspect
        grey = picture.format.name.startswith(("gray", "ya"))
        if is_rgb(picture) or (grey and picture.colorspace == _RGB):  # converted below, to what players expect
            self.colour = Colour(1, 1, 1, 1, aspect)
        else:
            self.colour = Colour(
                int(picture.colorspace),
                2 if levels_of(picture) == 2 else int(picture.color_range),
                int(picture.color_primaries),
                int(picture.color_trc),
                aspect,
            )

    def _planes(self, picture: av.VideoFrame) -> Planes:
        if (picture.width, picture.height) != self._decoded_size:
            tell(self.notes, f"pictures that change their size were scaled to {self._stored[0]}x{self._stored[1]}")
        flat = flattened(picture, self.colour)
        if flat is not None:
            tell(self.notes, "what can be seen through was laid on white")
            picture = flat
        if picture.format.name not in ("yuv420p", "yuvj420p") or (picture.width, picture.height) != self._stored:
            picture = to_420(picture, self._stored, self.colour)
        y, u, v = planes_of(picture)
        if self.size != self.source_size:
            y = pad_even(y)
        if self._orientation != Orientation():
            y, u, v = map(self._orientation.applied, (y, u, v))
        return y, u, v

    def _read_packets(self, shown: list[int | None]) -> None:
        """Decide from the packets' timestamps, without decoding, whether time can be told from them, and count
        frames.
        """
        clock = self._file_clock = read_clock(self.path)
        self._count = clock.count
        if self._count == 1:
            return
        walk = clock.walk(self._number)
        times = [walk(None if stamp is None else stamp * self._time_base) for stamp in shown]
        known = [time for time in times if time is not None]
        self._timed = None not in shown and bool(known) and all(a < b for a, b in pairwise(known))
        if not self._timed:
            self.notes.append(
                f"timestamps do not increase: frames are timed by number at {float(self.fps):g} per second"
            )
            return
        for note in clock.notes:
            tell(self.notes, note)
        stamps = np.unique(clock.stamps)
        if len(stamps) < 2:
            return
        measured = (len(stamps) - 1) / (int(stamps[-1] - stamps[0]) * self._time_base)
        if not Fraction(4, 5) < self.fps / measured < Fraction(5, 4):  # some headers name the clock's rate
            self.fps = max(measured.limit_denominator(1001), Fraction(1, 1001))
        steps = np.diff(stamps) * float(self._time_base)
        if np.ptp(steps) > max(0.1 * np.median(steps), 2.5 * float(self._time_base)):
            self.is_variable = True
            self.notes.append(f"variable frame rate ({float(self.fps):.4g} on average): every frame keeps its own time")


class _Clock:
    """Turns the timestamps of successive frames into s after the first frame, strictly increasing.

    walk: mends times; None to count frames instead. unit: s of a timestamp's step.
    """

    def __init__(self, fps: Fraction, walk: Walk | None, unit: Fraction, notes: list[str]):
        self._fps, self._walk, self._unit, self._notes = fps, walk, unit, notes
        self._index = -1
        self._first: Fraction | None = None
        self._last = Fraction(-1)

    def next(self, stamp: int) -> Fraction:
        self._index += 1
        if self._walk is None:
            return self._index / self._fps
        time = self._walk(None if stamp == _NO_TIME else stamp * self._unit)
        if time is not None:
            if self._first is None:
                self._first = time - self._index / self._fps
            time -= self._first
        if time is None or time <= self._last:
            tell(self._notes, "some timestamps do not increase: those frames follow the one before at the average rate")
            self._last = self._last + 1 / self._fps if self._index else Fraction(0)
        else:
            self._last = time
        return self._last


def _pictures(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    stream = picture_stream(container)
    if stream is None:
        raise InputError(f"found no picture in {path}, expected a video or an image, give a file with a face in it")
    return stream


def _rate(stream: av.VideoStream) -> Fraction:
    return Fraction(
        next((rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate), STILL_FPS)
    )


def _check_photo(path: Path) -> None:
    """Raises InputError for a photo whose header says that it is too large: FFmpeg did not even look at it."""
    try:
        with photo_header(path) as image:
            size = image.size
    except PHOTO_ERRORS:
        return
    check_size(path, size)
