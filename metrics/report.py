"""A report as one folder: a page with the table, lip gaps over time and strips of faces; nothing to fetch."""

import html
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from aside import aside
from errors import printable
from face.crop import CropTransform
from media.picture import write_picture
from media.video import VideoReader
from metrics.evaluation import ClipResult
from metrics.jobs import CHANCE, COPY, REENCODED
from metrics.look import COLOURS, REAL, STYLE
from metrics.pairs import View
from metrics.plot import plot_gaps
from metrics.table import GROUPS, Outcome, Summary, cell, offset_text, single

STRIP = 8
"""Faces shown of each video."""
_FACE = 160
"""px"""
_REFERENCES = {
    REENCODED: "the real video through our own writer: what a perfect method would read",
    COPY: "the same pictures, judged as if another sound had driven them",
    CHANCE: "the first generated video against other real lips and another sound",
}


def write_report(folder: Path, outcome: Outcome) -> Path:
    """Write index.html and its pictures into `folder`; the videos must still be there. Returns the page."""
    results, summary, skipped = outcome.results, outcome.summary, _list(outcome.skipped)
    spread = ", mean ± standard deviation over clips" if len(results) > 1 else ""
    parts = [
        f"<h1>Evaluation</h1><p class=key>{len(results)} clip{'s' * (len(results) > 1)} scored{spread}.</p>",
        f"<div class=bad>Not scored:{skipped}</div>" if skipped else "",
        table(summary),
        "<div class=key>",
        *(f"<p><b>{line}</b>: {meaning}.</p>" for line, meaning in _REFERENCES.items() if line in summary),
        _list(outcome.notes) + "</div>",
        *(_clip(folder, number, result, alone=len(results) == 1) for number, result in enumerate(results)),
    ]
    page = folder / "index.html"
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{STYLE}</style></head><body class=sheet>{''.join(parts)}</body></html>"
    )
    with aside(page) as part:
        part.write_text(printable(text), encoding="utf-8")
    return page


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def table(summary: Summary) -> str:
    """The rows that any line has, in their groups with what these mean: a column for each line."""
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
        colour = COLOURS[k % len(COLOURS)]
        plot = plot_gaps(result.gap, found.gap, found.match.lag, result.fps, top, colour, shown)
        plots.append(_named(line, plot, _agreement(result.lines[line]), colour))
        faces = [(int(found.match.frames[j]), found.match.transform(j, result.transforms[j])) for j in shown]
        path = folder / f"strip_{number}_{k + 1}.jpg"
        strips.append(_named(line, _strip(path, result.job.generated[line], faces), (), colour))
    times = "".join(f"<span>{j / result.fps:.2f} s</span>" for j in shown)
    strips.append(f"<span></span><div class=times>{times}</div>")
    rows = {line: single(values) for line, values in result.lines.items()}
    return (
        f"<h2>{html.escape(result.job.name)}</h2><p class=key>{len(result.gap) / result.fps:.2f} s at {result.fps:.5g} "
        f"frames/s. The real clip's sound is late by: {offset_text(result)}.</p>"
        "<p>Inner-lip gap over the distance of the eyes: <b>real in black</b>, generated in colour, as the files show "
        f"them. Dotted: the times of the faces below.</p><div class=rows>{''.join(plots)}</div>"
        "<p>By turns the widest open and the most closed real mouth of each part of the clip, and what each generated "
        f"video shows for that frame.</p><div class=rows>{''.join(strips)}</div>"
        + ("" if alone else f"<details><summary>All rows of this clip</summary>{table(rows)}</details>")
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
    write_picture(path, np.concatenate(pictures, 1))
    return f'<img src="{path.name}" alt="">'
