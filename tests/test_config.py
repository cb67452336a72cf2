"""Config files: inheritance, overrides, and mistakes told at once."""

import argparse
import math
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from engine.config import describe, load_config, to_yaml
from engine.options import AdaptConfig, EvaluateConfig, InferenceConfig, TrainBaseConfig, TrainHRConfig, TrainSyncConfig
from errors import InputError, number
from models.checkpoint import load_network
from models.config import BaseConfig

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SCHEMAS = {
    schema.SCRIPT: schema
    for schema in (TrainBaseConfig, TrainHRConfig, TrainSyncConfig, InferenceConfig, EvaluateConfig, AdaptConfig)
}


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


def test_a_section_inherits_a_file_of_another_script(tmp_path):
    write(tmp_path, "inner.yaml", "script: other.py\nrate: 2\nkind: b\n")
    path = write(tmp_path, "a.yaml", "steps: 5\ninner: {inherit: inner.yaml, rate: 3}\n")
    assert load_config(Outer, path) == Outer(5, False, Inner(3, "b"))


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


def test_range_mistakes_of_every_section_are_told_together():
    with pytest.raises(InputError) as caught:
        load_config(
            TrainBaseConfig, None, ["run.batch=0", "optim.lr=-1", "data.window=x", "data.balance=3", "loss.syn=1"]
        )
    text = str(caught.value)
    for part in (
        "run.batch is 0",
        "optim.lr is -1",
        "data.window is 'x'",
        "data.balance is 3",
        "loss.syn, did you mean",
    ):
        assert part in text
    with pytest.raises(InputError, match="lr is nan, expected a number"):
        load_config(TrainBaseConfig, None, ["optim.lr=.nan"])


@pytest.mark.parametrize(
    "key",
    [
        "run.seed",
        "run.steps",
        "optim.weight_decay",
        "optim.discriminator_lr",
        "optim.warmup",
        "optim.final",
        "audio_pretrain.lr",
        "audio_pretrain.rate",
        "audio_pretrain.steps",
    ],
)
def test_less_than_nothing_is_told_at_once(key):
    with pytest.raises(InputError) as caught:
        load_config(TrainBaseConfig, None, [f"{key}=-1"])
    assert re.fullmatch(
        rf"--set: {key.partition('.')[0]}\..*\b{key.partition('.')[2]} is -1.*, expected 0 or more", str(caught.value)
    )


@pytest.mark.parametrize(("schema", "section"), [(InferenceConfig, ""), (EvaluateConfig, "inference.")])
def test_a_largest_size_that_is_none_is_told_at_once(schema, section):
    with pytest.raises(InputError, match=f"--set: {section}max_size is 'foo', expected WIDTHxHEIGHT"):
        load_config(schema, None, [f"{section}max_size=foo"])


def test_evaluation_paints_without_stage_2_unless_it_is_asked_for():
    assert load_config(EvaluateConfig, None).inference.hr is None
    assert load_config(EvaluateConfig, None, ["inference.crf=20"]).inference.hr is None
    assert load_config(EvaluateConfig, None, ["inference.hr=x.safetensors"]).inference.hr == "x.safetensors"
    assert load_config(InferenceConfig, None, ["crf=20"]).hr is not None


def test_a_section_may_need_another():
    with pytest.raises(InputError, match="data.window is 1, expected 5, the frames that the sync expert sees"):
        load_config(TrainBaseConfig, None, ["loss.sync=0.1"])
    # Said once: the window is wrong already, and nothing is said of what depends on it.
    with pytest.raises(InputError) as caught:
        load_config(TrainBaseConfig, None, ["loss.sync=0.1", "data.window=0"])
    assert str(caught.value) == "--set: data.window is 0, expected 1 or more"


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (TrainBaseConfig, ["feed.crop=box"], "feed.crop is box, expected template"),
        (TrainBaseConfig, ["feed.window=published"], "feed.window is published, expected centred with .*whisper"),
        (TrainBaseConfig, ["loss.mouth=-1"], "loss.mouth is -1.0, expected 0 or more"),
        (TrainBaseConfig, [f"loss.{name}=0" for name in ("mouth", "face", "landmark")], "loss.no term has a weight"),
        (
            TrainBaseConfig,
            ["loss.mouth=0", "loss.face=0", "loss.landmark=0", "loss.adversarial=1", "loss.adversarial_from=9"],
            "loss.no term has a weight at the first step",
        ),
        (TrainHRConfig, ["loss.lip_colour=-0.5"], "loss.lip_colour is -0.5"),
        (TrainSyncConfig, ["data.apart=16"], "data.apart is 16, expected 1 to 15"),
    ],
)
def test_what_could_not_be_trained_is_told_at_once(schema, values, message):
    with pytest.raises(InputError, match=message):
        load_config(schema, None, values)
    load_config(TrainBaseConfig, None, ["feed.window=published", "model.audio=mel", "model.audio_window=16"])


def test_the_batches_of_the_commands_for_several_gpus_divide():
    root = CONFIGS.parent
    found = 0
    for text in ((root / "README.md").read_text(), (root / "scripts" / "train.slurm").read_text().replace("\\\n#", "")):
        for command in re.findall(r"^.*(?:torchrun|sbatch) .*--config configs/.*$", text, re.MULTILINE):
            words = command.split("  #")[0].split()
            counts = [words[words.index(name) + 1] for name in words if re.match("--(n?nodes|nproc|gpus)", name)]
            values = words[words.index("--set") + 1 :] if "--set" in words else []
            config = load_config(TrainBaseConfig, root / words[words.index("--config") + 1], values)
            assert config.run.batch % math.prod(map(int, counts)) == 0, command
            found += 1
    assert found == 4


def test_a_preset_is_where_values_begin():
    config = load_config(TrainBaseConfig, None, ["model.preset=published", "model.hyper_width=32"])
    assert config.model == BaseConfig.of("published", hyper_width=32) and config.model.audio == "mel"
    assert load_config(TrainBaseConfig, None) == TrainBaseConfig()
    with pytest.raises(InputError, match="model.preset is 'heavy', expected one of 'light', 'published'"):
        load_config(TrainBaseConfig, None, ["model.preset=heavy"])


def test_a_key_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="steps is given twice"):
        load_config(Outer, write(tmp_path, "a.yaml", "steps: 5\nenabled: true\nsteps: 6\n"))


def test_a_section_on_the_command_line_adds_to_it_and_names_a_key_once(tmp_path):
    path = write(tmp_path, "a.yaml", "optim: {lr: 0.5, clip: 3}\n")
    config = load_config(TrainBaseConfig, path, ["optim={lr: 0.25}"])
    assert (config.optim.lr, config.optim.clip) == (0.25, 3)
    with pytest.raises(InputError, match=r"--set optim=.*: the value is not YAML \(lr is given twice\)"):
        load_config(TrainBaseConfig, path, ["optim={lr: 0.25, lr: 0.5}"])


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "x"])
def test_numbers_of_the_command_line_are_finite(text):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--min-face", type=number)
    with pytest.raises(argparse.ArgumentError, match=f"invalid number value: '{text}'"):
        parser.parse_args([f"--min-face={text}"])


def test_a_config_is_for_one_script():
    with pytest.raises(InputError, match="hr_256.yaml is for train_hr.py, expected a file for train_base.py"):
        load_config(TrainBaseConfig, CONFIGS / "hr_256.yaml")
    assert yaml.safe_load(to_yaml(TrainHRConfig()))["script"] == "train_hr.py"


def script_of(path: Path) -> str:
    tree = yaml.safe_load(path.read_text())
    return tree["script"] if "script" in tree else script_of(path.parent / tree["inherit"])


def without(tree: dict, key: tuple[str, ...]) -> dict:
    first, *rest = key
    return {
        name: without(value, tuple(rest)) if name == first and rest else value
        for name, value in tree.items()
        if name != first or rest
    }


def keys(tree: dict) -> list[tuple[str, ...]]:
    return [
        (name, *rest) for name, value in tree.items() for rest in (keys(value) if isinstance(value, dict) else [()])
    ]


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_config_says_only_what_differs(path, tmp_path):
    """Each key changes something: without it the resolved config is another one, or none."""
    schema, own = SCHEMAS[script_of(path)], yaml.safe_load(path.read_text())
    config = load_config(schema, path)
    for part in [own, *(value for value in own.values() if isinstance(value, dict))]:
        if "inherit" in part:
            part["inherit"] = str((path.parent / part["inherit"]).resolve())
    for key in keys(own):
        if key[-1] not in ("inherit", "script"):
            shorter = write(tmp_path, "shorter.yaml", yaml.safe_dump(without(own, key)))
            try:
                assert load_config(schema, shorter) != config, ".".join(key)
            except InputError as error:
                assert key[-1] in str(error) and "expected" in str(error)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("ablations/*.yaml")), ids=lambda path: path.stem)
def test_an_ablation_differs_from_its_parent_in_more_than_its_name(path):
    schema = SCHEMAS[script_of(path)]
    parent = load_config(schema, path.parent / yaml.safe_load(path.read_text())["inherit"])
    mine = load_config(schema, path)
    parent.run.name = mine.run.name = ""
    assert mine != parent


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_key_has_a_meaning(schema):
    lines = list(describe(schema()))
    entries = [place for place, line in enumerate(lines) if line.startswith("  ") and not line.startswith("   ")]
    assert len(entries) > 10
    for place in entries:
        assert lines[place + 1].startswith("      "), lines[place]


@pytest.mark.parametrize("script", SCHEMAS)
def test_mistakes_are_told_before_torch_is_imported(script):
    """One process: what would import it at any time is found at the next look."""
    asked = {"--help-config": 0, "--help": 0, "--set nothing=1": 2, "--no-such-option": 2}
    code = (
        "import runpy, sys\n"
        f"for words in {list(asked)!r}:\n"
        f"    sys.argv = [{script!r}, *words.split()]\n"
        "    try:\n"
        f"        runpy.run_path({str(CONFIGS.parent / script)!r}, run_name='__main__')\n"
        "    except SystemExit as end:\n"
        "        print('ended', words, end.code or 0, 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True, check=False, timeout=120
    )
    ended = [line for line in done.stderr.splitlines() if line.startswith("ended")]
    assert ended == [f"ended {words} {code} False" for words, code in asked.items()], done.stderr
    if script == "train_base.py":  # what it would train without any option
        assert f"  run.steps: {load_config(TrainBaseConfig, CONFIGS / 'base.yaml').run.steps}  (" in done.stdout


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
    paths = [path for kind in ("demo", "adapt") if (path := CONFIGS / f"{kind}_{name}.yaml").is_file()]
    assert paths
    for path in paths:
        assert load_config(schema, path).model == shipped
