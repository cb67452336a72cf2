"""Precision and layout: the fastest is taken, remembered, and leaves no trace in training."""

import pytest
import torch
from torch import nn

from engine import precision
from engine.objective import Frozen
from engine.precision import Precision, choose_precision, training_precision
from models.config import BaseConfig
from models.hyperlips import HyperLipsBase
from models.perceptual import load_perceptual

LAST = Precision("float32", "channels_last")


def test_the_fastest_is_taken_and_remembered(tmp_path, monkeypatch, pass_by):
    monkeypatch.setattr(precision, "CACHE", tmp_path / "cache" / "precision.json")
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    network, measured = nn.Conv2d(3, 3, 3), []

    def work(candidate: Precision) -> None:
        measured.append(candidate)
        pass_by(1 if candidate == LAST else 1.1)

    assert choose_precision("auto", network, work, "test") == LAST
    assert set(measured) == {
        Precision(kind, layout) for kind in ("float32", "bf16") for layout in ("contiguous", "channels_last")
    }
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    measured.clear()
    assert choose_precision("auto", network, work, "test") == LAST
    assert measured == []


def test_nothing_is_measured_that_cannot_win(tmp_path, monkeypatch, pass_by):
    """bf16 without units for it, and a candidate whose first run takes twice the best, are not run again."""
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    measured = []

    def work(candidate: Precision) -> None:
        measured.append(candidate)
        pass_by(2.1 if candidate.layout == "channels_last" else 1)

    assert choose_precision("auto", nn.Conv2d(3, 3, 3), work, "test") == precision.FLOAT32
    assert measured.count(precision.FLOAT32) == 4 and measured.count(LAST) == 1 and len(measured) == 5


def test_a_fixed_precision_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")
    assert choose_precision("bf16", nn.Conv2d(3, 3, 3), lambda candidate: None, "test").products == "bf16"
    assert choose_precision("float32", nn.Conv2d(3, 3, 3), lambda candidate: None, "test").half is None
    network, measured = nn.Conv2d(3, 3, 3), []
    assert choose_precision("float32", network, measured.append, "test", "channels_last") == Precision(
        "float32", "channels_last"
    )
    assert network.weight.is_contiguous(memory_format=torch.channels_last) and measured == []


def test_a_cache_that_cannot_be_written_only_measures_again(tmp_path, monkeypatch, measurings):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(precision, "CACHE", tmp_path / "file" / "precision.json")
    first, again = measurings()
    assert first == again > 0


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_weights_that_are_cast_once_are_those_that_autocast_casts(kind):
    precision, cpu = Precision(kind, "contiguous"), torch.device("cpu")
    network = HyperLipsBase(BaseConfig(hyper_width=16, gru="zero_state", reference_encoder="selected")).eval()
    inputs = torch.rand(1, 18, 384), torch.rand(1, 6, 128, 128)
    with precision.autocast(cpu):
        expected = network(*inputs)
        assert torch.equal(precision.cast(network)(*inputs), expected)
    assert network.decoder.ups[0].conv.conv.weight.dtype == precision.half


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_a_judge_is_cast_once_and_kept_as_it_is(kind):
    judge, pictures = Frozen(load_perceptual("stlpips")), torch.rand(2, 1, 3, 40, 40)
    alone = judge(*pictures)
    with Precision(kind, "contiguous").autocast(torch.device("cpu")):
        assert torch.equal(judge(*pictures), judge.network(*pictures))
        assert judge(*pictures).dtype == torch.float32
    assert torch.equal(judge(*pictures), alone)


def test_measuring_a_training_step_leaves_no_gradient_and_no_statistics(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")

    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

        def forward(self, batch, step):
            return self.layers(batch["x"]).float().square().mean(), {}

    objective = Objective().train()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    training_precision("auto", objective, {"x": torch.rand(2, 1, 8, 8)}, torch.device("cpu"))
    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())
    assert all(parameter.grad is None for parameter in objective.parameters())
