"""What the `data` and `augment` sections of a YAML hold. Imports no torch, so that a mistake is told at once."""

from dataclasses import dataclass
from typing import Literal

from errors import check, too_small
from models.config import MAX_SHIFT

ReferencePolicy = Literal["random", "far", "closed", "span", "pose"]
Cache = Literal["auto", "memory", "disk"]
_PROBABILITIES = "flip", "reference_blur", "reference_jpeg", "base_blur", "silence", "sound"
_RANGES = ("colour", 1), ("shift", 32), ("zoom", 0.5)
"""Largest values of an augmentation; a shift of 32 px is a quarter of the crop."""


@dataclass
class DataSection:
    """What all `data` sections share."""

    path: str = "data"
    """Folder of the data set."""
    min_face_px: float = 0.0
    """Clips whose faces are narrower in the source are left out."""
    workers: int | None = None
    """Loader processes; null: 1 beside a CPU, which trains on the same cores, and for a GPU all cores, of several
    processes its share, but one, and 16 at most."""
    cache: Cache = "auto"
    """Where decoded faces wait, at the size they are wanted; auto: in memory if those to learn from, or those to
    validate on, fit in a quarter of it."""

    def __post_init__(self) -> None:
        check(self.too_few_workers())

    def too_few_workers(self) -> str:
        """What is wrong with `workers`, if anything."""
        return too_small(self, "workers", least=0) if self.workers is not None else ""


@dataclass
class DrawConfig(DataSection):
    """What the `data` sections of both stages share."""

    window: int = 1
    """Consecutive frames a sample; losses that look at motion (sync) need 5."""
    balance: float = 0.0
    """How far persons are drawn alike: 0 draws every window alike, 1 every person, however much there is of them."""

    def __post_init__(self) -> None:
        check(
            too_small(self, "window"),
            self.too_few_workers(),
            not 0 <= self.balance <= 1 and f"balance is {self.balance}, expected 0 to 1",
        )


@dataclass
class DataConfig(DrawConfig):
    """`data` section of stage 1."""

    reference: ReferencePolicy = "closed"
    """closed: the most closed mouth, further ones on to a wide one, always the same; random: any; far: any at least 10
    frames away; span: far ones, from a rather closed mouth to a wide one; pose: such ones in the poses nearest to the
    window's, mixed."""


@dataclass
class HRDataConfig(DrawConfig):
    """`data` section of stage 2."""

    reference: ReferencePolicy = "pose"
    """pose: a far frame with a rather closed mouth in about the window's pose, which inference has nearer, and near in
    time; span: such a one in any pose; closed: the most closed mouth; random: any frame; far: any at least 10 frames
    away."""
    min_face_px: float = 150.0
    """Narrower faces hold no detail. With a reference the network sees how much there is; without one it learns to blur
    from them."""


@dataclass
class SyncDataConfig(DataSection):
    """`data` section of the sync expert."""

    windows: int = 6
    """Windows of one clip in a sample, each out of sync with the others' sounds."""
    sounds: int = 12
    """Further sounds of that clip in a sample (contrastive loss only); a sound costs far less than a face."""
    apart: int = 3
    """Frames from which on two windows of a clip count as out of sync."""

    def __post_init__(self) -> None:
        check(
            self.windows < 2 and f"windows is {self.windows}, expected 2 or more: each gives another its wrong sound",
            not 1 <= self.apart <= MAX_SHIFT
            and f"apart is {self.apart}, expected 1 to {MAX_SHIFT}, the largest shift that validation looks at",
            too_small(self, "sounds", least=0),
            self.too_few_workers(),
        )


@dataclass
class FaceAugmentConfig:
    """What every stage may change about its faces; a zero switches a change off."""

    flip: float = 0.5
    """Probability of a mirror image."""
    colour: float = 0.15
    """Largest relative change of brightness, contrast and each colour channel."""
    shift: int = 2
    """Largest shift of the crop, whole px of 128, so that nothing is resampled."""
    zoom: float = 0.0
    """Largest relative change of the crop's scale about its centre; resampling makes the target a little softer."""

    def __post_init__(self) -> None:
        odds = {name: getattr(self, name, 0) for name in _PROBABILITIES}
        check(
            *(not 0 <= odds[name] <= 1 and f"{name} is {odds[name]}, expected a probability, 0 to 1" for name in odds),
            *(
                not 0 <= getattr(self, name) <= most and f"{name} is {getattr(self, name)}, expected 0 to {most}"
                for name, most in _RANGES
            ),
        )


@dataclass
class AugmentConfig(FaceAugmentConfig):
    """`augment` section of stage 1."""

    reference_blur: float = 0.1
    """Probability of blurred references."""
    reference_jpeg: float = 0.1
    """Probability of references that were JPEGs of poor quality."""
    silence: float = 0.03
    """Probability of a muted sample whose target is one of the clip's most closed mouths, so that lips rest in silence,
    however the head is turned."""
    sound: float = 0.0
    """Probability of hearing one of the variants that preprocess.augment_sound wrote (noise, room, equaliser,
    level).
    """


@dataclass
class HRAugmentConfig(FaceAugmentConfig):
    """`augment` section of stage 2. Its references lend their own pixels, so they stay sharp by default."""

    reference_blur: float = 0.0
    """Probability of blurred references."""
    reference_jpeg: float = 0.0
    """Probability of references that were JPEGs of poor quality."""
    base_blur: float = 0.5
    """Probability of a blurred stage-1 face: those of people it was not trained on are softer than the data set's."""


@dataclass
class SyncAugmentConfig(FaceAugmentConfig):
    """`augment` section of the sync expert; each change is the same for all faces of a sample."""

    shift: int = 0
    """Largest shift of the crop, px of 128; off by default: shifts of 3 px kept a small expert at chance."""
