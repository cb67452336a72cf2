"""A text read aloud by a speech synthesiser of this machine, where there is one."""

import shlex
import shutil
import subprocess
from pathlib import Path

from errors import InputError

_PROGRAMS = {
    "espeak-ng": (["--stdin", "-w"], ".wav"),
    "espeak": (["--stdin", "-w"], ".wav"),
    "say": (["-f", "-", "-o"], ".aiff"),
}
"""Name on PATH: options before the name of the sound file, for a text on standard input, and that file's suffix."""
_TIMEOUT_S = 60


def synthesiser() -> str | None:
    """The program that reads texts, None where this machine has none."""
    return next((name for name in _PROGRAMS if shutil.which(name)), None)


def speak(text: str, folder: Path) -> Path:
    """The text as a sound file in `folder`. Raises InputError where nothing can read it, or it cannot be read."""
    program = synthesiser()
    if program is None:
        raise InputError(f"found no speech synthesiser on PATH; install one of {', '.join(_PROGRAMS)}, or give a sound")
    if not any(map(str.isalnum, text)):
        raise InputError("found no words to read; write a text, or give a sound")
    options, suffix = _PROGRAMS[program]
    sound = folder / f"voice{suffix}"
    try:
        subprocess.run(
            [program, *options, str(sound)], input=text.encode(), check=True, capture_output=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"{program} could not read the text ({error}); write another one, or give a sound") from error
    return sound


def speak_command(text: str) -> tuple[str, str]:
    """What a shell is told to do the same, and the name of the file it makes."""
    program = synthesiser() or next(iter(_PROGRAMS))
    options, suffix = _PROGRAMS[program]
    name = f"voice{suffix}"
    return f"printf %s {shlex.quote(text)} | {shlex.join([program, *options, name])}", name
