"""Two processes train what one does; BatchNorm in eval, since its statistics over processes exist on CUDA only."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from datasets.clips import load_clips
from datasets.config import DataConfig, SyncDataConfig
from engine.config import load_config
from engine.distributed import World, distributed
from engine.options import SyncValidationConfig, TrainBaseConfig, TrainHRConfig, TrainSyncConfig
from engine.train_base import train as train_base
from engine.train_hr import train as train_hr
from engine.train_syncnet import SyncValidator
from engine.train_syncnet import train as train_syncnet
from engine.validate import LipValidator
from errors import InputError
from losses.gather import alone, gather
from models.checkpoint import load_network, save_network
from models.config import SyncConfig
from models.hyperlips import HyperLipsBase
from models.syncnet import SyncExpert

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parent.parent
ADVERSARIAL = [
    "loss.adversarial=0.1",
    "loss.adversarial_from=1",
    "loss.adversarial_ramp=0",
    "loss.discriminator_width=2",
]
KINDS = {
    "base": (TrainBaseConfig, train_base, "tiny.yaml", ["audio_pretrain.steps=1", *ADVERSARIAL]),
    "hr": (TrainHRConfig, train_hr, "hr_tiny.yaml", ["loss.lip_perceptual=0", "validation.film=5", *ADVERSARIAL]),
    "sync": (TrainSyncConfig, train_syncnet, "syncnet_tiny.yaml", []),
}

RUN = """
import os, sys
from test_distributed import KINDS, run
for kind, port in zip(KINDS, os.environ["PORTS"].split(), strict=True):
    os.environ["MASTER_PORT"] = port
    run(kind, *sys.argv[1:])
"""


def run(kind: str, data: str, folder: str, *others: str) -> None:
    schema, train, file, overrides = KINDS[kind]
    train(
        load_config(
            schema,
            ROOT / "configs" / file,
            [
                f"data.path={data}",
                f"run.folder={folder}",
                f"run.name={kind}",
                "run.batch=4",
                "run.freeze_bn=true",
                "run.validate_start=true",
                "run.log_every=4",
                "precision=float32",
                "layout=contiguous",
                *overrides,
                *others,
            ],
        )
    )


@contextmanager
def stores(count: int) -> Iterator[list[str]]:
    """Ports at which processes can meet, held from here, as torchrun does it: nobody else takes them meanwhile."""
    held = [TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(count)]
    yield [str(store.port) for store in held]


def in_processes(script: str, *arguments: object, codes: Sequence[int] = (0, 0), groups: int = 1) -> list[str]:
    """Run a script in as many processes as there are exit `codes` to expect, with the environment that torchrun gives
    them; returns what each printed. groups: how often they meet, each time at another one of PORTS.
    """
    with stores(groups) as ports:
        return _in_processes(script, arguments, codes, ports)


def _in_processes(script: str, arguments: Sequence[object], codes: Sequence[int], ports: list[str]) -> list[str]:
    count = len(codes)
    shared = os.environ | {
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": ports[0],
        "PORTS": " ".join(ports),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()  # where another one waits for ever
    assert [process.returncode for process in processes] == list(codes), "\n".join(error for _, error in outputs)
    return [printed for printed, _ in outputs]


@pytest.fixture(scope="module")
def both(painted, tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """Folders of the same two runs in one process and in two, and what the two printed."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    outputs = in_processes(RUN, painted, two, groups=len(KINDS))
    for kind in KINDS:
        run(kind, str(painted), str(one))
    return one, two, outputs


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(both, kind):
    first, one, two = (
        torch.load(folder / kind / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)
        for folder, step in ((both[0], 2), (both[0], 4), (both[1], 4))
    )
    parts = ["objective"] if kind == "sync" else ["objective", "discriminator"]
    for part in parts:
        for name, value in one[part].items():
            assert torch.allclose(value, two[part][name], atol=1e-4, rtol=0), (part, name)
            if "running_mean" in name:
                assert not value.any()  # frozen
        assert any(not torch.equal(value, first[part][name]) for name, value in one[part].items())
    moments = [
        [state["exp_avg"] for name in run if name.endswith("optimizer") for state in run[name]["state"].values()]
        for run in (one, two)
    ]
    most = max(float(moment.abs().max()) for moment in moments[0])
    for left, right in zip(*moments, strict=True):
        # Averages of gradients, which do not hide a wrong factor behind Adam's own scale; those of biases before a
        # BatchNorm are nothing but rounding.
        assert torch.allclose(left, right, atol=1e-3 * float(left.abs().max()) + 1e-5 * most, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_first_process_prints_and_what_it_logs_is_the_mean(both, kind):
    one, two, outputs = both
    assert "in 2 processes" in outputs[0] and outputs[1] == ""
    lines = [
        [json.loads(line) for line in (folder / kind / "metrics.jsonl").read_text().splitlines()]
        for folder in (one, two)
    ]
    losses = [[line["train/loss"] for line in run if "train/loss" in line] for run in lines]
    assert len(losses[0]) == 1 and losses[1] == pytest.approx(losses[0], rel=1e-4)
    starts = [{**line, "time": 0} for run in lines for line in run if line["step"] == 0 and "val/" in str(line)]
    assert len(starts) == 2 and starts[0] == starts[1]  # the weights are the same there
    samples = [sorted(path.name for path in folder.glob(f"{kind}/samples/*")) for folder in (one, two)]
    assert samples[0] == samples[1] and bool(samples[0]) == (kind != "sync")


def test_gathered_rows_have_the_gradients_of_one_batch_and_gathered_items_their_order():
    script = """
import torch
from engine.distributed import distributed
from errors import InputError
from losses.adversarial import relativistic_discriminator_loss, relativistic_generator_loss
from losses.gather import alone, gather
with distributed("cpu") as world:
    rows = torch.arange(6.0).view(2, 3)[world.rank:world.rank + 1].requires_grad_()
    every = gather(rows)
    assert every.tolist() == [[0, 1, 2], [3, 4, 5]], every
    (every @ every.T)[0, 1].backward()  # the same loss on both: averaged over the processes it counts once
    assert (rows.grad / world.size).tolist() == [[3, 4, 5] if world.rank == 0 else [0, 1, 2]]
    with alone():
        assert gather(rows) is rows
    logits = torch.tensor([[3.0], [0.0]]), torch.tensor([[-2.0], [1.0]])  # real and generated, a row a process
    own = [part[world.rank:world.rank + 1] for part in logits]
    for loss in (relativistic_generator_loss, relativistic_discriminator_loss):
        with alone():
            whole = loss(*logits).item()
        assert abs(world.mean({"loss": loss(*own).item()})["loss"] - whole) < 1e-6
    assert world.any(world.rank == 1, False) == [True, False]
    assert world.mean({"a": float(world.rank), "b": 2.0}) == {"a": 0.5, "b": 2.0}
    assert world.from_main(lambda: world.rank) == 0
    for count in (0, 1, 5):
        items = list("abcde"[:count])
        assert world.gather(lambda: [item.upper() for item in world.own(items)]) == list("ABCDE"[:count])
    def look():
        if world.rank:
            raise InputError("a clip is gone")
        return []
    try:
        world.gather(look)
    except InputError as error:
        assert str(error) == "a clip is gone"
    else:
        raise AssertionError
"""
    in_processes(script)


def validated(world: World, data: str, weights: str) -> str:
    """All that both validators say of three parts of the val clip, each a clip of its own."""
    (clip,) = load_clips(data, "val")
    clips = [clip.part(5 * number, 5 * number + 25, "val") for number in range(3)]
    for number, part in enumerate(clips):
        part.info = replace(part.info, id=f"part{number}")
    torch.manual_seed(0)
    expert = SyncExpert(SyncConfig.of("light", width=4))
    heard = SyncValidator(clips, SyncDataConfig(data), SyncValidationConfig(clips=0), "whisper", world)
    seen = LipValidator(clips, DataConfig(data), 0, world)
    scores, strip, film = seen(load_network(Path(weights)))
    assert film is not None and scores["mouth_psnr"] > 0
    share = len(range(world.rank, 3, world.size))
    assert len(heard.store.clips) == len(seen.store.clips) == share
    return repr((heard(expert), scores, strip.shape, sha256(strip).hexdigest()))


def test_validation_by_two_processes_equals_that_by_one(data_set, tmp_path):
    """Of three clips; of one clip it does where a training begins, see above."""
    script = """
import sys
from engine.distributed import distributed
from test_distributed import validated
with distributed("cpu") as world:
    print(validated(world, *sys.argv[1:]))
"""
    weights = tmp_path / "base.safetensors"
    torch.manual_seed(1)
    save_network(weights, HyperLipsBase())
    printed = in_processes(script, data_set, weights)
    assert printed == [validated(World(0, 1, torch.device("cpu")), str(data_set), str(weights)) + "\n"] * 2


def digest(weights: Mapping[str, torch.Tensor]) -> str:
    return sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()


def test_every_process_validates_the_weights_of_the_first(data_set, tmp_path):
    """Statistics of BatchNorm, which differ between the processes, included."""
    script = """
import sys
from engine.validate import LipValidator
from test_distributed import digest, run
def look(self, network):
    print("weights", digest(network.state_dict()), flush=True)
    return {"fast_r": 1.0, "articulation": 1.0, "mouth_stlpips": 1.0}, None, None
LipValidator.__call__ = look
run("base", *sys.argv[1:], "run.freeze_bn=false")
"""
    printed = in_processes(script, data_set, tmp_path)
    first, second = ([line for line in text.splitlines() if line.startswith("weights")] for text in printed)
    assert len(first) == 2 and first == second
    saved = torch.load(tmp_path / "base" / "checkpoints" / "step_00000004.pt", weights_only=True)
    assert first[-1] == f"weights {digest(saved['ema']['average'])}"


def test_all_end_where_the_minutes_of_one_are_over(brief, tmp_path):
    """The second process's clock jumps in its second step."""
    script = """
import os, sys
import engine.limits
from engine.ema import Ema
from test_distributed import run
steps, update = [], Ema.update
Ema.update = lambda *inputs: (update(*inputs), steps.append(1))
if os.environ["RANK"] == "1":
    engine.limits.monotonic = lambda: 90.0 * (len(steps) > 1)
run("base", *sys.argv[1:], "run.minutes=1", "run.validate_start=false", "loss.adversarial=0")
print("steps", len(steps))
"""
    printed = in_processes(script, brief, tmp_path)
    assert [text.splitlines()[-1] for text in printed] == ["steps 2"] * 2


def test_who_waits_hears_signals_and_ends_with_a_process_that_is_gone(tmp_path):
    script = """
import os, signal, sys, time
from pathlib import Path
from engine.distributed import distributed
heard = Path(sys.argv[1])
with distributed("cpu") as world:
    signal.signal(signal.SIGALRM, lambda *_: heard.touch())
    if world.main:
        def look():
            while not heard.exists():
                time.sleep(0.01)
            os._exit(3)
    else:
        look = list
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        world.gather(look)
    except RuntimeError:
        sys.exit(4)
"""
    in_processes(script, tmp_path / "heard", codes=[3, 4])


def test_parameters_without_a_gradient_are_looked_for_where_they_are_told_of():
    script = """
import torch
from engine.distributed import distributed
with distributed("cpu") as world:
    parts = torch.nn.ModuleList([torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)])
    parts.forward = lambda x: parts[0](x).sum()
    wrapped = world.wrap(parts, unused=True)
    for _ in range(2):
        wrapped(torch.ones(1, 2)).backward()
    assert parts[0].weight.grad is not None
    assert not world.wrap(torch.nn.Linear(2, 1)).find_unused_parameters
"""
    in_processes(script)


def test_one_process_needs_no_group():
    with distributed("cpu") as world:
        assert (world.rank, world.size, world.main) == (0, 1, True)
        rows = torch.ones(2, 3)
        assert gather(rows) is rows
        with alone():
            assert world.from_main(lambda: 7) == 7


def test_a_cluster_that_speaks_of_one_process_or_leaves_something_out(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with distributed("cpu") as world:
        assert (world.rank, world.size) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="LOCAL_RANK '0', '2', '' in the environment.*by torchrun"), distributed("cpu"):
        pass


def test_a_batch_that_does_not_divide_is_told():
    world = World.__new__(World)
    world.size = 3
    with pytest.raises(InputError, match="run.batch is 32 for 3 processes, expected a multiple"):
        world.share(32)


@pytest.mark.parametrize(
    ("training", "told", "code", "requeued"),
    [
        ("trap 'exit 143' TERM; touch started; while :; do sleep 0.05; done", True, 0, ["requeue 7"]),
        ("trap : TERM; touch started; sleep 0.5; sleep 0.5", True, 0, []),  # had just finished
        ("touch started; exit 2", False, 2, []),
    ],
    ids=["interrupted", "finished", "failed"],
)
def test_slurm_script_requeues_what_was_interrupted(tmp_path, training, told, code, requeued):
    """With stand-ins for Slurm's commands: srun runs the given shell line instead of the training."""
    commands = {
        "srun": f'echo "$@" >> called\n{training}',
        "scontrol": '[ "$1" = show ] && echo node1 node2 || echo "$@" >> requeued',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "PYTHON": "python",
    }
    job = subprocess.Popen(
        ["bash", ROOT / "scripts" / "train.slurm", "train_base.py", "--config", "x.yaml"], env=environment
    )
    until = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    if told:
        job.terminate()
    assert job.wait(60) == code
    asked = tmp_path / "requeued"
    assert (asked.read_text().splitlines() if asked.exists() else []) == requeued
    assert "--nnodes 2 --nproc-per-node 4" in (tmp_path / "called").read_text()
    assert (tmp_path / "called").read_text().endswith("train_base.py --config x.yaml\n")
