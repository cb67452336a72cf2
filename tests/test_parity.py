"""Given the weights of parity/weights.py in the published layout, our networks answer as golden.npz holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import weights

from models.checkpoint import load_network

GOLDEN = np.load(Path(weights.__file__).with_name("golden.npz"))
TOLERANCE = 1e-4
"""Of the array's largest magnitude."""


def example(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(weights.example(name, shape, low, high))


def assert_golden(name: str, value: torch.Tensor) -> None:
    wanted = GOLDEN[name]
    assert value.shape == wanted.shape
    error = np.abs(value.numpy() - wanted).max() / np.abs(wanted).max()
    print(f"{name} {error:.1e}")
    assert error <= TOLERANCE, f"{name} is off by {error:.1e} of its largest value"


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A function from a layout's name to our network, read from a checkpoint as published training writes it."""
    folder = tmp_path_factory.mktemp("published")

    def load(name: str) -> torch.nn.Module:
        weights.save(name, folder / f"{name}.pth")
        return load_network(folder / f"{name}.pth")

    return load


def test_base(published):
    network = published("base")
    assert network.channel_order == "bgr"
    mel, masked = example("mel", (2, 1, 80, 16), -4, 4), example("face", (2, 6, 128, 128))
    masked[:, :3, 64:] = 0
    latents = network.face_encoder(masked)
    audio = network.audio_encoder.maps(mel)
    vectors = network.encode_audio(mel)
    modified = network.rewrite(latents, vectors)
    for level in range(4):
        assert_golden(f"latent{level}", latents[level][:1])
        assert_golden(f"audio{level}", audio[level])
        assert_golden(f"hyper{level}", vectors[level])
        assert_golden(f"modified{level}", modified[level][:1])
    assert_golden("base_out", network(mel, masked))


def test_base_on_a_sequence(published):
    network = published("base")
    mel, face = example("mel5", (1, 5, 1, 80, 16), -4, 4), example("face5", (1, 6, 5, 128, 128))
    assert_golden("base_out5", network(mel, face)[..., ::2, ::2])


@pytest.mark.parametrize("scale, step", [(1, 1), (2, 1), (4, 4)])
def test_hr_decoder(published, scale, step):
    network = published(f"hr{scale}")
    assert network.config.scale == scale and network.channel_order == "bgr"
    base = example("hr_base", (1, 3, 128, 128))
    sketch = (example("hr_sketch", (1, 3, 128, 128)) > 0.9).float()
    assert_golden(f"hr{scale}_out", network(base, sketch)[..., ::step, ::step])


def test_base_discriminator(published):
    """Frames of a clip are taken time-major."""
    frames = example("base_disc_frames", (2, 3, 5, 128, 128)).permute(2, 0, 1, 3, 4).flatten(0, 1)
    assert_golden("base_disc_prob", published("base_disc")(frames).sigmoid())


def test_hr_discriminator(published):
    assert_golden("hr_disc_prob", published("hr_disc")(example("hr_disc_image", (2, 3, 256, 256))).sigmoid())


def test_sync_expert(published):
    audio, face = published("sync")(
        example("sync_mel", (3, 1, 80, 16), -4, 4), example("sync_frames", (3, 15, 64, 128))
    )
    assert_golden("sync_audio", audio)
    assert_golden("sync_face", face)


def test_syncnet_v2(published):
    audio, lips = published("syncnet_v2")(
        example("v2_mfcc", (2, 1, 13, 20), -20, 20), example("v2_frames", (2, 3, 5, 224, 224), 0, 255)
    )
    assert_golden("syncnet_v2_audio", audio)
    assert_golden("syncnet_v2_lip", lips)
