"""float32, bf16 or fp16, contiguous or channels_last, torch or OpenVINO: measured, as machines differ sixfold."""

import contextlib
import hashlib
import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from aside import aside, caches
from engine.options import LayoutName, PrecisionName, RuntimeName
from errors import InputError
from losses.terms import LATE
from models.compiled import Convertible, openvino_version

CACHE = caches() / "precision.json"
_WARMUP, _REPEATS = 1, 3
_PRODUCTS = nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d
"""Layers whose weights serve products alone."""


@dataclass(frozen=True)
class Precision:
    """How a network runs, in a config's words: type of its products (float32, bf16 or fp16), memory layout (contiguous
    or channels_last), and runtime (torch or openvino, which has a layout of its own).
    """

    products: str = "float32"
    layout: str = "contiguous"
    runtime: str = "torch"

    @property
    def half(self) -> torch.dtype | None:
        """Type of the products; None: float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.products)

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.half is None else torch.autocast(device.type, self.half)

    def place(self, network: nn.Module) -> nn.Module:
        """The network in this memory layout and runtime (in place)."""
        if isinstance(network, Convertible):
            network.runtime = self.runtime
        last = self.layout == "channels_last"
        return network.to(memory_format=torch.channels_last if last else torch.contiguous_format)

    def cast(self, network: nn.Module) -> nn.Module:
        """The network, which learns no more, with the weights of its products in `half` (in place): autocast would cast
        them, to the same values, at every call. From then on it runs under `autocast` only.
        """
        return network if self.half is None else cast_products(network, self.half)

    def __str__(self) -> str:
        others = (self.layout, self.runtime)
        return ", ".join([self.products, *(value for value in others if value not in ("contiguous", "torch"))])


FLOAT32 = Precision()
_ROWS = list(map(list, itertools.product(*map(get_args, (PrecisionName, LayoutName, RuntimeName)))))
"""What a cache may hold of a machine."""


def runtimes(name: RuntimeName, device: torch.device) -> list[str]:
    """What may run the networks of an inference: torch, openvino or either. Raises InputError for an OpenVINO that is
    not there, or on CUDA.
    """
    there = openvino_version() is not None
    if name == "openvino" and device.type != "cpu":
        raise InputError(f"found runtime openvino on {device}, expected a CPU; use runtime auto, or device cpu")
    if name == "openvino" and not there:
        raise InputError("found no package openvino, which runtime openvino wants; pip install openvino")
    if name == "auto":
        return ["torch", "openvino"] if there and device.type == "cpu" else ["torch"]
    return [name]


def choose_precision(
    name: PrecisionName,
    network: nn.Module,
    work: Callable[[Precision], None],
    purpose: str,
    layout: LayoutName = "auto",
    among: Sequence[str] = ("torch",),
) -> Precision:
    """The fastest Precision for `work` on this machine (a second or two, then remembered); a fixed `name` keeps its
    dtype, a fixed `layout` the memory layout. openvino, which computes in float32, is tried where it is `among`
    the runtimes. Raises InputError for fp16 on a CPU.

    `purpose` tells apart measurements of one network, e.g. "train" and "infer".
    """
    device = next(network.parameters()).device
    if name == "fp16" and device.type != "cuda":
        raise InputError("precision fp16 is for CUDA cards without bf16 units; use auto, float32 or bf16")
    kinds = ["float32", *_halves(device)] if name == "auto" else [name]
    layouts = ["contiguous", "channels_last"] if layout == "auto" else [layout]
    candidates = [Precision(kind, place) for kind in kinds for place in layouts if "torch" in among]
    if "openvino" in among and "float32" in kinds:
        candidates.append(Precision("float32", layouts[0], "openvino"))
    precision = candidates[0] if len(candidates) == 1 else _fastest(candidates, network, work, purpose)
    precision.place(network)
    if precision.runtime != "torch":
        work(precision)  # converts the network now, not with the first frame
    return precision


def _fastest(
    candidates: list[Precision], network: nn.Module, work: Callable[[Precision], None], purpose: str
) -> Precision:
    shapes = json.dumps([list(value.shape) for value in network.state_dict().values()])
    device = next(network.parameters()).device
    machine = device_name(device) if device.type == "cuda" else device_name(device) + _cpu_line("flags")
    versions = [torch.__version__, f"{openvino_version()}"]
    text = "|".join([machine, str(device), *versions, str(torch.get_num_threads()), purpose, shapes, f"{candidates}"])
    key = hashlib.sha1(text.encode()).hexdigest()
    cache = _read_cache()
    if key not in cache:
        seconds: dict[Precision, float] = {}
        for candidate in candidates:
            seconds[candidate] = _measure(network, candidate, work, min(seconds.values(), default=math.inf))
        best = min(seconds, key=seconds.__getitem__)
        cache[key] = [best.products, best.layout, best.runtime]
        _write_cache(cache)
    return Precision(*cache[key])


def training_precision(
    name: PrecisionName,
    objective: nn.Module,
    batch: dict[str, torch.Tensor],
    device: torch.device,
    layout: LayoutName = "auto",
) -> Precision:
    """choose_precision for one training step of `objective(batch, step)`, all terms active; leaves no gradient or
    statistic.
    """
    batch = {key: value.to(device) for key, value in batch.items()}
    buffers = {key: value.clone() for key, value in objective.named_buffers()}

    def work(precision: Precision) -> None:
        with precision.autocast(device):
            loss = objective(batch, LATE)[0]
        loss.backward()

    precision = choose_precision(
        name, objective, work, f"train {[list(value.shape) for value in batch.values()]}", layout
    )
    objective.zero_grad(set_to_none=True)
    for key, value in objective.named_buffers():
        value.copy_(buffers[key])
    return precision


def device_name(device: torch.device) -> str:
    """The model of the GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_line("model name") or platform.processor() or platform.machine()


def cast_products(network: nn.Module, kind: torch.dtype) -> nn.Module:
    """The network with the weights of its products in this type (in place)."""
    for module in network.modules():
        if isinstance(module, _PRODUCTS):
            module.to(kind)
    return network


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in units of its own; elsewhere it is slower than float32, up to six times."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    queries = (getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile"))
    return any(query() for query in queries if query is not None)


def _halves(device: torch.device) -> list[str]:
    """Types that may be faster than float32: cards before Ampere have units for fp16 alone, from Volta on."""
    if has_bf16(device):
        return ["bf16"]
    return ["fp16"] if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0) else []


def _measure(network: nn.Module, precision: Precision, work: Callable[[Precision], None], best: float) -> float:
    """Best of a few runs, seconds; of one where the first takes twice the `best` of the others."""
    precision.place(network)
    device = next(network.parameters()).device
    if precision.runtime != "torch" or device.type == "cuda":
        work(precision)  # converts the network, or looks for the card's fastest kernels, once
    seconds = []
    for run in range(_WARMUP + _REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work(precision)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - start
        if took > 2 * best:
            return took
        if run >= _WARMUP:
            seconds.append(took)
    return min(seconds)


def _cpu_line(name: str) -> str:
    """What /proc/cpuinfo says of the first core under this name; nothing where there is no such file."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _read_cache() -> dict[str, list[str]]:
    try:
        kept = json.loads(CACHE.read_text(encoding="utf-8"))
        return {key: row for key, row in kept.items() if row in _ROWS}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _write_cache(cache: dict[str, list[str]]) -> None:
    """Keep the choice; a home that cannot be written only means measuring again."""
    with contextlib.suppress(OSError):
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with aside(CACHE) as part:
            part.write_text(json.dumps(cache), encoding="utf-8")
