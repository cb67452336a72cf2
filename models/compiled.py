"""Networks run by OpenVINO in place of torch, where it is installed: float32 on the CPU, never in training."""

import contextlib
import copy
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from aside import aside, caches

CACHE = caches() / "openvino"
_KEPT = 12
"""Converted networks kept, those used last: each person's own weights make new ones, of up to 60 MB."""
_compiled: "WeakKeyDictionary[Convertible, _Compiled]" = WeakKeyDictionary()
_lock = threading.Lock()
_user: int | None = None
"""The process that runs OpenVINO."""
Network = TypeVar("Network", bound=nn.Module)


def openvino_version() -> str | None:
    """Of the package; None: there is none that can be imported."""
    try:
        import openvino
    except (ImportError, OSError):  # OSError: of libraries that do not fit this machine
        return None
    return openvino.__version__


class Convertible(nn.Module):
    """A network whose `core`, of tensors alone, may run by OpenVINO: see `runtime`."""

    runtime = "torch"
    """What runs `core`: torch or openvino."""
    varying: ClassVar[Sequence[int]] = (0,)
    """Axes of the inputs that differ from call to call."""

    def core(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """(N, ...) each -> (N, ...) each, N any number, as are the other axes in `varying`."""
        raise NotImplementedError

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `core` gives. OpenVINO takes it over with the weights of the first call (seconds; then kept on disk)."""
        global _user
        if self.runtime == "torch" or _user not in (None, os.getpid()):  # threads do not come along when it forks
            return self.core(*inputs)
        with _lock:
            if self not in _compiled:
                _user = os.getpid()
                _compiled[self] = _Compiled(self, inputs)
        return _compiled[self](*inputs)


def portable(network: Network) -> Network:
    """A copy that computes the same in the form that other runtimes take, `portable_forward` of the modules that have
    one.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if hasattr(module, "portable_forward"):
            module.forward = module.portable_forward  # type: ignore[assignment]
    return network


class _Compiled:
    """The `core` of a network, by OpenVINO, on as many threads as torch has now."""

    def __init__(self, network: Convertible, inputs: Sequence[Tensor]):
        import openvino

        shapes = [[-1 if axis in network.varying else size for axis, size in enumerate(one.shape)] for one in inputs]
        engine = openvino.Core()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # bf16, where a CPU has it, is a choice of its own
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # stages run side by side: one core would get them all
        }
        machine = engine.get_property("CPU", "FULL_DEVICE_NAME")
        kept = CACHE / f"{_digest(network, shapes, machine)}.blob"
        try:
            model = engine.import_model(io.BytesIO(_own_bytes(kept)), "CPU", settings)
            with contextlib.suppress(OSError):
                kept.touch()
        except (OSError, RuntimeError):  # none yet, or of nothing that this OpenVINO can read
            model = engine.compile_model(_converted(network, inputs, shapes), "CPU", settings)
            with contextlib.suppress(OSError):
                CACHE.mkdir(parents=True, exist_ok=True)
                with aside(kept) as part:
                    part.write_bytes(model.export_model().getvalue())
                for old in sorted(CACHE.glob("*.blob"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                    old.unlink()
        self._request = model.create_infer_request()
        self._lock = threading.Lock()  # a request serves one thread at a time

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = [one.contiguous().numpy() for one in inputs]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True, share_outputs=False)
            return tuple(torch.from_numpy(found[number]) for number in range(len(found)))


def _converted(network: Convertible, inputs: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> Any:
    """The `openvino.Model` of a network's `core` that takes these shapes, -1: any."""
    import openvino

    # Two samples: one would be taken for a constant.
    example = tuple(one[:1].repeat(2, *[1] * (one.ndim - 1)) for one in inputs)
    network = portable(network)
    network.forward = network.core  # type: ignore[method-assign]
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # traces are deprecated; the front end reads exports in four times the time
        traced = torch.jit.trace(network, example, check_trace=False)
        model = openvino.convert_model(traced, example_input=example)
    model.reshape(dict(zip(model.inputs, map(openvino.PartialShape, shapes), strict=True)))
    return model


def _digest(network: Convertible, shapes: Sequence[Sequence[int]], machine: str) -> str:
    """Of all that a compiled network depends on: machine, packages, code, configuration, weights and shapes."""
    told = machine, torch.__version__, openvino_version(), network, getattr(network, "config", None), shapes
    digest = hashlib.sha256(repr(told).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    for value in network.state_dict().values():
        digest.update(value.contiguous().numpy())
    return digest.hexdigest()


def _own_bytes(path: Path) -> bytes:
    """Of a file of this user's: caches may lie where others can write. Raises OSError where there is none."""
    with path.open("rb") as file:
        if hasattr(os, "getuid") and os.fstat(file.fileno()).st_uid != os.getuid():
            raise PermissionError(f"{path} is another user's")
        return file.read()
