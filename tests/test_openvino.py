"""OpenVINO paints what torch paints, is chosen by measurement, and need not be there: what runs it is skipped then."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import LINUX, ROOT, SIZE, talking_face
from test_models import SMALL
from test_onnx import randomised
from torch import nn

from engine import precision
from engine.networks import Networks
from engine.options import InferenceConfig
from engine.precision import Precision, choose_precision, runtimes
from errors import InputError
from face.landmark_net import LandmarkNet
from models import compiled
from models.checkpoint import load_network
from models.config import BaseConfig, HRConfig
from models.fold import folded
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase

OPENVINO = Precision(runtime="openvino")
CPU = torch.device("cpu")
FRAMES = 3, 1, 5
TOLERANCE = 1e-3  # 1 of 255 is 4e-3


@pytest.fixture(autouse=True)
def caches(tmp_path, tmp_path_factory, monkeypatch):
    """An empty one of choices, and these tests' own of converted networks."""
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")
    monkeypatch.setattr(compiled, "CACHE", tmp_path_factory.getbasetemp() / "converted")


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="needs pip install -r requirements-openvino.txt")


@torch.inference_mode()
def agree(network: nn.Module, *inputs, **more) -> None:
    """What OpenVINO makes of the inputs is what torch makes of them, and not by torch."""
    Precision().place(network)
    wanted = network(*inputs, **more)
    found = OPENVINO.place(network)(*inputs, **more)
    assert network in compiled._compiled
    assert found.shape == wanted.shape and wanted.std() > 0.01
    assert (found - wanted).abs().max() <= TOLERANCE


def faces(count: int, size: int = 128) -> np.ndarray:
    """(count, size, size, 3) uint8 of a face that talks."""
    top, left = (SIZE[1] - 200) // 2, (SIZE[0] - 200) // 2
    cuts = [talking_face(k / 25)[top : top + 200, left : left + 200] for k in range(count)]
    pictures = nn.functional.interpolate(torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float(), (size, size))
    return pictures.byte().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(
    "changes",
    [
        {"reference_encoder": "selected", "reference_flow": 12, "references": 2, "gru": "zero_state"},
        {"condition": "concat", "copied_rows": 0},
        {"preset": "published", "latent_channels": [16, 24, 40, 8]},
    ],
    ids=["selected", "concat", "published"],
)
def test_small_stage_one_is_what_torch_paints(openvino, changes):
    torch.manual_seed(0)
    config = BaseConfig.of(**{"preset": "light"} | SMALL | changes)
    network = folded(randomised(HyperLipsBase(config)).eval())
    for frames in FRAMES:
        shape = (1, 80, config.audio_window) if config.audio == "mel" else (config.audio_window, 384)
        agree(network, torch.randn(frames, *shape), torch.rand(frames, 3 + 3 * config.references, 128, 128))


@pytest.mark.parametrize("preset", ["light", "published"])
def test_small_stage_two_is_what_torch_paints(openvino, preset):
    torch.manual_seed(0)
    network = folded(randomised(HRDecoder(HRConfig.of(preset, scale=2, width=8))).eval())
    for frames in FRAMES:
        reference = [torch.rand(frames, 6, 256, 256)] if network.config.reference else []
        agree(network, torch.rand(frames, 3, 128, 128), torch.rand(frames, 3, 128, 128), *reference)


def test_the_shipped_weights_paint_what_they_paint_by_torch(openvino):
    config = InferenceConfig()
    base = folded(load_network(config.base, CPU, HyperLipsBase))
    hr = folded(load_network(config.hr, CPU, HRDecoder))
    for frames, part in ((4, (20, 48, 104, 124)), (2, (8, 52, 112, 128)), (3, None)):
        small, large = (torch.from_numpy(faces(frames, size)).permute(0, 3, 1, 2) / 255 for size in (128, 256))
        masked = small.clone()
        masked[:, :, 64:] = 0
        agree(base, torch.randn(frames, base.config.audio_window, 384), torch.cat([masked, small, small], 1))
        agree(hr, small, small[:, :1].expand(-1, 3, -1, -1), torch.cat([large, large], 1), part=part)


def test_landmarks_are_those_of_torch(openvino):
    net, by_torch = LandmarkNet(runtime="openvino"), LandmarkNet()
    for count in (3, 20):
        (found, seen), (wanted, _) = net.landmarks(faces(count)), by_torch.landmarks(faces(count))
        assert seen.all() and np.abs(found - wanted).max() < 1e-3
        large = np.stack([cv2.resize(face, (256, 256)) for face in faces(count)])
        assert np.abs(net._forward(large)[1] - by_torch._forward(large)[1]).max() < 1e-3
    assert net._net in compiled._compiled and by_torch._net not in compiled._compiled


def test_it_takes_as_many_threads_as_torch_and_no_core_of_its_own(openvino):
    torch.set_num_threads(1)
    net = LandmarkNet(runtime="openvino")
    net.landmarks(faces(1))
    model = compiled._compiled[net._net]._request.get_compiled_model()
    assert model.get_property("INFERENCE_NUM_THREADS") == 1 and not model.get_property("ENABLE_CPU_PINNING")
    assert model.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


def test_a_decoder_that_remembers_stays_with_torch(openvino):
    network = OPENVINO.place(HyperLipsBase(BaseConfig(gru="recurrent", **SMALL)).eval())
    with torch.inference_mode():
        network(torch.randn(2, 18, 384), torch.rand(2, 3 + 3 * network.config.references, 128, 128))
    assert network not in compiled._compiled


def test_a_converted_network_is_kept(openvino, tmp_path, monkeypatch):
    converted, real = [], compiled._converted
    monkeypatch.setattr(compiled, "CACHE", tmp_path / "converted")

    def counted(*given):
        converted.append(given)
        return real(*given)

    monkeypatch.setattr(compiled, "_converted", counted)

    def tried() -> int:
        """How many conversions another network of the same weights takes."""
        torch.manual_seed(0)
        converted.clear()
        agree(HRDecoder(HRConfig(scale=1, width=8)).eval(), *torch.rand(2, 2, 3, 128, 128), torch.rand(2, 6, 128, 128))
        return len(converted)

    assert [tried(), tried()] == [1, 0]
    (kept,) = compiled.CACHE.iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", b"something else", whole[: len(whole) // 2]):
        kept.write_bytes(damaged)
        assert [tried(), tried()] == [1, 0]
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: os.geteuid() + 1)
        assert tried() == 1  # what another user may have put there is not read
    with monkeypatch.context() as patched:
        patched.setattr(compiled, "_KEPT", 2)
        for age in (1, 2):
            other = kept.with_name(f"{age}.blob")
            other.touch()
            os.utime(other, (0, -age))
        kept.write_bytes(b"")
        assert tried() == 1 and sorted(compiled.CACHE.iterdir()) == sorted([kept, kept.with_name("1.blob")])
    with monkeypatch.context() as patched:
        patched.setattr(compiled, "CACHE", kept / "folder")
        assert [tried(), tried()] == [1, 1]  # nowhere to write


@LINUX
def test_a_forked_process_goes_on_with_torch(openvino, tmp_path):
    code = """
import os, sys
import numpy as np, torch
torch.set_num_threads(1)
from face.landmark_net import LandmarkNet
net, crops = LandmarkNet(runtime="openvino"), np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), np.uint8)
before = net.landmarks(crops)[0]
child = os.fork()
if not child:
    os._exit(7 if np.abs(net.landmarks(crops)[0] - before).max() < 1e-3 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment, timeout=120)


def test_the_faster_runtime_is_taken_and_remembered_until_the_package_goes(monkeypatch, pass_by):
    monkeypatch.setattr(precision, "openvino_version", lambda: "2026.4")
    network, measured = HRDecoder(HRConfig(scale=1, width=8)), []

    def work(candidate: Precision) -> None:
        assert network.runtime == candidate.runtime
        measured.append(candidate)
        pass_by(1 if candidate == OPENVINO else 1.1)

    def chosen() -> Precision:
        measured.clear()
        return choose_precision("auto", network, work, "test", among=runtimes("auto", CPU))

    assert chosen() == OPENVINO and {one.runtime for one in measured} == {"torch", "openvino"}
    assert chosen() == OPENVINO and network.runtime == "openvino" and measured == [OPENVINO]  # loads it
    measured.clear()
    assert choose_precision("float32", network, work, "test", among=["openvino"]) == OPENVINO
    assert measured == [OPENVINO]
    assert choose_precision("bf16", network, work, "test", "contiguous", runtimes("auto", CPU)).runtime == "torch"
    monkeypatch.setattr(precision, "openvino_version", lambda: None)
    assert chosen().runtime == "torch" == network.runtime and {one.runtime for one in measured} == {"torch"}


def test_an_openvino_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # its import fails
    with pytest.raises(InputError, match="no package openvino.*pip install openvino"):
        Networks(InferenceConfig(runtime="openvino", device="cpu"))
    assert runtimes("auto", CPU) == ["torch"]
    assert Networks(InferenceConfig(device="cpu")).landmarks._net.runtime == "torch"


def test_openvino_on_cuda_or_in_half_precision_is_one_line():
    with pytest.raises(InputError, match="runtime openvino on cuda, expected a CPU"):
        runtimes("openvino", torch.device("cuda"))
    assert runtimes("auto", torch.device("cuda")) == ["torch"]
    with pytest.raises(InputError, match="precision is bf16 and runtime openvino"):
        InferenceConfig(runtime="openvino", precision="bf16")


def test_nothing_imports_it_before_it_runs():
    code = "import sys, engine.pipeline, inference; sys.exit('openvino' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
