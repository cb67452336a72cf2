"""Sound that comes in pieces: what the networks hear of it, and when."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from conftest import voice

from engine.options import InferenceConfig
from engine.pipeline import LipSync
from errors import InputError
from media.audio import SAMPLE_RATE, read_audio
from speech.stream import LiveSound, WholeSound

FPS = 25


def pieces(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (wave[start : start + size] for start in range(0, len(wave), size))


def windows(sound: WholeSound | LiveSound, count: int) -> np.ndarray:
    return np.stack([sound.window((index + Fraction(1, 2)) / FPS) for index in range(count)])


@pytest.mark.parametrize("kind", ["mel", "whisper"])
@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.where(np.arange(16000) == 5000, np.nan, voice(1)), "samples that are nan or infinite"),
        ((voice(1) * 32767).astype(np.int16), "a sound of int16, expected float32 in -1..1"),
        (np.stack([voice(1)] * 2, 1), r"of shape \(16000, 2\), expected \(samples,\)"),
    ],
)
def test_arrays_that_are_no_sound_are_refused(kind, wave, message):
    with pytest.raises(InputError, match=message):
        WholeSound(wave, kind, 16)
    with pytest.raises(InputError, match=message):
        LiveSound([voice(0.1), wave], kind, 16).window(Fraction(1, 2))


@pytest.mark.parametrize("size", [1, 333, 16000])
def test_mel_windows_equal_the_whole_sounds(size):
    wave = voice(1.3)[: 1300 if size == 1 else None]
    count = -(-len(wave) * FPS // SAMPLE_RATE)
    live, whole = LiveSound(pieces(wave, size), "mel", 16), WholeSound(wave, "mel", 16)
    np.testing.assert_allclose(windows(live, count), windows(whole, count), atol=1e-5)


def test_mel_windows_of_a_long_sound_are_kept_up_with():
    wave = np.tile(voice(2), 8)
    live, whole = LiveSound(pieces(wave, 800), "mel", 16), WholeSound(wave, "mel", 16)
    for index in range(0, 16 * FPS, 7):
        middle = (index + Fraction(1, 2)) / FPS
        np.testing.assert_allclose(live.window(middle), whole.window(middle), atol=1e-5)


@pytest.mark.parametrize("kind", ["mel", "whisper"])
def test_a_piece_may_be_longer_than_what_is_heard_of_it_at_once(kind):
    wave = np.concatenate([voice(2), np.zeros(4 * SAMPLE_RATE, np.float32), voice(2)])
    length = 16 if kind == "mel" else 18
    short, long = (windows(LiveSound(pieces(wave, size), kind, length), 200) for size in (800, len(wave)))
    np.testing.assert_array_equal(long, short) if kind == "whisper" else np.testing.assert_allclose(
        long, short, atol=1e-5
    )


def test_whisper_windows_are_nearly_the_whole_sounds_whatever_the_pieces(talking_clip):
    wave = read_audio(talking_clip)
    whole = windows(WholeSound(wave, "whisper", 18), 50)
    live = windows(LiveSound(pieces(wave, 1000), "whisper", 18), 50)
    assert np.corrcoef((whole - whole.mean(0)).ravel(), (live - live.mean(0)).ravel())[0, 1] > 0.8
    np.testing.assert_array_equal(windows(LiveSound(pieces(wave, 123), "whisper", 18), 50), live)


def test_a_sound_lasts_as_long_as_its_pieces():
    live = LiveSound(pieces(np.zeros(16000, np.float32), 5000), "mel", 16)
    assert live.lasts(Fraction(0)) and live.lasts(Fraction(15999, 16000)) and not live.lasts(Fraction(1))
    assert not LiveSound(iter([]), "mel", 16).lasts(Fraction(0))


def test_frames_follow_the_pieces_within_half_a_second(talking_clip):
    engine = LipSync(InferenceConfig(hr=None, precision="float32"))
    wave, given = read_audio(talking_clip), [0]

    def spoken() -> Iterator[np.ndarray]:
        for piece in pieces(wave, 320):
            given[0] += len(piece)
            yield piece

    face, late, count = engine.prepare(talking_clip), [], 0
    for _, shown in engine.drive(face, spoken()):
        late.append(given[0] / SAMPLE_RATE - float(shown))
        count += 1
    assert max(late) <= 0.5 and count == -(-len(wave) * FPS // SAMPLE_RATE)
