"""Sound: decoding to 16 kHz mono in step with the picture, and writing it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from errors import InputError
from media.source import decode, first_picture_time, open_input

SOUND_SUFFIXES = (".wav", ".m4a", ".flac", ".mp3", ".aac", ".ogg", ".opus")
SAMPLE_RATE = 16000

_BLOCK = 4096
_GAP = Fraction(3, 100)
"""Timestamps off by no more than this (s) are jitter, not a hole in the sound."""
_LONGEST_GAP = 600
"""A hole longer than this (s) is a broken timestamp."""


def has_audio(path: str | Path) -> bool:
    """Whether the file has a sound stream (which may still be empty)."""
    with open_input(path) as container:
        return bool(container.streams.audio)


def read_audio(path: str | Path) -> np.ndarray:
    """Decode any sound to mono (mean of the channels), float32 in -1..1, 16 kHz: (samples,).

    Sample 0 is heard when the file's first picture is shown: silence is put before a sound that starts later, and what
    comes before the picture is cut. A file without pictures begins at its first sample.
    Raises InputError for a file that is missing, unreadable, without sound, or whose sound is empty.
    """
    if not has_audio(path):
        raise InputError(f"found no sound in {path}, expected a sound stream, give the sound as a file of its own")
    origin = first_picture_time(path)
    with open_input(path) as container:
        mono = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
        pieces = [piece for rate, wave in channels(container, origin) for piece in _resampled(mono, rate, wave.mean(0))]
        if pieces:
            pieces += [frame.to_ndarray()[0] for frame in mono.resample(None)]
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not len(wave):
        raise InputError(f"found an empty sound in {path}, expected at least one sample, give another sound")
    return wave


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
    container: av.container.InputContainer, origin: Fraction | None, stereo: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """The first sound stream at its own rate, piece by piece: (rate in Hz, (channels, samples) float32).

    It begins at `origin` (s of the file's clock; None: at its first sample); holes become silence, overlaps are cut.
    stereo: mix more than two channels down to two.
    """
    rate, layout, position = None, None, 0
    convert, known = None, None
    for frame in decode(container, container.streams.audio[0]):
        if not frame.samples:
            continue
        if rate is None:
            rate, layout = frame.sample_rate, frame.layout
            if stereo and layout.nb_channels > 2:
                layout = "stereo"
            if origin is None:
                origin = frame.pts * frame.time_base if frame.pts is not None else Fraction(0)
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != known:
            convert, known = av.AudioResampler(format="fltp", layout=layout, rate=rate), kind
        time = frame.pts * frame.time_base if frame.pts is not None else None
        for part in convert.resample(frame):
            wave = part.to_ndarray()
            gap = 0 if time is None else round((time - origin) * rate) - position
            time = None
            if position and not _GAP * rate < abs(gap) < _LONGEST_GAP * rate:
                gap = 0
            if gap > 0:
                yield rate, np.zeros((len(wave), gap), np.float32)
            elif gap < 0:
                wave = wave[:, -gap:]
            position += max(gap, 0) + wave.shape[1]
            if wave.shape[1]:
                yield rate, wave


def _resampled(resampler: av.AudioResampler, rate: int, wave: np.ndarray) -> Iterator[np.ndarray]:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    for part in resampler.resample(frame):
        yield part.to_ndarray()[0]
