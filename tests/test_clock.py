"""Clocks that jump: sound and picture stay in step, and a note says what was found."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from media.audio import SAMPLE_RATE, read_audio
from media.clock import read_clock
from media.video import VideoReader, VideoWriter

FLASHES = 10, 35
"""Frames that are white, while a tone of their length is heard."""


def write_part(
    path: Path, frames: range, sound: range | None = None, picture_at: float = 0, sound_at: float = 0
) -> Path:
    """Frames and the sound of frames, at 25 fps, of a film with flashes; later by so many s than where they belong."""
    sound = frames if sound is None else sound
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0", "g": "5"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("mp2", rate=SAMPLE_RATE, layout="mono") if sound else None
        packets = []
        for index in frames:
            level = 250 if index in FLASHES else 20
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 25), index + round(25 * picture_at)
            packets += [(float(packet.pts * packet.time_base), packet) for packet in video.encode(frame)]
        packets += [(float(packet.pts * packet.time_base), packet) for packet in video.encode(None)]
        if audio is not None:
            for start in range(sound.start * 640, sound.stop * 640, 640):
                tone = 0.5 * np.sin(np.arange(640)) * (start // 640 in FLASHES)
                frame = av.AudioFrame.from_ndarray(np.int16(32767 * tone)[None], format="s16", layout="mono")
                frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                frame.pts = start + round(sound_at * SAMPLE_RATE)
                packets += [(float(packet.pts * packet.time_base), packet) for packet in audio.encode(frame)]
            packets += [(float(packet.pts * packet.time_base), packet) for packet in audio.encode(None)]
        for _, packet in sorted(packets, key=lambda entry: entry[0]):
            container.mux(packet)
    return path


def joined(path: Path, *parts: Path) -> Path:
    """MPEG transport streams, one after another in one file."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def flashes(reader: VideoReader) -> list[float]:
    times = [(float(frame.time), frame.planes[0].mean()) for frame in reader]
    assert all(a < b for (a, _), (b, _) in pairwise(times))
    return [time for time, level in times if level > 128]


def tones(wave: np.ndarray) -> list[float]:
    """Where tones begin, in s."""
    loud = np.flatnonzero(np.abs(wave) > 0.1) / SAMPLE_RATE
    return [float(loud[0]), *(float(b) for a, b in pairwise(loud) if b - a > 0.2)]


def in_step(path: Path, folder: Path, count: int) -> list[str]:
    """Checks the file and what is written with its sound; returns the reader's notes."""
    reader, notes = VideoReader(path), []
    shown = flashes(reader)
    assert len(shown) == count and tones(read_audio(path, notes=notes)) == pytest.approx(shown, abs=0.02)
    with VideoWriter(folder / "written.mp4", reader.size, reader.fps, audio_from=path) as writer:
        for frame in reader:
            writer.write(frame, frame.time)
    assert flashes(VideoReader(folder / "written.mp4")) == pytest.approx(shown, abs=0.001)
    assert tones(read_audio(folder / "written.mp4")) == pytest.approx(shown, abs=0.02)
    assert set(read_clock(path).notes) <= set(reader.notes) & set(notes) & set(writer.notes)
    backwards = [frame.planes[0].mean() > 128 for frame in reader.reversed_frames()]
    assert backwards[::-1] == [frame.planes[0].mean() > 128 for frame in reader]
    return reader.notes


def test_a_plain_file_is_left_alone(tmp_path):
    path = write_part(tmp_path / "a.ts", range(50))
    assert in_step(path, tmp_path, 2) == [] and read_clock(path).parts == {}


def test_a_clock_that_starts_again(tmp_path):
    path = joined(tmp_path / "a.ts", *[write_part(tmp_path / "part.ts", range(50))] * 3)
    assert "starts again 2 times" in in_step(path, tmp_path, 6)[0]
    assert VideoReader(path).frame_count == 150


def test_a_clock_that_jumps_ahead_by_an_hour(tmp_path):
    early = write_part(tmp_path / "early.ts", range(20))
    late = write_part(tmp_path / "late.ts", range(20, 50), picture_at=3600, sound_at=3600)
    path = joined(tmp_path / "a.ts", early, late)
    assert "jumps ahead once, by 3599.9 s" in in_step(path, tmp_path, 2)[0]
    assert VideoReader(path).times[-1] == pytest.approx(49 / 25, abs=0.1)


def test_a_part_without_sound_moves_nothing(tmp_path):
    silent = write_part(tmp_path / "silent.ts", range(30), sound=range(0))
    whole = write_part(tmp_path / "whole.ts", range(50))
    for parts, count, mute in (((whole, silent, whole), 5, 2), ((silent, whole), 3, 0)):
        path = joined(tmp_path / "a.ts", *parts)
        shown = flashes(VideoReader(path))
        assert len(shown) == count
        assert tones(read_audio(path)) == pytest.approx(shown[:mute] + shown[mute + 1 :], abs=0.03)


def test_a_long_hold_under_sound_is_meant(tmp_path):
    """A shared screen: one picture for 12 s, while somebody speaks."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for second in range(14):
            for index in range(25) if second in (0, 13) else ():
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * index, np.uint8), format="rgb24")
                frame.time_base, frame.pts = Fraction(1, 25), 25 * second + index
                container.mux(video.encode(frame))
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), 8000 * second
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
    assert VideoReader(path).times[-1] == pytest.approx(13.96, abs=0.01) and read_clock(path).notes == ()
    assert len(read_audio(path)) == 14 * SAMPLE_RATE


def test_a_few_stray_timestamps_move_nothing(tmp_path):
    parts = [
        write_part(tmp_path / f"{number}.ts", frames, sound_at=sound_at)
        for number, (frames, sound_at) in enumerate([(range(20), 0), (range(20, 23), 30), (range(23, 50), 0)])
    ]
    path = joined(tmp_path / "a.ts", *parts)
    in_step(path, tmp_path, 2)
    assert read_clock(path).notes == () and read_clock(path).stray


@pytest.mark.parametrize(
    ("name", "note"), [("time_jumps_1h.ts", "jumps ahead"), ("time_starts_again.ts", "starts again")]
)
def test_reported_files(shared, name, note):
    path, notes = shared(f"data/reports/{name}"), []
    reader = VideoReader(path)
    times = reader.times
    assert len(times) == 40 and float(times[-1]) == pytest.approx(1.6, abs=0.05) and note in reader.notes[0]
    assert len(read_audio(path, notes=notes)) / SAMPLE_RATE == pytest.approx(1.65, abs=0.02) and note in notes[0]
