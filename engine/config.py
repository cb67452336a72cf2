"""YAML files to typed dataclasses: `inherit: other.yaml` of a file or a section, `--set a.b=c`, every mistake in one
message.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import math
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml

from errors import InputError
from models.config import Presets

Config = TypeVar("Config")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_PRESET = "preset"
_NO_YAML = yaml.YAMLError, ValueError, RecursionError
"""What the parser raises; a ValueError for a date or a number that cannot be."""
_UNFIT = ValueError, TypeError, OverflowError
"""What _taken raises; the last two come from float()."""


def add_config_arguments(parser: argparse.ArgumentParser, schema: type, default: str | None = None) -> None:
    """`--config YAML`, `--set KEY=VALUE` (repeatable) and `--help-config`, as every script has them.

    default: a file of configs/, wherever the script is started; None: the dataclass's own values.
    """
    parser.add_argument(
        "--config",
        default=None if default is None else str(CONFIGS / default),
        metavar="YAML",
        help=f"default: {'the values of --help-config' if default is None else f'configs/{default}'}",
    )
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override values, of a key given again the last; --help-config lists them",
    )
    parser.add_argument(
        "--help-config",
        action=_HelpConfig,
        schema=schema,
        file=default,
        help="print every key with its value in the default and its meaning",
    )


class _HelpConfig(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, schema: type, file: str | None, help: str | None = None):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.schema, self.file = schema, file

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        config: Any = load_config(self.schema, self.file and CONFIGS / self.file)
        print("\n".join(describe(config)))
        parser.exit()


def load_config(schema: type[Config], path: str | Path | None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read `path` (None: nothing), apply `a.b=c` overrides and build `schema`.

    Raises InputError naming every unknown key (with the nearest known one) and every value of the wrong type or out of
    range at once, and for a file that is meant for another script than `schema.SCRIPT`.
    """
    tree = {} if path is None else _read(Path(path), seen=())
    script, wanted = tree.pop("script", None), getattr(schema, "SCRIPT", None)
    if script is not None and script != wanted:
        raise InputError(f"{path} is for {script}, expected a file for {wanted}; see configs/")
    for override in overrides:
        _override(tree, override)
    problems: list[str] = []
    config = _build(schema, tree, "", problems)
    if problems:
        raise InputError(f"{path or '--set'}: {'; '.join(problems)}")
    return config


def script_of(path: Path) -> str | None:
    """Which script a file is for, as it says itself or inherits."""
    return _read(path, seen=()).get("script")


def to_yaml(config: Any) -> str:
    """The resolved config as YAML text, in the order of its fields; a file for the same script."""
    script = getattr(config, "SCRIPT", None)
    return yaml.safe_dump({**({"script": script} if script else {}), **dataclasses.asdict(config)}, sort_keys=False)


def describe(config: Any, where: str = "") -> Iterator[str]:
    """Lines that name every key of a config with its value, type and meaning."""
    schema = type(config)
    hints, meanings = typing.get_type_hints(schema), _meanings(schema)
    if where and schema.__doc__:
        yield f"\n{where}  " + " ".join(schema.__doc__.split())
    if issubclass(schema, Presets):
        yield from _entry(f"{where}.{_PRESET}", f"one of {', '.join(schema.PRESETS)}", "light", "Where values begin.")
    sections = []
    for field in dataclasses.fields(schema):
        name = f"{where}.{field.name}" if where else field.name
        if dataclasses.is_dataclass(hints[field.name]):
            sections.append((getattr(config, field.name), name))
        else:
            shown = yaml.safe_dump(getattr(config, field.name), default_flow_style=True).removesuffix("...\n").strip()
            yield from _entry(name, _describe(hints[field.name]), shown, meanings.get(field.name, ""))
    for section, name in sections:
        yield from describe(section, name)


def meaning(schema: type, key: str) -> str:
    """What a key such as `audio.track` means, as --help-config tells it."""
    *sections, leaf = key.split(".")
    for section in sections:
        schema = typing.get_type_hints(schema)[section]
    return " ".join(_meanings(schema)[leaf].split())


def _entry(name: str, kind: str, default: str, meaning: str) -> Iterator[str]:
    yield f"  {name}: {default}  ({kind})"
    yield from textwrap.wrap(" ".join(meaning.split()), 116, initial_indent="      ", subsequent_indent="      ")


def _meanings(schema: type) -> dict[str, str]:
    """The string that stands under each field in the source of a dataclass and those it is made from."""
    found: dict[str, str] = {}
    for part in reversed(schema.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value.value)
    return found


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, which YAML would let pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = Counter(str(self.construct_object(key, deep=True)) for key, _ in node.value)
        if twice := [key for key, count in keys.items() if count > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    return yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path}: 'inherit' comes back to the file itself; break the circle")
    try:
        tree = _parsed(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"no config file {path} ({error.strerror}); see configs/ for the ones that ship") from error
    except _NO_YAML as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: found a {type(tree).__name__}, expected 'key: value' lines")
    return _inherited(tree, path, (*seen, path))


def _inherited(tree: dict[str, Any], path: Path, seen: tuple[Path, ...], section: bool = False) -> dict[str, Any]:
    """The tree of a file, or a section of one, on top of the file that its `inherit` names; so are its sections."""
    tree = {
        key: _inherited(value, path, seen, True) if isinstance(value, dict) else value for key, value in tree.items()
    }
    parent = tree.pop("inherit", None)
    if parent is None:
        return tree
    inherited = _read(path.parent / str(parent), seen)
    if section:
        inherited.pop("script", None)
    return _merge(inherited, tree)


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
        tree.update(_merge(tree, {leaf: _parsed(value)}))
    except _NO_YAML as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        raise InputError(f"--set {text[:80]}: the value is not YAML ({problem})") from error


def _build(schema: Any, tree: Any, where: str, problems: list[str]) -> Any:
    """The dataclass of a section, None where it or one of its sections has a problem; further ones are looked for."""
    if not isinstance(tree, dict):
        problems.append(f"{where.rstrip('.') or 'the file'} is {tree!r}, expected a section")
        return None
    before = len(problems)
    hints, tree = typing.get_type_hints(schema), dict(tree)
    values: dict[str, Any] = {}
    whole = True
    try:
        if issubclass(schema, Presets):
            values |= schema.preset_values(tree.pop(_PRESET, "light"))
        defaults = {field.name: field for field in dataclasses.fields(schema)}
        for key, value in tree.items():
            if key not in defaults:
                nearest = difflib.get_close_matches(str(key), defaults, n=1, cutoff=0.0)
                hint = f", did you mean {where}{nearest[0]}?" if nearest else ""
                problems.append(f"unknown key {where}{key}{hint}")
            elif dataclasses.is_dataclass(hints[key]):
                values[key] = _build(hints[key], value, f"{where}{key}.", problems)
                whole &= values[key] is not None
            else:
                try:
                    values[key] = _taken(hints[key], value)
                except _UNFIT:
                    problems.append(f"{where}{key} is {value!r}, expected {_describe(hints[key])}")
        config = schema(**values) if whole else None  # checks that look at several sections need them all
    except InputError as error:
        problems.extend(f"{where}{problem}" for problem in error.problems)
    return config if len(problems) == before else None


def _taken(hint: Any, value: Any) -> Any:
    """The value as its type hint has it. Raises one of _UNFIT where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            with suppress(*_UNFIT):
                return _taken(argument, value)
    elif origin is typing.Literal:
        if any(value == argument and type(value) is type(argument) for argument in arguments):
            return value
    elif origin is list:
        if isinstance(value, (list, tuple)):
            return [_taken(arguments[0], item) for item in value]
    elif hint is float:  # YAML reads 1e-4 as text; everybody who writes it means a number
        if not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    elif isinstance(value, hint) and (hint is not int or not isinstance(value, bool)):
        return value
    raise ValueError


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is list:
        return f"a list of {_describe(arguments[0])}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, "null")
