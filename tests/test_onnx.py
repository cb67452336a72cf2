"""Exported networks compute what PyTorch's do, for any number of frames. Skipped without onnx and onnxruntime."""

import json

import pytest
import torch

from errors import InputError
from models.checkpoint import load_network, save_network
from models.config import BaseConfig, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from scripts.export_onnx import export_all

FRAMES = 1, 3


@pytest.fixture
def runtime():
    pytest.importorskip("onnxscript", reason="export needs pip install onnx onnxscript")
    return pytest.importorskip("onnxruntime", reason="needs pip install onnxruntime")


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Batch norms as after some training: means and spreads that a fresh network does not have."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def run(runtime, path, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(inputs)
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return {value.name: torch.from_numpy(array) for value, array in zip(session.get_outputs(), found, strict=True)}


@pytest.mark.parametrize(
    "preset, references, encoder", [("light", 2, "joint"), ("light", 2, "selected"), ("published", 1, "joint")]
)
def test_both_stages_and_the_audio_encoder_agree_with_pytorch(runtime, tmp_path, preset, references, encoder):
    torch.manual_seed(0)
    base, hr = tmp_path / "base.safetensors", tmp_path / "hr.safetensors"
    save_network(
        base, randomised(HyperLipsBase(BaseConfig.of(preset, references=references, reference_encoder=encoder)))
    )
    save_network(hr, randomised(HRDecoder(HRConfig.of(preset, scale=2))))
    files = {path.stem: path for path in export_all(str(base), str(hr), tmp_path / "onnx")}
    assert ("references" in files) == (encoder == "selected")
    stage1, stage2 = load_network(base, kind=HyperLipsBase), load_network(hr, kind=HRDecoder)
    window = stage1.config.audio_window
    for frames in FRAMES:
        audio = torch.randn(frames, *((1, 80, window) if preset == "published" else (window, 384)))
        face = torch.rand(frames, 3 + 3 * references, 128, 128)
        sketch, reference = torch.rand(frames, 3, 128, 128), torch.rand(frames, 6, 256, 256)
        more = {"reference": reference} if stage2.config.reference else {}
        with torch.inference_mode():
            wanted = torch.stack(stage1.encode_audio(audio), 1)
            painted = stage1(audio, face)
            large = stage2(painted, sketch, *more.values())
        vectors = run(runtime, files["audio"], audio=audio)["vectors"]
        assert (vectors - wanted).abs().max() <= 1e-3
        pictures = face[:, 3:].unflatten(1, (references, 3))
        maps = {"references_128": pictures}
        if "references" in files:
            maps = run(runtime, files["references"], pictures=pictures)
        picture = run(runtime, files["base"], vectors=vectors, face=face[:, :3], **maps)["picture"]
        assert picture.std() > 0.01 and (picture - painted).abs().max() <= 1e-3
        found = run(runtime, files["hr"], base=picture, sketch=sketch, **more)["picture"]
        assert found.shape == (frames, 3, 256, 256) and (found - large).abs().max() <= 1e-3
    about = runtime.InferenceSession(str(files["base"])).get_modelmeta().custom_metadata_map
    assert json.loads(about["config"])["references"] == references and about["channel_order"] == "rgb"


def test_a_decoder_that_remembers_is_refused(tmp_path):
    base = tmp_path / "base.safetensors"
    save_network(base, HyperLipsBase(BaseConfig(gru="recurrent")))
    with pytest.raises(InputError, match="memory from frame to frame"):
        export_all(str(base), None, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
