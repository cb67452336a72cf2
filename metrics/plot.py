"""A lip gap over time beside the real one, as a picture within a page."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metrics.look import PLOT, REAL

SIZE_INCHES = 10.4, 1.3
"""Of the picture, which its page scales; text keeps its proportion to that."""


def plot_gaps(
    real: np.ndarray, generated: np.ndarray, late: int, fps: float, top: float, colour: str, marks: Sequence[int]
) -> str:
    """SVG. real, generated: gaps (frames,), NaN where unknown. late: frames by which the file shows `generated` later.

    top: gap at the upper edge. marks: frames to point out.
    """
    with rc_context(PLOT):
        figure = Figure(figsize=SIZE_INCHES)
        axes = figure.add_axes((0.04, 0.17, 0.94, 0.8))
        for mark in marks:
            axes.axvline(mark / fps, color="#bbb", linestyle=":", linewidth=1)
        for values, begin, stroke in ((real, 0.0, REAL), (generated, late / fps, colour)):
            axes.plot(np.arange(len(values)) / fps + begin, values, color=stroke)
        axes.set(xlim=(0, max(len(real) / fps, 1e-9)), ylim=(0, top))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter("{x:g} s")
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]
