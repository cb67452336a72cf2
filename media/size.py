"""The largest size of pictures: larger ones are scaled down to it."""

import re

from errors import InputError

MAX_SIZE = 4096, 2304
"""px of the longer and the shorter side: H.264 level 5.1, the most that common players take."""
_LEAST_SIZE = 64


def parse_size(text: str) -> tuple[int, int] | None:
    """`WIDTHxHEIGHT` in px as the longer and the shorter side, or `none`. Raises InputError for anything else."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None or min(int(match[1]), int(match[2])) < _LEAST_SIZE:
        raise InputError(
            f"max_size is {text!r}, expected WIDTHxHEIGHT in px, {_LEAST_SIZE} or more each, as in "
            f"{MAX_SIZE[0]}x{MAX_SIZE[1]}, or none"
        )
    longer, shorter = sorted((int(match[1]), int(match[2])), reverse=True)
    return longer, shorter


def fitted(size: tuple[int, int], most: tuple[int, int] | None) -> tuple[int, int]:
    """The size (width, height) scaled down to `most` px of the longer and the shorter side, whichever way up."""
    if most is None or (max(size) <= most[0] and min(size) <= most[1]):
        return size
    scale = min(most[0] / max(size), most[1] / min(size))
    width, height = (max(2, int(side * scale) // 2 * 2) for side in size)
    return width, height
