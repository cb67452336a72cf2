"""The one kind of error that is the user's to mend, how scripts report it and end, and warnings."""

import errno
import io
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from types import FrameType

_FULL = errno.ENOSPC, errno.EDQUOT
_FORBIDDEN = errno.EACCES, errno.EPERM, errno.EROFS


def printable(text: str) -> str:
    """Text that can be printed and stored: bytes of a file name that are not UTF-8 are written out, as \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class InputError(Exception):
    """Bad input. The message says what was found, what was expected and what to do, in one line."""

    def __init__(self, *problems: str):
        """Several problems are told together."""
        self.problems = tuple(map(printable, problems))
        super().__init__("; ".join(self.problems))


def check(*problems: str | bool) -> None:
    """Raises one InputError that names every problem; empty and false ones are none."""
    if found := [problem for problem in problems if isinstance(problem, str) and problem]:
        raise InputError(*found)


@cache
def warn(line: str) -> None:
    """Say a line on stderr, once in the first of the processes that train together, and in each of its workers."""
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {line}", file=sys.stderr, flush=True)


def number(text: str) -> float:
    """For argparse: a finite number. Everything is false of nan, so checks of it would pass."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def exact(text: str) -> Fraction:
    """For argparse: a finite number, exactly as it is written."""
    return Fraction(str(number(text)))


def too_small(config: object, *names: str, least: int = 1) -> str:
    """Which fields of a config are below `least`; nothing where none is."""
    low = [name for name in names if getattr(config, name) < least]
    return (
        ", ".join(f"{name} is {getattr(config, name)}" for name in low) + f", expected {least} or more" if low else ""
    )


def no_space(error: BaseException | None) -> bool:
    """Whether a disk, or what this user may take of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def _told(error: OSError) -> str | None:
    """What the user can mend of it, None where that is not known."""
    if no_space(error):
        where = f" while {error.filename} was written" if error.filename else ""
        return f"{error.strerror}{where}; free some and run the same command again"
    if error.errno in _FORBIDDEN and error.filename:
        return printable(f"{error.filename}: {error.strerror}; see to its rights, or choose another place")
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Also torch's, of a GPU and of the CPU, which are known by their names: this imports no torch."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and named)


def end_on_signal(number: int, _: FrameType | None) -> None:
    """End on a signal as on an error, so that no half-written file is left; a second one does not disturb that."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def run_cli(main: Callable[[], None], tidy: bool = True) -> None:
    """Run a script's `main`; an InputError, a full disk, files that may not be read or written, and too little memory
    become one line on stderr and exit code 2.

    tidy: SIGTERM ends it as an error does. A training sees to that itself, and one that waits for other processes
    would not hear of it.
    """
    if tidy and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end_on_signal)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a finished file must not end the script
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output wants no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if (told := _told(error)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        print("error: found too little memory; ask for smaller batches or pictures", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
