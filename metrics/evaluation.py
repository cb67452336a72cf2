"""Scores of several clips, each beside the lines that say what its numbers mean.

A clip's way through the code, in five stops:

1. `metrics.jobs` says what is compared: a Job is one real video and the generated ones. Where weights are given
   `engine.evaluate.Speaker` makes these first, and knows the real face's transforms then.
2. `metrics.pairs` decides what belongs together: `find_face` follows the real face, `match` finds the frame of every
   other video that belongs to each real frame.
3. `metrics.measure` goes through all of them in step: the same crop of every video, landmarks on it, and the crops
   handed to each of `metrics.scorers`.
4. `evaluate_clip` here is stops 2 and 3 for one Job, and makes a ClipResult; `complete` adds the rows that need other
   clips' lips.
5. `metrics.table` and `metrics.report` take means over the clips and write them.

Lines of a clip: every generated video; `re-encoded`, the real video through our own writer (what a perfect method would
read); `copy-input`, the same pictures judged as if another sound had driven them; `chance`, the first generated video
against other real lips. Other lips are other clips'; the other sound is the clip's own, turned round by half. A row of
a line that ends in `_chance` is the row before that ending, measured in this way.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aside import temporary_folder
from chunks import evenly
from errors import InputError
from media.audio import has_audio
from metrics import landmark
from metrics.jobs import CHANCE, COPY, MUTED, REENCODED, SWAPPED, Job
from metrics.measure import Measured, measure
from metrics.pairs import FaceClip, Match, NoFace, View, find_face, look, match, reencode
from metrics.scorers import ClipContext, Scorer
from speech.windows import SYNC_FPS

_MAX_OTHERS = 12
_SYNC_ROWS = "sync_", "lse_"
_SURE = 1.5
"""A sync network's offset is believed if its confidence is at least so many times that of another sound."""


@dataclass
class ClipResult:
    """Rows by line of one clip (`lines`), and the lip gaps over time they come from.

    gap (frames,), transforms (frames, 2, 3): of the real clip, NaN where no face is known.
    """

    job: Job
    fps: float
    gap: np.ndarray
    transforms: np.ndarray
    measured: dict[str, Measured]
    extras: dict[str, Measured] = field(default_factory=dict)
    """What was driven otherwise: MUTED, SWAPPED."""
    lines: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Generated videos that could not be scored, and why."""

    def sound_offset(self) -> tuple[float, str] | None:
        """s by which the real clip's sound is late, and who says so: the table of known offsets, or a sync network."""
        if self.job.offset_s is not None:
            return self.job.offset_s, "known"
        rows = self.measured[REENCODED].values if REENCODED in self.measured else {}
        for row, sure, who in (
            ("sync_offset", "sync_confidence", "by our expert"),
            ("lse_offset", "lse_c", "by SyncNet v2"),
        ):
            if row in rows:
                doubt = rows[sure] < _SURE * rows[f"{sure}_chance"]
                return rows[row] / SYNC_FPS, who + (", no surer than by chance" if doubt else "")
        return None


def evaluate_clip(job: Job, scorers: Sequence[Scorer], crf: float) -> ClipResult:
    """Measure one clip; `complete` then fills its lines. crf: quality of the re-encoded video.

    Raises NoFace, and InputError for files that cannot be read.
    """
    real = find_face(job.real, job.transforms)
    scored = real.times >= job.from_s - 1e-6
    if not scored.any():
        raise NoFace(f"{job.real.path} ends before {job.from_s:g} s")
    real.transforms = np.where(scored[:, None, None], real.transforms, np.nan)
    problems: list[str] = []
    with temporary_folder() as folder:
        reencoded = reencode(job.real, Path(folder) / "reencoded.mp4", crf)
        matches = _matches(real, {**job.generated, REENCODED: reencoded, **job.extras}, problems)
        contexts = {
            name: ClipContext(real.times + found.lag / real.fps, _sound(job, name))
            for name, found in matches.items()
            if name not in job.extras
        }
        scores = {name: [scorer(context) for scorer in scorers] for name, context in contexts.items()}
        gap, measured = measure(real, matches, scores)
    known = np.isfinite(gap)
    if not known.any():
        raise NoFace(f"no face seen in the crops of {job.real.path}")
    for name in [name for name, found in measured.items() if not np.isfinite(found.gap).any()]:
        problems.append(f"{name}: no face seen in {matches[name].view.path}")
        del measured[name]
    extras = {name: measured.pop(name) for name in job.extras if name in measured}
    notes = [f"real: {note}" for note in real.reader.notes]
    if not scored.all():
        notes.append(f"scored from {job.from_s:g} s on")
    if missing := int((scored & ~known).sum()):
        notes.append(f"real: no face in {missing} of {int(scored.sum())} frames, left out")
    notes += [f"{name}: {note}" for name, found in measured.items() if name != REENCODED for note in found.notes]
    return ClipResult(job, real.fps, gap, real.transforms, measured, extras, notes=notes, problems=problems)


def _matches(real: FaceClip, views: Mapping[str, View], problems: list[str]) -> dict[str, Match]:
    """Every view's frames beside the real ones; a view that cannot be read, or shows no face that is needed, is a
    problem.
    """
    matches = {}
    for name, view in views.items():
        try:
            matches[name] = match(real, look(view))
        except (NoFace, InputError) as error:
            problems.append(f"{name}: {error}")
    return matches


def _sound(job: Job, line: str) -> Path | None:
    """The sound that the lips of a line should follow: the real ones' their own, whatever drove the others."""
    generated = job.generated.get(line)
    real = job.real.path
    paths = (real, job.audio) if generated is None else (job.audio, generated.path, real)
    return next((path for path in paths if path is not None and has_audio(path)), None)


def complete(results: Sequence[ClipResult]) -> None:
    """Fill the lines of all clips: rows that need other clips' lips can be told only now."""
    by_name = {result.job.name: result for result in results}
    for result in results:
        others, basis = _other_lips(result, results)
        result.notes.append(f"chance lips: {basis}")
        driver = by_name.get(result.job.driver or "")
        for name, found in result.measured.items():
            chance = _against(found, others, result.fps)
            result.lines[name] = {
                **found.values,
                **landmark.lip_rows(*found.file_time(result.gap), result.fps),
                **{f"{row}_chance": chance[row] for row in ("lip_r_best", "fast_r_best")},
            }
        generated = [name for name in result.lines if name != REENCODED]
        copied = result.measured.get(REENCODED)
        if copied is not None:
            kept = {row: value for row, value in copied.values.items() if not row.startswith(_SYNC_ROWS)}
            leak = {"leak": copied.values["articulation"]}
            result.lines[COPY] = {**kept, **_by_chance(copied, others, result.fps), **leak}
            if driver is not None:
                result.lines[COPY]["swap_r"] = _swap_r(copied, driver, result.fps)
        if not generated:
            continue
        first = generated[0]
        result.lines[CHANCE] = _by_chance(result.measured[first], others, result.fps)
        if MUTED in result.extras:
            result.lines[first]["leak"] = landmark.articulation(result.extras[MUTED].gap, result.gap)
        if SWAPPED in result.extras and driver is not None:
            result.lines[first]["swap_r"] = _swap_r(result.extras[SWAPPED], driver, result.fps)


def _against(found: Measured, others: Iterable[np.ndarray], fps: float) -> dict[str, float]:
    """Lip rows against other lips: means over them."""
    rows = [landmark.lip_rows(found.gap, other, fps) for other in others]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if not name.endswith("_lag")}


def _by_chance(found: Measured, others: Iterable[np.ndarray], fps: float) -> dict[str, float]:
    """Lip rows against other lips, and sync rows under another sound (an offset means nothing there)."""
    sync = {
        row.removesuffix("_chance"): value
        for row, value in found.values.items()
        if row.startswith(_SYNC_ROWS) and row.endswith("_chance")
    }
    return {**_against(found, others, fps), **sync}


def _swap_r(found: Measured, driver: ClipResult, fps: float) -> float:
    return landmark.correlation_at(*found.file_time(_at_rate(driver, fps)), 0)


def _other_lips(result: ClipResult, results: Sequence[ClipResult]) -> tuple[list[np.ndarray], str]:
    """Real lip gaps that have nothing to do with this clip, and what they are."""
    rest = [other for other in results if other.job.real != result.job.real]
    same = [other for other in rest if result.job.person and other.job.person == result.job.person]
    chosen = same or rest
    if not chosen:
        basis = "the clip's own, moved by 2 s and more (no other clip given)"
        return landmark.chance_series(result.gap, result.fps), basis
    chosen = evenly(chosen, _MAX_OTHERS)
    count = f"{len(chosen)} other clip{'s' if len(chosen) > 1 else ''}"
    basis = f"{count} of {result.job.person}" if same else f"{count}, of other or unknown persons"
    return [_at_rate(other, result.fps) for other in chosen], basis


def _at_rate(other: ClipResult, fps: float) -> np.ndarray:
    """Another clip's real gap (frames,), resampled to `fps`."""
    if abs(other.fps / fps - 1) < 0.001:
        return other.gap
    times = np.arange(len(other.gap)) / other.fps
    return np.interp(np.arange(0, times[-1], 1 / fps), times, other.gap)
