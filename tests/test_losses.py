"""Hand-computed losses, schedules, and who gets a gradient."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import vgg19

from datasets.draw import WindowDraw, draw_shares
from engine.config import load_config
from engine.distributed import World
from engine.objective import Frozen, Objective
from engine.options import TrainBaseConfig, TrainHRConfig
from engine.progress import Progress
from engine.train_base import BaseObjective
from engine.train_hr import HRObjective
from errors import InputError
from losses.adversarial import (
    discriminator_loss,
    generator_loss,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from losses.config import BaseLossConfig
from losses.reconstruction import LIP_CROP, colour_l1, lip_crops, spectral_l1
from losses.sync import sync_loss
from losses.terms import ramp
from models.checkpoint import save_network
from models.config import DiscriminatorConfig, SyncConfig
from models.discriminators import BaseDiscriminator
from models.perceptual import load_perceptual
from models.syncnet import SyncExpert
from speech.windows import face_windows

ROOT = Path(__file__).resolve().parent.parent


def test_adversarial_losses_by_hand():
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    assert generator_loss(fake).item() == pytest.approx((math.log1p(math.e) + math.log1p(1 / math.e)) / 2)
    expected = (math.log1p(math.exp(-2)) + math.log(2)) / 2 + (math.log1p(1 / math.e) + math.log1p(math.e)) / 2
    assert discriminator_loss(real, fake).item() == pytest.approx(expected)
    # mean real logit 1, mean generated one 0: real ones lie 2 and 0 above it, generated ones -2 and 0 above the real
    # mean
    expected = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    assert relativistic_discriminator_loss(real, fake).item() == pytest.approx(2 * expected)
    expected = (math.log1p(math.exp(2)) + math.log(2)) / 2
    assert relativistic_generator_loss(real, fake).item() == pytest.approx(2 * expected)


def test_a_term_sets_in_and_grows():
    assert [ramp(step, 10, 4) for step in (0, 9, 10, 11, 13, 99)] == [0, 0, 0.25, 0.5, 1, 1]
    assert [ramp(step, 3, 0) for step in (2, 3, 4)] == [0, 1, 1]


def test_sync_loss_is_bounded_and_so_is_its_gradient():
    sounds = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    faces = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    loss = sync_loss(sounds, faces, torch.ones(2))
    loss.backward()
    assert loss.item() == 0.5 and faces.grad.abs().max() == 0.5  # at a cosine of 0 too
    assert sync_loss(sounds, faces, torch.tensor([0.0, 1.0])).item() == 1
    assert sync_loss(sounds, faces, torch.zeros(2)).item() == 0


@pytest.mark.parametrize(("order", "channel"), [("rgb", 0), ("bgr", 2)])
def test_an_expert_sees_lower_halves_in_order_of_time_and_of_its_colours(order, channel):
    faces = torch.zeros(1, 5, 3, 128, 128)
    faces[0, 3, 0, 70] = 1  # red, in the fourth picture
    expert = SyncExpert(SyncConfig(width=4))
    expert.channel_order = order
    seen = face_windows(faces, expert)
    assert seen.shape == (1, 15, 64, 128)
    assert seen[0, 3 * 3 + channel, 6].eq(1).all() and seen.sum() == 128


def test_colour_is_blind_to_brightness_and_to_places_within_a_square():
    picture = torch.zeros(1, 3, 40, 56)
    picture[:, 0, 18] = 0.9
    assert colour_l1(picture + 0.25, picture).item() == pytest.approx(0, abs=1e-6)
    greener = picture + torch.tensor([0, 0.3, 0])[:, None, None]  # less its mean: -.1, .2, -.1
    assert colour_l1(greener, picture).item() == pytest.approx(0.4 / 3, abs=1e-6)
    assert colour_l1(picture.roll(1, 2), picture).item() == pytest.approx(0, abs=1e-6)


def test_spectral_loss_sees_a_blur_and_no_place():
    picture = torch.rand(2, 3, 32, 48)
    assert spectral_l1(picture, picture).item() == 0
    assert spectral_l1(picture.roll((3, 5), (2, 3)), picture).item() == pytest.approx(0, abs=1e-6)
    blurs = [F.avg_pool2d(picture, size, 1, size // 2, count_include_pad=False) for size in (3, 5)]
    slight, strong = (spectral_l1(blur, picture).item() for blur in blurs)
    assert 0 < slight < strong
    wave = torch.cos(torch.arange(48) * 2 * torch.pi * 4 / 48).expand(1, 1, 32, 48)  # one amplitude: 1 / 2 by sqrt(N)
    assert spectral_l1(wave, 0 * wave).item() == pytest.approx((32 * 48) ** 0.5 / 2 / (32 * 25), rel=1e-4)


@pytest.mark.parametrize("size", [128, 256])
def test_lip_crops_show_the_box_at_one_size(size):
    height, width = (round(share * size) for share in LIP_CROP)
    images = torch.arange(size).float().div(size).expand(2, 3, size, size)  # grey grows to the right
    boxes = torch.tensor([[36.0, 70, 91, 109], [40.0, 80, 59, 99]])
    crops = lip_crops(images, boxes)
    assert crops.shape == (2, 3, height, width)
    for crop, (left, _, right, _) in zip(crops, boxes.tolist(), strict=True):
        assert crop[0, 0, 0].item() * 128 == pytest.approx(left, abs=0.5)
        assert crop[0, 0, -1].item() * 128 == pytest.approx(right, abs=0.8)
    exact = lip_crops(images, torch.tensor([[36.0, 70, 91, 109], [36.0, 70, 91, 109]]))
    left, top = 36 * size // 128, 70 * size // 128
    assert torch.allclose(exact, images[:, :, top : top + height, left : left + width], atol=1e-5)


def test_vgg_distance_reads_torchvisions_layout(tmp_path):
    torch.manual_seed(0)
    state = vgg19(weights=None).features.state_dict()
    path = tmp_path / "vgg19.pth"
    torch.save({f"features.{name}": value for name, value in state.items()}, path)
    distance = load_perceptual("vgg19", path)
    picture = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert torch.equal(distance(picture, picture.detach()), torch.zeros(2))
    distance(picture, torch.rand(2, 3, 32, 32)).sum().backward()
    assert picture.grad.abs().sum() > 0 and not any(value.requires_grad for value in distance.parameters())
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="does not fit"):
        load_perceptual("vgg19", path)


def base_batch(count: int = 2) -> dict[str, torch.Tensor]:
    return {
        "faces": torch.randint(0, 256, (count, 5, 3, 128, 128), dtype=torch.uint8),
        "references": torch.randint(0, 256, (count, 1, 1, 3, 128, 128), dtype=torch.uint8),
        "shares": torch.ones(count, 5, 1, 1),
        "audio": torch.randn(count, 5, 18, 384),
        "sync_audio": torch.randn(count, 18, 384),
        "voiced": torch.ones(count),
        "lip_box": torch.tensor([36.0, 70, 91, 109]).expand(count, 5, 4),
        "speech_points": torch.randn(count, 5, 20, 2),
    }


@pytest.fixture
def base_trainer(tmp_path) -> BaseObjective:
    torch.manual_seed(0)
    save_network(tmp_path / "expert.safetensors", SyncExpert(SyncConfig.of("light", width=4)))
    return BaseObjective(
        load_config(
            TrainBaseConfig,
            ROOT / "configs" / "tiny.yaml",
            [
                "data.window=5",
                "loss.perceptual=0.1",
                "loss.sync=0.1",
                "loss.adversarial=0.1",
                "loss.discriminator_width=2",
                f"loss.sync_expert={tmp_path / 'expert.safetensors'}",
                "loss.sync_from=5",
                "loss.adversarial_from=8",
            ],
        )
    )


def hr_batch() -> dict[str, torch.Tensor]:
    batch = {
        name: torch.randint(0, 256, (2, 5, channels, 128, 128), dtype=torch.uint8)
        for name, channels in (("base", 3), ("sketch", 1), ("face", 3))
    }
    return batch | {
        "reference": batch["face"][:, 0],
        "sync_audio": torch.randn(2, 18, 384),
        "lip_box": torch.tensor([36.0, 70, 91, 109]).expand(2, 5, 4),
    }


def cut(batch: dict[str, torch.Tensor], clip: int, frame: int) -> dict[str, torch.Tensor]:
    """One frame as a batch of its own."""
    of_clips = "references", "reference", "sync_audio", "voiced"
    return {
        name: values[clip : clip + 1] if name in of_clips else values[clip : clip + 1, frame : frame + 1]
        for name, values in batch.items()
    }


def assert_frames_are_judged_alone(objective: Objective, batch: dict[str, torch.Tensor], *names: str) -> None:
    """A batch's terms are the means of those of its frames, of which each is a batch of its own."""
    darker = torch.arange(1, 11, dtype=torch.uint8).view(2, 5, 1, 1, 1)  # noise is much like other noise
    batch |= {
        name: values // darker for name, values in batch.items() if values.dtype == torch.uint8 and values.shape[1] == 5
    }
    batch["lip_box"] = batch["lip_box"] - torch.arange(10.0).view(2, 5, 1)
    with torch.no_grad():
        together = objective.eval()(batch, 0)[1]
        alone = [objective(cut(batch, clip, frame), 0)[1] for clip in range(2) for frame in range(5)]
    for name in names:
        mean = sum(terms[name].item() for terms in alone) / 10
        assert together[name].item() == pytest.approx(mean, rel=1e-5), name


def test_every_frame_of_stage_one_has_its_own_sound_reference_and_target():
    config = load_config(TrainBaseConfig, ROOT / "configs" / "tiny.yaml", ["data.window=5"])
    batch = base_batch()
    batch["audio"] *= 10
    batch["shares"] = torch.rand(2, 5, 1, 1)
    assert_frames_are_judged_alone(BaseObjective(config), batch, "mouth", "face", "landmark")


def test_every_frame_of_stage_two_has_its_own_face_sketch_reference_and_target():
    values = ["data.window=5", "loss.lip_l1=1", "loss.lip_perceptual=0"]
    config = load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", values)
    assert_frames_are_judged_alone(HRObjective(config), hr_batch(), "l1", "mouth", "lip_l1")


def test_gradients_reach_all_that_is_trained_and_nothing_else(base_trainer):
    objective = base_trainer.train()
    loss, terms = objective(base_batch(), 10**6)
    assert set(terms) == {"mouth", "face", "landmark", "perceptual", "sync", "adversarial"}
    loss.backward()
    assert [
        name for name, value in objective.named_parameters() if value.grad is None or not value.grad.abs().sum()
    ] == []
    frozen = [objective._distance.network, objective.expert.network]
    assert all(value.grad is None for network in [*frozen, objective.discriminator] for value in network.parameters())
    assert not any(name.startswith(("perceptual", "expert", "discriminator")) for name in objective.state_dict())
    trained = [value.grad.clone() for value in objective.parameters()]
    objective.discriminate()[0].backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in objective.discriminator.parameters())
    assert all(torch.equal(before, value.grad) for before, value in zip(trained, objective.parameters(), strict=True))


def test_terms_set_in_at_their_step(base_trainer):
    objective, batch = base_trainer.train(), base_batch()
    assert "sync" not in objective(batch, 4)[1] and not objective.seen
    assert "sync" in objective(batch, 5)[1] and not objective.seen
    assert "adversarial" in objective(batch, 8)[1] and objective.seen


def test_sync_needs_windows_of_five_frames_in_stage_two_too():
    with pytest.raises(InputError, match="data.window is 1, expected 5"):
        load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", ["loss.sync=0.1"])


def test_stage_two_terms_and_gradients(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "expert.safetensors", SyncExpert(SyncConfig.of("light", width=4)))
    objective = HRObjective(
        load_config(
            TrainHRConfig,
            ROOT / "configs" / "hr_tiny.yaml",
            [
                "loss.perceptual=0.1",
                "loss.lip_l1=1",
                "loss.lip_perceptual=0.1",
                "loss.adversarial=0.1",
                "loss.discriminator_width=2",
                "data.window=5",
                "loss.sync=0.1",
                f"loss.sync_expert={tmp_path / 'expert.safetensors'}",
            ],
        )
    ).train()
    loss, terms = objective(hr_batch(), 10**6)
    assert set(terms) == {"l1", "mouth", "perceptual", "lip_l1", "lip_perceptual", "sync", "adversarial"}
    loss.backward()
    assert [
        name for name, value in objective.named_parameters() if value.grad is None or not value.grad.abs().sum()
    ] == []
    assert all(value.grad is None for value in objective.expert.network.parameters())
    critic, critic_terms = objective.discriminate()
    critic.backward()
    assert 0 <= critic_terms["fooled"] <= 1 and all(
        value.grad is not None for value in objective.discriminator.parameters()
    )


def test_an_adversary_learns_to_tell_bright_from_dark():
    torch.manual_seed(0)
    objective = Objective(BaseDiscriminator(DiscriminatorConfig(4)))
    optimizer = torch.optim.Adam(objective.discriminator.parameters(), 3e-3)
    real, fake = torch.full((4, 3, 128, 128), 0.9), torch.full((4, 3, 128, 128), 0.1)
    for _ in range(25):
        objective.logits(fake, real)
        loss, terms = objective.discriminate()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert terms["fooled"] == 0 and loss < math.log(2)


def test_a_frozen_network_is_no_part_of_what_holds_it():
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.judge = Frozen(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Dropout(0.5)))

    holder = Holder().train()
    assert not list(holder.parameters()) and not holder.judge.network.training
    assert holder.judge(torch.ones(3, 2)).shape == (3, 1)


def test_balance_draws_persons_alike():
    windows, persons = np.array([90, 10, 20, 30]), ["a", "a", "b", ""]
    clips = [
        SimpleNamespace(visible=np.ones(count, bool), info=SimpleNamespace(person=person))
        for count, person in zip(windows, persons, strict=True)
    ]
    for balance, shares in ((0.0, [0.6, 1 / 15, 2 / 15, 0.2]), (1.0, [0.3, 1 / 30, 1 / 3, 1 / 3])):
        assert draw_shares(windows, persons, balance).tolist() == pytest.approx(shares)
        draw, rng = WindowDraw(clips, 1, balance), np.random.default_rng(0)
        drawn = np.bincount([draw.frames(rng)[0] for _ in range(4000)], minlength=4) / 4000
        assert drawn == pytest.approx(shares, abs=0.03)


def test_terms_of_half_precision_are_summed_and_judged_in_float32():
    logged: dict[str, float] = {}

    class Log:
        def scalars(self, step: int, values: dict[str, float]) -> None:
            logged.update(values)

    progress = Progress(Log(), 1000, 1, World(0, 1, torch.device("cpu")), printed=False)
    for done in range(1, 1001):
        progress.log(done, {"term": torch.tensor(0.5, dtype=torch.bfloat16)}, {})
    assert logged["term"] == 0.5
    objective = Objective(BaseDiscriminator(DiscriminatorConfig(2)), relativistic=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = objective.logits(torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128))
        loss, _ = objective.discriminate()
    assert {value.dtype for value in (*logits, loss)} == {torch.float32}


@pytest.mark.parametrize("off", ["sync", "adversarial", "perceptual"])
def test_a_seed_means_the_same_first_weights_whatever_judges_them(off):
    stages = (TrainBaseConfig, BaseObjective, "base.yaml"), (TrainHRConfig, HRObjective, "hr_256.yaml")
    for schema, objective, name in stages:
        first = []
        for weights in ({}, {off: 0}):
            terms = {"sync": 0.1, "adversarial": 0.1, "perceptual": 0.1} | weights
            overrides = [f"loss.{term}={weight}" for term, weight in terms.items()]
            config = load_config(schema, ROOT / "configs" / name, ["data.window=5", *overrides])
            torch.manual_seed(config.run.seed)
            first.append(objective(config).state_dict())
        assert first[0].keys() == first[1].keys()
        assert all(torch.equal(first[0][key], first[1][key]) for key in first[0])


def test_a_term_that_a_run_ends_before_is_told():
    loss = BaseLossConfig(sync=0.1, sync_from=12000, adversarial=0.1, adversarial_from=3999, perceptual=1.0)
    assert loss.too_late(4000) == "loss.sync never sets in: it would at step 12000 of 4000"
    assert loss.too_late(3999).count("\n") == 1 and loss.too_late(12001) == ""
    assert BaseLossConfig(adversarial_from=9).too_late(1) == ""
