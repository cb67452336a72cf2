"""Whole small programs on a CUDA that is not there, see fake_cuda: nothing is mixed, and no training step waits for the
device but where it logs. Nothing here says anything about a real card.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, FakeCuda, fake_cuda

from engine.config import load_config
from engine.options import InferenceConfig, TrainBaseConfig, TrainHRConfig
from engine.pipeline import LipSync
from engine.progress import Progress
from engine.train_base import train as train_base
from engine.train_hr import train as train_hr
from models.checkpoint import save_network
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
    """Seven steps, which log at the fourth, with every term."""
    return [
        f"data.path={data}",
        "data.window=5",
        f"run.folder={folder}",
        "run.device=cuda",
        "run.steps=7",
        "run.log_every=4",
        "run.checkpoint_every=100",
        "run.validate_every=100",
        "loss.discriminator_width=2",
        f"loss.sync_expert={expert}",
        "layout=contiguous",
        *TERMS,
        *more,
    ]


def only_the_log_waits(steps: list[tuple[Counter, int]], uploads: int) -> None:
    waits = [waited for waited, _ in steps]
    assert len(steps) == 6  # the seventh validates, and the run ends in it
    assert [number for number, waited in enumerate(waits, 1) if waited] == [4], waits
    assert sum(waits[3].values()) <= 3, waits[3]
    assert {count for _, count in steps} == {uploads}


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_stage_one_trains_without_waiting(precision, data_set, expert, tmp_path, steps):
    train_base(
        load_config(
            TrainBaseConfig,
            ROOT / "configs" / "tiny.yaml",
            options(data_set, tmp_path, expert, f"precision={precision}"),
        )
    )
    only_the_log_waits(steps, 8)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stage_two_trains_without_waiting(precision, painted, expert, tmp_path, steps):
    train_hr(
        load_config(
            TrainHRConfig,
            ROOT / "configs" / "hr_tiny.yaml",
            options(painted, tmp_path, expert, "validation.frames=10", f"precision={precision}"),
        )
    )
    only_the_log_waits(steps, 6)
