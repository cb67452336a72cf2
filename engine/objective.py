"""What the training loop trains: a network with the loss of a batch, and maybe a discriminator."""

from typing import Any

import torch
from torch import Tensor, nn

from engine.options import SYNC_EXPERT
from losses.adversarial import discriminator_loss, relativistic_discriminator_loss
from losses.config import NetworkTerms
from losses.sync import sync_loss
from models.checkpoint import load_network
from models.syncnet import SyncExpert
from speech.windows import face_windows


class Frozen:
    """A network that is only asked: never trained, always in eval mode, and no part of whatever holds it."""

    def __init__(self, network: nn.Module):
        self.network = network.requires_grad_(False).eval()

    def __call__(self, *inputs: Any) -> Any:
        return self.network.to(inputs[0].device)(*inputs)


class Objective(nn.Module):
    """Subclasses set `network` and compute a batch's loss; `discriminator` has its own optimiser and is not a
    submodule.

    The loop (engine.fit) calls `objective(batch, step) -> (loss, terms)` and moves the objective's own parameters by
    that loss. Where forward called `logits`, it then calls `discriminate() -> (loss, terms)`, the discriminator's loss
    on the same pictures, and moves the discriminator's. Both optimisers, the objective and the discriminator are part
    of the run's state.
    """

    network: nn.Module

    def __init__(
        self, discriminator: nn.Module | None = None, terms: NetworkTerms | None = None, relativistic: bool = False
    ):
        super().__init__()
        self.expert = (
            Frozen(load_network(terms.sync_expert or SYNC_EXPERT, kind=SyncExpert)) if terms and terms.sync else None
        )
        self._discriminator, self._relativistic = (
            (discriminator,),
            relativistic,
        )  # a tuple hides it from the module tree
        self._seen: tuple[Tensor, Tensor] | None = None

    def __call__(self, *inputs: Any) -> Any:
        self._seen = None
        return super().__call__(*inputs)

    @property
    def discriminator(self) -> nn.Module | None:
        return self._discriminator[0]

    @property
    def seen(self) -> bool:
        """Whether the last forward called `logits`; only then is there something to discriminate."""
        return self._seen is not None

    def sync(self, sounds: Tensor, windows: Tensor, counted: Tensor) -> Tensor:
        """sync_loss of generated windows (B, 5, 3, 128, 128) and their sounds by the frozen expert, in float32."""
        with torch.autocast(windows.device.type, enabled=False):
            return sync_loss(*self.expert(sounds.float(), face_windows(windows, self.expert.network)), counted)

    def logits(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's logits (N, 1) of real and generated pictures; gradients reach the pictures alone."""
        self._seen = output.detach(), target
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real = self.discriminator(target) if self._relativistic else output.new_zeros(())
        fake = self.discriminator(output)
        self.discriminator.requires_grad_(True)
        return real, fake

    def discriminate(self) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, terms) of the discriminator on the pictures last seen: `fooled` is the share it takes for the other
        kind.
        """
        output, target = self._seen
        fake, real = self.discriminator(output), self.discriminator(target)
        loss = relativistic_discriminator_loss(real, fake) if self._relativistic else discriminator_loss(real, fake)
        middle = (real.mean() + fake.mean()) / 2 if self._relativistic else 0
        fooled = torch.cat([fake > middle, real < middle]).float().mean()
        return loss, {"discriminator": loss, "fooled": fooled}
