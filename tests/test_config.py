"""Config files: inheritance, overrides, and mistakes told at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from engine.config import load_config, to_yaml
from engine.options import EvaluateConfig, InferenceConfig, TrainBaseConfig, TrainHRConfig, TrainSyncConfig
from errors import InputError
from models.checkpoint import load_network

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@dataclass
class Inner:
    rate: float = 1.0
    kind: Literal["a", "b"] = "a"
    widths: list[int] | None = None


@dataclass
class Outer:
    steps: int = 1
    enabled: bool = False
    inner: Inner = field(default_factory=Inner)


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_inherited_values_are_merged_key_by_key(tmp_path):
    write(tmp_path, "parent.yaml", "steps: 5\ninner: {rate: 2, kind: b}\n")
    child = write(tmp_path, "child.yaml", "inherit: parent.yaml\ninner: {rate: 1e-4}\n")
    assert load_config(Outer, child) == Outer(5, False, Inner(1e-4, "b"))


def test_overrides_win_and_make_sections(tmp_path):
    path = write(tmp_path, "a.yaml", "steps: 5\n")
    assert load_config(Outer, path, ["inner.widths=[3, 4]", "steps=7"]) == Outer(7, False, Inner(widths=[3, 4]))


def test_every_mistake_is_named_at_once(tmp_path):
    path = write(tmp_path, "a.yaml", "stepz: 5\nenabled: 1\ninner: {kind: c, rate: fast}\n")
    with pytest.raises(InputError) as caught:
        load_config(Outer, path)
    text = str(caught.value)
    for part in (
        "stepz",
        "did you mean steps",
        "enabled is 1, expected true or false",
        "inner.kind is 'c'",
        "inner.rate is 'fast'",
    ):
        assert part in text


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "inherit: nowhere.yaml", "inherit: a.yaml"])
def test_broken_files_are_input_errors(tmp_path, text):
    with pytest.raises(InputError):
        load_config(Outer, write(tmp_path, "a.yaml", text))


def test_resolved_config_reads_back_as_itself(tmp_path):
    config = Outer(3, True, Inner(0.5, "b", [1]))
    assert load_config(Outer, write(tmp_path, "a.yaml", to_yaml(config))) == config


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_fits_its_script(path):
    name = path.stem
    schema = (
        TrainHRConfig
        if "hr" in name
        else InferenceConfig
        if "inference" in name
        else EvaluateConfig
        if name == "evaluate"
        else TrainSyncConfig
        if "syncnet" in name
        else TrainBaseConfig
    )
    config, own = load_config(schema, path), yaml.safe_load(path.read_text()) or {}
    assert yaml.safe_load(to_yaml(config)).keys() >= own.keys() - {"inherit"}
    for key, value in (own.get("run") or {}).items():
        assert getattr(config.run, key) == value


@pytest.mark.parametrize(
    ("schema", "name", "weights"),
    [
        (TrainBaseConfig, "base", "base_light"),
        (TrainHRConfig, "hr", "hr_light_256"),
        (TrainSyncConfig, "syncnet", "sync_light"),
    ],
)
def test_shipped_weights_are_what_the_demo_configs_train(schema, name, weights):
    shipped = load_network(CONFIGS.parent / "checkpoints" / f"{weights}.safetensors").config
    for path in [path for kind in ("demo", "adapt") if (path := CONFIGS / f"{kind}_{name}.yaml").is_file()]:
        assert load_config(schema, path).model == shipped
