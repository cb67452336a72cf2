"""Networks: sizes, shapes, gradients, costs, and the frozen Whisper front end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from librosa.feature import melspectrogram
from parity import weights
from torch.utils.flop_counter import FlopCounterMode

from errors import InputError
from models.checkpoint import load_network
from models.config import BaseConfig, HRConfig, SyncConfig
from models.discriminators import BaseDiscriminator, HRDiscriminator
from models.face_decoder import ConvGRU
from models.hr_decoder import HRDecoder
from models.hyper import HyperConv
from models.hyperlips import HyperLipsBase, face_input, mask_lower_half
from models.syncnet import SyncExpert
from models.whisper import HOP, N_FFT, SAMPLE_RATE, WhisperFrontEnd, floored
from speech.whisper_features import LazyFeatures

WHISPER = Path(__file__).resolve().parent.parent / "checkpoints" / "whisper_tiny_en_2blocks.safetensors"
SMALL = {
    "latent_channels": [4, 6, 8, 10],
    "decoder_channels": [8, 6, 4],
    "output_channels": 8,
    "full_channels": 8,
    "hyper_width": 8,
    "audio_width": 16,
}


def parameters(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def base_inputs(config: BaseConfig, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (1, 80, config.audio_window) if config.audio == "mel" else (config.audio_window, 384)
    return torch.randn(batch, *shape), torch.rand(batch, 3 + 3 * config.references, 128, 128)


def hr_inputs(config: HRConfig, batch: int = 2) -> list[torch.Tensor]:
    size = 128 * config.scale
    inputs = [torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 128, 128)]
    return inputs + ([torch.rand(batch, 6, size, size)] if config.reference else [])


def gflops(network: torch.nn.Module, *inputs: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(*inputs)
    return counter.get_total_flops() / 1e9


def assert_gradients(network: torch.nn.Module, output: torch.Tensor, idle: tuple[str, ...] = ()) -> None:
    """A random projection of the output reaches every parameter (biases before batch norm: rounding noise only)."""
    (output * torch.randn_like(output)).sum().backward()
    without = {
        name for name, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0
    }
    assert without == set(idle)


@pytest.mark.parametrize(
    "network, count",
    [
        (lambda: HyperLipsBase(BaseConfig.of("published")), 29_716_503),
        (lambda: HRDecoder(HRConfig.of("published", scale=1)), 133_443),
        (lambda: HRDecoder(HRConfig.of("published", scale=2)), 170_499),
        (lambda: HRDecoder(HRConfig.of("published", scale=4)), 281_667),
        (BaseDiscriminator, 14_113_793),
        (HRDiscriminator, 1_887_873),
        (lambda: SyncExpert(SyncConfig.of("published")), 22_991_744),
    ],
)
def test_published_parameter_counts(network, count):
    assert parameters(network()) == count


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"audio": "mel", "audio_window": 16},
        {"audio": "mel", "audio_window": 32},
        {"audio_window": 10},
        {"trunk": "mobilenet", "latent_channels": [16, 24, 40, 10]},
        {"rewrite_levels": [1, 3]},
        {"rewrite_levels": []},
        {"condition": "concat"},
        {"decoder_size": 128},
        {"gru": "zero_state"},
        {"gru": "recurrent"},
        {"decoder_size": 128, "gru": "recurrent"},
        {"references": 3},
        {"copied_rows": 0},
        {"copied_rows": 32, "decoder_size": 128},
    ],
    ids=str,
)
def test_base_shapes_of_every_ablation(changes):
    config = BaseConfig(**{**SMALL, **changes})
    network = HyperLipsBase(config)
    audio, face = base_inputs(config)
    output = network(audio, face)
    assert output.shape == (2, 3, 128, 128) and output.min() >= 0 and output.max() <= 1
    vectors = network.encode_audio(audio)
    assert [vector.shape for vector in vectors] == [(2, config.hyper_width)] * 4
    network.eval()
    with torch.no_grad():
        sequence = network(audio[None], face.transpose(0, 1)[None])
        singles = network(audio, face).transpose(0, 1)[None]
    assert sequence.shape == (1, 3, 2, 128, 128)
    torch.testing.assert_close(sequence[:, :, 0], singles[:, :, 0])
    assert torch.allclose(sequence, singles, atol=1e-5) == (config.gru != "recurrent")


def test_rows_above_the_mask_are_copied_and_the_rest_is_painted_alike():
    torch.manual_seed(0)
    copying, painting = (HyperLipsBase(BaseConfig(**SMALL, copied_rows=rows)).eval() for rows in (48, 0))
    painting.load_state_dict(copying.state_dict())
    audio, face = base_inputs(copying.config)
    with torch.no_grad():
        copied, painted = copying(audio, face), painting(audio, face)
    assert torch.equal(copied[:, :, :60], face[:, :3, :60]) and not torch.equal(painted[:, :, :60], face[:, :3, :60])
    torch.testing.assert_close(copied[:, :, 112:], painted[:, :, 112:])  # far from the edge where the maps were cut


@pytest.mark.parametrize("preset, scale", [(preset, scale) for preset in ("light", "published") for scale in (1, 2, 4)])
@pytest.mark.parametrize(
    "changes", [{}, {"reference": None}, {"residual": None}], ids=["preset", "other reference", "other residual"]
)
def test_hr_shapes_and_parts(preset, scale, changes):
    usual = HRConfig.of(preset, scale=scale, width=8, head_width=4)
    config = HRConfig.of(
        preset, scale=scale, width=8, head_width=4, **{key: not getattr(usual, key) for key in changes}
    )
    network = HRDecoder(config).eval()
    with torch.no_grad():
        inputs = hr_inputs(config, 1)
        output = network(*inputs)
        assert output.shape == (1, 3, 128 * scale, 128 * scale) and output.min() >= 0 and output.max() <= 1
        for x0, y0, x1, y1 in ((24, 60, 104, 124), (24, 70, 104, 124), (1, 40, 128, 128)):
            inside = output[:, :, scale * y0 : scale * y1, scale * x0 : scale * x1]
            torch.testing.assert_close(network(*inputs, part=(x0, y0, x1, y1)), inside, atol=1e-5, rtol=0)


@pytest.mark.parametrize("part", [None, (24, 40, 104, 124)])
def test_hr_takes_a_reference_in_bytes(part):
    network = HRDecoder(HRConfig(width=8)).eval()
    assert network.config.reference and network.config.residual and network.config.copied_rows > 40
    base, sketch, reference = hr_inputs(network.config, 1)
    reference = (reference * 255).byte()
    with torch.no_grad():
        painted = network(base, sketch, reference, part)
        assert torch.equal(painted, network(base, sketch, reference.float() / 255, part))
    assert painted.max() <= 1


def test_the_largest_size_follows_the_scale_where_it_is_the_outputs():
    assert HRConfig(scale=4).size == 128
    assert HRConfig.of("published", scale=4, width=8).size == 512


def test_hr_residual_starts_near_the_enlarged_face_and_keeps_its_gradient():
    network = HRDecoder(HRConfig(width=8))
    inputs = hr_inputs(network.config)
    inputs[0], inputs[2] = torch.ones_like(inputs[0]), torch.ones_like(inputs[2])
    assert network(*inputs).max() > 1
    output = network.eval()(*inputs)
    assert output.max() <= 1 and (output - 1).abs().mean() < 0.1


@pytest.mark.parametrize(("logit", "own"), [(50.0, 1.0), (-50.0, 0.0), (0.0, 0.5)])
def test_hr_blends_the_stage_one_face_with_the_persons_own_pixels_but_not_on_the_mouth(logit, own):
    network = HRDecoder(HRConfig(width=8)).eval()
    base, sketch, pictures = hr_inputs(network.config)
    base = torch.full_like(base, 0.25)
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias[12:] = logit
        output = network(base, sketch, pictures)
    blended = [own * shown + (1 - own) * 0.25 for shown in (pictures[:, :3], pictures[:, 3:])]
    assert torch.allclose(output[:, :, 96:112], blended[0][:, :, 96:112], atol=1e-5)
    assert torch.equal(output[:, :, :96], pictures[:, :3, :96])  # not painted at all
    assert torch.allclose(output[:, :, 128:, :40], blended[1][:, :, 128:, :40], atol=1e-5)
    # px of 128: lips and chin lie round (64, 92)
    assert torch.allclose(
        output[:, :, 150:230, 90:166], torch.full_like(output[:, :, 150:230, 90:166], 0.25), atol=1e-5
    )


@pytest.mark.parametrize("reference", [True, False])
def test_hr_paints_below_the_copied_rows_as_it_would_without_them(reference):
    copying, painting = (HRDecoder(HRConfig(width=8, reference=reference, copied_rows=rows)).eval() for rows in (48, 0))
    painting.load_state_dict(copying.state_dict())
    inputs = hr_inputs(copying.config)
    with torch.no_grad():
        copied, painted = copying(*inputs), painting(*inputs)
    above = (
        inputs[2][:, :3] if reference else torch.nn.functional.interpolate(inputs[0], scale_factor=2, mode="bilinear")
    )
    assert torch.equal(copied[:, :, :96], above[:, :, :96])
    torch.testing.assert_close(
        copied[:, :, 104:], painted[:, :, 104:]
    )  # three 3x3 convolutions at half the size see 6 px far


def test_hr_reference_is_asked_for_as_configured():
    with pytest.raises(ValueError, match="reference is missing"):
        HRDecoder(HRConfig(width=8))(torch.rand(1, 3, 128, 128), torch.rand(1, 3, 128, 128))


@pytest.mark.parametrize(
    "config",
    [
        BaseConfig(),
        BaseConfig(audio="mel", audio_window=16, rewrite_levels=[0, 1, 2, 3]),
        BaseConfig(**SMALL, condition="concat"),
        BaseConfig(
            **{
                **SMALL,
                "rewrite_levels": [0, 1, 2, 3],
                "decoder_size": 128,
                "trunk": "mobilenet",
                "latent_channels": [16, 24, 40, 8],
            }
        ),
    ],
    ids=["light", "mel", "concat", "mobilenet"],
)
def test_gradient_reaches_every_base_parameter(config):
    torch.manual_seed(0)
    network = HyperLipsBase(config)
    idle_levels = sorted(set(range(4)) - set(config.rewrite_levels))
    idle = [
        name
        for name, _ in network.named_parameters()
        if name.startswith(tuple(f"hyper_nets.{level}." for level in idle_levels))
    ]
    assert_gradients(network, network(*base_inputs(config)), tuple(idle))


def test_audio_parameters_are_what_the_hyper_vectors_depend_on():
    network = HyperLipsBase(BaseConfig(**SMALL))
    torch.cat(network.encode_audio(base_inputs(network.config)[0]), 1).square().sum().backward()
    reached = {id(value) for value in network.parameters() if value.grad is not None}
    assert reached == {id(value) for value in network.audio_parameters()}


def test_zero_state_leaves_only_the_reset_gate_and_the_state_idle():
    torch.manual_seed(0)
    network = HyperLipsBase(BaseConfig(**{**SMALL, "gru": "zero_state", "rewrite_levels": [0, 1, 2, 3]}))
    assert_gradients(network, network(*base_inputs(network.config)))
    for gru in (module for module in network.modules() if isinstance(module, ConvGRU)):
        count = gru.channels
        assert not gru.gates.weight.grad[:count].any() and not gru.gates.bias.grad[:count].any()
        assert not gru.gates.weight.grad[:, count:].any() and not gru.candidate.weight.grad[:, count:].any()
        assert gru.gates.weight.grad[count:, :count].all() and gru.candidate.weight.grad[:, :count].all()


def test_recurrent_gru_reaches_every_parameter_and_starts_like_zero_state():
    torch.manual_seed(0)
    gru, x = ConvGRU(3, recurrent=True), torch.randn(4, 3, 8, 8)
    y = gru(x, frames=2)
    assert_gradients(gru, y)
    whole = gru._step(x[::2], torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(y[::2], whole)
    torch.testing.assert_close(y[1::2], gru._step(x[1::2], whole))


@pytest.mark.parametrize(
    "network, inputs",
    [
        (lambda: HRDecoder(HRConfig()), lambda network: hr_inputs(network.config)),
        (lambda: HRDecoder(HRConfig.of("published", scale=2, width=8)), lambda network: hr_inputs(network.config)),
        (BaseDiscriminator, lambda network: [torch.rand(2, 3, 128, 128)]),
        (HRDiscriminator, lambda network: [torch.rand(2, 3, 128, 128)]),
    ],
    ids=["HR light", "HR published", "base discriminator", "HR discriminator"],
)
def test_gradient_reaches_every_other_parameter(network, inputs):
    torch.manual_seed(0)
    network = network()
    assert_gradients(network, network(*inputs(network)))


@pytest.mark.parametrize(
    "config", [SyncConfig.of("published", width=4, embedding=32), SyncConfig()], ids=["mel", "light"]
)
def test_sync_expert_gives_unit_vectors_and_gradients(config):
    torch.manual_seed(0)
    network = SyncExpert(config)
    audio = torch.randn(3, 1, 80, 16) if config.audio == "mel" else torch.randn(3, config.audio_window, 384)
    vectors = network(audio, torch.rand(3, 15, 64, 128))
    for vector in vectors:
        assert vector.shape == (3, config.embedding) and vector.min() >= 0
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(3))
    assert_gradients(network, torch.cat(vectors, 1))


def test_hyper_conv_is_one_ordinary_convolution_per_sample():
    torch.manual_seed(0)
    layer = HyperConv(5, 7)
    x, hyper = torch.randn(3, 5, 6, 4), torch.randn(3, 7)
    y = layer(x, hyper)
    for index in range(3):
        kernel, bias = layer.kernel(hyper[index]).view(5, 5, 3, 3), layer.bias(hyper[index])
        torch.testing.assert_close(y[index], torch.nn.functional.conv2d(x[index], kernel, bias, padding=1))


def test_light_networks_stay_cheap():
    assert gflops(HyperLipsBase(), *base_inputs(BaseConfig(), 1)) <= 0.6
    assert gflops(HRDecoder(HRConfig(scale=2)), *hr_inputs(HRConfig(), 1)) <= 1.0


def test_flops_count_the_convolutions_of_each_sample():
    one, two = (gflops(HyperConv(16, 64), torch.rand(batch, 16, 64, 64), torch.rand(batch, 64)) for batch in (1, 2))
    assert one == pytest.approx(2 * (64 * 64 * 9 * 16 * 16 + 64 * (16 * 16 * 9 + 16)) / 1e9)
    assert two == pytest.approx(2 * one)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"audio": "wav2vec"}, "audio is 'wav2vec', expected one of 'mel', 'whisper'"),
        ({"audio": "mel", "audio_window": 20}, "audio_window is 20, expected a multiple of 16"),
        ({"latent_channels": [16, 24, 40]}, "latent_channels is .* expected 4 whole numbers"),
        ({"trunk": "mobilenet", "latent_channels": [8, 24, 40, 96]}, "latent_channels is .* with trunk: mobilenet"),
        ({"rewrite_levels": [0, 4]}, "rewrite_levels is .* expected some of 0, 1, 2, 3"),
        ({"gru": "zero_state", "decoder_channels": [9, 8, 8]}, "decoder_channels is .* even"),
        ({"decoder_size": 256}, "decoder_size is 256, expected one of 64, 128"),
        ({"copied_rows": 40}, "copied_rows is 40, expected one of 0, 16, 32, 48"),
        ({"references": 0}, "references is 0, expected a whole number"),
    ],
)
def test_bad_base_configs_are_named(changes, words):
    with pytest.raises(InputError, match=words):
        BaseConfig(**changes)


def test_bad_hr_configs_are_named():
    with pytest.raises(InputError, match="preset is 'heavy', expected one of 'light', 'published'"):
        HRConfig.of("heavy")
    with pytest.raises(InputError, match="size is 256, expected one of 128 with scale 1"):
        HRConfig(scale=1, size=256)
    with pytest.raises(InputError, match="scale is 3, expected one of 1, 2, 4"):
        HRConfig(scale=3)


def test_config_keeps_what_is_set_and_shares_nothing():
    first, second = BaseConfig(hyper_width=32), BaseConfig()
    first.latent_channels[0] = 1
    assert (first.hyper_width, second.latent_channels[0]) == (32, 16)


def test_face_input_masks_the_lower_half_and_scales_bytes():
    face = torch.full((2, 3, 6, 4), 51, dtype=torch.uint8)
    references = torch.full((2, 2, 3, 6, 4), 255, dtype=torch.uint8)
    joined = face_input(face, references)
    assert joined.shape == (2, 9, 6, 4)
    torch.testing.assert_close(joined[:, :3, :3], torch.full((2, 3, 3, 4), 0.2))
    assert not joined[:, :3, 3:].any() and (joined[:, 3:] == 1).all()
    assert (face == 51).all() and mask_lower_half(face)[:, :, 2].all()
    torch.testing.assert_close(face_input(face.float() / 255, references.float() / 255), joined)


@pytest.fixture(scope="module")
def whisper():
    return load_network(WHISPER)


def log_mel(whisper: WhisperFrontEnd, wave: np.ndarray) -> torch.Tensor:
    """(80, samples // 160) of a whole sound, mirrored at its ends."""
    log = whisper.log_power(torch.from_numpy(np.pad(wave, N_FFT // 2, "reflect")[:-HOP]))
    return floored(log, float(log.max()))


def heard(whisper: WhisperFrontEnd, wave: np.ndarray) -> np.ndarray:
    return np.asarray(LazyFeatures(whisper, wave))


def test_whisper_log_mel_is_whispers(whisper):
    wave = weights.waveform(3.0)
    power = melspectrogram(y=wave, sr=SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=80, pad_mode="reflect")[:, :-1]
    log = np.log10(np.maximum(power, 1e-10))
    wanted = (np.maximum(log, log.max() - 8) + 4) / 4
    np.testing.assert_allclose(log_mel(whisper, wave).numpy(), wanted, atol=2e-4)


def test_whisper_stays_frozen_and_silence_is_finite(whisper):
    assert not any(value.requires_grad for value in whisper.parameters())
    for samples in (0, 1, 150, 321, 16000):
        features = heard(whisper, np.zeros(samples, np.float32))
        assert (
            features.shape == (-(-samples // 320), 384) and features.dtype == np.float32 and np.isfinite(features).all()
        )


def test_whisper_pieces_are_the_encoder_on_each_piece_with_its_context(whisper):
    """Feature 200 to 399 of a long sound are what the encoder makes of features 175 to 424 alone."""
    wave = weights.waveform(12.0)
    features = heard(whisper, wave)
    mel = log_mel(whisper, wave)
    with torch.inference_mode():
        piece = whisper(mel[None, :, 350:850])[0, 25:225].numpy()
    np.testing.assert_allclose(features[200:400], piece, atol=1e-4)


def test_whisper_pieces_hear_like_the_whole_sound(whisper):
    """The cut costs little: on the whole-sound encoder, what lies beyond the context hardly matters."""
    wave = weights.waveform(12.0)
    mel = log_mel(whisper, wave)[None]
    with torch.inference_mode():
        whole = whisper(mel[..., :900])[0, :200].numpy()
        piece = whisper(mel[..., :450])[0, :200].numpy()
    assert np.corrcoef(whole.ravel(), piece.ravel())[0, 1] > 0.97


def test_whisper_pieces_do_not_depend_on_where_the_sound_begins(whisper):
    """Four seconds more in front move the features by four seconds."""
    wave = weights.waveform(5.0)
    shifted = heard(whisper, np.pad(wave, (4 * SAMPLE_RATE, 0)))
    np.testing.assert_allclose(shifted[230:430], heard(whisper, wave)[30:230], atol=0.05)


def test_a_recurrent_decoders_memory_follows_the_clip_and_not_the_batch():
    network = HyperLipsBase(BaseConfig(**SMALL, gru="recurrent")).eval()
    audio, face = torch.randn(5, 18, 384), torch.rand(5, 6, 128, 128)
    with torch.no_grad():
        sequence = network(audio[None], face.transpose(0, 1)[None])[0].transpose(0, 1)
        apart, vectors = network(audio, face), network.encode_audio(audio)
        for sizes in ((5,), (1, 1, 1, 1, 1), (2, 3)):
            memory, painted, start = {}, [], 0
            for size in sizes:
                part = slice(start, start + size)
                shown = network.encode_references(face[part, None, 3:])
                painted.append(network.paint([level[part] for level in vectors], face[part, :3], shown, size, memory))
                start += size
            assert torch.allclose(torch.cat(painted), sequence, atol=1e-6)
    assert torch.allclose(sequence[0], apart[0], atol=1e-6) and (sequence[2] - apart[2]).abs().max() > 1e-6
