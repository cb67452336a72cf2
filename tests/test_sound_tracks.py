"""Sound as found: silent and unknown tracks, many channels, channels that cancel, samples that are no numbers."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engine.options import AudioConfig, InferenceConfig
from engine.pipeline import LipSync, lip_sync
from errors import InputError
from media.audio import SAMPLE_RATE, has_audio, read_audio
from media.video import VideoWriter


def tone(hertz: float = 440, seconds: float = 1) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def write_tracks(path: Path, *tracks: np.ndarray, codec: str = "pcm_f32le", layout: str | None = None) -> Path:
    """A file of sound tracks (channels, samples) at 16 kHz."""
    with av.open(str(path), "w") as container:
        streams = []
        for wave in tracks:
            name = layout or f"{len(wave)} channels" if len(wave) > 2 else ("mono", "stereo")[len(wave) - 1]
            streams.append((container.add_stream(codec, rate=SAMPLE_RATE, layout=name), name))
        for (stream, name), wave in zip(streams, tracks, strict=True):
            packed = np.ascontiguousarray(wave.T.reshape(1, -1), np.float32)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=name)
            frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def written_sound(source: Path, folder: Path, **options) -> tuple[np.ndarray, int, list[str]]:
    """The sound of a video with that file's sound, its number of channels, and the writer's notes."""
    path = folder / "written.mp4"
    with VideoWriter(path, (64, 64), Fraction(25), audio_from=source, **options) as writer:
        for _ in range(25):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with av.open(str(path)) as container:
        count = container.streams.audio[0].channels
    return read_audio(path), count, writer.notes


def power(wave: np.ndarray, hertz: float) -> float:
    """How much of a sine of that pitch is in the sound's middle: its amplitude."""
    part = wave[4000:12000]
    return 2 * abs(np.mean(part * np.exp(-2j * np.pi * hertz * np.arange(len(part)) / SAMPLE_RATE)))


@pytest.mark.parametrize(("count", "codec"), [(8, "aac"), (9, "pcm_f32le"), (16, "pcm_s16le"), (12, "pcm_s24le")])
def test_many_channels(tmp_path, count, codec):
    """Eight planes and more lie beyond what PyAV hands out."""
    wave = np.tile(tone(), (count, 1))
    layout = "7.1" if count == 8 else None
    path = write_tracks(tmp_path / "a.mka", wave, codec=codec, layout=layout)
    assert power(read_audio(path), 440) == pytest.approx(0.47, abs=0.04)
    sound, channels, _ = written_sound(path, tmp_path)
    assert channels == (2 if count == 8 else 1) and power(sound, 440) > 0.3


def test_channels_in_opposite_phase_are_heard(tmp_path):
    wave, notes = tone(), []
    path = write_tracks(tmp_path / "a.wav", np.stack([wave, -wave]))
    assert np.abs(np.abs(read_audio(path, notes=notes)) - np.abs(wave)).max() < 1e-3
    assert "cancel" in notes[0]
    quieter = write_tracks(tmp_path / "b.wav", np.stack([-0.8 * wave, wave]))
    assert np.abs(read_audio(quieter) - wave).max() < 1e-3


def test_a_change_of_phase_does_not_click(tmp_path):
    wave = tone(seconds=2)
    other = np.where(np.arange(len(wave)) < len(wave) // 2, wave, -wave)
    heard = read_audio(write_tracks(tmp_path / "a.wav", np.stack([wave, other])))
    assert np.abs(np.diff(heard)).max() < 1.2 * np.abs(np.diff(wave)).max()
    assert np.abs(heard[20000:] - wave[20000:]).max() < 1e-3 and np.abs(heard[:12000] - wave[:12000]).max() < 1e-3


def test_channels_with_nothing_in_common_are_mixed(tmp_path):
    notes = []
    heard = read_audio(write_tracks(tmp_path / "a.wav", np.stack([tone(440), tone(660)])), notes=notes)
    assert np.abs(heard - (tone(440) + tone(660)) / 2).max() < 1e-3 and not notes


def test_samples_that_are_no_numbers_are_silent(tmp_path):
    wave, notes = tone(), []
    wave[5000], wave[6000], wave[7000] = np.nan, np.inf, -np.inf
    path = write_tracks(tmp_path / "a.wav", np.stack([wave, wave]))
    heard = read_audio(path, notes=notes)
    assert np.isfinite(heard).all() and (heard[[5000, 6000, 7000]] == 0).all() and "finite" in notes[0]
    sound, _, notes = written_sound(path, tmp_path)
    assert power(sound, 440) > 0.4 and "finite" in notes[0]


def test_the_first_track_with_sound_is_taken_and_any_can_be_asked_for(tmp_path):
    silence = np.zeros((2, SAMPLE_RATE), np.float32)
    path = write_tracks(tmp_path / "a.mka", silence, tone(440)[None], tone(660)[None])
    for track, hertz, other in ((None, 440, 660), (1, 440, 660), (2, 660, 440)):
        notes = []
        for heard in (read_audio(path, track, notes), written_sound(path, tmp_path, audio_track=track)[0]):
            assert power(heard, hertz) > 0.4 and power(heard, other) < 0.01
        assert notes == ([] if track else ["sound track 1 of 3 (counted from 0) was taken, track 0 is silent"])
    assert np.abs(read_audio(path, 0)).max() == 0
    assert "track 0 is silent" in written_sound(path, tmp_path)[2][0]
    for wrong in (3, -1):
        with pytest.raises(InputError, match="3 sound tracks"):
            read_audio(path, wrong)


def test_lips_and_file_take_the_track_that_is_asked_for(talking_clip, tmp_path):
    wave = read_audio(talking_clip)
    two = write_tracks(tmp_path / "two.mka", 0.3 * tone(seconds=2)[None], wave[None])  # neither is silent
    engine = LipSync(InferenceConfig(hr=None, precision="float32", audio=AudioConfig(track=1)))
    face = engine.prepare(talking_clip)
    asked, alone = (
        [frame.planes[0] for frame, _ in engine.drive(face, sound, span=(Fraction(0), Fraction(2, 5)))]
        for sound in (two, wave)
    )
    assert len(asked) == 10 and all(map(np.array_equal, asked, alone))
    lip_sync(face, two, tmp_path / "out.mp4", engine=engine)
    assert power(read_audio(tmp_path / "out.mp4"), 440) < 0.01


def test_a_silent_sound_is_told(tmp_path):
    path, notes = write_tracks(tmp_path / "a.wav", np.zeros((1, SAMPLE_RATE), np.float32)), []
    read_audio(path, notes=notes)
    assert notes == ["the sound is silent"] == written_sound(path, tmp_path)[2]


def test_a_track_of_unknown_format_is_passed_over(tmp_path):
    path = write_tracks(tmp_path / "a.mka", tone(660)[None], tone(440)[None], codec="flac")
    data = bytearray(path.read_bytes())
    data[data.index(b"A_FLAC") : data.index(b"A_FLAC") + 6] = b"A_WHAT"
    path.write_bytes(data)
    notes = []
    assert power(read_audio(path, notes=notes), 440) > 0.4 and "track 0 is of an unknown format" in notes[0]
    with pytest.raises(InputError, match="unknown format"):
        read_audio(path, 0)
    data[data.index(b"A_FLAC") : data.index(b"A_FLAC") + 6] = b"A_WHAT"
    path.write_bytes(data)
    assert not has_audio(path)
    with pytest.raises(InputError, match="2 sound tracks of unknown format"):
        read_audio(path)


@pytest.mark.parametrize(
    ("name", "seconds", "note"),
    [
        ("sound_9ch.wav", 0.4, None),
        ("sound_16ch.wav", 0.4, None),
        ("antiphase.wav", 0.4, "cancel"),
        ("silent_track_first.mkv", 1.2, "track 0 is silent"),
        ("unknown_sound_first.mov", 1.2, "track 0 is of an unknown format"),
    ],
)
def test_reported_files(shared, tmp_path, name, seconds, note):
    path, notes = shared(f"data/reports/{name}"), []
    heard = read_audio(path, notes=notes)
    assert len(heard) / SAMPLE_RATE == pytest.approx(seconds, abs=0.02) and np.abs(heard).max() > 0.5
    assert note is None and not notes or note in notes[0]
    assert np.abs(written_sound(path, tmp_path)[0]).max() > 0.3 or name == "antiphase.wav"
