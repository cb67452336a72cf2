"""What the training loop trains: a network with the loss of a batch, and maybe an adversary."""

from typing import Any

import torch
from torch import Tensor, nn

from losses.adversarial import discriminator_loss, relativistic_discriminator_loss
from losses.sync import lower_windows, sync_loss
from losses.terms import JudgedTerms
from models.checkpoint import load_network
from models.syncnet import SyncExpert


class Frozen:
    """A network that only judges: never trained, always in eval mode, and no part of whatever holds it."""

    def __init__(self, network: nn.Module):
        self.network = network.requires_grad_(False).eval()

    def __call__(self, *inputs: Any) -> Any:
        return self.network.to(inputs[0].device)(*inputs)


class Trainer(nn.Module):
    """Subclasses set `network` and compute a batch's loss; `adversary` has its own optimiser and is not a submodule.

    The loop (engine.fit) calls `trainer(batch, step) -> (loss, terms)` and moves the trainer's own parameters by that
    loss. Where forward called `judge`, it then calls `discriminate() -> (loss, terms)`, the adversary's loss on the
    same pictures, and moves the adversary's. Both optimisers, the trainer and the adversary are part of the run's
    state.
    """

    network: nn.Module

    def __init__(
        self, adversary: nn.Module | None = None, terms: JudgedTerms | None = None, relativistic: bool = False
    ):
        super().__init__()
        self.expert = Frozen(load_network(terms.sync_expert, kind=SyncExpert)) if terms and terms.sync else None
        self._adversary, self._relativistic = (adversary,), relativistic  # a tuple hides it from the module tree
        self._judged: tuple[Tensor, Tensor] | None = None

    def __call__(self, *inputs: Any) -> Any:
        self._judged = None
        return super().__call__(*inputs)

    @property
    def adversary(self) -> nn.Module | None:
        return self._adversary[0]

    @property
    def judged(self) -> bool:
        """Whether the last forward called `judge`; only then is there something to discriminate."""
        return self._judged is not None

    def sync(self, sounds: Tensor, windows: Tensor, counted: Tensor) -> Tensor:
        """sync_loss of generated windows (B, 5, 3, 128, 128) and their sounds by the frozen expert, in float32."""
        with torch.autocast(windows.device.type, enabled=False):
            return sync_loss(
                *self.expert(sounds.float(), lower_windows(windows, self.expert.network.channel_order)), counted
            )

    def judge(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The adversary's logits (N, 1) of real and generated pictures; gradients reach the pictures alone."""
        self._judged = output.detach(), target
        self.adversary.requires_grad_(False)
        with torch.no_grad():
            real = self.adversary(target) if self._relativistic else output.new_zeros(())
        fake = self.adversary(output)
        self.adversary.requires_grad_(True)
        return real, fake

    def discriminate(self) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, terms) of the adversary on the pictures last judged: `fooled` is the share it takes for the other
        kind.
        """
        output, target = self._judged
        fake, real = self.adversary(output), self.adversary(target)
        loss = relativistic_discriminator_loss(real, fake) if self._relativistic else discriminator_loss(real, fake)
        middle = (real.mean() + fake.mean()) / 2 if self._relativistic else 0
        fooled = torch.cat([fake > middle, real < middle]).float().mean()
        return loss, {"adversary": loss, "fooled": fooled}
