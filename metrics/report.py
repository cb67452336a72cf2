"""A report as one HTML page: the table, lip gaps over time as SVG, and strips of frames; nothing to fetch."""

import html
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from media.video import VideoReader
from metrics.evaluation import CHANCE, COPY, REENCODED, ClipResult
from metrics.pairs import View, nearest_frames
from metrics.table import ROWS, Summary, cell

STRIP = 8
"""Frames shown of each clip."""
_STRIP_HEIGHT = 144
_COLOURS = ("#c8371b", "#1b7fc8", "#2e9949", "#9a4ec2", "#c28b1b", "#7a7a7a")
_PLOT = 900, 180
_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1200px;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}
.key{color:#666}img,svg{max-width:100%;height:auto;display:block}h2{margin-top:2em}
.swatch{display:inline-block;width:1.4em;height:.35em;vertical-align:middle;margin:0 .4em 0 1em}"""


def write_report(folder: Path, results: Sequence[ClipResult], summary: Summary, notes: Sequence[str]) -> Path:
    """Write index.html and its pictures into `folder`; the videos must still be there. Returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["<h1>Evaluation</h1>", _summary_table(summary), _key(), _notes(notes)]
    for number, result in enumerate(results):
        picture = folder / f"strip_{number}.jpg"
        names = _write_strip(picture, result)
        parts += [
            f"<h2>{html.escape(result.job.name)}</h2>",
            _clip_table(result),
            _legend(result),
            _plot(result),
            f"<p class=key>From above: {html.escape(', '.join(names))}; {STRIP} frames spread over the clip.</p>",
            f'<img src="{picture.name}" alt="frames of {html.escape(result.job.name, quote=True)}">',
            _notes(result.notes),
        ]
    page = folder / "index.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>",
        encoding="utf-8",
    )
    return page


def _summary_table(summary: Summary) -> str:
    head = "".join(f"<th>{html.escape(line)}</th>" for line in summary)
    rows = []
    for row, (label, digits) in ROWS.items():
        entries = [summary[line].get(row) for line in summary]
        if any(entries):
            cells = "".join(f"<td>{cell(entry, digits)}</td>" for entry in entries)
            rows.append(f"<tr><td>{html.escape(label)}</td>{cells}</tr>")
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _key() -> str:
    return (
        f"<p class=key>{REENCODED}: the real video through our own writer, what a perfect method would read. "
        f"{COPY}: the same pictures, lips judged as if another sound had driven them. "
        f"{CHANCE}: the first generated video against other real lips. Mean ± standard deviation over clips.</p>"
    )


def _notes(notes: Sequence[str]) -> str:
    return f"<ul class=key>{''.join(f'<li>{html.escape(note)}</li>' for note in notes)}</ul>" if notes else ""


def _clip_table(result: ClipResult) -> str:
    offset = "unknown" if result.job.offset_s is None else f"{1000 * result.job.offset_s:+.0f} ms"
    return f"<p class=key>Known sound offset: {offset}.</p>" + _summary_table(
        {
            line: {row: {"mean": value, "sd": 0.0, "n": 1} for row, value in values.items()}
            for line, values in result.lines.items()
        }
    )


def _series(result: ClipResult) -> dict[str, np.ndarray]:
    generated = {line: result.measured[line].gap for line in result.job.generated if line in result.measured}
    return {"real": result.gap, **generated}


def _legend(result: ClipResult) -> str:
    colours = ["#111", *_COLOURS]
    return (
        "<p>Lip gap (of the eye distance) over time in s:"
        + "".join(
            f'<span class=swatch style="background:{colours[k % len(colours)]}"></span>{html.escape(name)}'
            for k, name in enumerate(_series(result))
        )
        + "</p>"
    )


def _plot(result: ClipResult) -> str:
    width, height = _PLOT
    series = _series(result)
    known = np.concatenate([values[np.isfinite(values)] for values in series.values()])
    top = max(float(known.max(initial=0)), 0.05) * 1.05
    seconds = max(len(result.gap) / result.fps, 1e-9)
    left, bottom = 36, 20
    colours = ["#111", *_COLOURS]
    lines = [_grid(seconds, top, width, height, left, bottom)]
    for k, values in enumerate(series.values()):
        x = left + np.arange(len(values)) / result.fps / seconds * (width - left)
        y = (height - bottom) * (1 - values / top)
        path, pen = [], "M"
        for px, py in zip(x, y, strict=True):
            if np.isfinite(py):
                path.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L" if np.isfinite(py) else "M"
        lines.append(f'<path d="{"".join(path)}" fill="none" stroke="{colours[k % len(colours)]}" stroke-width="1.5"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(lines)}</svg>'


def _grid(seconds: float, top: float, width: int, height: int, left: int, bottom: int) -> str:
    parts = []
    for share in (0, 0.5, 1):
        y = (height - bottom) * (1 - share * 0.95)
        parts.append(
            f'<line x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="2" y="{y + 4:.1f}" font-size="11" fill="#666">{share * 0.95 * top:.2f}</text>'
        )
    step = max(1, round(seconds / 10))
    for second in range(0, int(seconds) + 1, step):
        x = left + second / seconds * (width - left)
        parts.append(f'<text x="{x:.1f}" y="{height - 5}" font-size="11" fill="#666">{second}</text>')
    return "".join(parts)


def _write_strip(path: Path, result: ClipResult) -> list[str]:
    """A picture: rows real and generated, columns frames shown at the same time. Returns the rows' names."""
    count = len(result.gap)
    wanted = np.unique(np.linspace(0, count - 1, STRIP + 2).round().astype(int)[1:-1])
    rows, names = [], []
    reader = VideoReader(result.job.real.path)
    times = np.array([float(time) for time in reader.times])
    for name, view in {"real": result.job.real, **result.job.generated}.items():
        other = VideoReader(view.path)
        shown = np.array([float(time) for time in other.times])
        numbers = nearest_frames(times[wanted], shown, float(other.fps)).clip(0)
        rows.append(np.concatenate(_pictures(view, other, numbers), 1))
        names.append(name)
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return names


def _pictures(view: View, reader: VideoReader, numbers: np.ndarray) -> list[np.ndarray]:
    pictures = {}
    for frame in islice(reader, int(numbers.max()) + 1):
        if frame.index in numbers:
            image = frame.rgb(view.area(frame))
            width = round(_STRIP_HEIGHT * image.shape[1] / image.shape[0])
            pictures[frame.index] = cv2.resize(image, (width, _STRIP_HEIGHT), interpolation=cv2.INTER_AREA)
    return [pictures[number] for number in numbers]
