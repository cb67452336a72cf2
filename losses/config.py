"""What the `loss` and `perceptual` sections of a YAML hold. Imports no torch, so that a mistake is told at once."""

from dataclasses import dataclass, fields
from typing import Literal

from errors import InputError, check, too_small
from models.config import SYNC_FRAMES


@dataclass
class NetworkTerms:
    """Weights of the terms that other networks give, in both stages' `loss` sections; 0 leaves a term out."""

    sync: float = 0.0
    """1 - cosine of a frozen sync expert; needs data.window: 5."""
    sync_expert: str | None = None
    """Its weights; null: the shipped ones."""
    sync_from: int = 0
    """Step at which the sync term sets in."""
    sync_ramp: int = 1000
    """Steps in which it then grows to its weight."""
    adversarial: float = 0.0
    """Against a discriminator that learns along."""
    adversarial_from: int = 0
    """Step at which the adversarial term sets in."""
    adversarial_ramp: int = 1000
    """Steps in which it then grows to its weight."""
    discriminator_width: int = 8
    """Channels of the discriminator's first stage; 32 as published."""

    def __post_init__(self) -> None:
        weights = [field.name for field in fields(self) if field.type is float]
        terms = [name for name in weights if not name.endswith("_weight")]  # which are a term's own
        at_once = any(getattr(self, name) and not getattr(self, f"{name}_from", 0) for name in terms)
        check(
            too_small(self, "discriminator_width"),
            too_small(self, *weights, least=0),
            not at_once and "no term has a weight at the first step, expected one with more than 0",
        )

    def too_late(self, steps: int) -> str:
        """What to say of terms that a run of so many steps ends before, a line each."""
        scheduled = [name.removesuffix("_from") for name in vars(self) if name.endswith("_from")]
        starts = {name: getattr(self, f"{name}_from") for name in scheduled if getattr(self, name)}
        late = [(name, start) for name, start in starts.items() if start >= steps]
        return "\n".join(f"loss.{name} never sets in: it would at step {start} of {steps}" for name, start in late)

    def check_window(self, window: int) -> None:
        """Raises InputError where the sync expert would not get the frames it sees."""
        if self.sync and window != SYNC_FRAMES:
            raise InputError(
                f"data.window is {window}, expected {SYNC_FRAMES}, the frames that the sync expert sees; set it, or "
                "loss.sync: 0"
            )


@dataclass
class BaseLossConfig(NetworkTerms):
    """`loss` section of stage 1: weights of the terms; 0 leaves a term out. The discriminator sees the lower half."""

    mouth: float = 1.0
    """L1 over the lower rows, with more weight inside the real lips' box."""
    mouth_weight: float = 5.0
    """Weight of the real lips' box inside the mouth term."""
    face: float = 0.2
    """L1 over the whole face."""
    landmark: float = 0.05
    """L1 of the lip and chin points that the audio path predicts, as in audio pre-training."""
    perceptual: float = 0.0
    """On the lips, see the `perceptual` section."""
    colour: float = 0.0
    """L1 of the colour of the box of the real lips, coarsely: the other terms forgive a green tooth."""
    spectral: float = 0.0
    """L1 of the amplitudes of the spectrum of the box of the real lips: the other terms forgive a blur."""


@dataclass
class HRLossConfig(NetworkTerms):
    """`loss` section of stage 2: weights of the terms; 0 leaves a term out. Adversarially: relativistic average."""

    l1: float = 0.2
    """L1 over the whole face."""
    mouth: float = 1.0
    """L1 over the lower rows, with more weight inside the real lips' box."""
    mouth_weight: float = 3.0
    """Weight of the real lips' box inside the mouth term."""
    perceptual: float = 0.0
    """On the whole face, see the `perceptual` section."""
    lip_l1: float = 0.0
    """L1 on the box of the real lips."""
    lip_perceptual: float = 0.1
    """On the box of the real lips, see the `perceptual` section."""
    lip_colour: float = 0.0
    """L1 of the colour of the box of the real lips, coarsely: the other terms forgive a green tooth."""
    lip_spectral: float = 0.0
    """L1 of the amplitudes of the spectrum of the box of the real lips: the other terms forgive a blur."""
    adversarial_ramp: int = 500
    """Steps in which the adversarial term grows to its weight."""
    discriminator_sees: Literal["face", "lips"] = "face"
    """The lips alone cost a seventh."""


@dataclass
class SyncLossConfig:
    """`loss` section of the sync expert: what makes it tell right sounds from wrong ones."""

    kind: Literal["contrastive", "bce"] = "contrastive"
    """contrastive: each window picks its sound among the batch's; bce, as published: on one right and one wrong."""
    temperature: float = 0.07
    """Of the contrastive loss; where it is learned, its first value."""
    learn_temperature: bool = True
    """Whether the temperature learns along."""
    warn_after: int = 500
    """Steps at chance after which the run says so; 0: never."""

    def __post_init__(self) -> None:
        check(
            self.temperature <= 0 and f"temperature is {self.temperature}, expected more than 0",
            too_small(self, "warn_after", least=0),
        )


@dataclass
class PerceptualConfig:
    """`perceptual` section: the network of the perceptual terms."""

    kind: Literal["stlpips", "vgg19"] = "stlpips"
    """stlpips: shift-tolerant LPIPS; vgg19: features of VGG19, as published."""
    weights: str | None = None
    """A local file; null is the one that comes with the project (stlpips) or torchvision's hub (vgg19)."""
