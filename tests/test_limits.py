"""A run that ends before its last step: by the clock over all its starts, or when it no longer becomes better."""

import json
import shutil
from types import SimpleNamespace

import pytest
from test_training import tiny, weights

from engine.best import Best
from engine.limits import Clock
from engine.optimizers import freeze
from engine.resume import SCORING
from engine.train_base import train
from errors import InputError
from models.checkpoint import read_metadata
from models.config import BaseConfig, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase

QUICK = ["audio_pretrain.steps=0", "run.validate_every=1", "run.checkpoint_every=1"]


def test_the_time_counts_over_all_starts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("engine.limits.monotonic", lambda: now[0])
    clock = Clock(1, before=20)
    assert clock.seconds == 20  # set-up is not counted
    clock.start()
    now[0] = 110
    assert (clock.seconds, clock.share, clock.over) == (30, 0.5, False)
    assert clock.length(50, 1000) == 100 and clock.length(50, 80) == 80 and clock.length(0, 1000) == 1000
    now[0] = 140
    assert clock.over and clock.share == 1
    endless = Clock(None)
    assert not endless.over and endless.share == 0 and endless.length(5, 1000) == 1000


def test_a_run_whose_time_is_over_ends_validated_and_has_nothing_left(brief, tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("engine.limits.monotonic", lambda: now[0])
    config = tiny(brief, tmp_path, *QUICK, "run.minutes=10", "run.validate_every=100", "run.steps=50")

    def pass_by(done: int, share: float, validated: object) -> None:
        now[0] = 300.0 * done
        assert share == pytest.approx(max(done / 50, min(300 * (done - 1) / 600, 1)))

    best = train(config, show=pass_by)  # the third step begins when ten minutes are over
    assert read_metadata(best)["step"] == "3" and weights(tmp_path, 3)["record"]["seconds"] == 600
    capsys.readouterr()
    assert train(config) == best
    told = capsys.readouterr().out
    assert "nothing left to train within 10 minutes: raise run.minutes" in told and "ended" not in told


def test_a_run_that_no_longer_becomes_better_ends_and_stays_ended(brief, tmp_path, monkeypatch, capsys):
    told = {0: 0.3, 1: 0.1, 2: 0.2, 3: 0.2, 4: 0.0}
    shown = []
    config = tiny(brief, tmp_path, *QUICK, "run.patience=2", "run.validate_start=true", "validation.best=mouth_stlpips")
    original = "engine.validate.ClipScorer.__call__"
    scores = iter(told.values())
    monkeypatch.setattr(original, lambda *_: {"fast_r": 1.0, "articulation": 1.0, "mouth_stlpips": next(scores)})
    for _ in range(2):
        best = train(config, show=lambda done, share, validated: shown.append((done, dict(validated))))
    assert read_metadata(best)["step"] == "1"
    assert weights(tmp_path, 3)["step"] == 3 and not (tmp_path / "tiny" / "checkpoints" / "step_00000004.pt").exists()
    capsys.readouterr()
    train(config)
    assert "ended: 2 validations brought nothing better, see run.patience" in capsys.readouterr().out
    done, validated = shown[-1]
    assert done == 3 and {step: values["mouth_stlpips"] for step, values in validated.items()} == {
        step: told[step] for step in range(4)
    }


def test_a_changed_validation_looks_for_the_best_anew(brief, tmp_path, monkeypatch, capsys):
    told = iter([0.1, 0.3, 0.2, 0.25, 0.27])
    monkeypatch.setattr(
        "engine.validate.ClipScorer.__call__",
        lambda *_: {"fast_r": 1.0, "articulation": 1.0, "mouth_stlpips": next(told)},
    )
    values = [*QUICK, "validation.best=mouth_stlpips", "run.patience=2", "run.validate_every=1"]
    assert read_metadata(train(tiny(brief, tmp_path, *values, "run.steps=1")))["step"] == "1"
    changed = tiny(brief, tmp_path, *values, "validation.clips=0", "run.steps=5")
    assert read_metadata(train(changed))["step"] == "2"
    assert weights(tmp_path, 4) and not (tmp_path / "tiny" / "checkpoints" / "step_00000005.pt").exists()
    assert "scores are others now (validation.clips 1 -> 0)" in capsys.readouterr().out
    assert read_metadata(tmp_path / "tiny" / "best_00000001.safetensors")["mouth_stlpips"] == "0.1"
    assert read_metadata(train(changed))["step"] == "2"  # by now they are the run's own
    assert "scores are others" not in capsys.readouterr().out


def test_the_best_of_stage_1_follows_the_sound_and_moves_as_far_as_real_lips(brief, tmp_path, monkeypatch):
    told = iter(
        [
            {"fast_r": 0.5, "articulation": 2.0},
            {"fast_r": 0.5, "articulation": 0.9},
            {"fast_r": 0.6, "articulation": 0.5},
        ]
    )
    monkeypatch.setattr("engine.validate.ClipScorer.__call__", lambda *_: next(told))
    config = tiny(brief, tmp_path, *QUICK, "run.validate_every=1", "run.steps=3")
    kept = read_metadata(train(config))
    assert kept["step"] == "2" and float(kept["score"]) == pytest.approx(0.45)
    lines = [json.loads(line) for line in (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines()]
    assert [line["val/score"] for line in lines if "val/score" in line] == pytest.approx([0.25, 0.45, 0.3])


def test_a_run_that_begins_anew_does_not_keep_an_earlier_one_s_best(brief, tmp_path, monkeypatch, capsys):
    scores = iter([0.1, 0.3])
    monkeypatch.setattr(
        "engine.validate.ClipScorer.__call__",
        lambda *_: {"fast_r": 1.0, "articulation": 1.0, "mouth_stlpips": next(scores)},
    )
    config = tiny(brief, tmp_path, *QUICK, "validation.best=mouth_stlpips", "run.steps=1")
    train(config)
    shutil.rmtree(tmp_path / "tiny" / "checkpoints")
    assert float(read_metadata(train(config))["mouth_stlpips"]) == 0.3
    assert "the run begins anew: the best of the earlier ones is" in capsys.readouterr().out
    assert float(read_metadata(tmp_path / "tiny" / "best_00000001.safetensors")["mouth_stlpips"]) == 0.1
    for name, score in (("metrics_1", 0.1), ("metrics", 0.3)):
        lines = (tmp_path / "tiny" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line).get("val/mouth_stlpips") for line in lines if "val/" in line] == [score]


def test_scores_that_differ_little_are_told_apart(tmp_path):
    task, log = SimpleNamespace(best="score", lower=False), SimpleNamespace(version="unknown")
    best = Best(tmp_path / "best.safetensors", dict.fromkeys(("config", *SCORING), ""), 0, task, log, begins=True)
    best._keep(HRDecoder(HRConfig(scale=1, width=8)), 1, {"score": 0.1234564})
    assert best._is_best(0.1234565) and best._is_best(0.1234564) and not best._is_best(0.1234563)


def test_parts_that_learn_are_named_or_told():
    network = HyperLipsBase(BaseConfig())
    freeze(network, ["decoder", "rewriters"])
    learning = {name.split(".")[0] for name, value in network.named_parameters() if value.requires_grad}
    assert learning == {"decoder", "rewriters"}
    for wrong in (["decoder", "head"], []):
        with pytest.raises(
            InputError, match=r"optim.parts: found (head|none), expected some of face_encoder, .*decoder"
        ):
            freeze(network, wrong)
