"""Sound: decoding to 16 kHz mono in step with the picture, and writing it."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from errors import InputError
from media.clock import Walk, first_picture_time, read_clock
from media.mix import SILENT, Mix
from media.source import decode, open_input, tell
from media.track import SILENT_NOTE, choose_track, pieces_of

SOUND_SUFFIXES = (".wav", ".m4a", ".flac", ".mp3", ".aac", ".ogg", ".opus")
SAMPLE_RATE = 16000

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
    return np.concatenate(list(mono(path, track, notes)))


def mono(path: str | Path, track: int | None = None, notes: list[str] | None = None) -> Iterator[np.ndarray]:
    """What `read_audio` gives, piece by piece: (samples,) each. Raises InputError likewise, the last one at the end."""
    notes = [] if notes is None else notes
    resampler, mix, loudest = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), Mix(notes), None
    with closing(channels(path, track, notes=notes)) as pieces:
        for piece in _resampled(resampler, ((rate, mix(wave)) for rate, wave in pieces)):
            if len(piece):
                loudest = max(loudest or 0.0, float(piece.max()), -float(piece.min()))
                yield piece
    if loudest is None:
        raise InputError(f"found an empty sound in {path}, expected at least one sample, give another sound")
    if loudest < SILENT:
        tell(notes, SILENT_NOTE)


def shifted(wave: np.ndarray, first: int, count: int) -> np.ndarray:
    """`count` samples of a sound (samples,) from number `first` on, which may be negative; silence where the recording
    does not reach.
    """
    begin, end = np.clip((first, first + count), 0, len(wave))
    sound = np.zeros(count, wave.dtype)
    sound[begin - first : end - first] = wave[begin:end]
    return sound


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
) -> Generator[tuple[int, np.ndarray]]:
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


def _resampled(resampler: av.AudioResampler, pieces: Iterable[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
    """Pieces (rate, samples) as `resampler` makes them."""
    ready = False
    for rate, wave in pieces:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="flt", layout="mono")
        frame.sample_rate = rate
        yield from (part.to_ndarray()[0] for part in resampler.resample(frame))
        ready = True
    if ready:
        yield from (part.to_ndarray()[0] for part in resampler.resample(None))
