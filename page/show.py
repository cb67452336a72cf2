"""What the page says, as HTML in the look of the evaluation's report."""

import html
import re
from pathlib import Path

from metrics.report import table
from metrics.table import single
from page.limits import Limits
from page.session import Made, Progress, Stage

_NAMES = {"track": "follow the face", "paint": "paint", "measure": "measure"}
"""What stages are called, in the order in which they come."""


def sheet(content: str) -> str:
    return f'<div class="sheet">{content}</div>'


def problem(error: Exception, folder: Path) -> str:
    """A mistake in a red box. folder: where temporary files lie, which is nobody's to read."""
    words = re.sub(rf"{re.escape(str(folder))}/(?:[^/\s]+/)*", "", str(error))
    return sheet(f'<p class="bad" role="alert">{html.escape(words)}</p>')


def note(words: str) -> str:
    return sheet(f'<p class="key" role="status">{html.escape(words)}</p>')


def progress(state: Progress) -> str:
    """A bar for each stage, those to come too."""
    if state.before:
        return note(f"Waiting: {state.before} before you.")
    known = {stage.name: stage for stage in state.stages}
    names = [*(name for name in _NAMES if name in known or name != "track"), *(known.keys() - _NAMES.keys())]
    rows = "".join(_bar(known.get(name) or Stage(name, 0)) for name in names)
    return sheet(f'<div class="steps" role="status">{rows}</div>')


def _bar(stage: Stage) -> str:
    count = max(stage.count, stage.done, 1)
    rate = f", {stage.done / stage.seconds:.1f} a second" if stage.seconds else ""
    words = f"{stage.done} of {count} frames{rate}" if stage.done else ""
    name = _NAMES.get(stage.name, stage.name)
    return f'<span>{name}</span><progress value="{stage.done}" max="{count}"></progress><span>{words}</span>'


def measured(made: Made) -> str:
    """What needs no reference: the sync expert's rows, and what was done to the frames."""
    report = made.report
    stretches = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in report.passed)
    passed = f"{report.untouched} passed through untouched" + (f" (of the source: {stretches})" if stretches else "")
    words = [f"{report.frames} frames in {report.elapsed:.1f} s; {passed}.", *report.notes]
    if not made.rows:
        words.append("Too few frames show the face, so the sync expert says nothing.")
    rows = table({"this video": single(made.rows)}) if made.rows else ""
    return sheet(rows + "".join(f"<p>{html.escape(line)}</p>" for line in words))


def limits(most: Limits) -> str:
    return note(
        f"Up to {most.seconds:g} s of video and of sound, {most.megabytes} MB a file. Files stay on the machine that "
        "runs this page and go when you leave. Make people speak only with their consent, and say that the video is "
        "synthetic; the file's metadata says so too."
    )
