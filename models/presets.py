"""What the network configs share: None filled from a preset, and checks that name key, value and what is allowed."""

from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

from errors import InputError

COPIED_ROWS = 0, 16, 32, 48
"""Rows of 128 above the mask that a network may leave unpainted: whole ones of its maps at 8 px, and none that are
pasted.
"""


def fill(config: Any, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Give every None field of a dataclass its preset's value. Raises InputError for an unknown preset."""
    check_choice("preset", config.preset, presets)
    for key, value in presets[config.preset].items():
        if getattr(config, key) is None:
            setattr(config, key, copy(value))


def check_choice(key: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises InputError unless `value` is one of `allowed`."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise InputError(f"{key} is {value!r}, expected one of {', '.join(map(repr, allowed))}")


def check_widths(key: str, values: list[int], count: int) -> None:
    """Raises InputError unless `values` are `count` whole numbers of at least 1."""
    if len(values) != count or any(not isinstance(value, int) or value < 1 for value in values):
        found = values[0] if count == 1 and len(values) == 1 else values
        raise InputError(
            f"{key} is {found}, expected {'a' if count == 1 else count} whole number{'s' * (count > 1)} of at least 1"
        )
