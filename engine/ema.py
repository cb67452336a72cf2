"""Averaged weights: the ones to use."""

import torch
from torch import nn


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
