"""The one kind of error that is the user's to mend, and how scripts report it."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input. The message says what was found, what was expected and what to do, in one line."""


def check_counts(config: object, *names: str, least: int = 1) -> None:
    """Raises InputError for a field of a config that is below `least`."""
    for name in names:
        if getattr(config, name) < least:
            raise InputError(f"{name} is {getattr(config, name)}, expected {least} or more")


def run_cli(main: Callable[[], None]) -> None:
    """Run a script's `main`; an InputError becomes one line on stderr and exit code 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
