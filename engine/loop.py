"""What every training loop needs: device, schedule, optimiser, averaged weights, one step."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from engine.finite import Finite, LossScale, diverged
from engine.options import OptimConfig
from errors import InputError

_EPSILON = 1e-6
"""Added to a norm that divides, as torch's own clipping does."""


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; CUDA is set up for speed. Raises InputError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: expected auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name}: {torch.cuda.device_count() or 'no'} CUDA devices are visible; use auto or cpu"
        )
    if device.type == "cuda":
        _check_kernels(device)
        # Ten bits of mantissa are more than bf16 has; all batches of a run are of one size.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def _check_kernels(device: torch.device) -> None:
    """Raises InputError for a card for which this torch was not built: its first kernel would end in a traceback.

    Code of a card runs on later ones of the same generation (sm_80 on 8.6); what was compiled for none (compute_80) is
    finished by the driver for any later one.
    """
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    codes = [match.groups() for arch in built if (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", arch))]
    runs = any(
        (int(of) == major and int(least) <= minor) if kind == "sm" else (int(of), int(least)) <= (major, minor)
        for kind, of, least in codes
    )
    if codes and not runs:
        raise InputError(
            f"{torch.cuda.get_device_name(device)} is of capability {major}.{minor}, and this torch "
            f"({torch.__version__}) was built for {', '.join(built)}; install one that was built for it, see "
            "pytorch.org/get-started/previous-versions, or use device cpu"
        )


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Rate of `step`: linear warm-up, then half a cosine from lr to lr * final at `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = min((step - config.warmup) / max(steps - config.warmup, 1), 1.0)
    return config.lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(parameters: Iterable[nn.Parameter] | list[dict], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over parameters, or over groups, each with a `name` and maybe a `scale` of the learning rate (default
    1).
    """
    return torch.optim.AdamW(
        parameters, config.lr, betas=(config.betas[0], config.betas[1]), weight_decay=config.weight_decay, fused=True
    )


def freeze(network: nn.Module, parts: list[str] | None) -> None:
    """Only these children of the network learn; None: all of it. Raises InputError for what it does not have."""
    if parts is None:
        return
    children = dict(network.named_children())
    if not parts or (unknown := sorted(set(parts) - children.keys())):
        found = ", ".join(unknown) if parts else "none"
        raise InputError(f"optim.parts: found {found}, expected some of {', '.join(children)}, or null for all")
    for name, child in children.items():
        child.requires_grad_(name in parts)


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's state the memory layout of its parameters: a fused step walks through memory, not through
    indices.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


class Ema:
    """Running average of a network's weights; buffers (BatchNorm statistics) are copied."""

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.restart(network)

    def restart(self, network: nn.Module) -> None:
        """Forget the past: the average is the network as it is now."""
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Early on the average follows faster, so that it forgets the random start."""
        self._steps += 1
        decay = min(self.decay, self._steps / (self._steps + 9))
        parameters = dict(network.named_parameters())
        names = [name for name in self.average if name in parameters]
        torch._foreach_lerp_([self.average[name] for name in names], [parameters[name] for name in names], 1 - decay)
        # Buffers that are not saved never change. Each type apart: of mixed ones CUDA copies one after another.
        buffers = {name: value for name, value in network.named_buffers() if name in self.average}
        for kind in {value.dtype for value in buffers.values()}:
            alike = [name for name, value in buffers.items() if value.dtype == kind]
            torch._foreach_copy_([self.average[name] for name in alike], [buffers[name] for name in alike])

    def match_layout(self, network: nn.Module) -> None:
        """Give the averages the memory layout of the network's parameters, as `match_layout` does an optimiser's."""
        for name, parameter in network.named_parameters():
            self.average[name] = torch.empty_like(parameter, requires_grad=False).copy_(self.average[name])

    def state_dict(self) -> dict:
        return {"average": self.average, "steps": self._steps}

    def load_state_dict(self, state: dict) -> None:
        for name, value in state["average"].items():
            self.average[name].copy_(value)  # to the device it lives on
        self._steps = state["steps"]


def not_finite(step: int, values: dict[str, Tensor]) -> InputError:
    """What to say when the loss is not finite: the step, and the terms that are to blame."""
    bad = [name for name, value in values.items() if not torch.isfinite(value)] or ["total"]
    return diverged(step, f"loss term {', '.join(bad)}")


def apply_step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    lr: float,
    clip: float,
    step: int = 0,
    notes: Finite | None = None,
    scale: LossScale | None = None,
) -> None:
    """Backward, clip the norm of the optimiser's gradients and step; each group at its `scale` of `lr`.

    A gradient that is not finite in this `step` moves no weight. Raises InputError for it at once, or takes it down in
    `notes` where those are given: then nothing waits for the device, and the optimiser is to be a fused one. scale: of
    an fp16 loss, with notes; a gradient that it made overflow is no fault.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    optimizer.zero_grad(set_to_none=True)
    (loss if scale is None else loss * scale.value).backward()
    parameters = [
        parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None
    ]
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in parameters])
    if notes is not None:
        return _step_unread(loss, norm, optimizer, clip, step, notes, scale)
    if not torch.isfinite(norm):
        raise diverged(step, "the gradient")
    if norm > clip:  # most steps need no walk through all gradients
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    optimizer.step()


def _step_unread(
    loss: Tensor,
    norm: Tensor,
    optimizer: Any,
    clip: float,
    step: int,
    notes: Finite,
    scale: LossScale | None,
) -> None:
    """The fused step divides the gradients by `grad_scale` on its way, and leaves all as it is where `found_inf` says
    so.
    """
    by = norm.new_ones(()) if scale is None else scale.value.clone()
    norm = norm / by
    optimizer.grad_scale = by * ((norm + _EPSILON) / clip).clamp_min(1)
    optimizer.found_inf = (~(norm.isfinite() & loss.detach().isfinite())).float()
    optimizer.step()
    if scale is not None:
        scale.update(optimizer.found_inf)
        norm = norm.where(scale.value < 1, 0.0)
    notes.note(step, "the", {"gradient": norm})
