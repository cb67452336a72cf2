"""Adversarial losses on logits (N, 1): the sigmoid is inside. Means over the batch; chance is ln 2 a term.

Relativistic ones compare with the mean of the whole batch, over all processes.
"""

from torch import Tensor
from torch.nn import functional as F

from losses.gather import gather


def generator_loss(fake: Tensor) -> Tensor:
    """Non-saturating: generated pictures should pass for real (Goodfellow et al., arXiv 1406.2661, section 3)."""
    return F.softplus(-fake).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of telling real from generated; 2 ln 2 where they are taken for the same."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Generated pictures should look more real than the mean real one, and the reverse (arXiv 1807.00734, section
    4.2).
    """
    return F.softplus(real - gather(fake).mean()).mean() + F.softplus(gather(real).mean() - fake).mean()


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Real pictures should look more real than the mean generated one, and the reverse."""
    return F.softplus(gather(fake).mean() - real).mean() + F.softplus(fake - gather(real).mean()).mean()
