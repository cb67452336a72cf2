"""The clock of a file, with its jumps taken out: one account for pictures and sound, so that they stay in step.

Recordings that were cut, joined or paused hold timestamps that jump ahead by an hour or start again. A part whose clock
starts again is laid after the part before it; time in which neither picture nor sound comes is left out.
"""

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np

from media.source import PROBE_FRAMES, decode, open_input, picture_stream

_BACK = 0.3
"""A clock that goes back by more than this (s) starts again; by less it is a frame out of order."""
_PAUSE, _SILENCE = 10, 600
"""A longer time (s) without picture and sound is left out; in a file of sound alone, where silence may be meant."""
_STEPS = 10
"""A pause is also longer than so many usual steps: a film of one picture a minute has none."""
_STRAY = 8
"""So few packets away from a clock that goes on after them are no jump: their timestamps are wrong."""

Pauses = tuple[tuple[Fraction, Fraction], ...]
"""(from this time of the file's clock on, s left out before it), in order."""


@dataclass(frozen=True)
class Part:
    """A stretch of one stream over which its clock runs on. first, last: s of the file's clock; shift: s added."""

    first: Fraction
    last: Fraction
    shift: Fraction
    pauses: Pauses

    def mended(self, time: Fraction) -> Fraction:
        """`time` (s of the file's clock) on the mended one."""
        before = bisect_right(self.pauses, time, key=lambda pause: pause[0])
        return time + self.shift - (self.pauses[before - 1][1] if before else 0)

    def holds(self, time: Fraction) -> bool:
        """Whether a frame of that time may come from here."""
        return self.first - 1 <= time <= self.last + 1


class Walk:
    """Mends the times of one stream's frames, which are to be given in the order they are shown."""

    def __init__(self, parts: tuple[Part, ...], stray: frozenset[Fraction]):
        self._parts, self._stray = parts, stray
        self._number = 0
        self._last: Fraction | None = None

    def __call__(self, time: Fraction | None) -> Fraction | None:
        """Time in s on the mended clock; None where the frame's own is missing or wrong."""
        if time is None or time in self._stray:
            return None
        if self._number + 1 < len(self._parts):
            went_back = self._last is not None and time < self._last - _BACK
            if (went_back or not self._parts[self._number].holds(time)) and self._parts[self._number + 1].holds(time):
                self._number += 1
        self._last = time
        return self._parts[self._number].mended(time) if self._parts else time


@dataclass(frozen=True)
class FileClock:
    """What a file's packets tell of time.

    count: pictures; stamps: their times in ticks, mended; parts, stray: by stream number, both empty where nothing is
    wrong; restarts: times may occur twice; notes: what was found.
    """

    count: int
    stamps: np.ndarray
    parts: dict[int, tuple[Part, ...]]
    stray: dict[int, frozenset[Fraction]]
    restarts: bool
    notes: tuple[str, ...]

    def walk(self, stream: int) -> Walk:
        """A new walk over the frames of the stream with this number."""
        return Walk(self.parts.get(stream, ()), self.stray.get(stream, frozenset()))


def read_clock(path: str | Path) -> FileClock:
    """The clock of a file, from its packets' timestamps: nothing is decoded. Raises InputError for an unreadable
    file.
    """
    path = Path(path)
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_mtime_ns, status.st_size))


def first_picture_time(path: str | Path) -> Fraction | None:
    """When the first picture is shown, in s of the file's mended clock; None without pictures.

    Taken from decoded pictures: headers (`stream.start_time`) are wrong in some files. The earliest of the first few,
    because containers that store only decoding times (AVI) hand them out in the wrong order.
    """
    with open_input(path) as container:
        stream = picture_stream(container)
        if stream is None:
            return None
        stream.thread_type = "AUTO"
        times = []
        for frame in decode(container, stream):
            if frame.pts is not None:
                times.append(frame.pts * frame.time_base)
            if len(times) >= PROBE_FRAMES or len(times) >= 4 and times == sorted(set(times)):
                break
        return read_clock(path).walk(stream.index)(min(times, default=Fraction(0)))


@lru_cache(maxsize=8)
def _read(path: Path, _version: tuple[int, int] | None) -> FileClock:
    with open_input(path) as container:
        pictures = picture_stream(container)
        number = -1 if pictures is None else pictures.index
        streams = [stream for stream in (pictures, *container.streams.audio) if stream is not None]
        units = {stream.index: stream.time_base for stream in streams}
        count, packets, notes = 0, {index: _Packets() for index in units}, []
        try:
            for place, packet in enumerate(container.demux(streams)):
                if packet.size and not packet.is_discard:
                    count += packet.stream.index == number
                    packets[packet.stream.index].add(packet, place)
        except av.FFmpegError as error:
            notes.append(f"the file breaks off after {count} pictures ({error.strerror})")
    tracks = [_Track(index, units[index], found) for index, found in packets.items() if found.shown]
    stretches = _stretches(tracks)
    pauses = _pauses(stretches, _SILENCE if pictures is None else _PAUSE)
    parts = _mend(stretches, pauses)
    restarts = max((stretch.piece for stretch in stretches), default=0)
    notes += _found(restarts, pauses)
    placed: dict[int, list[tuple[_Stretch, Part]]] = {track.index: [] for track in tracks}
    for stretch, part in zip(stretches, parts, strict=True):
        placed[stretch.index].append((stretch, part))
    return FileClock(
        count,
        _stamps(placed.get(number, [])),
        {index: tuple(part for _, part in found) for index, found in placed.items()} if restarts or pauses else {},
        {track.index: track.stray for track in tracks if track.stray},
        bool(restarts),
        tuple(notes),
    )


class _Packets:
    """Timestamps of one stream's packets in file order, in ticks: of decoding, which never go back, and as shown."""

    def __init__(self) -> None:
        self.order, self.shown, self.place = array("q"), array("q"), array("q")

    def add(self, packet: av.Packet, place: int) -> None:
        shown = packet.pts if packet.pts is not None else packet.dts
        if shown is not None:
            # Times as shown go back and forth by themselves: without one of decoding nothing can be told.
            known = packet.dts if packet.dts is not None else self.order[-1] if self.order else shown
            self.order.append(known)
            self.shown.append(shown)
            self.place.append(place)


class _Track:
    """One stream's packets without stray ones, and the places in the file at which its clock starts again."""

    def __init__(self, index: int, unit: Fraction, packets: _Packets):
        self.index, self.unit = index, unit
        order = np.array(packets.order) * float(unit)
        good = _good(order)
        shown = np.array(packets.shown)
        self.stray = frozenset(int(tick) * unit for tick in shown[~good])
        self.shown, place, order = shown[good], np.array(packets.place)[good], order[good]
        steps = np.diff(order)
        self.step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
        self.cuts = [0, *(np.flatnonzero(steps < -_BACK) + 1)]
        self.places = place[self.cuts]

    def stretch(self, number: int, piece: int) -> "_Stretch":
        """The part between two cuts."""
        end = self.cuts[number + 1] if number + 1 < len(self.cuts) else len(self.shown)
        return _Stretch(self.index, self.unit, self.step, piece, np.sort(self.shown[self.cuts[number] : end]))


@dataclass(frozen=True)
class _Stretch:
    """A part before it is mended. piece: which piece of the file it belongs to; ticks: its times as shown, sorted."""

    index: int
    unit: Fraction
    step: float
    piece: int
    ticks: np.ndarray

    @property
    def first(self) -> Fraction:
        return int(self.ticks[0]) * self.unit

    @property
    def last(self) -> Fraction:
        return int(self.ticks[-1]) * self.unit


def _good(order: np.ndarray) -> np.ndarray:
    """Which packets are on the clock: not those few after which it goes on where it was."""
    good = np.ones(len(order), bool)
    jumps = np.flatnonzero(np.abs(np.diff(order)) > _BACK) + 1
    for number, start in enumerate(jumps):
        last = order[start - 1]
        near = jumps[number + 1 : number + 1 + _STRAY]
        back = near[(near <= start + _STRAY) & (order[near] >= last) & (order[near] <= last + 1)]
        if len(back) and good[start - 1] and not last < order[start] <= last + 1:
            good[start : back[0]] = False
    return good


def _stretches(tracks: list[_Track]) -> list[_Stretch]:
    """The parts of all streams, those that were recorded together with the same piece number.

    A stream that starts (again) belongs to the newest piece, or begins one: where it has started in the newest already,
    and where another stream's next start is nearer in the file than the newest piece's.
    """
    starts = sorted(
        ((place, number, track) for track in tracks for number, place in enumerate(track.places)),
        key=lambda entry: entry[0],
    )
    found, newest, newest_place = [], 0, 0
    piece: dict[int, int] = {}
    for k, (place, number, track) in enumerate(starts):
        following = next((at for at, again, other in starts[k + 1 :] if again and other is not track), None)
        early = following is not None and following - place < place - newest_place
        if piece.get(track.index) == newest or early:
            newest, newest_place = newest + 1, place
        piece[track.index] = newest
        found.append(track.stretch(number, newest))
    return found


def _pauses(stretches: list[_Stretch], least: float) -> dict[int, Pauses]:
    """By piece: time in which none of its streams has anything, where it is longer than `least` s."""
    found = {}
    for piece, members in _by_piece(stretches).items():
        starts = np.concatenate([stretch.ticks * float(stretch.unit) for stretch in members])
        ends = np.concatenate([stretch.ticks * float(stretch.unit) + stretch.step for stretch in members])
        order = np.argsort(starts, kind="stable")
        reached = np.maximum.accumulate(ends[order])[:-1]
        gaps = starts[order][1:] - reached
        limit = max(least, _STEPS * max(stretch.step for stretch in members))
        total, left_out = Fraction(0), []
        for where in np.flatnonzero(gaps > limit):
            total += _tick(float(gaps[where]))
            left_out.append((_tick(float(starts[order][where + 1]) - _BACK), total))
        if left_out:
            found[piece] = tuple(left_out)
    return found


def _mend(stretches: list[_Stretch], pauses: dict[int, Pauses]) -> list[Part]:
    """Where every part goes: no stream's part before the end of that stream's last one, and what belongs to one piece
    moved alike.
    """
    ends: dict[int, Fraction] = {}
    parts: dict[tuple[int, int], Part] = {}
    for piece, members in sorted(_by_piece(stretches).items()):
        late = [ends[stretch.index] - stretch.first for stretch in members if stretch.index in ends]
        shift = max(late, default=Fraction(0))
        for stretch in members:
            part = Part(stretch.first, stretch.last, shift, pauses.get(piece, ()))
            ends[stretch.index] = part.mended(stretch.last) + _tick(stretch.step)
            parts[piece, stretch.index] = part
    return [parts[stretch.piece, stretch.index] for stretch in stretches]


def _by_piece(stretches: list[_Stretch]) -> dict[int, list[_Stretch]]:
    found = defaultdict(list)
    for stretch in stretches:
        found[stretch.piece].append(stretch)
    return found


def _stamps(placed: Iterable[tuple[_Stretch, Part]]) -> np.ndarray:
    """Times of a stream's packets on the mended clock, in its ticks."""
    found = [np.zeros(0, np.int64)]
    for stretch, part in placed:
        starts = [-(-start // stretch.unit) for start, _ in part.pauses]
        left_out = [Fraction(0), *(total for _, total in part.pauses)]
        moved = [round((part.shift - total) / stretch.unit) for total in left_out]
        found.append(stretch.ticks + np.array(moved)[np.searchsorted(starts, stretch.ticks, side="right")])
    return np.concatenate(found)


def _tick(seconds: float) -> Fraction:
    """Exact to the tick of MPEG's clock: times from it stay multiples of it."""
    return Fraction(round(seconds * 90000), 90000)


def _found(restarts: int, pauses: dict[int, Pauses]) -> Iterator[str]:
    """Notes of what was mended."""
    if restarts:
        yield f"the clock starts again {_times(restarts)}: each part was laid after the one before"
    if pauses:
        seconds = float(sum(found[-1][1] for found in pauses.values()))
        yield (
            f"the clock jumps ahead {_times(sum(map(len, pauses.values())))}, by {seconds:.1f} s in which neither "
            "picture nor sound comes: that time was left out"
        )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
