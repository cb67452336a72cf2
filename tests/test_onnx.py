"""Exported networks compute what PyTorch's do, for any number of frames. Skipped without onnx and onnxruntime."""

import json

import numpy as np
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


def run(runtime, path, **inputs: torch.Tensor) -> np.ndarray:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(inputs)
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})[0]


@pytest.mark.parametrize("preset, references", [("light", 2), ("published", 1)])
def test_both_stages_and_the_audio_encoder_agree_with_pytorch(runtime, tmp_path, preset, references):
    torch.manual_seed(0)
    base, hr = tmp_path / "base.safetensors", tmp_path / "hr.safetensors"
    save_network(base, randomised(HyperLipsBase(BaseConfig.of(preset, references=references))))
    save_network(hr, randomised(HRDecoder(HRConfig.of(preset, scale=2))))
    audio_file, base_file, hr_file = export_all(str(base), str(hr), tmp_path / "onnx")
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
        vectors = run(runtime, audio_file, audio=audio)
        assert np.abs(vectors - wanted.numpy()).max() <= 1e-3
        picture = run(runtime, base_file, vectors=torch.from_numpy(vectors), face=face)
        assert picture.std() > 0.01 and np.abs(picture - painted.numpy()).max() <= 1e-3
        found = run(runtime, hr_file, base=torch.from_numpy(picture), sketch=sketch, **more)
        assert found.shape == (frames, 3, 256, 256) and np.abs(found - large.numpy()).max() <= 1e-3
    about = runtime.InferenceSession(str(base_file)).get_modelmeta().custom_metadata_map
    assert json.loads(about["config"])["references"] == references and about["channel_order"] == "rgb"


def test_a_decoder_that_remembers_is_refused(tmp_path):
    base = tmp_path / "base.safetensors"
    save_network(base, HyperLipsBase(BaseConfig(gru="recurrent")))
    with pytest.raises(InputError, match="memory from frame to frame"):
        export_all(str(base), None, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
