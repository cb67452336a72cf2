"""A lip gap over time beside the real one, as SVG text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metrics.look import REAL

WIDTH, HEIGHT = 1040, 130
_LEFT, _BOTTOM, _TOP = 38, 18, 6


def plot_gaps(
    real: np.ndarray, generated: np.ndarray, late: int, fps: float, top: float, colour: str, marks: Sequence[int]
) -> str:
    """real, generated: gaps (frames,), NaN where unknown. late: frames by which the file shows `generated` later.

    top: gap at the upper edge. marks: frames to point out.
    """
    seconds = max(len(real) / fps, 1e-9)
    across = (WIDTH - _LEFT) / seconds
    shift = late / fps
    parts = [_grid(seconds, top)]
    for mark in marks:
        x = _LEFT + mark / fps * across
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" class="mark"/>')
    for values, begin, stroke in ((real, 0.0, REAL), (generated, shift, colour)):
        xs = _LEFT + (np.arange(len(values)) / fps + begin) * across
        parts.append(f'<path d="{_path(xs, _height(values, top))}" fill="none" stroke="{stroke}" stroke-width="1.4"/>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


def _height(values: Any, top: float) -> Any:
    return HEIGHT - _BOTTOM - (HEIGHT - _BOTTOM - _TOP) * values / top


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Lines through the points that are known and inside the picture."""
    parts, pen = [], "M"
    for px, py in zip(x, y, strict=True):
        known = np.isfinite(py) and px >= _LEFT
        if known:
            parts.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L" if known else "M"
    return "".join(parts)


def _grid(seconds: float, top: float) -> str:
    parts = []
    step = next((step for step in (0.05, 0.1, 0.2, 0.5) if top / step <= 4), 1.0)
    for value in np.arange(0, top, step):
        y = _height(value, top)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" class="line"/>'
            f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>'
        )
    pace = max(1, round(seconds / 12))
    for second in range(0, int(np.ceil(seconds)), pace):
        x = _LEFT + second / seconds * (WIDTH - _LEFT)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{second} s</text>')
    return "".join(parts)
