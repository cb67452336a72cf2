"""What differs between two configs of a training. Imports no torch."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from engine.config import to_yaml
from engine.options import TrainBaseConfig, TrainHRConfig, TrainSyncConfig

_IDLE = "data.workers", "data.cache", "validation.film", "loss.warn_after"
"""Keys that change nothing of what is learned, nor of how it is scored."""
FREE = *_IDLE, "data.path", "loss.sync_expert", "perceptual.weights", "audio_pretrain.rate"
"""Those that a run may change as it goes on: also where files are, which its record knows by themselves, and what is no
more than a learning rate.
"""
_ASIDE = "run.folder", "run.device", "run.log_every", "run.checkpoint_every", "run.keep", "run.validate_start"
"""Keys that change nothing of what a whole run ends with."""
SCHEMAS = {schema.SCRIPT: schema for schema in (TrainBaseConfig, TrainHRConfig, TrainSyncConfig)}
"""Configs of trainings, by their scripts."""


def trained_otherwise(before: str, now: str) -> list[str]:
    """What differs between two configs (YAML) so that whole runs of them are not the same. Files count by their
    paths.
    """
    found = changes(settings(before), settings(now))
    return [shown(key, *found[key]) for key in found if key not in (*_IDLE, *_ASIDE)]


def settings(config: str) -> dict[str, Any]:
    """Leaves of a config (YAML) by their dotted keys. Those that it does not know have their default, but for the
    network's, which depends on what it was made for.
    """
    known = yaml.safe_load(config)
    known = known if isinstance(known, dict) else {}  # weights that were made in several runs list these
    schema = SCHEMAS.get(str(known.get("script")))
    added = {} if schema is None else _flat(yaml.safe_load(to_yaml(schema())))
    return {key: value for key, value in added.items() if not key.startswith("model.")} | _flat(known)


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Leaves of a config by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {f"{where}{key}": value}
    return flat


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What both know, and is not the same."""
    return {key: (before[key], now[key]) for key in before if key in now and before[key] != now[key]}


def shown(key: str, before: Any, now: Any) -> str:
    """A change in words."""
    return f"{key} {json.dumps(before)} -> {json.dumps(now)}"
