"""Rows to read: what each is called, means and spreads over clips, Markdown, JSON and CSV."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aside import aside
from metrics.evaluation import ClipResult

GROUPS: dict[str, tuple[str, dict[str, tuple[str, int]]]] = {
    "Lip gap": (
        "inner lips, over the distance of the eyes; r: over time, against the real one; "
        "fast: less its Gaussian mean (.32 s)",
        {
            "lip_r": ("lip r, lag 0", 3),
            "lip_r_best": ("lip r, best lag", 3),
            "lip_lag": ("that lag (frames, + late)", 1),
            "lip_r_best_chance": ("lip r, best lag, by chance", 3),
            "fast_r": ("fast lip r, lag 0", 3),
            "fast_r_best": ("fast lip r, best lag", 3),
            "fast_lag": ("that lag (frames, + late)", 1),
            "fast_r_best_chance": ("fast lip r, best lag, by chance", 3),
        },
    ),
    "Lip motion": (
        "spread of the gap over the real one's; leak: without sound; swap r: against the driving clip; "
        "LMD: 40 lip points",
        {
            "articulation": ("articulation (1 is right)", 3),
            "leak": ("leak (0 is right)", 3),
            "swap_r": ("swap r", 3),
            "lmd": ("LMD (px of 128)", 3),
        },
    ),
    "Pictures": (
        "mouth box and lower face of the stabilised crop of 256 px, mean over frames",
        {
            "mouth_psnr": ("PSNR mouth (dB)", 2),
            "face_psnr": ("PSNR lower face (dB)", 2),
            "mouth_psnr_yaw_0": ("PSNR mouth, turned by 0-15° (dB)", 2),
            "mouth_psnr_yaw_15": ("15-30°", 2),
            "mouth_psnr_yaw_30": ("30-45°", 2),
            "mouth_psnr_yaw_45": ("45° and more", 2),
            "mouth_ssim": ("SSIM mouth", 3),
            "face_ssim": ("SSIM lower face", 3),
            "mouth_stlpips": ("ST-LPIPS mouth (lower is better)", 3),
            "face_stlpips": ("ST-LPIPS lower face", 3),
            "mouth_lpips": ("LPIPS mouth (lower is better)", 3),
            "face_lpips": ("LPIPS lower face", 3),
            "lips_lab": ("colour of the lips, off by (Lab)", 1),
            "inner_lab": ("colour between the lips, off by (Lab)", 1),
        },
    ),
    "Steadiness, detail": (
        "over the real one's: landmarks' second difference, Laplacian's variance",
        {
            "jitter": ("jitter at rest (1 is right)", 3),
            "jitter_all": ("jitter, all frames", 3),
            "sharpness": ("sharpness (1 is right)", 3),
        },
    ),
    "Person": (
        "vectors of a face-recognition network",
        {
            "identity": ("identity (cosine)", 3),
        },
    ),
    "Sync": (
        "lips against sound, best of ±15 frames; by chance: the sound turned round by half",
        {
            "sync_confidence": ("sync, our expert: confidence", 3),
            "sync_confidence_chance": ("sync, our expert: confidence by chance", 3),
            "sync_offset": ("sync, our expert: offset (frames, + sound late)", 1),
            "lse_c": ("LSE-C (SyncNet v2)", 2),
            "lse_c_chance": ("LSE-C by chance", 2),
            "lse_d": ("LSE-D (SyncNet v2)", 2),
            "lse_d_chance": ("LSE-D by chance", 2),
            "lse_offset": ("SyncNet v2 offset (frames, + sound late)", 1),
        },
    ),
    "Basis": (
        "frames in which both faces were seen",
        {
            "frames": ("frames scored", 0),
        },
    ),
}
"""Group: how its rows are measured, and by row name its label and decimals, in the order shown."""

ROWS = {row: entry for _, rows in GROUPS.values() for row, entry in rows.items()}

Summary = dict[str, dict[str, dict[str, float]]]


@dataclass
class Outcome:
    """All that is told of a set of clips. notes concern all of them; skipped: what could not be scored, and why."""

    results: Sequence[ClipResult]
    notes: Sequence[str]
    skipped: Sequence[str]
    config: dict[str, Any]

    @cached_property
    def summary(self) -> Summary:
        return summarise(self.results)


def summarise(results: Sequence[ClipResult]) -> Summary:
    """line -> row -> mean, sd and n over the clips that have it. sd is NaN for one clip."""
    summary: Summary = {}
    for line in _lines(results):
        for row in ROWS:
            values = [result.lines[line][row] for result in results if row in result.lines.get(line, {})]
            values = [value for value in values if np.isfinite(value)]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
                summary.setdefault(line, {})[row] = {"mean": float(np.mean(values)), "sd": spread, "n": len(values)}
    return summary


def single(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """The rows of one video as a line of a summary."""
    return {row: {"mean": value, "sd": 0.0, "n": 1} for row, value in values.items()}


def _lines(results: Sequence[ClipResult]) -> list[str]:
    return list(dict.fromkeys(line for result in results for line in result.lines))


def markdown(summary: Summary) -> str:
    """Rows down, lines across; mean, and +- its spread over clips where there are several."""
    header = ["", *summary]
    body = [
        [label, *(cell(summary[line].get(row), digits) for line in summary)]
        for row, (label, digits) in ROWS.items()
        if any(row in values for values in summary.values())
    ]
    return _table(header, body)


def markdown_clips(
    results: Sequence[ClipResult],
    rows: Sequence[str] = ("lip_r", "fast_r", "fast_r_best", "fast_lag", "articulation", "mouth_psnr", "jitter"),
) -> str:
    """One line per clip and generated video, with a few rows and the offset of the real clip's sound."""
    header = [
        "clip",
        "video",
        "sound late by",
        *(f"lag, {row.removesuffix('_lag')}" if row.endswith("_lag") else ROWS[row][0] for row in rows),
    ]
    body = []
    for result in results:
        for line, values in result.lines.items():
            if line in result.measured:
                cells = [f"{values[row]:.{ROWS[row][1]}f}" if row in values else "" for row in rows]
                body.append([result.job.name, line, offset_text(result), *cells])
    return _table(header, body)


def offset_text(result: ClipResult) -> str:
    """By how much the real clip's sound is late, and who says so."""
    found = result.sound_offset()
    return "unknown" if found is None else f"{1000 * found[0]:+.0f} ms, {found[1]}"


def cell(entry: dict[str, float] | None, digits: int) -> str:
    """An entry of a summary as text: mean, and +- its spread over several clips."""
    if entry is None:
        return "–"
    spread = f" ± {entry['sd']:.{digits}f}" if entry["n"] > 1 else ""
    return f"{entry['mean']:.{digits}f}{spread}"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (header, *body)) for column in range(len(header))]
    lines = [header, ["-" * max(width, 3) for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in lines
    )


def write_json(path: Path, outcome: Outcome) -> None:
    """Everything: settings, notes, skipped clips, the summary, and each clip's rows. NaN becomes null."""
    clips = []
    for result in outcome.results:
        seconds, who = result.sound_offset() or (None, None)
        clips.append(
            {
                "clip": result.job.name,
                "person": result.job.person,
                "fps": result.fps,
                "sound_offset_s": seconds,
                "sound_offset_from": who,
                "notes": result.notes,
                "lines": result.lines,
            }
        )
    tree = {
        "config": outcome.config,
        "notes": outcome.notes,
        "skipped": outcome.skipped,
        "summary": outcome.summary,
        "clips": clips,
    }
    with aside(path) as part:
        part.write_text(json.dumps(_finite(tree), indent=1), encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_csv(path: Path, outcome: Outcome) -> None:
    """One line per clip and line, one column per row."""
    with aside(path) as part, part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "person", "line", "sound_offset_s", "sound_offset_from", *ROWS])
        for result in outcome.results:
            offset = result.sound_offset() or ("", "")
            for line, values in result.lines.items():
                cells = (values.get(row, "") for row in ROWS)
                writer.writerow([result.job.name, result.job.person, line, *offset, *cells])
