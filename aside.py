"""Files that are written beside their place, and take their name when they are whole; folders for temporary ones."""

import contextlib
import glob
import hashlib
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from errors import InputError

_LONG_NAME = 190
"""Bytes of a file name to which no more can be added."""


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """The name to write under: becomes `path` when the block ends well, and is removed when it does not."""
    part = part_of(path)
    remove_stale(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # where nothing could be written, nothing can be removed
            part.unlink(missing_ok=True)


def begin(path: Path) -> Path:
    """The empty file that becomes `path`, see part_of; its folder is made. Raises InputError where `path` cannot be
    written.
    """
    part = part_of(path)
    if os.path.isdir(path):  # Path.is_dir raises where a folder may not be looked into
        raise InputError(f"found a folder at {path}, expected a file name for the output, choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        part.touch()
    except OSError as error:
        raise InputError(
            f"found {path.parent} not writable ({error.strerror}), expected a folder to write {path.name} into, choose "
            "another output"
        ) from error
    return part


def give_usual_rights(path: Path) -> None:
    """Those of new files, as the umask has them: safetensors writes files that only their owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def temporary_folder() -> tempfile.TemporaryDirectory:
    """A context that gives a folder's path. Raises InputError where there is no place for one."""
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        raise InputError(
            f"found no folder for temporary files ({error.strerror}); set TMPDIR to one that can be written"
        ) from error


def caches() -> Path:
    """Where this project's caches lie: in the home, or where nobody knows one with temporary files, or nowhere."""
    home = os.path.expanduser("~/.cache")
    if told := os.environ.get("XDG_CACHE_HOME"):
        home = told
    try:
        return Path(tempfile.gettempdir() if home.startswith("~") else home, "hyperlips")
    except OSError:
        return Path(os.devnull, "hyperlips")  # below which nothing can be written


def part_of(path: Path, process: int | None = None) -> Path:
    """The file that becomes `path`; its name says which process (default: this one) of which machine writes it."""
    machine = re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())[:32]
    stem = path.stem
    if len(os.fsencode(path.name)) > _LONG_NAME:
        stem = hashlib.sha1(os.fsencode(stem)).hexdigest()
    return path.with_name(f".{stem}.{machine}.{os.getpid() if process is None else process}.part{path.suffix}")


def remove_stale(path: Path) -> None:
    """Remove what processes of this machine that are no more left of `path`."""
    before, after = part_of(path, 0).name.rsplit(".0.", 1)
    for found in path.parent.glob(f"{glob.escape(before)}.*.{glob.escape(after)}"):
        process = found.name[len(before) + 1 : -len(after) - 1]
        if process.isdecimal() and not is_running(int(process)):
            with contextlib.suppress(OSError):  # another user's
                found.unlink()


def is_running(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)  # asks only
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True
