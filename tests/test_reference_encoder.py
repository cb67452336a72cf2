"""References that are encoded apart from the masked face."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from datasets.key_frames import MOUTHS
from engine.config import load_config
from engine.options import TrainBaseConfig
from errors import InputError
from models.checkpoint import load_network, save_network
from models.config import BaseConfig, check_references
from models.hyperlips import HyperLipsBase, face_input
from models.reference_encoder import MoveReferences, SelectReferences, mix_references

KINDS = "selected", "concatenated"


def tiny(kind: str, **values) -> HyperLipsBase:
    torch.manual_seed(0)
    widths = {"latent_channels": [8, 8, 8, 8], "hyper_width": 8, "audio_width": 8, "decoder_channels": [8, 8, 8]}
    widths |= {"output_channels": 8, "full_channels": 8, "reference_channels": [8, 8, 8, 8], "reference_groups": 4}
    return HyperLipsBase(BaseConfig(**({"reference_encoder": kind, "references": 2} | widths | values)))


def paint(network: HyperLipsBase, pictures: torch.Tensor, shares: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Output for pictures (B, K, R, 3, 128, 128) and shares (B, T, K, R)."""
    torch.manual_seed(seed)
    count = shares.shape[0] * shares.shape[1]
    audio, face = torch.randn(count, 18, 384), face_input(torch.rand(count, 3, 128, 128))
    mixed = mix_references(network.encode_references(pictures), shares)
    return network.paint(network.encode_audio(audio), face, mixed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size, rows", [(64, 48), (128, 0)])
def test_shapes_and_gradient_to_every_parameter(kind, size, rows):
    network = tiny(kind, decoder_size=size, copied_rows=rows).train()
    output = paint(network, torch.rand(2, 3, 2, 3, 128, 128), torch.rand(2, 2, 3, 2).softmax(2))
    assert output.shape == (4, 3, 128, 128)
    (output * torch.randn_like(output)).mean().backward()
    idle = [name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()]
    unheard = "hyper_nets.0." if kind == "concatenated" else "none"  # selection alone hears the sound at 64 px
    assert not [name for name in idle if not name.startswith(unheard)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_frame_without_share_does_not_matter(kind):
    network, pictures = tiny(kind).eval(), torch.rand(1, 2, 2, 3, 128, 128)
    shares = torch.tensor([1.0, 0.0])[None, None, :, None].expand(1, 3, 2, 2)
    other = pictures.clone()
    other[:, 1] = torch.rand_like(other[:, 1])
    torch.testing.assert_close(paint(network, pictures, shares), paint(network, other, shares))
    torch.testing.assert_close(paint(network, pictures, shares), paint(network, pictures[:, :1], shares[:, :, :1]))
    assert not torch.allclose(paint(network, pictures, shares), paint(network, other, shares.flip(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_changes_as_little_as_the_shares(kind):
    network, pictures = tiny(kind).eval(), torch.rand(1, 2, 2, 3, 128, 128)
    shares = torch.linspace(0, 1, 21)[:, None].expand(21, 2)
    shares = torch.stack([shares, 1 - shares], 1)[:, None]  # (21, 1, K, R)
    with torch.inference_mode():
        outputs = torch.cat([paint(network, pictures, share[None]) for share in shares])
    whole = (outputs[0] - outputs[-1]).abs().mean()
    assert (outputs[1:] - outputs[:-1]).abs().mean((1, 2, 3)).max() < 0.3 * whole


def test_mixing_is_each_mouth_by_its_own_shares():
    maps = torch.rand(2, 3, 2, 5, 4, 4)
    shares = torch.rand(2, 6, 3, 2).softmax(2)
    mixed = mix_references([maps], shares)[0]
    assert mixed.shape == (12, 2, 5, 4, 4)
    torch.testing.assert_close(mixed[7, 1], (shares[1, 1, :, 1, None, None, None] * maps[1, :, 1]).sum(0))


def test_selection_stays_between_the_mouths_and_follows_face_and_sound():
    torch.manual_seed(0)
    select = SelectReferences(6, 16, 2, 4, 8)
    x, mouths, heard = torch.randn(3, 6, 8, 8), torch.rand(3, 2, 16, 16, 16), torch.randn(3, 8)
    chosen = select(x, mouths, heard)
    assert chosen.shape == (3, 16, 16, 16)
    assert (chosen <= mouths.max(1).values + 1e-6).all() and (chosen >= mouths.min(1).values - 1e-6).all()
    same = mouths[:, :1].expand_as(mouths)
    torch.testing.assert_close(select(x, same, heard), same[:, 0])
    assert not torch.allclose(select(x, mouths, -heard), chosen) and not torch.allclose(
        select(-x, mouths, heard), chosen
    )


def test_references_that_are_moved_begin_where_they_are_and_follow_a_flow():
    torch.manual_seed(0)
    mover = MoveReferences(6, 4, mouths=2, furthest=3.0).eval()
    x, mouths = torch.randn(2, 6, 8, 16), torch.rand(2, 2, 4, 16, 32)
    torch.testing.assert_close(mover(x, mouths), mouths)
    with torch.no_grad():
        mover.flow.bias.copy_(torch.tensor([2 / 3, 0, 0, -1 / 3]).atanh())  # the first mouth across, the second up
    moved = mover(x, mouths)
    torch.testing.assert_close(moved[:, 0, ..., :-2], mouths[:, 0, ..., 2:])
    torch.testing.assert_close(moved[:, 1, :, 1:], mouths[:, 1, :, :-1])
    torch.testing.assert_close(moved[:, 0, ..., -1], mouths[:, 0, ..., -1])  # beyond the edge is the edge


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_that_moves_references_learns_to(kind):
    network = tiny(kind, reference_flow=8.0).train()
    paint(network, torch.rand(1, 1, 2, 3, 128, 128), torch.ones(1, 2, 1, 2)).square().mean().backward()
    assert network.mover.flow.weight.grad.abs().sum() > 0


def test_a_frame_stays_cheap_whatever_the_number_of_key_frames():
    config = load_config(TrainBaseConfig, Path(__file__).resolve().parent.parent / "configs" / "demo_base.yaml")
    network = HyperLipsBase(config.model).eval()
    maps = network.encode_references(torch.rand(1, MOUTHS.most, 2, 3, 128, 128))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        mixed = mix_references(maps, torch.rand(1, 4, MOUTHS.most, 2).softmax(2))
        network.paint(network.encode_audio(torch.randn(4, 18, 384)), torch.rand(4, 3, 128, 128), mixed, 4)
    assert counter.get_total_flops() / 4e9 <= 0.6


@pytest.mark.parametrize("kind", ["joint", *KINDS])
def test_a_face_that_brings_its_references_is_painted_from_them(kind):
    network, pictures = tiny(kind).eval(), torch.rand(4, 1, 2, 3, 128, 128)
    torch.manual_seed(1)
    audio, face = torch.randn(4, 18, 384), torch.rand(4, 3, 128, 128)
    with torch.no_grad():
        alone = network(audio, face_input(face, pictures[:, 0]))
        mixed = mix_references(network.encode_references(pictures), torch.ones(4, 1, 1, 2))
        torch.testing.assert_close(alone, network.paint(network.encode_audio(audio), face_input(face), mixed))
        sequence = network(audio[None], face_input(face, pictures[:, 0]).transpose(0, 1)[None])
    torch.testing.assert_close(sequence[0].transpose(0, 1), alone)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_from_a_file(kind, tmp_path):
    network = tiny(kind).eval()
    save_network(tmp_path / "base.safetensors", network, half=False)
    given = torch.rand(1, 1, 2, 3, 128, 128), torch.ones(1, 2, 1, 2)
    torch.testing.assert_close(paint(load_network(tmp_path / "base.safetensors"), *given), paint(network, *given))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"trunk": "mobilenet", "latent_channels": [16, 24, 40, 8]}, "trunk: plain"),
        ({"reference_groups": 3}, "reference_groups is 3"),
        ({"reference_channels": [8, 8, 8]}, "reference_channels is"),
        ({"reference_flow": -1}, "reference_flow is -1"),
        ({"reference_flow": 8, "reference_encoder": "joint"}, "expected 0 with reference_encoder: joint"),
    ],
)
def test_what_cannot_be_built_is_refused(values, words):
    with pytest.raises(InputError, match=words):
        tiny("selected", **values)


def test_unknown_way_to_encode_references_is_refused():
    with pytest.raises(InputError, match="reference_encoder is 'none', expected one of 'joint'"):
        BaseConfig(reference_encoder="none")


def test_pictures_are_not_mixed_by_pose():
    check_references(BaseConfig(reference_encoder="selected"), "pose")
    check_references(BaseConfig(), "closed")
    with pytest.raises(InputError, match="reference is pose, expected closed"):
        check_references(BaseConfig(), "pose")
