"""One look for every page and plot: the stylesheet beside this file, and its colours."""

from pathlib import Path

STYLE = (Path(__file__).parent / "look.css").read_text(encoding="utf-8")
REAL = "#222222"
COLOURS = ("#d1401f", "#1b7fc8", "#2e9949", "#9a4ec2", "#b87d10", "#0f8f8f")
"""Of the methods that are compared, in order; the real video is REAL."""
