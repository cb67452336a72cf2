"""Weights in and out: round trips, wrong and broken files."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from conftest import own_files
from parity import weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from errors import InputError
from models.channels import PictureNetwork
from models.checkpoint import load_network, read_metadata, save_network
from models.config import BaseConfig, DiscriminatorConfig, Feed, HRConfig, SyncConfig, WhisperConfig
from models.discriminators import BaseDiscriminator, HRDiscriminator
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from models.syncnet import SyncExpert, SyncNetV2
from models.whisper import WhisperFrontEnd

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = {
    "light base": lambda: HyperLipsBase(),
    "published base": lambda: HyperLipsBase(BaseConfig.of("published")),
    "ablated base": lambda: HyperLipsBase(
        BaseConfig(condition="concat", gru="recurrent", rewrite_levels=[2], references=2, audio="mel", audio_window=16)
    ),
    "HR x1": lambda: HRDecoder(HRConfig(scale=1)),
    "HR x2": lambda: HRDecoder(HRConfig.of("published", scale=2, reference=True)),
    "HR x4": lambda: HRDecoder(HRConfig(scale=4)),
    "base discriminator": lambda: BaseDiscriminator(DiscriminatorConfig(4)),
    "HR discriminator": lambda: HRDiscriminator(DiscriminatorConfig(4)),
    "sync": lambda: SyncExpert(SyncConfig(width=4, embedding=32)),
    "light sync": lambda: SyncExpert(SyncConfig.of("light", audio_window=10)),
    "SyncNet v2": SyncNetV2,
    "Whisper": lambda: WhisperFrontEnd(WhisperConfig(blocks=1)),
}


def write_pth(path: Path, layout: str, **changes: torch.Tensor | None) -> Path:
    """A published checkpoint with some keys changed, or left out where None."""
    state = {key: torch.from_numpy(value) for key, value in weights.state_dict(layout).items()}
    state.update(changes)
    torch.save(
        {"state_dict": {key: value for key, value in state.items() if value is not None}, "optimizer": None}, path
    )
    return path


def set_running_statistics(network: torch.nn.Module) -> None:
    for name, value in network.named_buffers():
        if "running_var" in name:
            value.uniform_(1e4, 1e6)


def test_a_file_that_differs_from_its_listed_digest_is_refused(tmp_path):
    path = tmp_path / "hr.safetensors"
    save_network(path, HRDecoder(HRConfig(width=8)))
    (tmp_path / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  hr.safetensors\n")
    load_network(path)
    save_network(path, HRDecoder(HRConfig(width=8)))
    with pytest.raises(InputError, match="is not the file that"):
        load_network(path)


def test_shipped_files_are_the_listed_ones():
    folder = ROOT / "checkpoints"
    listed = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    shipped = {path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".task")}
    assert set(listed) == shipped
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in listed.items())


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name, tmp_path):
    network = NETWORKS[name]()
    set_running_statistics(network)
    if isinstance(network, PictureNetwork):
        network.channel_order = "bgr"
    if isinstance(network, HyperLipsBase):
        network.feed = Feed("template", "published", "first", 1.7)
    path = tmp_path / "net.safetensors"
    save_network(path, network.to(memory_format=torch.channels_last) if name == "HR x1" else network, {"step": "7"})
    loaded = load_network(path)
    assert type(loaded) is type(network) and not loaded.training
    assert getattr(loaded, "channel_order", "bgr") == "bgr"
    assert all(getattr(loaded, kept, None) == getattr(network, kept, None) for kept in ("config", "feed"))
    before, after = network.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-3, atol=1e-6, msg=key)
    metadata = read_metadata(path)
    assert metadata["step"] == "7" and metadata["network"] == type(network).__name__
    assert list(tmp_path.iterdir()) == [path]


def test_full_precision_is_exact_and_half_is_half_the_size(tmp_path):
    network = HRDecoder(HRConfig(scale=1))
    save_network(tmp_path / "full.safetensors", network, half=False)
    save_network(tmp_path / "half.safetensors", network)
    loaded = load_network(tmp_path / "full.safetensors").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "full.safetensors").stat().st_size


def test_what_half_precision_cannot_hold_stays_float32(tmp_path):
    network = HRDecoder(HRConfig(scale=1))
    with torch.no_grad():
        network.output.bias[0] = 1e6
    save_network(tmp_path / "net.safetensors", network)
    stored = load_file(tmp_path / "net.safetensors")
    assert stored["output.bias"].dtype == torch.float32 and stored["output.weight"].dtype == torch.float16
    assert all(value.dtype != torch.float16 for key, value in stored.items() if "running_" in key)
    assert load_network(tmp_path / "net.safetensors").output.bias[0] == 1e6


def test_metadata_cannot_overwrite_the_config(tmp_path):
    with pytest.raises(ValueError, match="config"):
        save_network(tmp_path / "net.safetensors", HRDecoder(HRConfig(scale=1)), {"config": "{}"})


def test_an_unsaved_file_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        save_network(tmp_path / "net.safetensors", HRDecoder(HRConfig(scale=1)), {"step": 7})
    assert not list(tmp_path.iterdir())


def test_published_checkpoint_survives_our_format(tmp_path):
    network = load_network(write_pth(tmp_path / "hr.pth", "hr1"))
    save_network(tmp_path / "hr.safetensors", network)
    again = load_network(tmp_path / "hr.safetensors")
    assert again.channel_order == "bgr" and again.config == HRConfig.of("published", scale=1)


def test_missing_file_names_what_is_there(tmp_path):
    save_network(tmp_path / "net.safetensors", HRDecoder(HRConfig(scale=1)))
    for name in ("best.safetensors", "best.pth"):
        with pytest.raises(InputError, match=r"no checkpoint .*best.*net\.safetensors"):
            load_network(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ""])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"<html></html>",
        b"PK\x03\x04",
        bytes(range(256)),
    ],
)
def test_text_and_garbage_are_no_checkpoints(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a"):
        load_network(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_a_file_is_no_checkpoint(tmp_path, suffix):
    path = write_pth(tmp_path / "net.pth", "hr1") if suffix == ".pth" else tmp_path / "net.safetensors"
    if suffix == ".safetensors":
        save_network(path, HRDecoder(HRConfig(scale=1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="is not a"):
        load_network(path)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"a": 1}, torch.zeros(3)], ids=str)
def test_checkpoints_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        load_network(tmp_path / "net.pth")


def test_unknown_network_names_its_keys(tmp_path):
    torch.save({f"fc{index}.weight": torch.zeros(1) for index in range(5)}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"no known network \(keys: fc0.weight, fc1.weight, fc2.weight and 2 more\)"):
        load_network(tmp_path / "net.pth")


def test_misfit_names_keys_shapes_and_counts(tmp_path):
    bias = "output_block.1.bias"
    path = write_pth(
        tmp_path / "net.pth",
        "hr1",
        **{"output_block.1.weight": torch.zeros(3, 16, 1, 1), bias: None, "extra": torch.zeros(1)},
    )
    with pytest.raises(
        InputError,
        match=r"does not fit HRDecoder: 1 missing: output.bias; 1 unexpected: extra; "
        r"1 of another shape: output.weight \[3, 16, 1, 1\] \(expected \[3, 32, 1, 1\]\)",
    ):
        load_network(path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"network": "Painter"}, "holds a Painter, expected one of"),
        ({"config": "{"}, "config does not fit HRDecoder"),
        ({"config": json.dumps({"depth": 3})}, "config does not fit HRDecoder"),
        ({"config": json.dumps({"scale": 3})}, "config does not fit HRDecoder.*scale is 3"),
        ({"network": "HyperLipsBase", "config": "{}"}, "does not fit HyperLipsBase: .* missing"),
    ],
)
def test_safetensors_of_another_network(tmp_path, changes, words):
    path = tmp_path / "net.safetensors"
    save_network(path, HRDecoder(HRConfig(scale=1)))
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, **changes})
    with pytest.raises(InputError, match=words):
        load_network(path)


def test_foreign_safetensors(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "net.safetensors")
    assert read_metadata(tmp_path / "net.safetensors") == {}
    with pytest.raises(InputError, match="no known network"):
        load_network(tmp_path / "net.safetensors")


def test_only_the_two_doors_read_pickles():
    allowed = {Path("models/checkpoint.py"), Path("engine/state.py")}
    sources = [ROOT / path for path in own_files() if path.suffix == ".py" and path.parts[0] != "tests"]
    assert len(sources) > 100
    calls = {
        path.relative_to(ROOT): re.findall(r"\btorch\.load\((.*)", path.read_text(encoding="utf-8")) for path in sources
    }
    found = {path: lines for path, lines in calls.items() if lines}
    assert found.keys() <= allowed
    assert all("weights_only=True" in line for lines in found.values() for line in lines)
