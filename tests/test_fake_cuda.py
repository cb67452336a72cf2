"""Whole small programs on a CUDA that is not there, see fake_cuda: nothing is mixed, and no training step waits for the
device but where it logs. Nothing here says anything about a real card.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import voice
from fake_cuda import CUDA, FakeCuda, fake_cuda
from torch import nn

from datasets.clips import load_clips
from datasets.loader import loader_workers
from engine import precision
from engine.config import load_config
from engine.device import pick_device
from engine.finite import Finite, LossScale
from engine.optimizers import apply_step, make_optimizer
from engine.options import InferenceConfig, OptimConfig, TrainBaseConfig, TrainHRConfig
from engine.pipeline import LipSync
from engine.precision import choose_precision
from engine.progress import Progress
from engine.train_base import BaseObjective
from engine.train_base import train as train_base
from engine.train_hr import train as train_hr
from errors import InputError
from models.checkpoint import read_metadata, save_network
from models.config import BaseConfig, HRConfig, SyncConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from models.syncnet import SyncExpert
from preprocess.base_faces import paint_clips

ROOT = Path(__file__).resolve().parent.parent
TERMS = "loss.sync=0.1", "loss.perceptual=0.1", "loss.adversarial=0.1", "loss.adversarial_from=2"


@pytest.fixture
def card(monkeypatch) -> Iterator[FakeCuda]:
    with fake_cuda(monkeypatch) as mode:
        yield mode


@pytest.fixture
def steps(card, monkeypatch) -> list[tuple[Counter, int]]:
    """What each training step waited for, and how much it uploaded, once a training has run."""
    seen: list[tuple[Counter, int]] = []
    batches = Progress.batches

    def watched(self, loader, first):
        card.waits.clear()
        card.uploads = 0
        for step, batch in batches(self, loader, first):
            yield step, batch
            seen.append((Counter(card.waits), card.uploads))
            card.waits.clear()
            card.uploads = 0

    monkeypatch.setattr(Progress, "batches", watched)
    return seen


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("expert") / "expert.safetensors"
    save_network(path, SyncExpert(SyncConfig.of("light", width=4)))
    return path


def options(data: Path, folder: Path, expert: Path, *more: str) -> list[str]:
    """Five steps, which log at the third, with every term."""
    return [
        f"data.path={data}",
        "data.window=5",
        f"run.folder={folder}",
        "run.device=cuda",
        "run.steps=5",
        "run.log_every=3",
        "run.checkpoint_every=100",
        "run.validate_every=100",
        "loss.discriminator_width=2",
        f"loss.sync_expert={expert}",
        "layout=contiguous",
        *TERMS,
        *more,
    ]


def only_the_log_waits(steps: list[tuple[Counter, int]], uploads: int) -> None:
    """uploads: parts of a batch, of which each is one."""
    assert len(steps) == 4  # the fifth validates, and the run ends in it
    (_, first), *steps = steps  # in which the judges move
    waits = [waited for waited, _ in steps]
    assert [number for number, waited in enumerate(waits, 2) if waited] == [3], waits
    assert sum(waits[1].values()) <= 2, waits[1]  # what is not finite, and the means
    assert {count for _, count in steps} == {uploads}


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_stage_one_trains_without_waiting(precision, brief, expert, tmp_path, steps):
    given = options(brief, tmp_path, expert, f"precision={precision}")
    best = train_base(load_config(TrainBaseConfig, ROOT / "configs" / "tiny.yaml", given))
    only_the_log_waits(steps, 8)
    assert read_metadata(best)["step"] == "5"


def test_what_is_not_finite_is_told_before_it_is_saved(data_set, tmp_path, card, monkeypatch):
    """At the checkpoint, long before the next log, and as the step in which it was."""
    forward = BaseObjective.forward

    def broken(self, batch, step):
        loss, terms = forward(self, batch, step)
        return (loss, terms) if step != 1 else (loss * torch.nan, terms | {"mouth": terms["mouth"] * torch.nan})

    monkeypatch.setattr(BaseObjective, "forward", broken)
    given = [f"data.path={data_set}", f"run.folder={tmp_path}", "run.device=cuda", "precision=float32"]
    given += ["layout=contiguous", "run.log_every=100", "run.checkpoint_every=3", "audio_pretrain.steps=1"]
    with pytest.raises(InputError, match="step 1: loss term mouth, total is not finite; the last checkpoint is kept"):
        train_base(load_config(TrainBaseConfig, ROOT / "configs" / "tiny.yaml", given))
    kept = [path.name for path in (tmp_path / "tiny" / "checkpoints").iterdir()]
    assert kept == ["step_00000000.pt"]


def test_stage_two_trains_without_waiting(painted, expert, tmp_path, steps):
    given = options(painted, tmp_path, expert, "validation.frames=5", "validation.film=5", "precision=float32")
    best = train_hr(load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", given))
    only_the_log_waits(steps, 6)
    assert read_metadata(best)["step"] == "5"


def test_stage_one_paints_a_data_set(data_set, tmp_path, card):
    checkpoint, data = tmp_path / "base.safetensors", shutil.copytree(data_set, tmp_path / "data")
    save_network(checkpoint, HyperLipsBase(BaseConfig.of("light", hyper_width=16)))
    clips = load_clips(data, "val")
    paint_clips(clips, data, checkpoint, "cuda")
    assert clips[0].base_landmarks.shape == (clips[0].info.frames, 478, 2)
    assert set(card.waits) == {"to", "cpu"}, card.waits  # the networks move, and what is painted comes back


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_inference_makes_a_video(precision, talking_clip, tmp_path, card, monkeypatch):
    """In one thread: the mode sees no other."""
    monkeypatch.setattr("engine.drive.ahead", iter)
    monkeypatch.setattr("engine.precision.CACHE", tmp_path / "precision.json")
    save_network(tmp_path / "base.safetensors", HyperLipsBase(BaseConfig.of("light", hyper_width=16)))
    save_network(tmp_path / "hr.safetensors", HRDecoder(HRConfig.of("light", scale=1, width=8)))
    engine = LipSync(
        InferenceConfig(
            base=str(tmp_path / "base.safetensors"),
            hr=str(tmp_path / "hr.safetensors"),
            device="cuda",
            precision=precision,
            layout="contiguous" if precision == "bf16" else "auto",
        )
    )
    face = engine.prepare(talking_clip)
    assert all(one.products == precision for one in engine.precision)  # measures the layout of float32
    card.waits.clear()
    frames = [frame.rgb() for frame, _ in engine.drive(face, voice(0.64))]
    assert len(frames) == 16 and frames[0].shape == (288, 360, 3)
    # Of two batches both stages' pictures, landmarks and presence; face.landmark_net's pictures wait on their way.
    assert card.waits == {"cpu": 8, "to": 2}, card.waits


def test_planted_faults_are_caught(card):
    here, there = torch.rand(3, 4), torch.rand(3, 4).to("cuda")
    number = there.sum()
    assert there.device == CUDA and (there * torch.tensor(2.0)).is_cuda and not there.cpu().is_cuda
    card.waits.clear()
    for mixed in (lambda: there + here, lambda: torch.cat([there, torch.zeros(1, 4)]), lambda: nn.Linear(4, 4)(there)):
        with pytest.raises(AssertionError, match="mixes tensors"):
            mixed()
    for read in (lambda: there.numpy(), lambda: np.asarray(there), lambda: np.array(there)):
        with pytest.raises(TypeError, match="numpy cannot read"):
            read()
    assert not card.waits
    asks: dict[str, Callable[[], object]] = {
        "item": number.item,
        "tolist": there.tolist,
        "cpu": there.cpu,
        "to": lambda: there.to("cpu", non_blocking=True),
        "__bool__": lambda: 1 if number > 1 else 0,
        "__float__": lambda: float(number),
        "nonzero": lambda: torch.nonzero(there),
        "__getitem__": lambda: there[there > 0.5],
        "repeat_interleave": lambda: there.repeat_interleave(torch.ones(3, dtype=torch.int64).to("cuda"), 0),
    }
    for name, ask in asks.items():
        card.waits.clear()
        ask()
        assert card.waits[name] >= 1, name
    card.waits.clear()
    there[there > 0.5] = 0.0
    there.masked_fill(there > 0.5, 0.0)
    assert not card.waits


def test_uploads_are_counted_and_wait_unless_they_are_pinned(card):
    for move, waits in (
        (lambda: torch.ones(2).to("cuda"), 1),
        (lambda: torch.ones(2).to("cuda", non_blocking=True), 1),
        (lambda: torch.ones(2).pin_memory().to("cuda", non_blocking=True), 0),
        (lambda: torch.tensor([1, 2], device="cuda"), 1),
        (lambda: torch.zeros(2, device="cuda").copy_(torch.ones(2)), 1),
    ):
        card.waits.clear()
        card.uploads = 0
        assert move().device == CUDA and (card.uploads, sum(card.waits.values())) == (1, waits)
    card.uploads = 0
    assert torch.zeros(2, device="cuda").to("cuda").is_cuda and not card.uploads


def test_a_step_of_the_device_is_that_of_the_cpu_and_tells_what_is_not_finite(card):
    """Clipped or not, with the factor of an fp16 loss or without: the same weights as with every value read."""
    for large in (0.01, 100.0):
        for scaled in (False, True):
            here, there = (nn.Parameter(torch.tensor([1.0, 2.0]).to(device)) for device in ("cpu", "cuda"))
            notes, scale = Finite(), LossScale(CUDA) if scaled else None
            for parameter, given in ((here, {}), (there, {"notes": notes, "scale": scale})):
                optimizer = make_optimizer([parameter], OptimConfig())
                for step in range(3):
                    loss = (parameter * torch.tensor([large, -large]).to(parameter.device)).square().sum()
                    apply_step(loss, optimizer, 0.1, 1.0, step, **given)
            assert notes.read() is None
            assert torch.allclose(here, there.detach().cpu(), atol=1e-6)
    before = there.detach().cpu()
    apply_step((there * torch.inf).sum(), optimizer, 0.1, 1.0, 7, notes)
    assert torch.equal(before, there.detach().cpu())
    assert "step 7: the gradient is not finite" in str(notes.read()) and notes.read() is None


def test_an_overflow_halves_the_factor_until_it_is_a_fault(card):
    parameter, notes, scale = nn.Parameter(torch.ones(2).to("cuda")), Finite(), LossScale(CUDA)
    optimizer = make_optimizer([parameter], OptimConfig())
    for step in range(16):  # from 2 ** 16 to 1
        apply_step((parameter * 1e38).sum() * 1e2, optimizer, 0.1, 1.0, step, notes, scale)
    assert scale.state() == [1.0, 0] and notes.read() is None
    apply_step((parameter * 1e38).sum() * 1e2, optimizer, 0.1, 1.0, 16, notes, scale)
    assert "step 16: the gradient" in str(notes.read()) and parameter.tolist() == [1, 1]
    other = LossScale(CUDA)
    other.load(scale.state())
    assert other.state() == scale.state()


@pytest.mark.parametrize(
    "capability, built, runs",
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((8, 6), ["sm_75", "sm_80"], True),
        ((9, 0), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((12, 0), ["sm_90", "sm_120"], True),
        ((9, 0), ["gfx90a"], True),
    ],
)
def test_a_card_that_torch_was_not_built_for_is_told(capability, built, runs, card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        assert pick_device("auto") == torch.device("cuda")
        return
    with pytest.raises(InputError, match=rf"capability {capability[0]}\.{capability[1]}.*was built for {built[0]}"):
        pick_device("auto")


def test_cards_without_bf16_units_try_fp16(card, monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    tried: list[tuple[str, str]] = []
    for capability in ((7, 5), (6, 1)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, now=capability: now)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_, now=capability: str(now))
        tried.clear()
        choose_precision("auto", nn.Conv2d(3, 3, 3).to("cuda"), lambda one: tried.append(one.products), "test")
        assert set(tried) == ({"float32", "fp16"} if capability[0] == 7 else {"float32"})
    with pytest.raises(InputError, match="fp16 is for CUDA"):
        choose_precision("fp16", nn.Conv2d(3, 3, 3), lambda one: None, "test")


def test_loader_workers_take_the_cores_of_a_gpu(monkeypatch):
    monkeypatch.setattr("datasets.loader.cores", lambda: 32)
    assert loader_workers(None, torch.device("cpu")) == 1 and loader_workers(3, CUDA) == 3
    assert loader_workers(None, CUDA) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert loader_workers(None, CUDA) == 7
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert loader_workers(None, CUDA) == 1
