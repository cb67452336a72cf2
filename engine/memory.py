"""What the process does with memory that tensors no longer need."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENAS = -1, -3, -8
"""Numbers of glibc's mallopt."""
_KEEP = 1 << 30


def keep_freed_memory() -> None:
    """Let the next picture's maps take the place of the last one's: by default glibc hands blocks of some MiB back to
    the system, which clears them again page by page (a fifth of stage 2's time). One heap for all threads, as those of
    a thread of its own hold no more than 64 MiB. Elsewhere this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _KEEP)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP)
        libc.mallopt(_ARENAS, 1)
