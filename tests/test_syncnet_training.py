"""The sync expert's training: losses by hand, samples, the offset estimate, exact resume, warnings when it is stuck."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import samples
from loud import Loud
from torch.utils.data import default_collate

import metrics.sync
from datasets.clips import load_clips
from datasets.config import SyncAugmentConfig, SyncDataConfig
from datasets.syncnet import SyncDataset
from engine.config import load_config
from engine.distributed import World
from engine.options import SyncValidationConfig, TrainSyncConfig
from engine.state import RunState
from engine.train_syncnet import ChanceWatch, SyncObjective, SyncValidator, train
from errors import InputError
from losses.sync import candidates, contrastive, contrastive_chance, cosine_bce, out_of_sync, ranked_right
from media.audio import write_flac
from metrics.scorers import Batch, ClipContext
from metrics.sync import ExpertScore
from models.checkpoint import load_network, read_metadata, save_network
from models.config import HRConfig, SyncConfig
from models.hr_decoder import HRDecoder
from models.syncnet import SyncExpert
from speech.offset import clip_vectors, estimate_offset
from speech.windows import sound_windows

ROOT = Path(__file__).resolve().parent.parent
PLAIN = SyncAugmentConfig(flip=0, colour=0)


def tiny(data: Path, folder: Path, *overrides: str) -> TrainSyncConfig:
    return load_config(
        TrainSyncConfig,
        ROOT / "configs" / "syncnet_tiny.yaml",
        [f"data.path={data}", f"run.folder={folder}", "precision=float32", "layout=contiguous", *overrides],
    )


def weights(folder: Path, step: int) -> dict:
    return torch.load(folder / "syncnet_tiny" / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)


def made_up_batch(config: TrainSyncConfig, clips: int = 3) -> dict[str, torch.Tensor]:
    """Noise in the form of collated SyncDataset items."""
    generator = torch.Generator().manual_seed(0)
    windows, heard = config.data.windows, config.data.windows + config.data.sounds
    shape = (1, 80, 16) if config.model.audio == "mel" else (config.model.audio_window, 384)
    return {
        "frames": torch.randint(0, 256, (clips, windows, 15, 64, 128), dtype=torch.uint8, generator=generator),
        "audio": torch.randn(clips, heard, *shape, generator=generator),
        "starts": torch.arange(heard).expand(clips, -1) * 3,
        "clip": torch.arange(clips),
    }


def test_who_counts_as_out_of_sync_by_hand():
    clips, starts = torch.tensor([7, 7, 8]), torch.tensor([0, 5, 1])
    sound_clips, sound_starts = torch.tensor([7, 7, 8, 7]), torch.tensor([0, 5, 1, 2])
    hard = out_of_sync(clips, starts, sound_clips, sound_starts, 3)
    assert hard.tolist() == [[False, True, False, False], [True, False, False, True], [False] * 4]
    # The sound two frames away from the first face is neither right nor wrong for it.
    assert candidates(clips, sound_clips, hard).tolist() == [[True, True, True, False], [True] * 4, [True] * 4]


def test_contrastive_loss_by_hand():
    cosines = torch.tensor([[0.9, 0.1, 0.5], [0.3, 0.7, 0.2]])
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    e = math.exp
    pick_sound = -(math.log(e(9) / (e(9) + e(1))) + math.log(e(7) / (e(3) + e(7) + e(2)))) / 2
    pick_face = -(math.log(e(9) / (e(9) + e(3))) + math.log(e(7) / (e(1) + e(7)))) / 2
    assert contrastive(cosines, allowed, 10.0).item() == pytest.approx((pick_sound + pick_face) / 2, rel=1e-5)


def test_chance_is_the_loss_of_equal_cosines():
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    by_hand = ((math.log(2) + math.log(3)) / 2 + math.log(2)) / 2
    assert contrastive_chance(allowed).item() == pytest.approx(by_hand)
    assert contrastive(torch.full((2, 3), 0.4), allowed, 10.0).item() == pytest.approx(by_hand)
    assert contrastive_chance(torch.ones(8, 8, dtype=torch.bool)).item() == pytest.approx(math.log(8))


def test_bce_by_hand():
    loss = cosine_bce(torch.tensor([0.8, 0.5]), torch.tensor([0.1, 0.5]))
    assert loss.item() == pytest.approx(-(math.log(0.8) + math.log(0.5) + math.log(0.9) + math.log(0.5)) / 4, rel=1e-5)
    assert cosine_bce(torch.full((4,), 0.5), torch.full((4,), 0.5)).item() == pytest.approx(math.log(2))
    assert torch.isfinite(cosine_bce(torch.tensor([0.0]), torch.tensor([1.0000001])))


def test_ranking_by_hand():
    cosines = torch.tensor([[0.9, 0.2, 0.9], [0.8, 0.1, 0.3]])
    rivals = torch.tensor([[False, True, True], [True, False, True]])
    assert ranked_right(cosines, torch.tensor([0.9, 0.5]), rivals).item() == pytest.approx((1 + 0.5 + 0 + 1) / 4)


@pytest.mark.parametrize("overrides", [[], ["loss.kind=bce", "model.audio=mel"]], ids=["contrastive", "bce-mel"])
def test_gradient_reaches_every_trainable_parameter(overrides):
    torch.manual_seed(0)
    config = tiny(Path("unused"), Path("unused"), *overrides)
    objective = SyncObjective(config).train()
    objective(made_up_batch(config), 0)[0].backward()
    idle = [
        name
        for name, parameter in objective.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert idle == []
    assert objective.log_scale.requires_grad == (config.loss.kind == "contrastive")


@pytest.mark.parametrize("kind", ["contrastive", "bce"])
def test_a_few_steps_on_one_batch_lower_the_loss(kind):
    torch.manual_seed(0)
    config = tiny(Path("unused"), Path("unused"), f"loss.kind={kind}")
    objective, batch = SyncObjective(config).train(), made_up_batch(config)
    optimizer = torch.optim.AdamW(objective.parameters(), 3e-3)
    history = []
    for _ in range(25):
        loss, terms = objective(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.6 * history[0]
    assert history[-1] < 0.8 * terms["chance"] and terms["accuracy"] > 0.8


def test_the_chance_a_trainer_reports_is_what_equal_vectors_score():
    config = tiny(Path("unused"), Path("unused"), "data.windows=3")
    objective, batch = SyncObjective(config), made_up_batch(config)

    class Blind(torch.nn.Module):
        def forward(self, audio, frames):
            return torch.ones(len(audio), 1), torch.ones(len(frames), 1)

    objective.network = Blind()
    loss, terms = objective(batch, 0)
    # 3 clips x (3 windows + 3 sounds), all at least 3 frames apart: 18 sounds and 9 faces to choose from.
    assert terms["chance"].item() == pytest.approx((math.log(18) + math.log(9)) / 2)
    assert loss.item() == pytest.approx(terms["chance"].item()) and terms["accuracy"] == 0.5


@pytest.mark.parametrize("audio", ["mel", "whisper"])
def test_samples_depend_on_their_number_alone_and_fit_together(data_set, audio):
    expert = SyncConfig.of("light", audio=audio)

    def make(augment: SyncAugmentConfig) -> SyncDataset:
        return samples(SyncDataset, SyncDataConfig(str(data_set), windows=4, sounds=5, apart=4), augment, expert, 7)

    clip = load_clips(data_set, "train")[0]
    first, second = make(SyncAugmentConfig()), make(SyncAugmentConfig())
    for index in (3, 0, 11):
        a, b = first[index], second[index]
        assert all(torch.equal(a[name], b[name]) for name in a)
        assert (np.diff(a["starts"][:4]) >= 4).all() and a["starts"].max() <= clip.info.frames - 5
    item = make(PLAIN)[0]
    assert item["frames"].shape == (4, 15, 64, 128) and item["frames"].dtype == torch.uint8 and len(item["audio"]) == 9
    start = int(item["starts"][2])
    faces = clip.faces(range(start, start + 5))[:, 64:]
    assert torch.equal(item["frames"][2].view(5, 3, 64, 128), torch.from_numpy(faces).permute(0, 3, 1, 2))
    alone = sound_windows(clip.features(audio), np.array([start]), expert)[0]
    assert np.array_equal(item["audio"][2], alone)


def test_augmentation_is_the_same_for_all_faces_of_a_sample(data_set):
    def make(augment: SyncAugmentConfig) -> torch.Tensor:
        return samples(SyncDataset, SyncDataConfig(str(data_set), windows=2), augment, SyncConfig(), 0)[0]["frames"]

    plain, mirrored, coloured = make(PLAIN), make(SyncAugmentConfig(1, 0)), make(SyncAugmentConfig(0, 0.3))
    assert torch.equal(plain.flip(-1), mirrored)
    before, after = (frames.view(10, 3, -1).transpose(0, 1).flatten(1) for frames in (plain, coloured))
    for channel, changed in zip(before, after, strict=True):  # one table a channel: equal pixels stay equal
        pairs = torch.unique(torch.stack([channel, changed]), dim=1)
        assert not torch.equal(channel, changed) and pairs.shape[1] == len(torch.unique(channel))


def loud_clip(audio: str, late: int, frames: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Faces whose brightness is a smoothed noise, and features whose loudness is the same, `late` frames later."""
    rng = np.random.default_rng(3)
    levels = np.convolve(rng.uniform(0, 1, 400), np.ones(3) / 3, "same")
    seconds = np.arange(600) / 80 if audio == "mel" else (np.arange(600) - 25 + 0.5) / 50
    heard = levels[np.clip(np.floor(seconds * 25 + 1e-9).astype(int) - late + 100, 0, 399)]
    shown = (levels[100 : 100 + frames] * 255).astype(np.uint8)
    features = np.repeat(heard[:, None], 80 if audio == "mel" else 384, 1).astype(np.float32)
    return np.broadcast_to(shown[:, None, None, None], (frames, 128, 128, 3)).copy(), features


@pytest.mark.parametrize("audio", ["mel", "whisper"])
@pytest.mark.parametrize("late", [-15, -4, 0, 3, 15])
def test_shifting_the_sound_moves_the_estimate_by_as_much(audio, late):
    estimate = estimate_offset(*clip_vectors(Loud(audio), *loud_clip(audio, late)))
    assert estimate.offset == late
    assert estimate.confidence > 0.1 and len(estimate.means) == 31


def test_estimate_of_known_vectors_and_its_sign():
    sounds = dict(enumerate(np.eye(90, dtype=np.float32), start=-15))
    faces = {k: sounds[k + 6] for k in range(0, 60, 2)}  # what is seen at k is heard 6 frames later
    estimate = estimate_offset(faces, sounds)
    assert (estimate.offset, estimate.confidence, estimate.means[6], estimate.means[5]) == (6, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("audio", ["mel", "whisper"])
def test_estimate_agrees_with_evaluation(audio, monkeypatch, tmp_path):
    """Same windows, same crop, same offset and confidence as metrics.sync, with a real network."""
    torch.manual_seed(0)
    expert = SyncExpert(SyncConfig.of("light", audio=audio, width=4, embedding=16)).eval()
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (20, 128, 128, 3), dtype=np.uint8)
    features = rng.normal(size=(200, 80 if audio == "mel" else 384)).astype(np.float32)
    ours = estimate_offset(*clip_vectors(expert, faces, features))
    write_flac(tmp_path / "silence.flac", np.zeros(16000, np.float32))
    monkeypatch.setattr(metrics.sync, "sound_features", lambda wave, kind: features)
    score = ExpertScore(expert, ClipContext(np.arange(20) / 25, tmp_path / "silence.flac"))
    score.add(Batch(np.arange(20), faces, faces, np.zeros((20, 478, 2)), np.zeros((20, 478, 2))))
    theirs = score.result()
    assert theirs["sync_offset"] == ours.offset
    assert theirs["sync_confidence"] == pytest.approx(ours.confidence, abs=1e-5)


def test_validator_scores_a_perfect_and_a_blind_expert(data_set, monkeypatch):
    alone = World(0, 1, torch.device("cpu"))
    settings = SyncValidationConfig(clips=0, every=2)
    validator = samples(SyncValidator, SyncDataConfig(str(data_set)), settings, "mel", alone, split="val")
    clip = validator.store.clips[0]
    monkeypatch.setattr(validator.store, "get", lambda number, indices: loud_clip("mel", 0, clip.info.frames)[0])
    validator.features = [loud_clip("mel", 0)[1]]
    scores, estimates = validator(Loud("mel"))
    assert scores["ranked"] > 0.99 and scores["clip_ranked"] == 1 and scores["found"] == 1 and scores["distance"] == 0
    assert estimates[clip.info.id].offset == 0
    validator.features = [loud_clip("mel", 5)[1]]
    late = validator(Loud("mel"))[0]
    assert (late["found"], late["distance"]) == (0, 5) and late["ranked"] < 0.9
    validator.features = [np.zeros_like(validator.features[0])]
    assert validator(Loud("mel"))[0]["ranked"] == pytest.approx(0.5)


def test_a_run_leaves_weights_and_metrics(data_set, tmp_path, capsys):
    best = train(tiny(data_set, tmp_path, "run.steps=2", "run.validate_every=2"))
    expert = load_network(best)
    assert isinstance(expert, SyncExpert) and expert.config.audio == "whisper"
    assert {"ranked", "found", "step", "training"} <= set(read_metadata(best))
    lines = [json.loads(line) for line in (tmp_path / "syncnet_tiny" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2]
    logged = {"contrastive", "accuracy", "chance", "waiting", "frames_per_s"}
    assert {f"train/{name}" for name in logged} <= set(lines[0])
    name = load_clips(data_set, "val")[0].info.id
    assert {"val/ranked", "val/clip_ranked", "val/found"} <= set(lines[-1]) and f"val_offset/{name}" in lines[-2]
    assert f"offsets  {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "overrides",
    [["loss.kind=bce", "model.audio=mel"], ["optim.ema=0", "loss.learn_temperature=false"]],
    ids=["bce-mel", "no-average"],
)
def test_other_ways_to_train_run_too(data_set, tmp_path, overrides):
    config = tiny(data_set, tmp_path, "run.steps=2", *overrides)
    best = train(config)
    state = weights(tmp_path, 2)
    if config.optim.ema == 0:
        last = {
            name.removeprefix("network."): value for name, value in state["objective"].items() if name != "log_scale"
        }
        assert all(torch.equal(last[name], value) for name, value in state["ema"]["average"].items())
        assert state["objective"]["log_scale"].exp().item() == pytest.approx(1 / 0.07)
    assert load_network(best).config.audio == config.model.audio


def test_two_steps_and_two_more_equal_four(data_set, tmp_path, monkeypatch):
    train(tiny(data_set, tmp_path / "whole"))
    save = RunState.save

    def save_and_stop(self, step, record):
        save(self, step, record)
        if step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunState, "save", save_and_stop)
        train(tiny(data_set, tmp_path / "parts"))
    train(tiny(data_set, tmp_path / "parts"))
    whole, parts = weights(tmp_path / "whole", 4), weights(tmp_path / "parts", 4)
    for left, right in ((whole["objective"], parts["objective"]), (whole["ema"]["average"], parts["ema"]["average"])):
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_the_watch_speaks_after_enough_steps_at_chance():
    def warnings(loss: float, accuracy: float, steps: int = 40) -> list[str]:
        watch = ChanceWatch(every=5, patience=20)
        terms = {"chance": torch.tensor(math.log(2)), "accuracy": torch.tensor(accuracy)}
        said = [(step, watch.add(step, torch.tensor(loss), terms)) for step in range(1, steps + 1)]
        return [f"{step}: {text}" for step, text in said if text]

    stuck = warnings(0.69, 0.8)
    assert [text[:4] for text in stuck] == ["20: ", "40: "]
    assert "the loss has sat at 0.690, and guessing gives 0.693" in stuck[0]
    assert "tells clips apart" in warnings(0.3, 0.51)[0]
    assert warnings(0.3, 0.8) == [] and warnings(0.69, 0.5, steps=19) == []


def test_mistakes_are_told_in_one_line(data_set, tmp_path):
    with pytest.raises(InputError, match="windows is 1, expected 2 or more"):
        SyncDataConfig(windows=1)
    with pytest.raises(InputError, match="no clip of split 'train' has the 65 frames"):
        samples(SyncDataset, SyncDataConfig(str(data_set), windows=21), PLAIN, SyncConfig(), 0)
    with pytest.raises(InputError, match="no folder"):
        train(tiny(tmp_path / "nowhere", tmp_path))
    save_network(tmp_path / "hr.safetensors", HRDecoder(HRConfig(scale=1)))
    with pytest.raises(InputError, match="HRDecoder, expected a SyncExpert"):
        train(tiny(data_set, tmp_path), tmp_path / "hr.safetensors")
    save_network(tmp_path / "light.safetensors", SyncExpert(SyncConfig.of("light", width=4)))
    with pytest.raises(InputError, match="light.safetensors does not fit SyncExpert"):
        train(tiny(data_set, tmp_path), tmp_path / "light.safetensors")


def test_samples_collate_into_what_the_trainer_takes(data_set):
    config = tiny(data_set, Path("unused"), "data.windows=3")
    dataset = samples(SyncDataset, config.data, config.augment, config.model, 0)
    loss, terms = SyncObjective(config)(default_collate([dataset[0], dataset[1]]), 0)
    # Two samples of the only clip: windows closer than `apart` frames to each other take no part, so chance is lower.
    assert torch.isfinite(loss) and terms["chance"] < (math.log(12) + math.log(6)) / 2 + 1e-6


def test_windows_without_a_face_are_no_samples(data_set, monkeypatch):
    """They would be learned as what belongs to their sound."""
    seen = np.arange(50) % 25 < 16
    monkeypatch.setattr("datasets.clips.Clip.visible", seen)
    dataset = samples(SyncDataset, SyncDataConfig(str(data_set), windows=2, sounds=4), PLAIN, SyncConfig(), 0)
    assert len(dataset) == 24 * len(dataset.store.clips)
    for number in range(20):
        starts = dataset[number]["starts"].numpy()
        assert all(seen[start : start + 5].all() for start in starts) and starts[1] - starts[0] >= 3
