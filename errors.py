"""The one kind of error that is the user's to mend, and how scripts report it."""

import io
import sys
from collections.abc import Callable


def printable(text: str) -> str:
    """Text that can be printed and stored: bytes of a file name that are not UTF-8 are written out, as \\udcNN."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class InputError(Exception):
    """Bad input. The message says what was found, what was expected and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def check_counts(config: object, *names: str, least: int = 1) -> None:
    """Raises InputError for a field of a config that is below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise InputError(f"{name} is {getattr(config, name)}, expected {least} or more")


def run_cli(main: Callable[[], None]) -> None:
    """Run a script's `main`; an InputError becomes one line on stderr and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the name of a finished file must not end the script
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
