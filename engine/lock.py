"""Who writes where: one process to a run folder, for as long as it lives, and one after the other to what is shared."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import InputError

_NAME = "lock"
_TAKEN = errno.EACCES, errno.EAGAIN


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Within it no other process writes to the run folder, which is made, and removed again where nothing came of it.

    The lock is the system's own (`folder`/lock only names its holder), so a process that is killed leaves none behind.
    It is not handed on to loader workers. Raises InputError where another process holds it, on any machine that shares
    the folder, and where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"run folder {folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                file.seek(0)
                raise InputError(
                    f"{folder} is being written by {file.read().strip() or 'another process'}; wait for it, stop it, "
                    "or give this run another run.name"
                ) from error
            # A file system without locks: no reason not to train.
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        if os.fstat(file.fileno()).st_nlink == 0:
            raise InputError(f"{folder} was given up by another process just now; run the same command again")
        try:
            yield
        finally:
            with suppress(OSError):
                if os.listdir(folder) == [_NAME]:  # a run that never began leaves nothing
                    (folder / _NAME).unlink()
                    folder.rmdir()


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Within it no other process is within that of the same file, which is made; it waits for its turn."""
    with path.open("a") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield
