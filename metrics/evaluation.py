"""Scores of several clips, each beside the lines that say what its numbers mean.

Lines of a clip: every generated video; `re-encoded`, the real video through our own writer (what a perfect method would
read); `copy-input`, the same pictures judged as if another sound had driven them; `chance`, the first generated video
against other real lips. Other lips are other clips'; the other sound is the clip's own, turned round by half.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from errors import InputError
from face.landmark_net import LandmarkNet
from media.audio import has_audio, read_audio
from metrics import landmark
from metrics.jobs import Job
from metrics.measure import Measured, measure
from metrics.pairs import FaceClip, Match, NoFace, Progress, Shown, View, find_face, look, match, reencode
from metrics.scorers import ClipContext, Scorer
from speech.windows import SYNC_FPS

REENCODED, COPY, CHANCE = "re-encoded", "copy-input", "chance"
PASSES = 4
"""How often a clip's frames are gone through: tracked, re-encoded, looked at, measured (for the progress bar)."""
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
    """What was driven otherwise: `muted`, `swapped`."""
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


def evaluate_clip(
    job: Job,
    scorers: Sequence[Scorer],
    net: LandmarkNet,
    folder: Path,
    crf: float,
    extract: Callable[[np.ndarray, str], np.ndarray],
    progress: Progress | None = None,
) -> ClipResult:
    """Measure one clip; `complete` then fills its lines. folder: for the re-encoded video. extract: sound features.

    Raises NoFace, and InputError for files that cannot be read.
    """
    real = find_face(job.real, progress)
    left_out = real.times < job.from_s - 1e-6
    if left_out.all():
        raise NoFace(f"{job.real.path} ends before {job.from_s:g} s")
    real.transforms[left_out] = np.nan
    views = {**job.generated, REENCODED: reencode(job.real, folder / "reencoded.mp4", crf, progress)}
    notes, problems = [f"real: {note}" for note in real.reader.notes], []
    pairs = _paired(real, views, problems)
    if progress is not None:
        progress(len(real.times))
    contexts = {
        name: ClipContext(name, real.times + found.lag / real.fps, _sound(job, name), extract)
        for name, (_, found) in pairs.items()
    }
    gap, measured = measure(real, pairs, scorers, contexts, net, progress)
    known = np.isfinite(gap)
    if not known.any():
        raise NoFace(f"no face seen in the crops of {job.real.path}")
    if left_out.any():
        notes.append(f"scored from {job.from_s:g} s on")
    if missing := int((~known & ~left_out).sum()):
        notes.append(f"real: no face in {missing} of {int((~left_out).sum())} frames, left out")
    for name in [name for name, found in measured.items() if not np.isfinite(found.gap).any()]:
        problems.append(f"{name}: no face seen in {views[name].path}")
        del measured[name]
    views = {name: view for name, view in (("muted", job.muted), ("swapped", job.swapped)) if view is not None}
    extras = measure(real, _paired(real, views, problems), (), {}, net)[1] if views else {}
    for name, found in measured.items():
        notes += [f"{name}: {note}" for note in found.notes if name != REENCODED]
    return ClipResult(job, real.fps, gap, real.transforms, measured, extras, notes=notes, problems=problems)


def _paired(real: FaceClip, views: Mapping[str, View], problems: list[str]) -> dict[str, tuple[Shown, Match]]:
    """Every view with its frames' partners; one that cannot be read, or shows no face that is needed, is a problem."""
    pairs = {}
    for name, view in views.items():
        try:
            shown = look(view)
            pairs[name] = shown, match(real, shown)
        except (NoFace, InputError) as error:
            problems.append(f"{name}: {error}")
    return pairs


def _sound(job: Job, line: str) -> Callable[[], np.ndarray] | None:
    """Reads the sound that the lips of a line should follow: the real ones' their own, whatever drove the others."""
    generated = job.generated.get(line)
    real = job.real.path
    for path in (real, job.audio) if generated is None else (job.audio, generated.path, real):
        if path is not None and has_audio(path):
            return lambda path=path: read_audio(path)
    return None


def complete(results: Sequence[ClipResult]) -> None:
    """Fill the lines of all clips: rows that need other clips' lips can be told only now."""
    by_name = {result.job.name: result for result in results}
    for result in results:
        others, basis = _other_lips(result, results)
        result.notes.append(f"chance lips: {basis}")
        driver = by_name.get(result.job.driver)
        for name, found in result.measured.items():
            result.lines[name] = {**found.values, **_lip_rows(found, result.gap, result.fps, others)}
        generated = [name for name in result.lines if name != REENCODED]
        copied = result.measured.get(REENCODED)
        if copied is not None:
            leak = {"leak": copied.values["articulation"]}
            kept = {row: value for row, value in copied.values.items() if not row.startswith(_SYNC_ROWS)}
            result.lines[COPY] = {**kept, **_by_chance(copied, others, result.fps), **leak}
            if driver is not None:
                result.lines[COPY]["swap_r"] = _swap_r(copied, driver, result.fps)
        if not generated:
            continue
        first = generated[0]
        result.lines[CHANCE] = _by_chance(result.measured[first], others, result.fps)
        if "muted" in result.extras:
            result.lines[first]["leak"] = landmark.articulation(result.extras["muted"].gap, result.gap)
        if "swapped" in result.extras and driver is not None:
            result.lines[first]["swap_r"] = _swap_r(result.extras["swapped"], driver, result.fps)


def _lip_rows(found: Measured, real: np.ndarray, fps: float, others: Sequence[np.ndarray]) -> dict[str, float]:
    rows = {}
    series = _fast_pairs(*found.file_time(real), fps)
    for name, (generated, wanted) in series.items():
        rows[f"{name}_r"] = landmark.correlation(generated, wanted)
        rows[f"{name}_r_best"], rows[f"{name}_lag"] = landmark.best_lag(generated, wanted)
    chance = _against(found, others, fps)
    return {**rows, **{f"{name}_r_chance": chance[f"{name}_r_best"] for name in series}}


def _against(found: Measured, others: Iterable[np.ndarray], fps: float) -> dict[str, float]:
    """Lip rows against other lips: means over them."""
    rows: dict[str, list[float]] = {}
    for other in others:
        for name, (generated, wanted) in _fast_pairs(found.gap, other, fps).items():
            rows.setdefault(f"{name}_r", []).append(landmark.correlation_at(generated, wanted, 0))
            rows.setdefault(f"{name}_r_best", []).append(landmark.best_lag(generated, wanted)[0])
    return {name: float(np.mean(values)) for name, values in rows.items()}


def _by_chance(found: Measured, others: Iterable[np.ndarray], fps: float) -> dict[str, float]:
    """Lip rows against other lips, and sync rows under another sound (an offset means nothing there)."""
    sync = {
        row.removesuffix("_chance"): value
        for row, value in found.values.items()
        if row.startswith(_SYNC_ROWS) and row.endswith("_chance")
    }
    return {**_against(found, others, fps), **sync}


def _fast_pairs(generated: np.ndarray, real: np.ndarray, fps: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both series as they are, and their fast parts."""
    return {"lip": (generated, real), "fast": (landmark.fast_part(generated, fps), landmark.fast_part(real, fps))}


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
    chosen = [chosen[round(k)] for k in np.linspace(0, len(chosen) - 1, min(len(chosen), _MAX_OTHERS))]
    count = f"{len(chosen)} other clip{'s' if len(chosen) > 1 else ''}"
    basis = f"{count} of {result.job.person}" if same else f"{count}, of other or unknown persons"
    return [_at_rate(other, result.fps) for other in chosen], basis


def _at_rate(other: ClipResult, fps: float) -> np.ndarray:
    """Another clip's real gap (frames,), resampled to `fps`."""
    if abs(other.fps / fps - 1) < 0.001:
        return other.gap
    times = np.arange(len(other.gap)) / other.fps
    return np.interp(np.arange(0, times[-1], 1 / fps), times, other.gap)
