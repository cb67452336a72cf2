"""Sound: decoding to 16 kHz mono in step with the picture, the mel spectrogram, and the window that belongs to a video
frame.

Two kinds of feature sequences are cut by the same function: `mel` (80 frames a second, frame j centred on j / 80 s) and
`whisper` (50 a second, computed from `pad_for_whisper(wave)`, so that feature k is centred on (k - WHISPER_LEAD + 1/2)
/ 50 s).
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import librosa
import numpy as np

from errors import InputError
from media.clock import Walk, first_picture_time, read_clock
from media.mix import SILENT, Mix
from media.source import decode, open_input, tell
from media.track import SILENT_NOTE, choose_track, pieces_of

SOUND_SUFFIXES = (".wav", ".m4a", ".flac", ".mp3", ".aac", ".ogg", ".opus")
SAMPLE_RATE = 16000
MEL_RATE = 80
MEL_BANDS = 80
MEL_WINDOW = 16
MEL_SILENCE = -4.0
WHISPER_RATE = 50
WHISPER_WINDOW = 18
WHISPER_LEAD = 25
"""Features of silence before the sound's first sample (0.5 s)."""
WHISPER_TAIL = 50
"""Features of silence after its last (1 s): Whisper hears the end of a sound better when silence follows."""
SYNC_FPS = 25

_N_FFT = 800
_HOP = SAMPLE_RATE // MEL_RATE
_PRE_EMPHASIS = 0.97
_BLOCK = 4096
_SILENCE_BLOCK = 1 << 16
_GAP = Fraction(3, 100)
"""Timestamps off by no more than this (s) are jitter, not a hole in the sound."""


def has_audio(path: str | Path) -> bool:
    """Whether the file has a sound stream that can be decoded (which may still be empty)."""
    with open_input(path) as container:
        return any(stream.codec_context is not None for stream in container.streams.audio)


def read_audio(path: str | Path, track: int | None = None, notes: list[str] | None = None) -> np.ndarray:
    """Decode any sound to mono, float32 in -1..1, 16 kHz: (samples,).

    Mono is the mean of the channels, or the louder channel where they cancel. Sample 0 is heard when the file's first
    picture is shown: silence is put before a sound that starts later, and what comes before the picture is cut. A file
    without pictures begins at its first sample. track: which sound track, counted from 0; None takes the first that is
    not silent. notes: what the user should be told is added to them.
    Raises InputError for a file that is missing, unreadable, without sound, or whose sound is empty.
    """
    notes = [] if notes is None else notes
    resampler, mix = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), Mix(notes)
    pieces = [
        piece for rate, wave in channels(path, track, notes=notes) for piece in _resampled(resampler, rate, mix(wave))
    ]
    if pieces:
        pieces += [frame.to_ndarray()[0] for frame in resampler.resample(None)]
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(wave):
        raise InputError(f"found an empty sound in {path}, expected at least one sample, give another sound")
    if np.abs(wave).max() < SILENT:
        tell(notes, SILENT_NOTE)
    return wave


def write_flac(path: str | Path, wave: np.ndarray) -> None:
    """Write a mono 16 kHz sound (samples,) in -1..1 as 16-bit FLAC."""
    samples = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for start in range(0, len(samples), _BLOCK):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + _BLOCK], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def channels(
    path: str | Path, track: int | None = None, stereo: bool = False, notes: list[str] | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """A sound track at its own rate, piece by piece: (rate in Hz, (channels, samples) float32).

    It begins when the first picture is shown, or without pictures at its first sample; holes become silence, overlaps
    are cut, jumps of the clock are mended as those of the picture. track: counted from 0; None takes the first that is
    not silent. stereo: mix more than two channels down to two, or to one where they have no names.
    """
    notes = [] if notes is None else notes
    chosen, clock = choose_track(path, track, notes), read_clock(path)
    for note in clock.notes:
        tell(notes, note)
    origin = first_picture_time(path)
    with open_input(path) as container:
        stream = container.streams.audio[chosen]
        # Closed before the container: a demuxer must not outlive it.
        with closing(decode(container, stream, notes)) as frames:
            yield from _placed(pieces_of(frames, path, notes, stereo), clock.walk(stream.index), origin)


def _placed(
    pieces: Iterable[tuple[int, np.ndarray, Fraction | None]], walk: Walk, origin: Fraction | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces (rate, wave, time in s or None) one after another from `origin` on, as their times say."""
    position = 0
    for rate, wave, time in pieces:
        time = walk(time)
        if origin is None:
            origin = time or Fraction(0)
        gap = 0 if time is None else round((time - origin) * rate) - position
        if position and abs(gap) <= _GAP * rate:
            gap = 0
        for start in range(0, gap, _SILENCE_BLOCK):
            yield rate, np.zeros((len(wave), min(_SILENCE_BLOCK, gap - start)), np.float32)
        wave = wave[:, max(0, -gap) :]
        position += max(gap, 0) + wave.shape[1]
        if wave.shape[1]:
            yield rate, wave


def _resampled(resampler: av.AudioResampler, rate: int, wave: np.ndarray) -> Iterator[np.ndarray]:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    for part in resampler.resample(frame):
        yield part.to_ndarray()[0]


def log_mel(wave: np.ndarray) -> np.ndarray:
    """Mel spectrogram of a 16 kHz sound (samples,): float32 (1 + samples // 200, 80) in -4..4, digital silence -4.

    The published recipe: pre-emphasis, 800-point STFT (centred, zeros beyond the ends), Slaney mels 55..7600 Hz,
    decibels from -120 to 0 stretched over -4..4. Computed in blocks, so that memory beside the result does not grow
    with length.
    """
    wave = np.asarray(wave, np.float32)
    emphasised = wave.copy()
    emphasised[1:] -= _PRE_EMPHASIS * wave[:-1]
    padded = np.pad(emphasised, _N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _N_FFT)[::_HOP]
    window = np.hanning(_N_FFT + 1)[:-1].astype(np.float32)
    filters = _mel_filters()
    mel = np.empty((len(frames), MEL_BANDS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        part = slice(start, start + _BLOCK)
        mel[part] = np.abs(np.fft.rfft(frames[part] * window)) @ filters.T
    decibels = 20 * np.log10(np.maximum(1e-5, mel)) - 20
    return np.clip(8 * (decibels + 100) / 100 - 4, MEL_SILENCE, -MEL_SILENCE)


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=_N_FFT, n_mels=MEL_BANDS, fmin=55, fmax=7600)


def pad_for_whisper(wave: np.ndarray) -> np.ndarray:
    """Silence round a 16 kHz sound (samples,): WHISPER_LEAD features before it and WHISPER_TAIL after."""
    step = SAMPLE_RATE // WHISPER_RATE
    return np.pad(np.asarray(wave, np.float32), (WHISPER_LEAD * step, WHISPER_TAIL * step))


def audio_window(
    features: np.ndarray,
    index: float | Fraction,
    fps: Fraction,
    kind: str = "mel",
    length: int | None = None,
    convention: str = "centred",
) -> np.ndarray:
    """The sound of video frame `index` at a constant rate of `fps`: mel (1, 80, 16) or whisper (18, 384), float32.

    features: `log_mel(wave)` (n, 80), or Whisper features (n, 384) of `pad_for_whisper(wave)`. length: another number
    of features. convention: `centred` on the middle of the frame, (index + 1/2) / fps; `published` (mel only) starts
    where published HyperLips training starts it, at 25 fps 80 (index - 1) / 25, truncated. Beyond the ends there is
    silence.
    """
    return audio_window_at(features, (_fraction(index) + Fraction(1, 2)) / Fraction(fps), kind, length, convention)


def audio_window_at(
    features: np.ndarray,
    seconds: float | Fraction,
    kind: str = "mel",
    length: int | None = None,
    convention: str = "centred",
) -> np.ndarray:
    """`audio_window` of a frame whose middle is shown at `seconds`: the way for videos of a variable rate."""
    return _cut(features, [first_feature(seconds, kind, length, convention)], kind, length)[0]


def audio_windows(
    features: np.ndarray,
    indices: int | Iterable[float | Fraction],
    fps: Fraction,
    kind: str = "mel",
    length: int | None = None,
    convention: str = "centred",
) -> np.ndarray:
    """`audio_window` of several frames, stacked: (N, 1, 80, 16) or (N, 18, 384). indices: frame numbers, or how many
    from 0.
    """
    indices = range(indices) if isinstance(indices, int) else indices
    middles = ((_fraction(index) + Fraction(1, 2)) / Fraction(fps) for index in indices)
    return _cut(features, [first_feature(middle, kind, length, convention) for middle in middles], kind, length)


def first_feature(seconds: float | Fraction, kind: str, length: int | None = None, convention: str = "centred") -> int:
    """Time index of the first feature in the window of a frame whose middle is at `seconds`; may be negative.

    Index 0 of `whisper` is the sound's first feature, which sits WHISPER_LEAD into the array.
    """
    seconds = _fraction(seconds)
    if convention not in ("centred", "published"):
        raise InputError(f"found audio window {convention!r}, expected centred or published, choose one of them")
    if kind == "mel":
        if convention == "published":
            return math.trunc(MEL_RATE * seconds - Fraction(24, 5))
        return math.floor(MEL_RATE * seconds - Fraction(length or MEL_WINDOW, 2) + 1)
    if kind != "whisper":
        raise InputError(f"found audio features {kind!r}, expected mel or whisper, choose one of them")
    if convention == "published":
        raise InputError("found audio window published with whisper features, expected mel, use centred")
    return math.floor(WHISPER_RATE * seconds - Fraction(length or WHISPER_WINDOW, 2) + Fraction(1, 2))


def sync_window(mel: np.ndarray, index: int) -> np.ndarray:
    """Mel window (1, 80, 16) of the five frames at 25 fps that start with frame `index`, as the sync expert hears
    it.
    """
    return _cut(mel, [MEL_RATE * int(index) // SYNC_FPS], "mel", MEL_WINDOW)[0]


def _cut(features: np.ndarray, firsts: list[int], kind: str, length: int | None) -> np.ndarray:
    length = length or (MEL_WINDOW if kind == "mel" else WHISPER_WINDOW)
    where = np.array(firsts, np.int64)[:, None] + np.arange(length) + (0 if kind == "mel" else WHISPER_LEAD)
    inside = np.clip(where, 0, len(features) - 1)
    windows = np.asarray(features)[inside].astype(np.float32, copy=False)
    if kind == "mel":
        windows[inside != where] = MEL_SILENCE
        return np.ascontiguousarray(windows.transpose(0, 2, 1))[:, None]
    return windows


def _fraction(value: float | Fraction) -> Fraction:
    if isinstance(value, Fraction):
        return value
    return Fraction(int(value)) if float(value).is_integer() else Fraction(float(value))
