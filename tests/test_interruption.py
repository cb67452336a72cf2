"""Runs that end early: killed, told to stop, out of disk, with a loss that is not finite; and what the same command
makes of them.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_training import FIXED, ROOT, tiny, weights

from engine.runlog import RunLog
from engine.running import running
from engine.train_base import BaseObjective, train
from errors import InputError
from models.checkpoint import load_network
from models.hyperlips import HyperLipsBase

pytestmark = pytest.mark.usefixtures("one_thread")
ADVERSARIAL = ["loss.adversarial=0.1", "loss.adversarial_from=1", "loss.discriminator_width=2"]


@pytest.fixture(scope="module")
def whole(brief, tmp_path_factory) -> dict:
    """The state after four steps without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny(brief, folder, *ADVERSARIAL))
    return weights(folder, 4)


def command(data: Path, folder: Path, *overrides: str) -> str:
    """The call of train as a script of its own, to be put after a patch that interrupts it."""
    values = [f"data.path={data}", f"run.folder={folder}", *FIXED, *ADVERSARIAL, *overrides]
    return (
        "import torch; torch.set_num_threads(1)\n"
        "from engine.config import load_config; from errors import run_cli; import engine.train_base as t\n"
        f"run_cli(lambda: t.train(load_config(t.TrainBaseConfig, 'configs/tiny.yaml', {values!r})), tidy=False)"
    )


def run(script: str) -> subprocess.CompletedProcess:
    """In a process group of its own."""
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )


def assert_same_state(left: dict, right: dict) -> None:
    assert left["step"] == right["step"]
    for name in ("objective", "discriminator"):
        assert all(torch.equal(left[name][key], right[name][key]) for key in left[name])
    assert all(torch.equal(value, right["ema"]["average"][key]) for key, value in left["ema"]["average"].items())
    for name in ("optimizer", "discriminator_optimizer"):
        for key, state in left[name]["state"].items():
            assert all(torch.equal(value, right[name]["state"][key][part]) for part, value in state.items())


def test_two_steps_and_two_more_equal_four(brief, tmp_path, whole):
    patch = (
        "import os; from engine.state import RunState; original = RunState.save\n"
        "def save(self, step, record):\n    original(self, step, record)\n    if step == 2: os.kill(os.getpid(), 9)\n"
        "RunState.save = save\n"
    )
    killed = run(patch + command(brief, tmp_path))
    assert killed.returncode == -9
    train(tiny(brief, tmp_path, *ADVERSARIAL))
    assert_same_state(whole, weights(tmp_path, 4))


def test_sigterm_saves_and_the_same_command_goes_on_exactly(brief, tmp_path, whole):
    """The whole process group is told, loader workers too, as torchrun, Slurm and Ctrl-C do it."""
    patch = (
        "import os, signal; from engine.progress import Progress; original = Progress.log\n"
        "def log(self, done, *rest):\n    original(self, done, *rest)\n"
        "    if done == 2: os.killpg(0, signal.SIGTERM)\n"
        "Progress.log = log\n"
    )
    stopped = run(patch + command(brief, tmp_path, "data.workers=1"))
    assert stopped.returncode == 143, stopped.stderr
    assert "stopped by a signal" in stopped.stdout and "step_00000003.pt; the same command resumes" in stopped.stdout
    assert not stopped.stderr.count("Traceback")
    train(tiny(brief, tmp_path, *ADVERSARIAL))
    assert_same_state(whole, weights(tmp_path, 4))


def test_a_signal_during_validation_stops_at_once_and_resuming_validates(brief, tmp_path):
    patch = (
        "import os, signal; from engine.validate import LipValidator\n"
        "LipValidator.__call__ = lambda *inputs: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    short = ["audio_pretrain.steps=0", "run.steps=1"]
    stopped = run(patch + command(brief, tmp_path, *short))
    assert stopped.returncode == 143, stopped.stderr
    assert not (tmp_path / "tiny" / "best.safetensors").exists()
    config = tiny(brief, tmp_path, *ADVERSARIAL, *short)
    assert isinstance(load_network(train(config)), HyperLipsBase)
    written = (tmp_path / "tiny" / "best.safetensors").stat().st_mtime_ns
    assert train(config).stat().st_mtime_ns == written  # a finished run has nothing left to do


def test_the_same_signal_comes_twice_and_a_later_one_ends_the_process():
    """An echo is the same request; after two seconds it is another one, which acts as it always does."""
    script = (
        "import os, signal; from types import SimpleNamespace; from engine import stop\n"
        "now = [0.0]; stop.time = SimpleNamespace(monotonic=lambda: now[0])\n"
        "def tell(seconds): now[0] = seconds; os.kill(os.getpid(), signal.SIGTERM)\n"
        "with stop.StopSignals() as signals:\n"
        "    tell(0); tell(1.9); print(signals.seen, signals.stopped().code, flush=True)\n"
        "    tell(2.1); print('survived')"
    )
    told = run(script)
    assert (told.returncode, told.stdout) == (-signal.SIGTERM, "True 143\n"), told.stderr


def test_a_full_disk_ends_in_one_line_and_keeps_the_last_checkpoint(brief, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    config = tiny(brief, tmp_path, "audio_pretrain.steps=0")
    message = "step_00000002.pt could not be written .*No space left.*free space"
    with monkeypatch.context() as patch, pytest.raises(InputError, match=message):
        patch.setattr(torch, "save", full)
        train(config)
    assert [path.name for path in (tmp_path / "tiny" / "checkpoints").iterdir()] == ["step_00000000.pt"]
    with monkeypatch.context() as patch, pytest.raises(InputError, match="is full; the last checkpoint is kept"):
        patch.setattr(
            RunLog, "scalars", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        train(config)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_used_up_quota_is_a_full_disk(tmp_path, number):
    with pytest.raises(InputError, match="is full; the last checkpoint is kept"), running(tiny(tmp_path, tmp_path)):
        raise OSError(number, os.strerror(number))


def test_best_weights_that_could_not_be_written_are_written_by_the_same_command(brief, tmp_path, monkeypatch):
    config = tiny(brief, tmp_path, "audio_pretrain.steps=0", "run.steps=1")
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match="best.safetensors could not be written .*No space left"),
    ):
        patch.setattr(
            "engine.best.save_network",
            lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
        )
        train(config)
    assert not (tmp_path / "tiny" / "best.safetensors").exists()
    assert isinstance(load_network(train(config)), HyperLipsBase)


def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_checkpoint(brief, tmp_path, monkeypatch):
    forward = BaseObjective.forward

    def broken(self, batch, step):
        loss, terms = forward(self, batch, step)
        return (loss, terms) if step < 3 else (loss * float("nan"), terms | {"mouth": terms["mouth"] * float("nan")})

    monkeypatch.setattr(BaseObjective, "forward", broken)
    with pytest.raises(InputError, match="step 3: loss term mouth is not finite; the last checkpoint is kept"):
        train(tiny(brief, tmp_path, "audio_pretrain.steps=0"))
    state = weights(tmp_path, 2)
    assert all(torch.isfinite(value).all() for value in state["objective"].values())
    assert not (tmp_path / "tiny" / "checkpoints" / "step_00000003.pt").exists()


def test_compiled_parts_and_frozen_norms_train_the_same_weights(brief, tmp_path, monkeypatch):
    """Traced by torch.compile, run by its eager backend: compiling for real takes minutes."""
    compiled = []

    def traced(self, dynamic):
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager", dynamic=dynamic)

    plain, other = (
        ["audio_pretrain.steps=0", "run.freeze_bn=true", "run.steps=2", f"run.name={name}"]
        for name in ("plain", "compiled")
    )
    train(tiny(brief, tmp_path, *plain))
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    train(tiny(brief, tmp_path, *other, "compile=true"))
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step_00000002.pt", weights_only=True)["objective"]
        for name in ("plain", "compiled")
    ]
    assert "FaceDecoder" in compiled and "HyperNet" in compiled and "ModuleList" not in compiled
    assert states[0].keys() == states[1].keys()
    assert all(torch.allclose(value, states[1][name], atol=1e-5) for name, value in states[0].items())
    norms = [value for name, value in states[0].items() if name.endswith("running_mean")]
    assert norms and not any(value.any() for value in norms)
