"""Everything that runs on a GPU, on torch's `meta` device: no tensor stays behind on the CPU, and nothing asks the
device for a value, which would hold the program up until the device is done.
"""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.ema import Ema
from engine.options import TrainBaseConfig, TrainHRConfig, TrainSyncConfig
from engine.stages import run_hr
from engine.train_base import BaseObjective
from engine.train_hr import HRObjective
from engine.train_syncnet import SyncObjective
from losses.terms import LATE
from models.config import BaseConfig, HRConfig
from models.face_landmarks import FaceLandmarkNet
from models.fold import folded
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase, face_input
from models.reference_encoder import mix_references

MOVES = torch.ops.aten._to_copy.default, torch.ops.aten._has_compatible_shallow_copy_type.default
"""What brings tensors to a device, and modules."""


class OneDevice(TorchDispatchMode):
    """Raises where an operation mixes tensors of the CPU and of the device; numbers (no dimension) may mix."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        kinds = {value.device.type for value in tensors if value.ndim}
        if len(kinds) > 1 and operation not in MOVES:
            raise AssertionError(f"{operation} mixes tensors of {sorted(kinds)}")
        return operation(*args, **(kwargs or {}))


@pytest.fixture
def device(monkeypatch) -> Iterator[torch.device]:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # it does not know `meta`
    with OneDevice():
        yield torch.device("meta")


def bytes_of(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.uint8, device="meta")


def floats_of(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def base_batch(count: int = 2, frames: int = 5) -> dict[str, Tensor]:
    return {
        "faces": bytes_of(count, frames, 3, 128, 128),
        "references": bytes_of(count, 1, BaseConfig().references, 3, 128, 128),
        "shares": floats_of(count, frames, 1, BaseConfig().references),
        "audio": floats_of(count, frames, 18, 384),
        "lip_box": floats_of(count, frames, 4),
        "speech_points": floats_of(count, frames, 20, 2),
        "sync_audio": floats_of(count, 18, 384),
        "voiced": floats_of(count),
    }


def hr_batch(count: int = 2, frames: int = 5, size: int = 256) -> dict[str, Tensor]:
    return {
        "base": bytes_of(count, frames, 3, 128, 128),
        "sketch": bytes_of(count, frames, 1, 128, 128),
        "face": bytes_of(count, frames, 3, size, size),
        "reference": bytes_of(count, 3, size, size),
        "lip_box": floats_of(count, frames, 4),
        "sync_audio": floats_of(count, 18, 384),
    }


def sync_batch(config: TrainSyncConfig, clips: int = 3) -> dict[str, Tensor]:
    windows = config.data.windows
    times = torch.empty(clips, windows + 2, dtype=torch.int64, device="meta")
    return {
        "frames": bytes_of(clips, windows, 15, 64, 128),
        "audio": floats_of(clips, windows + 2, 18, 384),
        "starts": times,
        "clip": times[:, 0],
    }


def base_training():
    config = TrainBaseConfig()
    config.loss.sync = config.loss.perceptual = config.loss.adversarial = config.loss.landmark = 0.1
    return BaseObjective(config), base_batch()


def base_training_of(**shape):
    """Without what other networks say: the loss as it stands in the config."""
    config = TrainBaseConfig(model=BaseConfig(**shape))
    return BaseObjective(config), base_batch()


def hr_training():
    config = TrainHRConfig()
    config.model = HRConfig(scale=2, width=8)
    config.loss.sync = config.loss.perceptual = config.loss.lip_perceptual = config.loss.adversarial = 0.1
    return HRObjective(config), hr_batch()


def sync_training(kind: str):
    config = TrainSyncConfig()
    config.loss.kind = kind
    return SyncObjective(config), sync_batch(config)


def move(objective, device: torch.device) -> None:
    for module in (objective, objective.discriminator):
        if module is not None:
            module.to(device)


TRAININGS = {
    "base": base_training,
    "hr": hr_training,
    "sync contrastive": lambda: sync_training("contrastive"),
    "sync bce": lambda: sync_training("bce"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_step_stays_on_the_device(name, device):
    objective, batch = TRAININGS[name]()
    move(objective, device)
    loss, terms = objective(batch, LATE)
    loss.backward()
    assert loss.device == device and len(terms) >= 3
    Ema(objective.network, 0.9).update(objective.network)
    if objective.discriminator is not None:
        assert objective.seen
        loss, terms = objective.discriminate()
        loss.backward()
        assert loss.device == device and set(terms) == {"discriminator", "fooled"}


@pytest.mark.parametrize(
    "make",
    [
        *TRAININGS.values(),
        *(
            lambda shape=shape: base_training_of(**shape)
            for shape in (
                {"rewrite_levels": [3]},
                {"condition": "concat", "copied_rows": 0},
                {"gru": "recurrent"},
                {"gru": "zero_state", "decoder_size": 128},
                {"reference_encoder": "selected"},
                {"reference_encoder": "concatenated", "rewrite_levels": [0, 1, 2, 3]},
            )
        ),
    ],
)
def test_every_parameter_gets_a_gradient_where_no_loss_is_off(make, device):
    """Processes that train together do not look for those that get none, see Objective.unused."""
    objective, batch = make()
    assert not objective.unused
    move(objective, device)
    objective(batch, 0)[0].backward()
    without = [name for name, value in objective.named_parameters() if value.requires_grad and value.grad is None]
    assert not without


@pytest.mark.parametrize("off", [{"landmark": 0.0}, {"mouth": 0.0, "face": 0.0}])
def test_a_loss_that_is_off_leaves_some_unused(off, device):
    config = TrainBaseConfig()
    for name, value in off.items():
        setattr(config.loss, name, value)
    objective = BaseObjective(config)
    assert objective.unused
    objective.to(device)(base_batch(), LATE)[0].backward()
    assert any(value.grad is None for value in objective.parameters())


@torch.inference_mode()
@pytest.mark.parametrize("preset, encoder", [("light", "joint"), ("light", "selected"), ("published", "joint")])
def test_inference_stays_on_the_device(preset, encoder, device):
    base = folded(HyperLipsBase(BaseConfig.of(preset, reference_encoder=encoder)).eval()).to(device)
    config = base.config
    sounds = (
        floats_of(3, 1, 80, config.audio_window) if config.audio == "mel" else floats_of(3, config.audio_window, 384)
    )
    maps = base.encode_references(floats_of(1, 2, config.references, 3, 128, 128))
    shown = mix_references(maps, floats_of(1, 3, 2, config.references))
    painted = base.paint(base.encode_audio(sounds), face_input(bytes_of(3, 3, 128, 128)), shown, 3)
    assert painted.device == device and painted.shape == (3, 3, 128, 128)
    hr = folded(HRDecoder(HRConfig.of(preset, scale=2)).eval()).to(device)
    large = run_hr(
        hr, bytes_of(3, 3, 128, 128), bytes_of(3, 1, 128, 128), bytes_of(3, 3, 256, 256), bytes_of(1, 3, 256, 256)
    )
    assert large.device == device and large.shape == (3, 3, 256, 256)
    points, presence = FaceLandmarkNet().eval().to(device)(floats_of(3, 3, 256, 256))
    assert points.shape == (3, 478, 3) and presence.shape == (3,)


def test_a_loose_tensor_and_a_hidden_question_are_caught(device):
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.weights = torch.rand(4)  # no buffer: `to` leaves it behind

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.weights

    with pytest.raises(AssertionError, match="mixes tensors"):
        Loose().to(device)(floats_of(2, 4))
    for question in (
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: bool(x.sum() > 0),
        lambda x: x[x > 0],
    ):
        with pytest.raises((RuntimeError, NotImplementedError, AssertionError)):
            question(floats_of(2, 4))
