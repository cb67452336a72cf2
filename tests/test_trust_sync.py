"""Sound and picture stay in step: flashes and clicks of a source against those of what is written from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from engine.options import InferenceConfig
from engine.pipeline import LipSync, lip_sync
from engine.prepared import PreparedFace
from media.audio import SAMPLE_RATE, read_audio
from media.video import VideoReader

SIZE = 64, 48
NTSC = Fraction(30000, 1001)
SOUND_RATE = 44100
TICKS = 90000
TOLERANCE = 0.020
"""s between a flash and its click."""
_CLICK = 0.8 * np.sin(2 * np.pi * 2000 * np.arange(SOUND_RATE // 100) / SOUND_RATE)
_LOUD = 0.3


@dataclass
class Source:
    """A film of black pictures shown at `times` (s), of which those numbered `flashes` are white, with a click at each
    of `clicks` (s). The sound begins at `late` s."""

    times: list[Fraction]
    flashes: set[int]
    clicks: list[Fraction]
    late: Fraction = Fraction(0)

    @property
    def seconds(self) -> Fraction:
        return self.times[-1] + 1 / NTSC


def every_second(times: list[Fraction], late: Fraction = Fraction(0)) -> Source:
    """A flash with the first picture of every second, and a click where there is sound by then."""
    flashes = {int(np.searchsorted(np.array(times, float), second)) for second in range(1, int(times[-1]))}
    return Source(times, flashes, [times[index] for index in sorted(flashes) if times[index] >= late], late)


def constant(seconds: int) -> list[Fraction]:
    return [index / NTSC for index in range(int(seconds * NTSC))]


def variable(seconds: int) -> list[Fraction]:
    """Steps of 20 to 60 ms."""
    ticks = np.cumsum(np.random.default_rng(0).integers(TICKS // 50, TICKS * 6 // 100, seconds * 25))
    return [Fraction(int(tick - ticks[0]), TICKS) for tick in ticks]


def write(path: Path, source: Source) -> Path:
    """With PyAV alone, so that a mistake of our own writer cannot make up for one of our reader."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=NTSC, options={"preset": "ultrafast"})
        (video.width, video.height), video.pix_fmt = SIZE, "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono", format="fltp")
        sounds = sound_frames(source)
        sound = next(sounds)
        for index, time in enumerate(source.times):
            picture = av.VideoFrame.from_ndarray(
                np.full((*SIZE[::-1], 3), 255 * (index in source.flashes), np.uint8), format="rgb24"
            )
            picture.pts, picture.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(video.encode(picture))
            while sound is not None and sound.pts * sound.time_base <= time:
                container.mux(audio.encode(sound))
                sound = next(sounds, None)
        container.mux(video.encode(None))
        while sound is not None:
            container.mux(audio.encode(sound))
            sound = next(sounds, None)
        container.mux(audio.encode(None))
    return path


def sound_frames(source: Source) -> Iterator[av.AudioFrame]:
    first = round(source.late * SOUND_RATE)
    wave = np.zeros(int(source.seconds * SOUND_RATE) - first, np.float32)
    for click in source.clicks:
        start = round(click * SOUND_RATE) - first
        part = wave[start : start + len(_CLICK)]
        part[:] = _CLICK[: len(part)]
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, first + start, Fraction(1, SOUND_RATE)
        yield frame


@lru_cache(maxsize=1)
def engine() -> LipSync:
    return LipSync(InferenceConfig(hr=None, precision="float32", layout="contiguous", runtime="torch"))


def speak(face: Path, sound: Path, output: Path) -> Path:
    """The whole chain, on a face that is never shown, so that no network paints."""
    settings, times = engine().settings, [Fraction(frame.time) for frame in VideoReader(face)]
    count, pictures = settings.references, (settings.size, settings.size, 3)
    nobody = PreparedFace(
        face,
        settings,
        times,
        transforms=np.full((len(times), 2, 3), np.nan),
        shot=np.zeros(len(times), int),
        references=np.zeros((1, count, 128, 128, 3), np.uint8),
        shares=np.ones((len(times), 1, count), np.float32),
        portraits=np.zeros((1, *pictures), np.uint8),
        portrait_shown=np.zeros(len(times), int),
    )
    report = lip_sync(nobody, sound, output, engine=engine())
    assert report.frames == report.untouched > 0
    return output


def flashes_of(path: Path) -> np.ndarray:
    """Times (s) on the file's own clock, by PyAV alone."""
    with av.open(str(path)) as container:
        bright = [
            (float(frame.time), frame.to_ndarray(format="gray").mean() > 128) for frame in container.decode(video=0)
        ]
    return np.array([time for (time, white), (_, before) in zip(bright[1:], bright, strict=False) if white > before])


def clicks_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        loud = []
        for frame in container.decode(audio=0):
            wave = np.abs(frame.to_ndarray()).max(0)
            loud += [float(frame.time) + place / frame.sample_rate for place in np.flatnonzero(wave > _LOUD)]
    return onsets(np.array(loud))


def onsets(loud: np.ndarray) -> np.ndarray:
    """The first of each run of loud samples."""
    return loud[np.diff(loud, prepend=-1) > 0.1]


def check(path: Path, count: int, alone: int = 0) -> None:
    """`count` clicks, each with its flash; `alone` flashes are before the first sound. By FFmpeg's clock, and again as
    our own reader gives the file out."""
    wave = read_audio(path)
    ours = (
        np.array([float(frame.time) for frame in VideoReader(path) if frame.planes[0].mean() > 128]),
        onsets(np.flatnonzero(np.abs(wave) > _LOUD) / SAMPLE_RATE),
    )
    for flashes, clicks in ((flashes_of(path), clicks_of(path)), ours):
        assert len(clicks) == count and len(flashes) == count + alone
        off = flashes[alone:] - clicks
        assert np.abs(off).max() <= TOLERANCE, f"off by {1000 * off[np.abs(off).argmax()]:.1f} ms"
        assert abs(off[-1] - off[0]) <= TOLERANCE / 2, f"drifts by {1000 * (off[-1] - off[0]):.1f} ms"


LENGTHS = [20, pytest.param(600, marks=pytest.mark.long)]


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("suffix", [".mp4"])
def test_a_constant_rate(tmp_path, seconds, suffix):
    source = every_second(constant(seconds))
    path = write(tmp_path / f"source{suffix}", source)
    check(path, len(source.clicks))  # the source itself, as we read it
    check(speak(path, path, tmp_path / f"out{suffix}"), len(source.clicks))


@pytest.mark.parametrize("seconds", LENGTHS)
def test_a_variable_rate(tmp_path, seconds):
    source = every_second(variable(seconds))
    path = write(tmp_path / "source.mp4", source)
    assert VideoReader(path).is_variable
    check(speak(path, path, tmp_path / "out.mp4"), len(source.clicks))


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_sound_that_starts_late(tmp_path, seconds, suffix):
    source = every_second(constant(seconds), Fraction(27, 10))
    path = write(tmp_path / f"source{suffix}", source)
    check(speak(path, path, tmp_path / "out.mp4"), len(source.clicks), alone=2)


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("times", [constant, variable])
def test_forwards_and_backwards(tmp_path, seconds, times):
    """A source of a third of the sound's length; the sound clicks where the turns bring a flash by hand."""
    face = every_second(times(seconds // 3))
    last, steps = len(face.times) - 1, sorted(after - before for before, after in pairwise(face.times))
    step = 1 / NTSC if times is constant else steps[len(steps) // 2]
    shown = [*face.times]
    while shown[-1] < seconds:
        shown.append(shown[-1] + step)
    turned = [last - abs(last - number % (2 * last)) for number in range(len(shown))]
    clicks = [when for when, index in zip(shown, turned, strict=True) if index in face.flashes]
    sound = Source(shown, set(), clicks)
    check(
        speak(write(tmp_path / "face.mp4", face), write(tmp_path / "sound.mkv", sound), tmp_path / "out.mp4"),
        len(clicks),
    )
