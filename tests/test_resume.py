"""A run records what it ran with, and goes on as what it was: other settings, types, data and writers are told."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from test_interruption import ADVERSARIAL, command
from test_training import ROOT, tiny, weights

from datasets.clips import load_clips
from engine import resume
from engine.config import load_config, to_yaml
from engine.options import TrainBaseConfig, TrainHRConfig
from engine.precision import Precision
from engine.resume import Ran, check_changes, record, resumed_precision
from engine.train_base import train
from engine.train_hr import train as train_hr
from errors import InputError
from models.checkpoint import save_network
from models.config import SyncConfig
from models.hyperlips import HyperLipsBase
from models.syncnet import SyncExpert

QUICK = ["audio_pretrain.steps=0", "run.validate_every=4"]
HERE = Ran("float32", "contiguous", "a machine", 2, 1, "2.9", None)


@pytest.fixture(scope="module")
def half(brief, tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("half")
    train(tiny(brief, folder, *QUICK, "run.steps=2"))
    return folder


@pytest.fixture
def begun(half, tmp_path) -> Path:
    return shutil.copytree(half, tmp_path / "runs")


def test_other_settings_are_refused_in_one_message_and_allowed_on_demand(brief, begun):
    other = [*QUICK, f"run.folder={begun}", "data.window=5", "loss.face=0.5", "augment.flip=0", "optim.lr=1e-5"]
    with pytest.raises(InputError) as refused:
        train(tiny(brief, begun, *other))
    message = str(refused.value)
    for change in ("data.window 1 -> 5", "loss.face 0.2 -> 0.5", "augment.flip 0.5 -> 0.0", "run.allow_changes=true"):
        assert change in message
    assert "optim.lr" not in message and weights(begun, 2)["step"] == 2
    kept = (begun / "tiny" / "config.yaml").read_text()
    train(tiny(brief, begun, *other, "run.allow_changes=true"))
    assert (begun / "tiny" / "config_00000002.yaml").read_text() == kept
    newest = load_config(TrainBaseConfig, begun / "tiny" / "config.yaml")
    assert newest.data.window == 5 and weights(begun, 4)["record"]["config"] == to_yaml(newest)


def test_what_may_change_is_printed_a_line_each(brief, begun, capsys):
    copy = shutil.copytree(brief, begun / "moved")
    train(tiny(copy, begun, *QUICK, "run.steps=3", "optim.lr=1e-5", "run.batch=3"))
    lines = capsys.readouterr().out.splitlines()
    told = [line.removeprefix("  other than before: ") for line in lines if line.startswith("  other than before: ")]
    assert f'data.path "{brief}" -> "{copy}" (the same clips)' in told
    assert "optim.lr 0.0005 -> 1e-05" in told and "run.batch 2 -> 3" in told and "run.steps 2 -> 3" in told


def test_a_data_set_of_other_clips_is_another_one(brief, begun):
    copy = shutil.copytree(brief, begun / "other")
    index = copy / "index.jsonl"
    index.write_text(index.read_text().replace("astronaut", "somebody"))
    with pytest.raises(InputError, match="began with other settings: the index of data.path"):
        train(tiny(copy, begun, *QUICK))


def test_other_judges_under_the_same_name_are_other_losses(brief, tmp_path):
    expert = tmp_path / "expert.safetensors"
    save_network(expert, SyncExpert(SyncConfig.of("light", width=4)))
    config = tiny(
        brief, tmp_path, *QUICK, "run.steps=1", "data.window=5", "loss.sync=0.1", f"loss.sync_expert={expert}"
    )
    train(config)
    save_network(expert, SyncExpert(SyncConfig.of("light", width=4)))
    with pytest.raises(InputError, match='began with other settings: the weights of loss.sync_expert "'):
        train(config)


def test_the_type_and_layout_are_the_run_s_own(brief, tmp_path, monkeypatch, capsys):
    open_ended = [*QUICK, "precision=auto", "layout=auto"]
    monkeypatch.setattr("engine.fit.training_precision", lambda *_: Precision("float32", "channels_last"))
    train(tiny(brief, tmp_path, *open_ended, "run.steps=1"))
    assert weights(tmp_path, 1)["record"]["ran"]["layout"] == "channels_last"
    monkeypatch.setattr("engine.fit.training_precision", lambda *_: pytest.fail("measured again"))
    capsys.readouterr()
    train(tiny(brief, tmp_path, *open_ended, "run.steps=2"))
    assert "float32, channels_last as before on cpu, from step 1" in capsys.readouterr().out
    starts = yaml.safe_load((tmp_path / "tiny" / "ran.yaml").read_text())
    assert [(start["from_step"], start["layout"]) for start in starts] == [(0, "channels_last"), (1, "channels_last")]


def test_a_type_that_a_machine_lacks_is_refused_unless_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(resume, "has_bf16", lambda device: False)
    before, cpu = {"ran": {"precision": "bf16", "layout": "channels_last"}}, torch.device("cpu")
    with pytest.raises(InputError, match=r"trained in bf16, which .* has no units for; .*precision=float32"):
        resumed_precision(TrainBaseConfig(), before, cpu)
    assert resumed_precision(TrainBaseConfig(precision="float32"), before, cpu) == Precision("float32", "channels_last")
    assert resumed_precision(TrainBaseConfig(precision="bf16"), before, cpu) == Precision("bf16", "channels_last")
    assert resumed_precision(TrainBaseConfig(precision="bf16", layout="contiguous"), before, cpu) is None
    assert resumed_precision(TrainBaseConfig(), {}, cpu) is None
    with pytest.raises(InputError, match="trained in fp16, which"):
        resumed_precision(TrainBaseConfig(precision="fp16"), before, cpu)


def test_what_changes_neither_losses_nor_scores_may_change():
    before, now = (
        record(f"validation: {{film: {count}}}\nloss: {{warn_after: {count}}}\n", HERE, "abc") for count in (50, 9)
    )
    assert check_changes(Path("run"), before, now, False) == ["validation.film 50 -> 9", "loss.warn_after 50 -> 9"]
    assert resume.scored_otherwise(before, now) == []


def test_keys_that_came_with_the_code_had_their_default():
    before = record("script: train_base.py\nloss: {mouth: 1.0}\n", HERE, "abc")
    same, other = (
        record(f"script: train_base.py\nloss: {{mouth: 1.0, colour: {weight}}}\n", HERE, "abc") for weight in (0.0, 2.0)
    )
    assert check_changes(Path("run"), before, same, False) == []
    with pytest.raises(InputError, match=r"other settings: loss.colour 0.0 -> 2.0; give them back"):
        check_changes(Path("run"), before, other, False)
    assert resume.scored_otherwise(before, other) == ["loss.colour 0.0 -> 2.0"]


def test_parts_that_learn_and_what_came_before_them_are_the_run_s_own_and_paths_are_not():
    text = (
        "optim: {{parts: [{part}]}}\naudio_pretrain: {{steps: {steps}, rate: {rate}}}\nloss: {{sync_expert: {path}}}\n"
    )
    before = record(text.format(part="decoder", steps=5, rate=0.1, path="a"), HERE, "abc")
    now = record(text.format(part="decoder", steps=5, rate=0.2, path="b"), HERE, "abc")
    told = ["audio_pretrain.rate 0.1 -> 0.2", 'loss.sync_expert "a" -> "b"']
    assert check_changes(Path("run"), before, now, False) == told
    now = record(text.format(part="face_encoder", steps=6, rate=0.1, path="a"), HERE, "abc")
    with pytest.raises(InputError, match=r"settings: optim.parts .*, audio_pretrain.steps 5 -> 6; give them back"):
        check_changes(Path("run"), before, now, False)


def test_keys_that_went_with_the_code_say_nothing():
    now = record("model: {width: 4, new: 1}\n", HERE, "abc")
    assert check_changes(Path("run"), {"config": "model: {width: 4, old: 2}\near: {steps: 3}\n"}, now, False) == []
    assert check_changes(Path("run"), {"config": ""}, now, False) == []
    told = check_changes(Path("run"), record("{}", HERE, "f" * 64), now, True)
    assert told == ['the index of data.path "ffffffffffff" -> "abc"']
    threads = record("{}", Ran(**{**vars(HERE), "threads": 8}), "abc")
    assert check_changes(Path("run"), threads, now, False) == ["threads 8 -> 2"]


def test_weights_to_start_from_are_the_run_s_own(brief, begun):
    save_network(begun / "init.safetensors", HyperLipsBase(tiny(brief, begun).model))
    with pytest.raises(InputError, match='other settings: the weights of --init "" -> "[0-9a-f]{12}"'):
        train(tiny(brief, begun, *QUICK), begun / "init.safetensors")
    with pytest.raises(InputError, match="--init .*gone.safetensors cannot be read"):
        train(tiny(brief, begun, *QUICK), begun / "gone.safetensors")


def test_every_config_is_kept(brief, begun):
    for lr in ("1e-5", "2e-5", "3e-5"):  # all from the same step
        train(tiny(brief, begun, *QUICK, "run.steps=2", f"optim.lr={lr}"))
    names = sorted(path.name for path in (begun / "tiny").glob("config*.yaml"))
    assert names == ["config.yaml", "config_00000002.yaml", "config_00000002_1.yaml", "config_00000002_2.yaml"]
    rates = [load_config(TrainBaseConfig, begun / "tiny" / name).optim.lr for name in names]
    assert rates == [3e-5, 5e-4, 1e-5, 2e-5]


def test_a_damaged_checkpoint_is_told_and_the_one_before_taken(brief, begun, capsys):
    newest = begun / "tiny" / "checkpoints" / "step_00000002.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    train(tiny(brief, begun, *QUICK, "run.steps=2"))
    out = capsys.readouterr().out
    assert "step_00000002.pt is damaged (RuntimeError): the run goes on from step_00000000.pt" in out
    assert "from step 0; " in out and weights(begun, 2)["step"] == 2
    assert newest.with_suffix(".damaged").is_file()


def test_one_writes_to_a_run_folder_and_a_killed_one_leaves_no_lock(brief, tmp_path):
    script = (
        "import time; from engine.progress import Progress; original = Progress.log\n"
        "def log(self, done, *rest):\n    original(self, done, *rest); print('stepped', flush=True); time.sleep(60)\n"
        "Progress.log = log\n"
    )
    values = [*QUICK, "data.workers=1"]
    writer = subprocess.Popen(
        [sys.executable, "-c", script + command(brief, tmp_path, *values)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert any("stepped" in line for line in writer.stdout)
    config = tiny(brief, tmp_path, *ADVERSARIAL, *values, "run.steps=1")
    elsewhere = tiny(tmp_path / "no data set", tmp_path, *values)  # refused before data are looked at
    with pytest.raises(InputError, match=f"tiny is being written by process {writer.pid} on "):
        train(elsewhere)
    with pytest.raises(InputError, match=f"tiny is being written by process {writer.pid} on .*another run.name"):
        train(config)
    writer.kill()
    writer.wait(30)
    with pytest.raises(InputError, match="no folder .*no data set"):
        train(elsewhere)
    train(config)
    assert weights(tmp_path, 1)["step"] == 1


def test_a_run_that_never_began_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="no folder .*no data set"):
        train(tiny(tmp_path / "no data set", tmp_path / "runs"))
    assert not list((tmp_path / "runs").iterdir())


def test_repainted_stage_1_faces_are_another_data_set(painted, tmp_path):
    data = shutil.copytree(painted, tmp_path / "data")
    config = load_config(
        TrainHRConfig,
        ROOT / "configs" / "hr_tiny.yaml",
        [
            f"data.path={data}",
            f"run.folder={tmp_path}",
            "loss.perceptual=0",
            "loss.lip_perceptual=0",
            "run.steps=1",
            "loss.sync=0",
            "precision=float32",
            "layout=contiguous",
        ],
    )
    train_hr(config)
    (start,) = yaml.safe_load((tmp_path / "hr_tiny" / "ran.yaml").read_text())
    assert start["painter"] == load_clips(data, "train")[0].painted_by
    (validated,) = load_clips(data, "val")
    track = validated.path("base_track.npz")
    own = track.read_bytes()
    np.savez(track, **{**np.load(track), "painter": "somebody else"})
    with pytest.raises(InputError, match="2 different weights painted its stage-1 faces"):
        train_hr(config)
    track.write_bytes(own)
    save_network(tmp_path / "other.safetensors", HyperLipsBase())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "preprocess.generate_base",
            "--checkpoint",
            tmp_path / "other.safetensors",
            "--data",
            data,
        ],
        cwd=ROOT,
        check=True,
    )
    with pytest.raises(InputError, match="other settings: what painted its stage-1 faces"):
        train_hr(config)
