"""Which sound track of a file is heard, and its frames as arrays."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from errors import InputError
from media.mix import SILENT, Mix
from media.source import decode, open_input, tell

SILENT_NOTE = "the sound is silent"
_MOST_CHANNELS = 8
"""More than these have no common names by which FFmpeg could mix them down."""


def choose_track(path: str | Path, wanted: int | None, notes: list[str]) -> int:
    """The sound track that is taken, counted from 0: `wanted`, or the first that can be decoded and is not silent.

    Where there are several, a note says which and why. Raises InputError for a file without one, or without `wanted`.
    """
    with open_input(path) as container:
        known = [stream.codec_context is not None for stream in container.streams.audio]
    if wanted is not None:
        if not 0 <= wanted < len(known):
            raise InputError(f"found {_count(len(known))} in {path}, expected one with number {wanted}, count from 0")
        if not known[wanted]:
            raise InputError(f"found sound track {wanted} of {path} in an unknown format, choose another track")
        return wanted
    if not any(known):
        found = f"{_count(len(known))} of unknown format" if known else "no sound"
        raise InputError(f"found {found} in {path}, expected a sound stream, give the sound as a file of its own")
    if len(known) == 1:
        return 0
    states = []
    for number, can in enumerate(known):
        states.append(_state(path, number) if can else "is of an unknown format")
        if states[-1] is None:
            break
    chosen = next(states.index(state) for state in (None, "is silent", "cannot be decoded") if state in states)
    why = "".join(f", track {number} {state}" for number, state in enumerate(states) if state and number != chosen)
    tell(notes, f"sound track {chosen} of {len(known)} (counted from 0) was taken{why}")
    return chosen


def pieces_of(
    frames: Iterable[av.AudioFrame], path: str | Path, notes: list[str], stereo: bool = False
) -> Iterator[tuple[int, np.ndarray, Fraction | None]]:
    """Decoded frames as (rate in Hz, (channels, samples) float32, time in s or None), all like the first one.

    stereo: mix more than two channels down to two, or to one where they have no names.
    """
    known = None
    for frame in frames:
        if not frame.samples:
            continue
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if known is None:
            rate, count, mix = frame.sample_rate, frame.layout.nb_channels, Mix(notes)
            few = stereo and count > 2 and (count > _MOST_CHANNELS or frame.layout.name.endswith(" channels"))
            layout = av.AudioLayout("stereo") if stereo and count > 2 and not few else frame.layout
        if kind != known:
            # Samples of all channels in one plane: PyAV reads beyond a frame's planes where it has eight or more.
            convert, known = av.AudioResampler(format="flt", layout=layout, rate=rate), kind
        time = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        for wave in _finite(_unpacked(convert, frame, path), notes):
            yield rate, mix(wave)[None] if few else wave, time
            time = None


def _unpacked(convert: av.AudioResampler, frame: av.AudioFrame, path: str | Path) -> Iterator[np.ndarray]:
    try:
        for part in convert.resample(frame):
            yield part.to_ndarray().reshape(-1, part.layout.nb_channels).T
    except (av.FFmpegError, ValueError) as error:
        raise InputError(
            f"found a sound in {path} that turns into {frame.layout.name} and cannot be mixed ({error}), expected the "
            "same channels all along, convert it"
        ) from error


def _finite(waves: Iterable[np.ndarray], notes: list[str]) -> Iterator[np.ndarray]:
    """Files of floating-point samples may hold some that are no numbers, each of which would spoil all that follow."""
    for wave in waves:
        finite = np.isfinite(wave)
        if not finite.all():
            tell(notes, "samples of the sound that are not finite numbers were made silent")
            wave = np.where(finite, wave, np.float32(0))
        yield wave


def _state(path: str | Path, number: int) -> str | None:
    """What speaks against a track, None for nothing."""
    with open_input(path) as container, closing(decode(container, container.streams.audio[number])) as frames:
        loudest = None
        for _, wave, _ in pieces_of(frames, path, []):
            loudest = max(loudest or 0.0, float(np.abs(wave).max()))
            if loudest >= SILENT:
                return None
    return "cannot be decoded" if loudest is None else "is silent"


def _count(tracks: int) -> str:
    return "one sound track" if tracks == 1 else f"{tracks or 'no'} sound tracks"
