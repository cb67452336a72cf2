"""One look for every page and plot: the stylesheet beside this file, and its colours."""

from pathlib import Path
from typing import Any

STYLE = (Path(__file__).parent / "look.css").read_text(encoding="utf-8")
REAL = "#222222"
COLOURS = ("#d1401f", "#1b7fc8", "#2e9949", "#9a4ec2", "#b87d10", "#0f8f8f")
"""Of the methods that are compared, in order; the real video is REAL."""
PLOT: dict[Any, Any] = {
    "axes.edgecolor": "#888",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 8,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.2,
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "hyperlips",  # the same picture has the same bytes
    "xtick.color": "#666",
    "ytick.color": "#666",
}
"""matplotlib's rcParams of every plot."""
