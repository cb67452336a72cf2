"""A report as one folder: a page with the table, lip gaps over time and strips of faces; nothing to fetch."""

import html
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from face.crop import CropTransform
from media.video import VideoReader
from metrics.evaluation import CHANCE, COPY, REENCODED, ClipResult
from metrics.pairs import View
from metrics.plot import REAL, plot_gaps
from metrics.table import GROUPS, Outcome, Summary, cell, offset_text

STRIP = 8
"""Faces shown of each video."""
_FACE = 160
"""px"""
_COLOURS = ("#d1401f", "#1b7fc8", "#2e9949", "#9a4ec2", "#b87d10", "#0f8f8f")
_REFERENCES = {
    REENCODED: "the real video through our own writer: what a perfect method would read",
    COPY: "the same pictures, judged as if another sound had driven them",
    CHANCE: "the first generated video against other real lips and another sound",
}
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:1.5em auto;max-width:1240px;padding:0 1em;color:#222}
h1{margin:0}h2{margin:2em 0 .2em;border-top:2px solid #bbb;padding-top:.6em}
.key{color:#666;font-weight:normal}.key p,p.key{margin:.2em 0}
.bad{background:#fdecea;border-left:4px solid #c8371b;padding:.4em 1em}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.8em 0}
th,td{padding:.18em .8em;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap}
td{font-variant-numeric:tabular-nums}thead th{border-bottom:2px solid #888}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
tr.group th{background:#f3f5f7;padding-top:.5em}.reference{color:#777}
.rows{display:grid;grid-template-columns:9.5em 1fr;gap:3px 8px;align-items:center;margin:.6em 0}
.rows img,.rows svg{width:100%;height:auto;display:block}
.name{font-weight:600;line-height:1.25;overflow-wrap:anywhere}.name small{font-weight:normal;color:#666;display:block}
.times{display:flex;justify-content:space-around;color:#666;font-size:12px}
svg text{font-size:11px;fill:#666}svg .line{stroke:#e2e2e2}svg .mark{stroke:#bbb;stroke-dasharray:2 3}
details{margin:.5em 0}summary{cursor:pointer;color:#1b5f98}"""


def write_report(folder: Path, outcome: Outcome) -> Path:
    """Write index.html and its pictures into `folder`; the videos must still be there. Returns the page."""
    results, summary, skipped = outcome.results, outcome.summary, _list(outcome.skipped)
    spread = ", mean ± standard deviation over clips" if len(results) > 1 else ""
    parts = [
        f"<h1>Evaluation</h1><p class=key>{len(results)} clip{'s' * (len(results) > 1)} scored{spread}.</p>",
        f"<div class=bad>Not scored:{skipped}</div>" if skipped else "",
        _table(summary),
        "<div class=key>",
        *(f"<p><b>{line}</b>: {meaning}.</p>" for line, meaning in _REFERENCES.items() if line in summary),
        _list(outcome.notes) + "</div>",
        *(_clip(folder, number, result, alone=len(results) == 1) for number, result in enumerate(results)),
    ]
    page = folder / "index.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>",
        encoding="utf-8",
    )
    return page


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _table(summary: Summary) -> str:
    kinds = {line: " class=reference" if line in _REFERENCES else "" for line in summary}
    head = "".join(f"<th{kind}>{html.escape(line)}</th>" for line, kind in kinds.items())
    rows = []
    for group, (meaning, entries) in GROUPS.items():
        present = {row: entry for row, entry in entries.items() if any(row in values for values in summary.values())}
        if present:
            title = f"{group} <span class=key>{html.escape(meaning)}</span>"
            rows.append(f"<tr class=group><th colspan={len(summary) + 1}>{title}</th></tr>")
        for row, (label, digits) in present.items():
            cells = (f"<td{kind}>{cell(summary[line].get(row), digits)}</td>" for line, kind in kinds.items())
            rows.append(f"<tr><td>{html.escape(label)}</td>{''.join(cells)}</tr>")
    head = f"<thead><tr><th></th>{head}</tr></thead>"
    return f"<div class=wide><table>{head}<tbody>{''.join(rows)}</tbody></table></div>"


def _clip(folder: Path, number: int, result: ClipResult, alone: bool) -> str:
    generated = {line: result.measured[line] for line in result.job.generated if line in result.measured}
    shown = _telling_frames(result.gap)
    gaps = np.concatenate([result.gap, *(found.gap for found in generated.values())])
    top = max(float(np.nanmax(gaps)), 0.05) * 1.05
    real = [(j, result.transforms[j]) for j in shown]
    plots, strips = [], [_named("real", _strip(folder / f"strip_{number}.jpg", result.job.real, real))]
    for k, (line, found) in enumerate(generated.items()):
        colour = _COLOURS[k % len(_COLOURS)]
        plot = plot_gaps(result.gap, found.gap, found.match.lag, result.fps, top, colour, shown)
        plots.append(_named(line, plot, _agreement(result.lines[line]), colour))
        faces = [(int(found.match.frames[j]), found.match.transform(j, result.transforms[j])) for j in shown]
        path = folder / f"strip_{number}_{k + 1}.jpg"
        strips.append(_named(line, _strip(path, result.job.generated[line], faces), (), colour))
    times = "".join(f"<span>{j / result.fps:.2f} s</span>" for j in shown)
    strips.append(f"<span></span><div class=times>{times}</div>")
    rows = {
        line: {row: {"mean": value, "sd": 0.0, "n": 1} for row, value in values.items()}
        for line, values in result.lines.items()
    }
    return (
        f"<h2>{html.escape(result.job.name)}</h2><p class=key>{len(result.gap) / result.fps:.2f} s at {result.fps:.5g} "
        f"frames/s. The real clip's sound is late by: {offset_text(result)}.</p>"
        "<p>Inner-lip gap over the distance of the eyes: <b>real in black</b>, generated in colour, as the files show "
        f"them. Dashed: the times of the faces below.</p><div class=rows>{''.join(plots)}</div>"
        "<p>By turns the widest open and the most closed real mouth of each part of the clip, and what each generated "
        f"video shows for that frame.</p><div class=rows>{''.join(strips)}</div>"
        + ("" if alone else f"<details><summary>All rows of this clip</summary>{_table(rows)}</details>")
        + f"<div class=key>{_list(result.notes)}</div>"
    )


def _telling_frames(gap: np.ndarray) -> list[int]:
    """One frame of each of STRIP parts of the clip: widest open, most closed, widest open, ..."""
    frames = []
    for k, part in enumerate(np.array_split(np.arange(len(gap)), STRIP)):
        known = part[np.isfinite(gap[part])]
        if len(known):
            frames.append(int(known[np.argmin(gap[known]) if k % 2 else np.argmax(gap[known])]))
    return frames


def _agreement(rows: Mapping[str, float]) -> tuple[str, ...]:
    return (
        f"r {rows['lip_r']:.2f}, at lag {rows['lip_lag']:.0f} {rows['lip_r_best']:.2f}",
        f"fast {rows['fast_r']:.2f}, at {rows['fast_lag']:.0f} {rows['fast_r_best']:.2f}",
    )


def _named(name: str, content: str, remarks: Sequence[str] = (), colour: str = REAL) -> str:
    small = "".join(f"<small>{html.escape(remark)}</small>" for remark in remarks)
    return f'<div class=name style="color:{colour}">{html.escape(name)}{small}</div>{content}'


def _strip(path: Path, view: View, faces: Sequence[tuple[int, np.ndarray]]) -> str:
    """Write a picture of the faces (frame number, crop's transform) beside one another; white where there is none."""
    pictures = [np.full((_FACE, _FACE, 3), 255, np.uint8) for _ in faces]
    last = max(number for number, _ in faces)
    for frame in islice(VideoReader(view.path), last + 1):
        for place, (number, transform) in enumerate(faces):
            if number == frame.index and np.isfinite(transform).all():
                pictures[place] = view.face(frame, CropTransform(transform), _FACE)
    strip = cv2.cvtColor(np.concatenate(pictures, 1), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(path), strip, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return f'<img src="{path.name}" alt="">'
