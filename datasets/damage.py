"""Clips that are not as they were written: named, and left out as long as enough others are there."""

import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from errors import InputError, warn

Item = TypeVar("Item")
EXTRACT_AGAIN = "extract the clip again, with --again"
_MOST = 0.5
"""Share of the clips that may be left out: with more, something else is wrong than a clip."""


class Damaged(InputError):
    """A clip's file that is missing, or not as it was written."""


def remedy(path: Path) -> str:
    """What gives a clip its file again."""
    return "run preprocess.generate_base with --again" if path.name.startswith("base") else EXTRACT_AGAIN


def readable(clips: Iterable[Item], read: Callable[[Item], object], where: object) -> list[Item]:
    """The clips for which `read` does not raise Damaged; others are named, and counted, on stderr.

    Raises InputError where those are more than half of them. where: the data set, for the count.
    """
    kept, problems = [], []
    for clip in clips:
        try:
            read(clip)
        except Damaged as error:
            problems.append(str(error))
        else:
            kept.append(clip)
    count = f"{where}: {len(problems)} of {len(kept) + len(problems)} clips cannot be read"
    if len(problems) > _MOST * (len(kept) + len(problems)):
        raise InputError(f"{count}, the first: {problems[0]}")
    for problem in problems:
        warn(f"left out: {problem}")
    if problems:
        warn(f"{count} and are left out")
    return kept


def read_array(path: Path, name: str | None = None) -> np.ndarray:
    """An array of an .npy file, or the one of that name in an .npz. Raises Damaged."""
    try:
        if name is None:
            return np.load(path)
        with np.load(path) as arrays:
            return arrays[name]
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError) as error:
        raise Damaged(f"{path} is damaged ({error}); {remedy(path)}") from error
