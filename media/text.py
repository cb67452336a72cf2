"""Text files that people made with any editor: lists and tables."""

import codecs
from pathlib import Path

from errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with UTF-16's mark, so it is asked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, name: str) -> str:
    """The text of a file in UTF-8 or, as some Windows programs write it, UTF-16 or UTF-32; a byte-order mark is left
    out.

    name: what the user calls it, as in `--split train.txt`. Raises InputError for a file that is missing, unreadable,
    or in another encoding: guessing one would misread names without a word.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: found no readable file ({error.strerror}), expected a text file") from error
    try:
        return data.decode(_encoding(data))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}: found text that is neither UTF-8 nor marked as UTF-16 (byte {data[error.start]:#04x} in line "
            f"{line}), expected UTF-8, save it as UTF-8"
        ) from error


def _encoding(data: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if marked is not None or b"\0" not in data:
        return marked or "utf-8"
    # No list holds a NUL: every other byte is one in UTF-16 without a mark, the even ones where the high byte is first.
    return "utf-16-be" if data[::2].count(0) > data[1::2].count(0) else "utf-16-le"
