"""What a run records of itself, and what may be other when it goes on."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.changes import FREE, changes, settings, shown
from engine.options import TrainConfig
from engine.precision import Precision, device_name, has_bf16
from errors import InputError

FIXED = "model", "feed", "data", "augment", "loss", "perceptual", "audio_pretrain", "optim.parts"
"""Sections and keys that say what is learned: with another one the run would be none that any config describes."""
_SCORED = "feed", "data", "loss", "perceptual", "validation"
"""Sections that say what validation's scores are of."""
DATA = {"index": "the index of data.path", "painter": "what painted its stage-1 faces"}
"""What is told of the data set: by key of the record, how it is called."""
SCORING = DATA | {
    "sync_expert": "the weights of loss.sync_expert",
    "perceptual": "the weights of perceptual.weights",
}
"""The same of all files that losses and scores depend on."""
FILES = SCORING | {"init": "the weights of --init"}
"""The same of all files that a run was made from."""


@dataclass(frozen=True)
class Ran:
    """What a run ran with that its config leaves open."""

    precision: str
    layout: str
    device: str
    """Its name: the GPU's or the CPU's."""
    threads: int
    """Of each process, for what runs on the CPU."""
    processes: int
    torch_version: str
    cuda_version: str | None
    """Which this torch was built with."""

    @classmethod
    def here(cls, precision: Precision, device: torch.device, processes: int) -> "Ran":
        return cls(
            precision.products,
            precision.layout,
            device=device_name(device),
            threads=torch.get_num_threads(),
            processes=processes,
            torch_version=str(torch.__version__),
            cuda_version=torch.version.cuda,
        )


def record(config: str, ran: Ran, index: str, **files: str) -> dict[str, Any]:
    """What a checkpoint holds beside weights: the resolved config (YAML), what it ran with, the digest of the index of
    the data set, and as `files`, by the other keys of FILES, of stage 2 what painted its stage-1 faces, and the digests
    of the weights it began with and of those it is judged by.
    """
    return {"config": config, "ran": dataclasses.asdict(ran), **dict.fromkeys(FILES, ""), "index": index, **files}


def check_changes(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], allowed: bool) -> list[str]:
    """What differs between the `record` that a run has and the one it would go on with, a line each.

    Raises InputError, naming every one of them, where that is what is learned, unless they are `allowed`. Keys that the
    first does not know came with the code since: they had their default. Keys that went with it say nothing.
    """
    found = _differences(before, now)
    fixed = _within(found, FIXED, FILES)
    if fixed and not allowed:
        raise InputError(
            f"{folder} began with other settings: {', '.join(shown(key, *found[key]) for key in fixed)}; give them "
            "back to it, start a run of another run.name, or go on with run.allow_changes=true"
        )
    found |= changes(before.get("ran", {}), now["ran"])
    moved = "" if DATA["index"] in found else " (the same clips)"
    return [shown(key, *change) + (moved if key == "data.path" else "") for key, change in found.items()]


def scored_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two records so that scores under one say nothing beside those under the other."""
    found = _differences(before, now)
    return [shown(key, *found[key]) for key in _within(found, _SCORED, SCORING)]


def resumed_precision(config: TrainConfig, before: Mapping[str, Any], device: torch.device) -> Precision | None:
    """The type and layout that a run goes on with: what the config leaves open is as in the run so far. None where it
    leaves nothing open, or that is not known.

    Raises InputError where the type so far has no units on this device.
    """
    ran = before.get("ran")
    if ran is None or "auto" not in (config.precision, config.layout):
        return None
    so_far = ran["precision"] if config.precision == "auto" else config.precision
    lacks = (so_far == "bf16" and not has_bf16(device)) or (so_far == "fp16" and device.type != "cuda")
    if lacks and (config.precision == "auto" or so_far == "fp16"):
        slowly = ", or precision=bf16 to go on slowly" if so_far == "bf16" else ""
        raise InputError(
            f"the run is trained in {so_far}, which {device_name(device)} has no units for; go on elsewhere, or say "
            f"precision=float32 to go on in that{slowly}"
        )
    asked = {"precision": config.precision, "layout": config.layout}
    return Precision(*(ran[key] if value == "auto" else value for key, value in asked.items()))


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of config and files, between two records."""
    parts = before, now
    files = changes(*({name: _short(part[key]) for key, name in FILES.items() if key in part} for part in parts))
    return changes(*(settings(part.get("config") or "{}") for part in parts)) | files


def _within(found: Mapping[str, Any], sections: Sequence[str], files: Mapping[str, str]) -> list[str]:
    """Those of the changes that are of the files, or of the sections (or keys) and not free."""
    return [
        key for key in found if key in files.values() or ({key, key.split(".")[0]} & {*sections} and key not in FREE)
    ]


def _short(text: str) -> str:
    """Digests by their first 12 digits."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)
