"""Writing H.264 video with AAC sound: exact times, original tags, and nothing left behind after a failure."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from aside import begin
from errors import InputError
from media.audio import channels
from media.frame import Colour, Frame, pad_even, rgb_to_planes, to_av
from media.mix import SILENT
from media.source import tell
from media.track import SILENT_NOTE

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
BT709 = Colour(1, 1, 1, 1)
CUT_CRF = 4
"""Of a cut that becomes an input again: next to nothing is lost."""

_LARGEST = 16384
"""px of a side; x264 takes no more."""
_FINE = 90000
_AAC_RATES = (32000, 44100, 48000, 88200, 96000)
"""Rates kept; others become 44.1 or 48 kHz. AAC lengthens a sound to whole blocks: 64 ms at 16 kHz, 21 ms at 48 kHz."""
_AAC_BITS = 96000
_AAC_BLOCK = 1024


def check_no_source(output: str | Path, *sources: str | Path) -> None:
    """Raises InputError where `output` would take the place of a file that it is made from; those are there."""
    if os.path.realpath(output) in map(os.path.realpath, sources):
        raise InputError(f"--output {output} is a source itself; choose another name")


class VideoWriter:
    """Context manager that writes frames to `path` (mp4, m4v, mov or mkv).

    The file is written beside `path` under a temporary name and takes its place when the block ends well; after an
    exception nothing is left, and what a run that was killed left behind of the same output is removed. size: (width,
    height) in px, padded to even numbers; fps: rate of frames written without a time. colour: tags of the output
    (default: those of the first Frame, BT.709 for RGB arrays). Sound: `audio` = ((samples,) or (samples, channels)
    float32, rate in Hz), or `audio_from` = a file whose sound is kept at its own rate in mono or stereo, in step with
    that file's picture if it has one; audio_track: which of its sound tracks, as for read_audio. It starts with the
    first frame. crf, preset: of x264; qp: fixed quantiser instead of crf, 0 for lossless. comment: kept in the file.
    Raises InputError, before any frame is written, for an output that cannot be written or a sound that cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: Fraction,
        colour: Colour | None = None,
        audio: tuple[np.ndarray, int] | None = None,
        audio_from: str | Path | None = None,
        crf: float = 18,
        preset: str = "veryfast",
        qp: int | None = None,
        audio_track: int | None = None,
        comment: str = "",
    ):
        if audio is not None and audio_from is not None:
            raise ValueError("give audio or audio_from, not both")
        self.path = Path(path)
        self.notes: list[str] = []
        self.size = size[0] + size[0] % 2, size[1] + size[1] % 2
        self._source_size = tuple(size)
        if self.size != self._source_size:
            self.notes.append(
                f"odd size {size[0]}x{size[1]} was padded to {self.size[0]}x{self.size[1]} by repeating the edge"
            )
        self.fps = Fraction(fps)
        self.frames_written = 0
        self._colour = colour
        # Without B-frames the decoding order is the order shown: no delay at the start for players to make up for, and
        # mp4 keeps the durations of a variable rate.
        self._options = {"preset": preset, "bf": "0", **({"crf": f"{crf:g}"} if qp is None else {"qp": str(qp)})}
        self._comment = comment
        self._audio, self._audio_from, self._audio_track = audio, audio_from, audio_track
        # Both multiples of 1 / fps and the times of a variable rate must be (nearly) whole numbers of this.
        steps = self.fps.numerator
        self._time_base = Fraction(1, steps * -(-_FINE // steps) if steps < 10 * _FINE else _FINE)
        self._temporary: Path
        self._opened = ExitStack()
        self._container: av.container.OutputContainer
        self._video: av.VideoStream | None = None
        self._sound: _Sound | None = None
        self._shown: Fraction | None = None
        self._waiting: tuple[av.VideoFrame, int] | None = None
        """The last frame and its time in ticks: how long it is shown is known only when the next one comes."""
        if max(self.size) > _LARGEST:
            raise InputError(f"found {size[0]}x{size[1]} px, expected {_LARGEST} at most on a side; lower max_size")
        if self.path.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"found output name {self.path}, expected one that ends in {', '.join(SUFFIXES)}, rename it"
            )

    def __enter__(self) -> "VideoWriter":
        self._temporary = begin(self.path)
        try:
            self._open()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with self._told():
                    self._finish()
                    os.replace(self._temporary, self.path)
        finally:
            self._discard()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """A disk that is full is the user's to mend."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.path} could not be written ({error.strerror}); free space or choose another output"
            ) from error

    def write(self, frame: Frame | np.ndarray, time: Fraction | float | None = None) -> None:
        """Append a Frame, or an RGB array (H, W, 3) uint8, shown at `time` s (default: frames written so far / fps).

        Raises InputError where the file cannot grow.
        """
        if self._colour is None:
            self._colour = frame.colour if isinstance(frame, Frame) else BT709
        if self._video is None:
            self._video = self._add_video(self._colour)
        if isinstance(frame, Frame):
            planes = frame.planes
        else:
            if frame.shape[1::-1] != self._source_size:
                raise ValueError(f"frame of {frame.shape[1]}x{frame.shape[0]} in a video of {self._source_size}")
            planes = rgb_to_planes(pad_even(frame), self._colour)
        if planes[0].shape[::-1] != self.size:
            raise ValueError(f"frame of {planes[0].shape[::-1]} in a video of {self.size}")
        picture = to_av(planes)
        shown = self.frames_written / self.fps if time is None else Fraction(time)
        if self._shown is not None and shown <= self._shown:
            raise ValueError(f"frame {self.frames_written} at {float(shown)} s does not come after the one before")
        self._shown = shown
        start = round(shown / self._time_base)
        if self._waiting is not None:
            start = max(start, self._waiting[1] + 1)  # two may be less than a tick apart
            with self._told():
                self._encode(self._video, *self._waiting, start)
        picture.pts, picture.time_base = start, self._time_base
        self._waiting = picture, start
        self.frames_written += 1

    def _open(self) -> None:
        if self._audio is not None:
            self._sound = _Sound(*_from_wave(*self._audio))
        elif self._audio_from is not None:
            self._sound = _Sound(*_from_file(self._audio_from, self._audio_track, self.notes))
        if self._sound is not None:
            self._opened.callback(self._sound.close)
        options = {} if self.path.suffix.lower() == ".mkv" else {"movflags": "+faststart"}
        with self._told():
            self._container = av.open(str(self._temporary.resolve()), "w", options=options)
            if self._comment:
                self._container.metadata["comment"] = self._comment
        self._opened.callback(self._container.close)

    def _add_video(self, colour: Colour) -> av.VideoStream:
        """Streams can be set up only now, when the colour is known."""
        video = self._container.add_stream("libx264", rate=self.fps, options=self._options)
        video.width, video.height = self.size
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.time_base = self._time_base
        context.sample_aspect_ratio = colour.aspect
        context.colorspace, context.color_range = colour.space, colour.range
        context.color_primaries, context.color_trc = colour.primaries, colour.transfer
        if self._sound is not None:
            self._sound.add_to(self._container)
        return video

    def _encode(self, video: av.VideoStream, picture: av.VideoFrame, start: int, end: int) -> None:
        """Encode a frame, shown from `start` to `end` in ticks, and the sound up to it."""
        picture.duration = end - start
        if self._sound is not None:
            self._sound.write_until(self._container, end * self._time_base)
        self._container.mux(video.encode(picture))

    def _finish(self) -> None:
        if self._video is None or self._waiting is None:
            raise ValueError(f"no frame was written to {self.path}")
        picture, start = self._waiting
        self._encode(self._video, picture, start, start + round(1 / self.fps / self._time_base))
        self._container.mux(self._video.encode(None))
        if self._sound is not None:
            self._sound.finish(self._container)
            if self._sound.peak < SILENT:
                tell(self.notes, SILENT_NOTE)
        self._container.close()

    def _discard(self) -> None:
        """Close whatever is open; remove the temporary file where it was not renamed."""
        try:
            self._opened.close()  # once more where the file is finished, which does nothing
        except (av.FFmpegError, OSError, ValueError):
            pass  # the file is thrown away, so it does not matter that it cannot be completed
        finally:
            self._temporary.unlink(missing_ok=True)


class _Sound:
    """A sound on its way into a container: pieces of (channels, samples) float32 at `rate`, written in step with the
    picture.
    """

    def __init__(self, rate: int, pieces: Generator[np.ndarray]):
        self._rate = rate
        self._pieces = pieces
        first = next(pieces)
        self._channels = len(first)
        self._layout = "mono" if self._channels == 1 else "stereo"
        self._ready: np.ndarray | None = first
        self._written = 0
        self.peak = 0.0
        """The largest sample so far, of either sign."""

    def add_to(self, container: av.container.OutputContainer) -> None:
        """Add the AAC stream."""
        rate = self._rate if self._rate in _AAC_RATES else 44100 if 44100 % self._rate == 0 else 48000
        self._stream = container.add_stream("aac", rate=rate, layout=self._layout, format="fltp")
        self._stream.bit_rate = _AAC_BITS * self._channels

    def write_until(self, container: av.container.OutputContainer, seconds: Fraction) -> None:
        """Encode everything heard before `seconds`."""
        while self._ready is not None and self._written < seconds * self._rate:
            self._encode(container, self._ready)

    def finish(self, container: av.container.OutputContainer) -> None:
        """Encode what is left."""
        while self._ready is not None:
            self._encode(container, self._ready)
        container.mux(self._stream.encode(None))

    def close(self) -> None:
        """Close the file the sound comes from."""
        self._pieces.close()

    def _encode(self, container: av.container.OutputContainer, piece: np.ndarray) -> None:
        self._ready = next(self._pieces, None)
        if piece.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=self._layout)
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._written
            self._written += piece.shape[1]
            self.peak = max(self.peak, float(np.abs(piece).max()))
            container.mux(self._stream.encode(frame))


def _from_wave(wave: np.ndarray, rate: int) -> tuple[int, Generator[np.ndarray]]:
    wave = np.asarray(wave, np.float32)
    wave = (wave[:, None] if wave.ndim == 1 else wave).T
    if len(wave) not in (1, 2) or not wave.shape[1]:
        raise InputError(
            f"found a sound of {wave.shape[1]} samples and {len(wave)} channels, expected some samples, mono or stereo"
        )
    return int(rate), (wave[:, start : start + _AAC_BLOCK] for start in range(0, wave.shape[1], _AAC_BLOCK))


def _from_file(path: str | Path, track: int | None, notes: list[str]) -> tuple[int, Generator[np.ndarray]]:
    """Rate and pieces of a file's sound, decoded as they are asked for."""
    parts = channels(path, track, stereo=True, notes=notes)
    first = next(parts, None)
    if first is None:
        raise InputError(f"found an empty sound in {path}, expected at least one sample, give another sound")
    return first[0], _waves(first[1], parts)


def _waves(first: np.ndarray, parts: Generator[tuple[int, np.ndarray]]) -> Generator[np.ndarray]:
    with closing(parts):
        yield first
        yield from (piece for _, piece in parts)
