"""YAML files to typed dataclasses: `inherit: other.yaml`, `--set a.b=c`, every mistake in one message."""

import argparse
import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from errors import InputError

Config = TypeVar("Config")


def add_config_arguments(parser: argparse.ArgumentParser, default: str | Path) -> None:
    """`--config YAML` and `--set KEY=VALUE` (repeatable), as every script has them."""
    parser.add_argument("--config", default=str(default), metavar="YAML")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values, e.g. run.steps=100"
    )


def load_config(schema: type[Config], path: str | Path, overrides: typing.Sequence[str] = ()) -> Config:
    """Read `path`, apply `a.b=c` overrides and build `schema`.

    Raises InputError naming every unknown key (with the nearest known one) and every value of the wrong type at once.
    """
    tree = _read(Path(path), seen=())
    for override in overrides:
        _override(tree, override)
    problems: list[str] = []
    config = _build(schema, tree, "", problems)
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}")
    return config


def to_yaml(config: Any) -> str:
    """The resolved config as YAML text, in the order of its fields."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path}: 'inherit' comes back to the file itself; break the circle")
    if not path.is_file():
        raise InputError(f"no config file {path}; see configs/ for the ones that ship")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: found a {type(tree).__name__}, expected 'key: value' lines")
    parent = tree.pop("inherit", None)
    return tree if parent is None else _merge(_read(path.parent / parent, (*seen, path)), tree)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both_trees = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both_trees else value
    return merged


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--set {text}: expected section.key=value")
    *sections, leaf = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {text}: {section} is a value, not a section")
    try:
        tree[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {text}: the value is not YAML") from error


def _build(schema: Any, tree: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(tree, dict):
        problems.append(f"{where.rstrip('.') or 'the file'} is {tree!r}, expected a section")
        return None
    hints = typing.get_type_hints(schema)
    values = {}
    for key, value in tree.items():
        if key not in hints:
            nearest = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)
            hint = f", did you mean {where}{nearest[0]}?" if nearest else ""
            problems.append(f"unknown key {where}{key}{hint}")
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _build(hints[key], value, f"{where}{key}.", problems)
        else:
            values[key] = _convert(hints[key], value, f"{where}{key}", problems)
    if problems:
        return None
    try:
        return schema(**values)
    except InputError as error:
        problems.append(f"{where}{error}")
        return None


def _convert(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    if _fits(hint, value):
        return _cast(hint, value)
    problems.append(f"{where} is {value!r}, expected {_describe(hint)}")
    return None


def _fits(hint: Any, value: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(arguments[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(arguments[1], item) for item in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) or _is_exponent(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint if isinstance(hint, type) else type(None))


def _is_exponent(value: Any) -> bool:
    """YAML reads 1e-4 as text; everybody who writes it means a number."""
    try:
        return isinstance(value, str) and float(value) == float(value)
    except ValueError:
        return False


def _cast(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _cast(next(argument for argument in arguments if _fits(argument, value)), value)
    if origin in (list, tuple):
        return [_cast(arguments[0], item) for item in value]
    if origin is dict:
        return {key: _cast(arguments[1], item) for key, item in value.items()}
    return float(value) if hint is float else value


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (list, tuple):
        return f"a list of {_describe(arguments[0])}"
    if origin is dict:
        return f"a mapping to {_describe(arguments[1])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, "null")
