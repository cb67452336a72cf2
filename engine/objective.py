"""What the training loop trains: a network with the loss of a batch, and maybe a discriminator."""

import copy
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from digest import file_digest
from engine.options import SYNC_EXPERT
from engine.precision import cast_products
from losses.adversarial import discriminator_loss, relativistic_discriminator_loss
from losses.config import NetworkTerms, PerceptualConfig
from losses.sync import sync_loss
from models.checkpoint import Network, load_network
from models.config import SyncConfig
from models.perceptual import load_perceptual
from models.syncnet import SyncExpert
from speech.windows import face_windows


class Frozen(Generic[Network]):
    """A network that is only asked: never trained, always in eval mode, and no part of whatever holds it. It moves
    once, to where its inputs are, and under autocast a copy of it is cast once.
    """

    def __init__(self, network: Network):
        self.network = network.requires_grad_(False).eval()
        self._halves: dict[torch.dtype, nn.Module] = {}

    def __call__(self, *inputs: Any) -> Any:
        device = inputs[0].device
        if next(self.network.parameters()).device != device:
            self.network.to(device)
            self._halves.clear()
        if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
            return self.network(*inputs)
        kind = torch.get_autocast_dtype(device.type)
        if kind not in self._halves:  # autocast itself keeps casts only of weights that learn
            self._halves[kind] = cast_products(copy.deepcopy(self.network), kind)
        return self._halves[kind](*inputs)


class Objective(nn.Module):
    """Subclasses set `network` and compute a batch's loss; `discriminator` has its own optimiser and is not a
    submodule.

    The loop (engine.fit) calls `objective(batch, step) -> (loss, terms)` and moves the objective's own parameters by
    that loss. Where forward called `logits`, it then calls `discriminate() -> (loss, terms)`, the discriminator's loss
    on the same pictures, and moves the discriminator's. Both optimisers, the objective and the discriminator are part
    of the run's state.
    """

    network: Any
    discriminator: nn.Module | None
    expert: Frozen[SyncExpert] | None
    judges: dict[str, str]
    """Digests of the weights of the expert and of the perceptual network, as engine.resume.record takes them; "" where
    there are none, or a library's own."""
    unused = False
    """Whether a loss is off without which parameters get no gradient."""

    def __init__(
        self,
        discriminator: nn.Module | None = None,
        terms: NetworkTerms | None = None,
        perceptual: PerceptualConfig | None = None,
        relativistic: bool = False,
    ):
        super().__init__()
        expert = (terms.sync_expert or SYNC_EXPERT) if terms and terms.sync else None
        self.expert = None if expert is None else Frozen(load_network(expert, kind=SyncExpert))
        self._distance = None if perceptual is None else Frozen(load_perceptual(perceptual.kind, perceptual.weights))
        judges = {"sync_expert": expert, "perceptual": None if perceptual is None else perceptual.weights}
        self.judges = {name: file_digest(Path(path)) if path else "" for name, path in judges.items()}
        object.__setattr__(self, "discriminator", discriminator)  # as any attribute: no part of the module tree
        self._relativistic = relativistic
        self._seen: tuple[Tensor, Tensor] | None = None

    def __call__(self, *inputs: Any) -> Any:
        self._seen = None
        return super().__call__(*inputs)

    @property
    def heard(self) -> SyncConfig | None:
        """Shape of the sync expert, whose sounds a data set adds to its samples; None without one."""
        return None if self.expert is None else self.expert.network.config

    @property
    def seen(self) -> bool:
        """Whether the last forward called `logits`; only then is there something to discriminate."""
        return self._seen is not None

    def perceptual(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean distance of images (N, 3, H, W) in 0..1 by the frozen perceptual network."""
        assert self._distance is not None, "the terms that need it are 0"
        return self._distance(output, target).mean()

    def sync(self, sounds: Tensor, windows: Tensor, counted: Tensor) -> Tensor:
        """sync_loss of generated windows (B, 5, 3, 128, 128) and their sounds by the frozen expert, in float32."""
        assert self.expert is not None, "loss.sync is 0"
        with torch.autocast(windows.device.type, enabled=False):
            heard, seen = self.expert(sounds.float(), face_windows(windows, self.expert.network))
            return sync_loss(heard, seen, counted)

    def logits(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's float32 logits (N, 1) of real and generated pictures; gradients reach these alone."""
        discriminator = self.discriminator
        assert discriminator is not None, "loss.adversarial is 0"
        self._seen = output.detach(), target
        discriminator.requires_grad_(False)
        with torch.no_grad():
            real = discriminator(target).float() if self._relativistic else output.new_zeros(())
        fake = discriminator(output).float()
        discriminator.requires_grad_(True)
        return real, fake

    def discriminate(self) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, terms) of the discriminator on the pictures last seen: `fooled` is the share it takes for the other
        kind.
        """
        assert self._seen is not None, "there is nothing to tell apart before forward called logits"
        discriminator = self.discriminator
        assert discriminator is not None
        fake, real = (discriminator(pictures).float() for pictures in self._seen)
        loss = relativistic_discriminator_loss(real, fake) if self._relativistic else discriminator_loss(real, fake)
        middle = (real.mean() + fake.mean()) / 2 if self._relativistic else 0
        fooled = torch.cat([fake > middle, real < middle]).float().mean()
        return loss, {"discriminator": loss, "fooled": fooled}
