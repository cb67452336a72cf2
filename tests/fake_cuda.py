"""CUDA without a GPU: tensors on the CPU that say they lie on `cuda:0`, for whole small programs to run on."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
_ASKS = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "is_nonzero", "equal", "allclose"}
_ASKS |= {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount"}
"""What needs a value, or a size that depends on values."""
_TO_NUMPY = {"numpy", "__array__", "__dlpack__"}
_MOVES = {"to", "cpu", "cuda"}
_UPLOADS = {"tensor", "as_tensor", "new_tensor"}
"""Factories whose values come from the program."""


class FakeCuda(TorchFunctionMode):
    """Raises where an operation mixes tensors of the CPU and of the device (those without a dimension may mix), and
    where numpy is handed one of the device. Counts, by name, what makes the program wait for it, and the uploads.

    It sees what Python calls, not what runs inside of it: backward, an optimiser's kernels. Nor does it see other
    threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.uploads = 0
        self._there = WeakTensorKeyDictionary()
        self._pinned = WeakTensorKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        access = func.__name__ if func.__name__ in ("__get__", "__set__") else ""
        name = func.__self__.__name__ if access else func.__name__
        if access == "__get__" and name in ("device", "is_cuda", "is_cpu"):
            there = self._is_there(args[0])
            return {"device": CUDA if there else args[0].device, "is_cuda": there, "is_cpu": not there}[name]
        if access == "__set__" and name == "data":
            func(*args)
            return self._mark(args[0], self._is_there(args[1]))
        if name in _MOVES and isinstance(args[0], Tensor):
            return self._move(name, func, args, kwargs)
        if name == "copy_":
            return self._copied(func(*args, **kwargs), args[1], kwargs.get("non_blocking", False))
        if name == "pin_memory":
            self._pinned[args[0]] = True
            return args[0]
        if name == "is_pinned":
            return args[0] in self._pinned
        return self._compute(name, func, args, kwargs)

    def _compute(self, name: str, func: Any, args: Any, kwargs: dict) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = any(self._is_there(value) for value in tensors)
        if there and name in _TO_NUMPY:
            raise TypeError("numpy cannot read a tensor of the device: copy it to the CPU first")
        if there and name != "_has_compatible_shallow_copy_type":
            loose = [value for value in tensors if value.ndim and not self._is_there(value)]
            assert not loose, f"{name} mixes tensors of the device and of the CPU {[tuple(v.shape) for v in loose]}"
        if there and (name in _ASKS or self._asks_by_index(name, args, tensors)):
            self.waits[name] += 1
        made_there = kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cuda"
        if name in _UPLOADS and (made_there or there):
            self.uploads += 1
            self.waits[name] += 1
        if kwargs.get("device") is not None:
            there = made_there
            kwargs["device"] = CPU
        return tree_map_only(Tensor, lambda value: self._mark(value, there), func(*args, **kwargs))

    @staticmethod
    def _asks_by_index(name: str, args: Any, tensors: list[Tensor]) -> bool:
        """Masks that pick, and counts of repetition: how many there are stands on the device."""
        if name == "repeat_interleave":
            return len(tensors) > 1
        masked = any(value.dtype == torch.bool and value.ndim for value in tree_leaves(args[1:2]) if _is_tensor(value))
        numbers = name == "__setitem__" and not (_is_tensor(args[2]) and args[2].ndim)
        return name in ("__getitem__", "__setitem__") and masked and not numbers

    def _move(self, name: str, func: Any, args: Any, kwargs: dict) -> Tensor:
        value, rest = args[0], list(args[1:])
        target = {"cpu": CPU, "cuda": CUDA}.get(name)
        for place, told in [*enumerate(rest), *kwargs.items()]:
            where = rest if isinstance(place, int) else kwargs
            if isinstance(told, Tensor):
                target = CUDA if self._is_there(told) else CPU
            elif isinstance(told, (str, torch.device)):
                target, where[place] = torch.device(told), CPU
        moved = value.to(*rest, **kwargs) if name == "to" else value
        was, there = self._is_there(value), self._is_there(value) if target is None else target.type == "cuda"
        if was == there:
            return self._mark(moved, there)
        moved = moved.clone() if moved is value else moved
        return self._copied(self._mark(moved, there), value, kwargs.get("non_blocking", False), name)

    def _copied(self, target: Tensor, source: Tensor, unasked: bool, name: str = "copy_") -> Tensor:
        """Count a copy from here to there or back; only one from pinned memory does not wait."""
        there = self._is_there(target)
        if there != self._is_there(source):
            self.uploads += there
            if not (there and unasked and source in self._pinned):
                self.waits[name] += 1
        return target

    def _is_there(self, value: Tensor) -> bool:
        return value in self._there

    def _mark(self, value: Tensor, there: bool) -> Tensor:
        if there:
            self._there[value] = True
        else:
            self._there.pop(value, None)
        return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


@contextmanager
def fake_cuda(patch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The mode, and torch.cuda as it answers on a machine with one card; bf16 and fp16 run on the CPU's own kernels."""
    mode = FakeCuda()
    answers: dict[str, Any] = {
        "is_available": True,
        "device_count": 1,
        "get_device_name": "a card that is not there",
        "get_device_capability": (9, 0),
        "get_arch_list": ["sm_80", "sm_90"],
        "is_bf16_supported": True,
    }
    for name, answer in answers.items():
        patch.setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
    patch.setattr(torch.cuda, "synchronize", lambda *_: mode.waits.update(["synchronize"]))
    real, asked = torch.autocast, torch.is_autocast_enabled
    patch.setattr(torch, "autocast", lambda kind, *args, **kwargs: real("cpu", *args, **kwargs))
    patch.setattr(torch, "is_autocast_enabled", lambda kind: asked("cpu"))
    patch.setattr(torch, "get_autocast_dtype", lambda kind, _get=torch.get_autocast_dtype: _get("cpu"))
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # new and old
        patch.setattr(torch.optim.Optimizer, name, lambda *_: None, raising=False)
    grouped = torch._C._group_tensors_by_device_and_dtype

    def regrouped(lists: Any, indices: bool = False) -> dict:
        groups = {(lists[0][0].device, kind): group for (_, kind), group in grouped(lists, indices).items()}
        tensors = [value for value in tree_leaves(list(groups.values())) if isinstance(value, Tensor)]
        for value in tensors:
            mode._mark(value, lists[0][0].device == CUDA)
        return groups

    patch.setattr(torch._C, "_group_tensors_by_device_and_dtype", regrouped)
    made = torch.nn.Parameter.__new__

    def parameter(kind: Any, data: Any = None, requires_grad: bool = True) -> Tensor:
        return mode._mark(made(kind, data, requires_grad), data is not None and mode._is_there(data))

    patch.setattr(torch.nn.Parameter, "__new__", staticmethod(parameter))
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        with mode:
            yield mode
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
