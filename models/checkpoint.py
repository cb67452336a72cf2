"""The one door for weights: our safetensors files, and published checkpoints."""

import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from aside import aside, give_usual_rights
from digest import file_digest
from errors import InputError
from models.channels import PictureNetwork
from models.config import BaseConfig, DiscriminatorConfig, Feed, HRConfig, SyncConfig, WhisperConfig
from models.discriminators import BaseDiscriminator, HRDiscriminator
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from models.published import from_published
from models.syncnet import SyncExpert, SyncNetV2
from models.whisper import WhisperFrontEnd

_NETWORKS: dict[str, tuple[type[nn.Module], type | None]] = {
    "HyperLipsBase": (HyperLipsBase, BaseConfig),
    "HRDecoder": (HRDecoder, HRConfig),
    "BaseDiscriminator": (BaseDiscriminator, DiscriminatorConfig),
    "HRDiscriminator": (HRDiscriminator, DiscriminatorConfig),
    "SyncExpert": (SyncExpert, SyncConfig),
    "SyncNetV2": (SyncNetV2, None),
    "WhisperFrontEnd": (WhisperFrontEnd, WhisperConfig),
}
Network = TypeVar("Network", bound=nn.Module)
BROKEN = RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError, TypeError
"""What torch.load raises for a file that is damaged, beside what it refuses to unpickle."""
_RESERVED = ("network", "config", "channel_order", "feed")
_HALF_MAX = torch.finfo(torch.float16).max


def save_network(
    path: str | Path, network: nn.Module, metadata: Mapping[str, str] | None = None, half: bool = True
) -> None:
    """Write a safetensors file that `load_network` rebuilds: weights, class, config and `metadata` (text to text).

    `half` stores float weights in half precision, except running statistics and what half precision cannot hold.
    Written aside, then renamed.
    """
    path = Path(path)
    kind = type(network).__name__
    config = getattr(network, "config", None)
    details = {
        "network": kind,
        "config": json.dumps({} if config is None else dataclasses.asdict(config)),
        "channel_order": getattr(network, "channel_order", "rgb"),
    }
    if isinstance(network, HyperLipsBase):
        details["feed"] = json.dumps(dataclasses.asdict(network.feed))
    clash = [key for key in metadata or {} if key in _RESERVED]
    if kind not in _NETWORKS or clash:
        raise ValueError(f"cannot save {kind} with metadata {clash}: unknown class or reserved names")
    tensors = {key: _stored(key, value, half) for key, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with aside(path) as part:
        save_file(tensors, part, {**(metadata or {}), **details})
        give_usual_rights(part)


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    if not half or not value.is_floating_point() or "running_" in key:
        return value
    fits = bool((value.abs() < _HALF_MAX).all())
    return value.half() if fits else value


@overload
def load_network(path: str | Path, device: str | torch.device = ...) -> nn.Module: ...
@overload
def load_network(path: str | Path, device: str | torch.device = ..., kind: type[Network] = ...) -> Network: ...
def load_network(path: str | Path, device: str | torch.device = "cpu", kind: type[nn.Module] = nn.Module) -> nn.Module:
    """Rebuild a network in eval mode, float32, from our safetensors or from a published .pth (recognised by its keys).

    `network.channel_order` says what order of colours its pictures have, and a stage-1 network's `feed` how else it
    wants to be fed: published weights want bgr, upright boxes and their own mel windows. Raises
    InputError for a missing or broken file, an unknown network, one that is not a `kind`, keys and shapes that do not
    fit, or a digest other than the one that a SHA256SUMS beside the file gives for it.
    """
    path = Path(path)
    state, metadata = read_state(path)
    if "network" in metadata:
        network = _from_metadata(path, metadata)
    else:
        published = from_published(state)
        if published is None:
            raise InputError(
                f"{path} is of no known network (keys: {_some(list(state))}); expected our safetensors or a published "
                "HyperLips, sync expert or SyncNet v2 checkpoint"
            )
        network, state = published
    if not isinstance(network, kind):
        raise InputError(f"{path} holds a {type(network).__name__}, expected a {kind.__name__}; pass one of those")
    check_fit(path, network, state)
    network.load_state_dict(state)
    return network.to(device).eval()


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text metadata of a safetensors checkpoint. Raises InputError where there is none to read."""
    return _read_safetensors(_existing(Path(path)), tensors=False)[1]


def _existing(path: Path) -> Path:
    try:
        found = path.is_file()
    except OSError as error:
        raise InputError(f"{path} cannot be looked at ({error.strerror}); see to its rights, or copy it") from error
    if not found:
        beside = sorted(file.name for file in path.parent.glob("*.safetensors")) if path.parent.is_dir() else []
        hint = f"in that folder: {', '.join(beside[:5])}" if beside else "no checkpoint lies in that folder"
        raise InputError(f"found no checkpoint {path}; {hint}")
    return path


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """State dict and text metadata (none in a .pth) of any checkpoint. Raises InputError for a file that is not one,
    and for a digest other than the one that a SHA256SUMS beside the file gives for it.
    """
    _check_digest(_existing(path))
    return _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})


def _read_safetensors(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            names = file.keys() if tensors else []
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); copy or download it again") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.findall(r"GLOBAL ([\w.]+)", str(error))
        if not blocked:
            raise InputError(
                f"{path} is not a PyTorch checkpoint; expected a .pth with a state dict, or our .safetensors"
            ) from error
        raise InputError(
            f"{path} holds objects that run code on loading ({', '.join(sorted(set(blocked)))}) and is not read; "
            "expected tensors only: save its state dict anew where you trust it"
        ) from error
    except (OSError, *BROKEN) as error:
        raise InputError(
            f"{path} is not a PyTorch checkpoint, or a broken one ({type(error).__name__}); copy or download it again"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    named = isinstance(state, dict) and all(isinstance(key, str) for key in state)
    if not named or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict; expected tensors by name, alone or under 'state_dict'")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _from_metadata(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    kind = metadata["network"]
    if kind not in _NETWORKS:
        raise InputError(
            f"{path} holds a {kind}, expected one of {', '.join(_NETWORKS)}; was it made by a newer version?"
        )
    network_class, config_class = _NETWORKS[kind]
    try:
        values: dict[str, Any] = json.loads(metadata.get("config", "{}"))
        values.pop("preset", None)  # named by older files beside the values themselves
        if values and kind in ("HyperLipsBase", "HRDecoder"):
            values.setdefault("copied_rows", 0)  # configs are stored whole, so this one is older than the key
        network = network_class() if config_class is None else network_class(config=config_class(**values))
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"{path}: its config does not fit {kind}: {error}; was it made by another version?") from error
    if isinstance(network, PictureNetwork):
        network.channel_order = metadata.get("channel_order", "rgb")
    if isinstance(network, HyperLipsBase):
        network.feed = _feed(path, metadata.get("feed", "{}"))
    return network


def _feed(path: Path, text: str) -> Feed:
    """Older files say nothing: they want what is usual."""
    try:
        return Feed(**json.loads(text))
    except (ValueError, TypeError, InputError) as error:
        raise InputError(
            f"{path}: how it wants to be fed is not understood: {error}; was it made by another version?"
        ) from error


def _check_digest(path: Path) -> None:
    """Raises InputError where a SHA256SUMS beside the file gives another digest for it."""
    sums = path.parent / "SHA256SUMS"
    if not sums.is_file():
        return
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        listed = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines if line.strip())}
    except (OSError, ValueError) as error:
        raise InputError(f"{sums} cannot be read ({error}); expected lines of a digest and a name") from error
    if path.name in listed and file_digest(path) != listed[path.name]:
        raise InputError(
            f"{path} is not the file that {sums} describes; copy it again, or, where you replaced it on purpose, "
            "write its digest (sha256sum) there"
        )


def check_fit(path: Path, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raises InputError naming the keys and shapes in which a state dict differs from the network's."""
    wanted = network.state_dict()
    problems = []
    for label, keys in (("missing", wanted.keys() - state.keys()), ("unexpected", state.keys() - wanted.keys())):
        if keys:
            problems.append(f"{len(keys)} {label}: {_some(sorted(keys))}")
    shapes = [
        f"{key} {list(state[key].shape)} (expected {list(wanted[key].shape)})"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if problems:
        raise InputError(
            f"{path} does not fit {type(network).__name__}: {'; '.join(problems)}; pass a checkpoint of that network"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
