"""What moves the weights: schedule, parameter groups, one step; of a network and of its discriminator."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from engine.finite import Finite, LossScale, diverged
from engine.objective import Objective
from engine.options import OptimConfig
from errors import InputError

_EPSILON = 1e-6
"""Added to a norm that divides, as torch's own clipping does."""


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Rate of `step`: linear warm-up, then half a cosine from lr to lr * final at `steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = min((step - config.warmup) / max(steps - config.warmup, 1), 1.0)
    return config.lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(parameters: Iterable[nn.Parameter] | list[dict], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over parameters, or over groups, each with a `name` and maybe a `scale` of the learning rate (default
    1). Where it goes on from a saved state it keeps its own settings.
    """
    optimizer = torch.optim.AdamW(
        parameters, config.lr, betas=(config.betas[0], config.betas[1]), weight_decay=config.weight_decay, fused=True
    )
    optimizer.register_load_state_dict_pre_hook(_with_own_settings)
    return optimizer


def _with_own_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A saved state with the groups' settings as the config has them now."""
    pairs = zip(optimizer.param_groups, state["param_groups"], strict=True)
    return state | {"param_groups": [own | {"params": saved["params"]} for own, saved in pairs]}


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


def learning(groups: list[dict]) -> list[dict]:
    """Parameter groups without what is frozen."""
    kept = [group | {"params": [value for value in group["params"] if value.requires_grad]} for group in groups]
    return [group for group in kept if group["params"]]


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's state the memory layout of its parameters: a fused step walks through memory, not through
    indices.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


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


class Optimizers:
    """The objective's optimiser and, where it has one, its discriminator's, each with what fp16 and a GPU need."""

    def __init__(self, objective: Objective, groups: list[dict] | None, config: OptimConfig, device: torch.device):
        """groups: see make_optimizer; None: all that the objective has alike."""
        groups = learning(groups or [{"params": list(objective.parameters()), "name": "network"}])
        self.named = {"optimizer": make_optimizer(groups, config)}
        if objective.discriminator is not None:
            scale = config.discriminator_lr / config.lr
            group = {"params": list(objective.discriminator.parameters()), "name": "discriminator", "scale": scale}
            self.named["discriminator_optimizer"] = make_optimizer([group], config)
        self.notes = Finite() if device.type == "cuda" else None
        self._clip, self._device = config.clip, device
        self._scales: dict[str, LossScale] = {}

    def prepare(self, fp16: bool, scales: list[list[float]]) -> None:
        """For the layout that the parameters have by now; scales: of fp16, what `scales` gave, none for a new run."""
        for optimizer in self.named.values():
            match_layout(optimizer)
        if not fp16:
            return
        self._scales = {name: LossScale(self._device) for name in self.named}
        for scale, state in zip(self._scales.values(), scales, strict=False):
            scale.load(state)

    def scales(self) -> list[list[float]]:
        """For a checkpoint: the state of an fp16 loss's factor, one an optimiser."""
        return [scale.state() for scale in self._scales.values()]

    def step(self, name: str, loss: Tensor, rate: float, step: int) -> None:
        """Move what the optimiser of this name moves."""
        apply_step(loss, self.named[name], rate, self._clip, step, self.notes, self._scales.get(name))

    def rates(self, rate: float) -> dict[str, float]:
        """Learning rates, that of the network and, under their names, those of groups that differ from it."""
        groups = [group for optimizer in self.named.values() for group in optimizer.param_groups]
        return {"lr": rate, **{f"lr_{group['name']}": rate * group["scale"] for group in groups if "scale" in group}}
