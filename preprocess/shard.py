"""A job's share of the work: several jobs side by side on one data set."""

import argparse
from collections.abc import Sequence
from typing import TypeVar

from errors import InputError

Item = TypeVar("Item")


def add_shard_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--shard", default="1/1", metavar="I/N", help=f"this job's share of the {what}, 1/N to N/N")


def shard(items: Sequence[Item], text: str) -> Sequence[Item]:
    """Every N-th item from the I-th on, for `I/N`. Raises InputError unless 1 <= I <= N."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
        raise InputError(f"--shard {text}: expected I/N with 1 <= I <= N, e.g. 2/8")
    return items[int(index) - 1 :: int(count)]
