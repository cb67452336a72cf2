"""Training on a data set extracted from the suite's own talking clip: runs, resumes exactly, stops with one clear
line.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import samples
from torch.utils.data import default_collate

from datasets.base import BaseDataset
from datasets.clips import Clip, load_clips
from datasets.config import AugmentConfig, DataConfig, HRAugmentConfig
from datasets.hr import HRDataset
from engine.config import load_config
from engine.ema import Ema
from engine.optimizers import apply_step, learning_rate, make_optimizer, match_layout
from engine.options import InferenceConfig, OptimConfig, TrainBaseConfig, TrainHRConfig
from engine.pipeline import LipSync
from engine.runlog import RunLog
from engine.state import RunState
from engine.train_base import BaseObjective, pretrain_audio, train
from engine.train_hr import HRObjective
from engine.train_hr import train as train_hr
from errors import InputError
from face.landmark_net import LandmarkNet
from losses.landmark import landmark_loss
from losses.reconstruction import box_mask, l1, mouth_l1
from losses.terms import weighted
from media.audio import SAMPLE_RATE, read_audio
from media.video import VideoReader
from models.checkpoint import load_network, read_metadata, save_network
from models.config import BaseConfig, SyncConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase, face_input
from models.syncnet import SyncExpert
from preprocess.base_faces import generate_clip

ROOT = Path(__file__).resolve().parent.parent
FIXED = ["precision=float32", "layout=contiguous"]


def tiny(data: Path, folder: Path, *overrides: str) -> TrainBaseConfig:
    return load_config(
        TrainBaseConfig,
        ROOT / "configs" / "tiny.yaml",
        [f"data.path={data}", f"run.folder={folder}", *FIXED, *overrides],
    )


def weights(folder: Path, step: int) -> dict:
    return torch.load(folder / "tiny" / "checkpoints" / f"step_{step:08d}.pt", weights_only=True)


@pytest.mark.parametrize("reference", ["random", "far", "closed", "span"])
def test_samples_depend_on_their_number_alone(data_set, reference):
    def make() -> BaseDataset:
        return samples(
            BaseDataset,
            DataConfig(str(data_set), window=5, reference=reference),
            AugmentConfig(silence=0.5),
            BaseConfig(),
            7,
        )

    first, second = make(), make()
    for index in (3, 0, 11):
        a, b = first[index], second[index]
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert first[0]["faces"].shape == (5, 3, 128, 128) and first[0]["audio"].shape == (5, 18, 384)


def test_a_mirrored_sample_mirrors_points_and_box(data_set):
    plain, mirrored = (
        samples(
            BaseDataset,
            DataConfig(str(data_set)),
            AugmentConfig(flip=flip, colour=0, silence=0),
            BaseConfig(audio="mel", audio_window=16),
            0,
        )[5]
        for flip in (0.0, 1.0)
    )
    assert torch.equal(plain["faces"].flip(-1), mirrored["faces"])
    assert torch.allclose(plain["lip_box"][:, [0, 2]].flip(1), 127 - mirrored["lip_box"][:, [0, 2]])
    # A face is nearly symmetric: mirrored points keep their places, far nearer than unmatched ones would.
    assert (plain["speech_points"][..., 1] - mirrored["speech_points"][..., 1]).abs().mean() < 1.0


def test_the_network_cannot_see_the_answer(data_set):
    dataset = samples(BaseDataset, DataConfig(str(data_set)), AugmentConfig(), BaseConfig(), 0)
    item = dataset[0]
    network = HyperLipsBase().eval()
    faces, references = item["faces"], item["references"]
    changed = faces.clone()
    changed[:, :, 64:] = torch.randint(0, 256, changed[:, :, 64:].shape, dtype=torch.uint8)
    with torch.no_grad():
        before = network(item["audio"], face_input(faces, references))
        after = network(item["audio"], face_input(changed, references))
        heard = network(item["audio"].flip(1), face_input(faces, references))
    assert torch.equal(before, after)
    assert not torch.equal(before, heard)


def test_a_run_leaves_weights_metrics_and_samples(data_set, tmp_path):
    best = train(tiny(data_set, tmp_path))
    assert isinstance(load_network(best), HyperLipsBase)
    lines = [json.loads(line) for line in (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "train/loss" in line]
    assert steps == [1, 2, 3, 4]
    assert {"train/mouth", "train/face", "train/landmark", "train/waiting", "train/frames_per_s"} <= set(lines[-2])
    assert {"val/lip_r", "val/fast_r", "val/articulation"} <= set(lines[-1])
    assert lines[-2]["train/lr_audio"] == pytest.approx(0.1 * lines[-2]["train/lr"])
    assert list((tmp_path / "tiny" / "samples").glob("val_*.png"))
    film = tmp_path / "tiny" / "samples" / "val_00000004.mp4"
    assert VideoReader(film).size == (256, 128) and len(read_audio(film)) > SAMPLE_RATE
    assert (tmp_path / "tiny" / "config.yaml").is_file()
    (ran,) = yaml.safe_load((tmp_path / "tiny" / "ran.yaml").read_text())
    assert (ran["from_step"], ran["precision"], ran["layout"], ran["processes"]) == (0, "float32", "contiguous", 1)
    assert ran["torch_version"] == torch.__version__ and ran["device"] and ran["threads"] == torch.get_num_threads()
    assert {"code", "score", "fast_r", "training"} <= set(read_metadata(best))


def test_both_stages_learn_a_batch_by_heart(painted):
    plain = {"flip": 0, "colour": 0}
    values = [f"data.path={painted}", "data.window=1", *FIXED]
    base = load_config(TrainBaseConfig, ROOT / "configs" / "tiny.yaml", values)
    hr = load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", [*values, "loss.lip_perceptual=0"])
    learners = [
        (BaseObjective(base), samples(BaseDataset, base.data, AugmentConfig(**plain), base.model, 0)),
        (HRObjective(hr), samples(HRDataset, hr.data, HRAugmentConfig(**plain), hr.model, 0)),
    ]
    for objective, dataset in learners:
        batch, optimizer = (
            default_collate([dataset[0], dataset[9]]),
            make_optimizer(objective.parameters(), OptimConfig()),
        )
        history = []
        for step in range(40):
            loss, terms = objective.train()(batch, step)
            apply_step(loss, optimizer, 3e-3, 1.0, step)
            history.append(terms["mouth"].item())
        assert history[-1] < 0.3 * history[0]


def test_pre_training_moves_the_audio_path_alone_and_it_hears_lips(data_set, tmp_path):
    config = tiny(data_set, tmp_path, "audio_pretrain.steps=60", "audio_pretrain.batch=16")
    objective = BaseObjective(config)
    dataset = samples(BaseDataset, config.data, config.augment, config.model, 0)
    before = deepcopy(objective.state_dict())
    audio, points = dataset.audio_batch(np.random.default_rng(9), 32)
    log = RunLog(tmp_path, config)
    pretrain_audio(objective, dataset, config, torch.device("cpu"), log)
    log.close()
    mean = landmark_loss(points.mean(0).expand_as(points), points).item()  # the best that is said without hearing
    assert landmark_loss(objective.head(objective.network.encode_audio(audio)), points).item() < 0.9 * mean
    moved = {name for name, value in objective.named_parameters() if not value.equal(before[name])}
    parts = {".".join(name.split(".")[:2]) if name.startswith("network.") else "head" for name in moved}
    assert parts == {"network.audio_encoder", "network.hyper_nets", "head"}


def test_stage_two_trains_on_generated_faces(painted, tmp_path):
    values = [f"data.path={painted}", f"run.folder={tmp_path}", "optim.lr=0.01", "optim.warmup=0", "optim.ema=0"]
    config = load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", values)
    best = train_hr(config)
    assert isinstance(load_network(best), HRDecoder)
    samples = tmp_path / "hr_tiny" / "samples"
    assert list(samples.glob("val_*.png")) and len(read_audio(next(samples.glob("val_*.mp4")))) > SAMPLE_RATE / 2
    assert list((tmp_path / "hr_tiny").glob("**/events.out*"))  # TensorBoard's
    torch.manual_seed(config.run.seed)
    begun, done = HRObjective(config).network.state_dict(), load_network(best).state_dict()
    assert all((done[name] - value).abs().max() > 1e-3 for name, value in begun.items() if value.ndim == 4)  # kernels


def test_stage_two_learns_sync_from_windows(painted, tmp_path):
    save_network(tmp_path / "expert.safetensors", SyncExpert(SyncConfig.of("light", width=4)))
    config = load_config(
        TrainHRConfig,
        ROOT / "configs" / "hr_tiny.yaml",
        [
            f"data.path={painted}",
            f"run.folder={tmp_path}",
            "data.window=5",
            "loss.sync=0.1",
            "loss.sync_from=100",
            f"loss.sync_expert={tmp_path / 'expert.safetensors'}",
            "validation.frames=10",
        ],
    )
    dataset = samples(HRDataset, config.data, config.augment, config.model, 0, expert=SyncConfig.of("light"))
    item = dataset[3]
    assert item["face"].shape == (5, 3, 128, 128) and item["reference"].shape == (3, 128, 128)
    assert item["sync_audio"].shape == (18, 384) and item["lip_box"].shape == (5, 4)
    best = read_metadata(train_hr(config))
    assert 0 < float(best["sync"]) <= 1  # validation counts what has not set in yet
    strip = cv2.imread(str(tmp_path / "hr_tiny" / "samples" / "val_00000004.png"))
    assert strip.shape[:2] == (4 * 128, 6 * 128)


def test_dataset_problems_are_told_in_one_line(data_set, tmp_path):
    with pytest.raises(InputError, match="no folder"):
        load_clips(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="no index.jsonl"):
        load_clips(tmp_path, "train")
    with pytest.raises(InputError, match="split 'test'"):
        load_clips(data_set, "test")


def test_learning_rate_by_hand():
    config = OptimConfig(lr=1.0, warmup=10, final=0.1)
    assert learning_rate(0, 110, config) == pytest.approx(0.1)
    assert learning_rate(9, 110, config) == pytest.approx(1.0)
    assert learning_rate(60, 110, config) == pytest.approx(0.55)
    assert learning_rate(110, 110, config) == pytest.approx(0.1)


def test_losses_by_hand():
    output, target = torch.zeros(1, 3, 128, 128), torch.ones(1, 3, 128, 128)
    assert l1(output, target) == pytest.approx(1)
    box = torch.tensor([[10.0, 70.0, 19.0, 79.0]])  # 10 x 10 pixels
    assert box_mask(box, 128).sum() == 100
    assert box_mask(box, 256).sum() == 400
    rows = 128 - 60
    assert mouth_l1(output, target, box, 5.0).item() == pytest.approx((rows * 128 + 4 * 100) / (rows * 128))
    points = torch.zeros(3, 20, 2)
    assert landmark_loss(points + 8, points).item() == 2  # in fours of pixels


def test_a_term_of_zero_weight_is_not_computed():
    def fail() -> torch.Tensor:
        raise AssertionError("computed")

    total, values = weighted({"a": lambda: torch.tensor(2.0), "b": fail}, {"a": 3.0, "b": 0.0})
    assert total == 6 and set(values) == {"a"}


def test_a_step_clips_and_scales_the_rate_of_a_group():
    slow, fast = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [slow], "scale": 0.1}, {"params": [fast]}], 1.0)
    apply_step((30 * slow + 40 * fast).sum(), optimizer, 0.5, clip=5.0)  # the norm is 50: a tenth of it is left
    assert slow.item() == pytest.approx(-0.05 * 3, rel=1e-4) and fast.item() == pytest.approx(-0.5 * 4, rel=1e-4)


def test_moments_follow_their_parameters_into_another_layout():
    def trained(layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2))
        optimizer = make_optimizer([weight], OptimConfig())
        for step in range(3):
            if step == 1:
                weight.data = weight.data.contiguous(memory_format=layout)
                match_layout(optimizer)
            apply_step((weight * torch.randn(4, 3, 2, 2)).sum(), optimizer, 0.1, 1.0)
        return weight.detach()

    assert torch.allclose(trained(torch.channels_last), trained(torch.contiguous_format), atol=1e-6)


def test_a_resumed_optimizer_keeps_its_moments_and_takes_the_new_settings():
    def made(**settings: object) -> torch.optim.Optimizer:
        return make_optimizer(
            [{"params": [torch.nn.Parameter(torch.ones(2))], "name": "all", "scale": settings.pop("scale")}],
            OptimConfig(**settings),
        )

    before = made(scale=0.1)
    (weight,) = before.param_groups[0]["params"]
    apply_step(weight.sum(), before, 0.1, 1.0)
    now = made(scale=0.5, weight_decay=0.2, betas=[0.5, 0.9])
    now.load_state_dict(before.state_dict())
    (group,) = now.param_groups
    assert (group["scale"], group["weight_decay"], group["betas"]) == (0.5, 0.2, (0.5, 0.9))
    assert torch.equal(now.state[group["params"][0]]["exp_avg"], before.state[weight]["exp_avg"])


def test_a_resumed_log_goes_on_where_the_checkpoint_is(tmp_path):
    log = RunLog(tmp_path, OptimConfig())
    log.scalars(200, {"loss": 1.0}, "audio_pretrain")
    for step in (1, 2, 3):
        log.scalars(step, {"loss": float(step)})
    log.scalars(2, {"score": 0.5}, "val")
    log.close()
    log = RunLog(tmp_path, OptimConfig(), first=2)
    log.scalars(3, {"loss": 33.0})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("train/loss") for line in lines] == [None, 1.0, 2.0, None, 33.0]
    assert log.validated == {2: {"score": 0.5}}
    assert [start["from_step"] for start in yaml.safe_load((tmp_path / "ran.yaml").read_text())] == [0, 2]


def test_damaged_lines_of_a_log_are_left_out_with_one_warning(tmp_path, capsys):
    log = RunLog(tmp_path, OptimConfig())
    log.scalars(1, {"score": 0.5}, "val")
    log.close()
    metrics = tmp_path / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(b'\0\xff\0\n{"st\n[]\n' + whole + b'{"step": 2, "tr')
    log = RunLog(tmp_path, OptimConfig(), first=2)
    log.close()
    assert metrics.read_bytes() == whole and log.validated == {1: {"score": 0.5}}
    assert capsys.readouterr().err == f"warning: {metrics}: 3 damaged lines left out\n"


def test_averaged_weights_follow_and_copy_buffers():
    network = torch.nn.BatchNorm1d(1)
    ema = Ema(network, 0.9)
    with torch.no_grad():
        network.weight.fill_(2.0)
        network.running_mean.fill_(5.0)
    ema.update(network)
    assert ema.average["weight"].item() == pytest.approx(1 + 0.9)  # first step: decay min(0.9, 1 / 10)
    assert ema.average["running_mean"].item() == 5
    held, other = ema.average["weight"], Ema(torch.nn.BatchNorm1d(1), 0.9)
    ema.load_state_dict(other.state_dict())
    assert ema.average["weight"] is held and held.item() == 1  # stays where it lives


def test_run_state_keeps_the_newest_and_refuses_strangers(tmp_path):
    layer = torch.nn.Linear(1, 1)
    state = RunState(tmp_path, 2, layer=layer)
    for step in (1, 2, 3):
        state.save(step, {"config": f"step: {step}"})
    assert [path.name for path in state.checkpoints()] == ["step_00000002.pt", "step_00000003.pt"]
    saved = state.read(state.newest())
    state.load(saved)
    assert (saved.step, saved.record) == (3, {"config": "step: 3"})
    with pytest.raises(InputError, match="other"):
        RunState(tmp_path, 2, other=layer).load(saved)
    with pytest.raises(InputError, match="all machines share"):
        state.read(tmp_path / "step_00000009.pt")
    with pytest.raises(InputError, match="step_00000003.pt does not fit this run: its layer is of another shape"):
        RunState(tmp_path, 2, layer=torch.nn.Linear(2, 1)).load(saved)


def test_of_damaged_checkpoints_the_one_before_is_taken(tmp_path):
    state = RunState(tmp_path, 2, layer=torch.nn.Linear(1, 1))
    assert state.newest_whole() == (None, [])
    older, newest = state.save(1, {}), state.save(2, {})
    newest.write_bytes(newest.read_bytes()[:300])
    path, notes = state.newest_whole()
    assert path == older and len(notes) == 1 and "step_00000002.pt is damaged" in notes[0]
    assert "goes on from step_00000001.pt" in notes[0] and state.newest() == older
    older.write_bytes(b"")
    with pytest.raises(InputError, match="step_00000001.pt is damaged .*no other is whole"):
        state.newest_whole()


@pytest.mark.parametrize(
    "wrong",
    [
        "run.keep=0",
        "run.log_every=0",
        "run.validate_every=-1",
        "optim.betas=[0.9]",
        "optim.clip=0",
        "optim.ema=1",
        "validation.clips=-1",
        "run.device=cuda:99",
        "run.device=meta",
    ],
)
def test_impossible_numbers_are_an_input_error(wrong, data_set, tmp_path):
    with pytest.raises(InputError, match=wrong.split(".")[1].split("=")[0]):
        train(tiny(data_set, tmp_path, wrong))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], 1.0)
    with pytest.raises(InputError, match="step 7: the gradient is not finite"):
        apply_step((weight * torch.tensor([1.0, torch.inf])).sum().tanh() + weight[0], optimizer, 0.5, 1.0, 7)
    assert weight.tolist() == [1, 1]


@pytest.mark.parametrize("model", [["model.audio_window=10"], ["model.audio=mel", "model.audio_window=32"]])
def test_another_audio_window_trains_and_generates(model, data_set, talking_clip, tmp_path):
    best = train(tiny(data_set, tmp_path, *model, "run.steps=1", "audio_pretrain.steps=1"))
    network = load_network(best)
    (clip,) = load_clips(data_set, "val")
    clip = Clip(shutil.copytree(clip.folder, tmp_path / "clip"), clip.info)
    generate_clip(clip, network, "", LandmarkNet())
    assert clip.base_landmarks.shape == (clip.info.frames, 478, 2)
    engine = LipSync(InferenceConfig(base=str(best), hr=None))
    frame, _ = next(iter(engine.drive(engine.prepare(talking_clip), talking_clip)))
    assert frame.rgb().shape == (288, 360, 3)


def test_a_run_starts_from_other_weights_that_fit(data_set, tmp_path):
    config = tiny(data_set, tmp_path, "run.steps=1", "optim.lr=1e-9", "audio_pretrain.steps=0")
    network = HyperLipsBase(config.model)
    save_network(tmp_path / "init.safetensors", network, half=False)
    trained = load_network(train(config, tmp_path / "init.safetensors"))
    weights = dict(network.named_parameters())
    assert all(torch.allclose(value, weights[name], atol=1e-3) for name, value in trained.named_parameters())
    network.channel_order = "bgr"
    save_network(tmp_path / "bgr.safetensors", network)
    save_network(tmp_path / "other.safetensors", HyperLipsBase())
    for name, message in (
        ("bgr", "was trained on bgr pictures, this run trains on rgb"),
        ("other", "does not fit HyperLipsBase"),
    ):
        with pytest.raises(InputError, match=message):
            train(tiny(data_set, tmp_path, f"run.name={name}"), tmp_path / f"{name}.safetensors")


def test_parts_that_do_not_learn_keep_their_statistics(data_set, tmp_path):
    train(tiny(data_set, tmp_path, "audio_pretrain.steps=0", "run.steps=1", "optim.parts=[decoder]"))
    before, after = (weights(tmp_path, step)["objective"] for step in (0, 1))
    moved = {name for name, value in after.items() if "running_" in name and not torch.equal(value, before[name])}
    assert moved and all(name.startswith("network.decoder.") for name in moved)


def test_a_run_that_fails_closes_its_log(data_set, tmp_path, monkeypatch):
    closed = []
    close = RunLog.close

    def fail(*_: object) -> None:
        raise InputError("failed")

    monkeypatch.setattr("engine.progress.Progress.log", fail)
    monkeypatch.setattr(RunLog, "close", lambda log: (close(log), closed.append(log)))
    with pytest.raises(InputError, match="failed"):
        train(tiny(data_set, tmp_path, "audio_pretrain.steps=0"))
    assert len(closed) == 1
