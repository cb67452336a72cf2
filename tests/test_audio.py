"""Sound: decoding in step with the picture, the published mel, and windows against numbers worked out by hand."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from errors import InputError
from media.audio import SAMPLE_RATE, has_audio, read_audio, shifted, write_flac
from media.file_sound import FileSound
from media.video import VideoWriter
from models.config import SyncConfig
from speech.features import lazy_features, sound_features, whisper
from speech.mel import MEL_SILENCE, log_mel
from speech.rates import WHISPER_LEAD
from speech.whisper_features import LazyFeatures
from speech.windows import audio_window_at, audio_windows, sound_windows

PARITY = Path(__file__).parent / "parity"


def tone(seconds: float, rate: int = SAMPLE_RATE, hertz: float = 440) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_sound(path: Path, channels: np.ndarray, rate: int, codec: str = "pcm_s16le", start: float = 0) -> Path:
    """A sound-only file of (channels, samples) float32 whose first sample has timestamp `start`."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if channels.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels, np.float32), format="fltp", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), round(start * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_both(path: Path, sound_start: float, picture_start: float, hole: float = 0) -> Path:
    """1 s of grey pictures at 25 fps from `picture_start` and a 1 s tone from `sound_start`, with a hole after half of
    it.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0"})
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        container.start_encoding()
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 128, np.uint8), format="rgb24")
            frame.time_base, frame.pts = Fraction(1, 1000), round(1000 * picture_start) + 40 * index
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.round(32767 * tone(1)).astype(np.int16)
        for start in range(0, len(samples), 800):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 800], format="s16", layout="mono")
            late = hole if start >= len(samples) // 2 else 0
            frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            frame.pts = start + round((sound_start + late) * SAMPLE_RATE)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    "first, expected",
    [(0, [1, 2, 3]), (1, [2, 3, 4]), (3, [4, 0, 0]), (9, [0, 0, 0]), (-2, [0, 0, 1]), (-9, [0, 0, 0])],
)
def test_a_shifted_sound_is_silent_where_the_recording_does_not_reach(first, expected):
    assert shifted(np.array([1, 2, 3, 4], np.float32), first, 3).tolist() == expected


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_any_rate_becomes_16_khz_without_shift(tmp_path, rate):
    wave = read_audio(write_sound(tmp_path / "a.wav", tone(1, rate)[None], rate))
    assert wave.dtype == np.float32 and abs(len(wave) - SAMPLE_RATE) <= 16
    middle = slice(2000, 14000)
    assert np.abs(wave[middle] - tone(1)[middle]).max() < 0.01


@pytest.mark.parametrize("count", [2, 6])
def test_mono_is_the_mean_of_the_channels(tmp_path, count):
    channels = np.zeros((count, SAMPLE_RATE), np.float32)
    channels[0] = tone(1)
    wave = read_audio(write_sound(tmp_path / "a.wav", channels, SAMPLE_RATE))
    assert np.abs(wave - tone(1) / count).max() < 1e-3


def test_sound_only_begins_at_its_first_sample(tmp_path):
    path = write_sound(tmp_path / "a.mka", tone(1)[None], SAMPLE_RATE, start=0.7)
    assert len(read_audio(path)) == SAMPLE_RATE


@pytest.mark.parametrize(("sound_start", "picture_start"), [(0.4, 0), (0, 0.4), (1.2, 1.0), (0.3, 0.3)])
def test_sound_is_placed_against_the_first_picture(tmp_path, sound_start, picture_start):
    wave = read_audio(write_both(tmp_path / "a.mkv", sound_start, picture_start))
    late = round((sound_start - picture_start) * SAMPLE_RATE)
    assert abs(len(wave) - (SAMPLE_RATE + late)) <= 32
    expected = np.concatenate([np.zeros(max(late, 0), np.float32), tone(1)[max(-late, 0) :]])
    overlap = min(len(wave), len(expected))
    assert np.abs(wave[:overlap] - expected[:overlap]).max() < 0.01


def test_a_hole_in_the_sound_becomes_silence_and_jitter_does_not(tmp_path):
    wave = read_audio(write_both(tmp_path / "hole.mkv", 0, 0, hole=0.2))
    assert abs(len(wave) - 1.2 * SAMPLE_RATE) <= 32
    assert np.abs(wave[8100:11100]).max() == 0 and np.abs(wave[11300:]).max() > 0.4
    assert len(read_audio(write_both(tmp_path / "jitter.mkv", 0, 0, hole=0.01))) == SAMPLE_RATE


def test_flac_round_trip(tmp_path):
    wave = tone(1.23)
    write_flac(tmp_path / "a.flac", wave)
    assert np.abs(read_audio(tmp_path / "a.flac") - wave).max() <= 1 / 32767


def test_bad_sounds_are_input_errors_that_name_the_file(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "notes.txt").write_text("nor this\n" * 50)
    (tmp_path / "nothing.wav").touch()
    write_sound(tmp_path / "empty.wav", np.zeros((1, 0), np.float32), SAMPLE_RATE)
    with VideoWriter(tmp_path / "silent.mp4", (64, 64), Fraction(25)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    for name in ("missing.wav", "text.mp4", "notes.txt", "nothing.wav", "empty.wav", "silent.mp4", "."):
        with pytest.raises(InputError, match=str(tmp_path / name)):
            read_audio(tmp_path / name)
    assert not has_audio(tmp_path / "silent.mp4")


def test_mel_is_the_published_one():
    sys.path.insert(0, str(PARITY))
    try:
        from weights import waveform
    finally:
        sys.path.remove(str(PARITY))
    golden = np.load(PARITY / "golden.npz")["golden_mel"]
    mel = log_mel(waveform())
    assert mel.shape == (161, 80) and mel.dtype == np.float32
    assert np.abs(mel.T - golden).max() <= 1e-3


def test_mel_of_silence_and_of_blocks():
    assert (log_mel(np.zeros(16000, np.float32)) == MEL_SILENCE).all()
    assert log_mel(np.zeros(0, np.float32)).shape == (1, 80)
    long, whole = tone(60), log_mel(tone(60))  # longer than one block of frames
    np.testing.assert_allclose(whole[4090:4110], log_mel(long[4080 * 200 : 4120 * 200])[10:30], atol=1e-4)


def counted(length: int, width: int) -> np.ndarray:
    """Features whose value is their own index."""
    return np.repeat(np.arange(length, dtype=np.float32)[:, None], width, 1)


@pytest.mark.parametrize(
    ("fps", "index", "first"),
    [
        (Fraction(25), 10, 26),  # 80 * 10.5 / 25 - 7 = 26.6
        (Fraction(25), 12, 33),  # 33.0 exactly
        (Fraction(30), 100, 261),  # 80 * 100.5 / 30 - 7 = 261.0 exactly
        (Fraction(30000, 1001), 100, 261),  # 261.268
        (Fraction(50), 9, 8),  # 8.2
    ],
)
def test_mel_windows_worked_out_by_hand(fps, index, first):
    [window] = audio_windows(counted(400, 80), [index], fps, "mel", 16)
    assert window.shape == (1, 80, 16) and window.dtype == np.float32
    assert (window[0] == first + np.arange(16)).all()
    assert (audio_window_at(counted(400, 80), (index + Fraction(1, 2)) / fps, "mel", 16) == window).all()


def test_published_windows_start_where_published_training_starts_them():
    for index in (1, 4, 7, 50):
        [window] = audio_windows(counted(400, 80), [index], Fraction(25), "mel", 16, "published")
        assert window[0, 0, 0] == int(80 * (index - 1) / 25)


def test_whisper_windows_at_25_fps_are_features_2i_minus_8_to_2i_plus_9():
    for index in (4, 10, 33):
        [window] = audio_windows(counted(200, 384), [index], Fraction(25), "whisper", 18)
        assert window.shape == (18, 384)
        assert (window[:, 0] - WHISPER_LEAD == np.arange(2 * index - 8, 2 * index + 10)).all()
        [ten] = audio_windows(counted(200, 384), [index], Fraction(25), "whisper", 10)
        assert (ten[:, 0] - WHISPER_LEAD == np.arange(2 * index - 4, 2 * index + 6)).all()


def test_beyond_the_ends_there_is_silence():
    first = audio_windows(counted(40, 80), 1, Fraction(25), "mel", 16)[0, 0, 0]  # starts at floor(1.6 - 7) = -6
    assert (first == [MEL_SILENCE] * 6 + list(range(10))).all()
    assert (audio_window_at(counted(40, 80), 40, "mel", 16) == MEL_SILENCE).all()
    assert (audio_window_at(counted(100, 384), -4, "whisper", 18) == 0).all()
    assert (audio_window_at(counted(100, 384), 40, "whisper", 18) == 99).all()


def test_a_file_is_decoded_where_it_is_listened_to(tmp_path):
    path = tmp_path / "sound.flac"
    write_flac(path, np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32))
    wave, sound = read_audio(path), FileSound(path)
    assert len(sound) == len(wave)
    for start, stop in ((0, 10), (5000, 5001), (5001, 30000), (29000, 29000), (70000, 99999), (2, 7), (40000, 40010)):
        assert np.array_equal(sound[start:stop], wave[start:stop])
    assert sum(map(len, sound._kept)) < SAMPLE_RATE  # what is behind is forgotten
    assert np.array_equal(np.asarray(lazy_features(sound, "whisper")), sound_features(wave, "whisper"))
    sound = FileSound(path)
    write_flac(path, wave[:SAMPLE_RATE])
    with pytest.raises(InputError, match="found another sound in .*sound.flac than before"):
        sound[-100:]


def test_whisper_padding_is_half_a_second_before_and_one_after():
    wave = np.random.default_rng(0).normal(0, 0.1, 20000).astype(np.float32)
    assert np.array_equal(
        sound_features(wave, "whisper"), np.asarray(LazyFeatures(whisper(), np.pad(wave, (8000, 16000))))
    )


def test_whisper_features_are_made_where_they_are_asked_for():
    wave = np.random.default_rng(0).normal(0, 0.1, 11 * 16000).astype(np.float32)
    lazy = LazyFeatures(whisper(), wave)
    whole = np.asarray(lazy)
    assert whole.shape == (550, 384) == (len(lazy), whole.shape[1])
    for rows in ([[199, 200], [201, 202]], [[549, 549]], [[0, 401]]):  # a piece is 200
        assert np.array_equal(lazy[np.array(rows)], whole[rows])
    assert len(lazy[np.array([549])]) == len(lazy._made) == 1  # what is behind is forgotten
    assert np.asarray(LazyFeatures(whisper(), np.zeros(0, np.float32))).shape == (0, 384)


def test_stacked_windows_equal_single_ones():
    mel = counted(300, 80)
    for fps in (Fraction(25), Fraction(30000, 1001)):
        stacked = audio_windows(mel, 40, fps, "mel", 16)
        single = [audio_window_at(mel, (index + Fraction(1, 2)) / fps, "mel", 16) for index in range(40)]
        assert stacked.shape == (40, 1, 80, 16) and (stacked == single).all()
        assert (audio_windows(mel, np.array([7, 3]), fps, "mel", 16) == stacked[[7, 3]]).all()


def test_a_sync_expert_hears_mel_from_its_first_frame_on():
    windows = sound_windows(counted(400, 80), np.array([0, 1, 2, 5, 33]), SyncConfig(audio="mel"))
    assert windows.shape == (5, 1, 80, 16) and windows[:, 0, 0, 0].tolist() == [0, 3, 6, 16, 105]


@pytest.mark.parametrize(("kind", "convention"), [("mfcc", "centred"), ("mel", "late"), ("whisper", "published")])
def test_unknown_windows_are_input_errors(kind, convention):
    with pytest.raises(InputError):
        audio_window_at(counted(10, 80), 0, kind, 16, convention)


def test_late_sound_of_a_phone_video(shared):
    wave = read_audio(shared("data/odd/hevc_vfr_face_leaves.mov"))
    assert np.flatnonzero(np.abs(wave) > 1e-4)[0] / SAMPLE_RATE == pytest.approx(2.43, abs=0.01)
