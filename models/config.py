"""Shapes of the networks: what a YAML's `model` section holds. Imports no torch, so that a mistake is told at once."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from errors import check

ReferenceRule = Literal["closed", "first", "pose"]
Shape = TypeVar("Shape", bound="Presets")

LEVELS = 4
"""Latents of a face: at 64, 32, 16 and 8 px of 128."""
TRUNK_CHANNELS = (16, 24, 40, 960)
"""Channels of MobileNetV3-Large's maps at 1/2, 1/4, 1/8 and 1/16."""
BASE_SIZE = 128
SYNC_FRAMES = 5
"""Frames at 25 fps that the sync expert sees at once."""
MAX_SHIFT = 15
"""25 fps frames by which sound and faces are shifted against each other, as SyncNet's own evaluation does."""
COPIED_ROWS = 0, 16, 32, 48
"""Rows of 128 above the mask that a network may leave unpainted: whole ones of its maps at 8 px, none of them
pasted.
"""


class Presets:
    """A shape whose values may begin at a named preset; in YAML, `preset:` beside the keys that differ from it."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Name to the values that differ from the dataclass's own, which are `light`'s."""

    def choices(self) -> list[str]:
        """What is wrong with values that are not among those a field allows."""
        hints = get_type_hints(type(self))
        return [
            one_of(key, getattr(self, key), get_args(hint))
            for key, hint in hints.items()
            if get_origin(hint) is Literal
        ]

    @classmethod
    def of(cls: type[Shape], preset: str, **values: Any) -> Shape:
        """The preset with some values replaced. Raises InputError for an unknown preset or values that do not fit."""
        return cls(**{**cls.preset_values(preset), **values})

    @classmethod
    def preset_values(cls, preset: str) -> dict[str, Any]:
        """Raises InputError for an unknown preset."""
        check(one_of("preset", preset, cls.PRESETS))
        return deepcopy(dict(cls.PRESETS[preset]))


@dataclass
class BaseConfig(Presets):
    """Shape of HyperLipsBase. Raises InputError for values that cannot be built."""

    audio: Literal["mel", "whisper"] = "whisper"
    """Front end whose windows `forward` takes."""
    trunk: Literal["mobilenet", "plain"] = "plain"
    """Of the face encoder, and of the mel audio encoder."""
    latent_channels: list[int] = field(default_factory=lambda: [16, 24, 40, 96])
    """At 64, 32, 16 and 8 px; the mobilenet trunk fixes the first three."""
    hyper_width: int = 64
    """Length of a hyper vector, from which a level's kernels are made."""
    audio_width: int = 128
    """Length of the one audio vector (not used by mel with the mobilenet trunk)."""
    audio_window: int = 18
    """mel frames (a multiple of 16) or Whisper features."""
    rewrite_levels: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Which of the four latents audio rewrites; the others pass through."""
    condition: Literal["hyper", "concat"] = "hyper"
    """Audio writes kernels, or joins the latent as constant maps (ablation)."""
    decoder_channels: list[int] = field(default_factory=lambda: [64, 40, 32])
    """At 16, 32 and 64 px."""
    full_channels: int = 32
    """At 128 px; only with decoder_size 128."""
    output_channels: int = 32
    """Before the last convolution."""
    decoder_size: Literal[64, 128] = 64
    """Largest size the decoder convolves at; 64 ends in a pixel shuffle."""
    copied_rows: int = 48
    """Rows of 128 at the top that are not painted: 0, 16, 32 or 48. Output shows the visible face there, and 12 rows
    further."""
    gru: Literal["none", "zero_state", "recurrent"] = "none"
    """Decoder memory: none, restarted at every frame (published), or carried through a clip."""
    references: int = 1
    """Reference faces: how many mouths, from a closed one to a wide one; of every key pose with `reference: pose`."""
    reference_encoder: Literal["joint", "selected", "concatenated"] = "joint"
    """References as channels beside the masked face (published); or each encoded alone, once a video, and then one
    selected of them for every group of channels and place, or all of them side by side."""
    reference_channels: list[int] = field(default_factory=lambda: [24, 32, 48, 96])
    """At 64, 32, 16 and 8 px, of references that are encoded alone."""
    reference_groups: int = 8
    """Groups of channels that select alike; divides all of `reference_channels`."""
    reference_flow: float = 0.0
    """Furthest, px of 128, that the decoder moves references of 64 px to where the mouth is; 0: not at all."""

    PRESETS = {
        "light": {},
        "published": {
            "audio": "mel",
            "trunk": "mobilenet",
            "latent_channels": [16, 24, 40, 128],
            "audio_window": 16,
            "rewrite_levels": [0, 1, 2, 3],
            "decoder_channels": [80, 40, 32],
            "full_channels": 64,
            "decoder_size": 128,
            "copied_rows": 0,
            "gru": "zero_state",
        },
    }

    def __post_init__(self) -> None:
        levels = self.rewrite_levels
        fixed = list(TRUNK_CHANNELS[:3])
        halved = (self.latent_channels[-1:], self.decoder_channels)
        counts = ["hyper_width", "audio_width", "audio_window", "full_channels", "output_channels"]
        counts += ["references", "reference_groups"]
        check(
            *self.choices(),
            one_of("copied_rows", self.copied_rows, COPIED_ROWS),
            widths("latent_channels", self.latent_channels, LEVELS),
            widths("decoder_channels", self.decoder_channels, 3),
            widths("reference_channels", self.reference_channels, LEVELS),
            *(widths(key, [getattr(self, key)], 1) for key in counts),
            self.audio == "mel"
            and self.audio_window % 16 != 0
            and f"audio_window is {self.audio_window}, expected a multiple of 16 with audio: mel",
            self.trunk == "mobilenet"
            and self.latent_channels[:3] != fixed
            and f"latent_channels is {self.latent_channels}, expected it to start with {fixed} with trunk: mobilenet; "
            "or set trunk: plain",
            (len(set(levels)) < len(levels) or not set(levels) <= set(range(LEVELS)))
            and f"rewrite_levels is {levels}, expected some of 0, 1, 2, 3, each once",
            self.gru != "none"
            and any(width % 2 for part in halved for width in part)
            and f"decoder_channels is {self.decoder_channels}, expected even numbers (and last latent) with gru",
            self.encodes_references
            and self.trunk != "plain"
            and f"reference_encoder is {self.reference_encoder}, which needs trunk: plain",
            self.reference_flow < 0 and f"reference_flow is {self.reference_flow}, expected 0 or more",
            self.reference_flow > 0
            and not self.encodes_references
            and f"reference_flow is {self.reference_flow}, expected 0 with reference_encoder: joint",
            self.reference_encoder == "selected"
            and any(width % max(self.reference_groups, 1) for width in self.reference_channels)
            and f"reference_groups is {self.reference_groups}, expected a divisor of all of {self.reference_channels}",
        )

    @property
    def encodes_references(self) -> bool:
        """Whether references are encoded apart from the masked face, and so may be mixed by pose."""
        return self.reference_encoder != "joint"

    def hears(self, window: str) -> bool:
        """Whether sounds may be cut by that Feed.window: the published one is of mel features alone."""
        return window != "published" or self.audio == "mel"


@dataclass
class HRConfig(Presets):
    """Shape of HRDecoder. Raises InputError for values that cannot be built."""

    scale: Literal[1, 2, 4] = 2
    """Output side / 128."""
    width: int = 40
    """Channels of its convolutions."""
    residuals: int = 1
    """Residual convolutions at 128 px, or after each doubling of the size, beside the first one."""
    head_width: int = 0
    """Channels of one more convolution before the last; 0 leaves it out."""
    size: int = BASE_SIZE
    """Largest side it convolves at, 0 for the output's (published); the rest is a pixel shuffle."""
    copied_rows: int = 48
    """Rows of 128 at the top, 0, 16, 32 or 48, that are not painted but copied: from the masked face with `reference`,
    else from the enlarged stage-1 face."""
    reference: bool = True
    """Also read [masked face | reference face] at the output's size, folded to 128 px."""
    sketch: Literal[478, 68, 0] = 478
    """Landmarks its sketches are drawn from, in training and inference alike; 0 leaves them black (ablation)."""
    residual: bool = True
    """Add a correction to the bilinearly enlarged stage-1 face instead of painting anew; with `reference`, to a blend
    of it and the person's own pixels (the visible upper half, the reference's lower half), whose shares are painted
    too, but are nothing round the mouth, where the reference says something else."""

    PRESETS = {
        "light": {},
        "published": {
            "width": 64,
            "residuals": 2,
            "head_width": 32,
            "size": 0,
            "copied_rows": 0,
            "reference": False,
            "residual": False,
        },
    }

    def __post_init__(self) -> None:
        self.size = self.size or BASE_SIZE * self.scale
        sizes = [BASE_SIZE * factor for factor in (1, 2, 4) if factor <= self.scale]
        check(
            *self.choices(),
            self.size not in sizes
            and f"size is {self.size}, expected one of {', '.join(map(str, sizes))} with scale {self.scale}",
            one_of("copied_rows", self.copied_rows, COPIED_ROWS),
            widths("width", [self.width], 1),
            widths("residuals", [self.residuals], 1),
            self.head_width != 0 and widths("head_width", [self.head_width], 1),
        )


@dataclass
class SyncConfig(Presets):
    """Shape of SyncExpert. Raises InputError for values that cannot be built."""

    audio: Literal["mel", "whisper"] = "whisper"
    """Front end whose windows it hears."""
    width: int = 12
    """Channels of the first convolutions; the others are 2, 4, 8 and 16 times that."""
    embedding: int = 256
    """Length of the two vectors."""
    face_residuals: list[int] = field(default_factory=lambda: [0, 1, 1, 1, 1])
    """Residual convolutions at 2, 4, 8, 16 and 16 times the width."""
    audio_residuals: int = 1
    """The same at 1, 2, 4 and 8 times the width (mel only)."""
    audio_window: int = 18
    """Whisper features (whisper only); a mel window is 16 frames."""
    audio_width: int = 128
    """Channels inside the Whisper window encoder (whisper only)."""

    PRESETS = {
        "light": {},
        "published": {
            "audio": "mel",
            "width": 32,
            "embedding": 512,
            "face_residuals": [2, 3, 2, 2, 2],
            "audio_residuals": 2,
        },
    }

    def __post_init__(self) -> None:
        check(
            *self.choices(),
            *(widths(key, [getattr(self, key)], 1) for key in ("width", "embedding", "audio_window", "audio_width")),
            (len(self.face_residuals) != 5 or min(self.face_residuals) < 0)
            and f"face_residuals is {self.face_residuals}, expected 5 whole numbers of at least 0",
            self.audio_residuals < 0
            and f"audio_residuals is {self.audio_residuals}, expected a whole number of at least 0",
        )


@dataclass
class Feed:
    """How stage-1 weights want to be fed; kept with them. `feed` section of a stage-1 run, which sets it."""

    crop: Literal["template", "box"] = "template"
    """template: faces registered by eyes and nose; box: upright boxes (published)."""
    window: Literal["centred", "published"] = "centred"
    """Which mel window belongs to a frame: centred on its middle, or as published training has it."""
    reference: ReferenceRule = "closed"
    """closed: the most closed mouth, further references on to a wide one, rather frontal; first: the first frame; pose:
    a closed mouth and on to a wide one in every pose that the clip visits, mixed by each frame's pose."""
    motion_gain: float = 1.4
    """What the sound says beyond silence is taken this many times. Networks trained on a mean error move lips too
    little on people they do not know (earlier weights on 14 clips of unseen people: .63 of the real motion at 1,
    .83 at 1.5, in time all the same)."""

    def __post_init__(self) -> None:
        check(not 0 <= self.motion_gain <= 3 and f"motion_gain is {self.motion_gain}, expected 0 to 3")


def check_references(shape: BaseConfig, rule: str) -> None:
    """Raises InputError for references by pose, which are mixed, and a network that sees them as pictures."""
    check(
        rule == "pose"
        and not shape.encodes_references
        and "reference is pose, expected closed or another rule with reference_encoder: joint; or set it to selected"
    )


PUBLISHED_FEED = Feed("box", "published", "first", 1.0)


@dataclass
class DiscriminatorConfig:
    """Shape of a discriminator."""

    width: int = 32
    """Channels of the first stage; the others are multiples of it."""


@dataclass
class WhisperConfig:
    """Shape of the Whisper encoder; the defaults are tiny.en's, cut after two blocks."""

    width: int = 384
    heads: int = 6
    blocks: int = 2


def one_of(key: str, value: Any, allowed: Iterable[Any]) -> str:
    """What is wrong with a value that is not among `allowed`; nothing where it is."""
    allowed = tuple(allowed)
    return "" if value in allowed else f"{key} is {value!r}, expected one of {', '.join(map(repr, allowed))}"


def widths(key: str, values: list[int], count: int) -> str:
    """What is wrong with values that are not `count` whole numbers of at least 1; nothing where they are."""
    if len(values) == count and all(isinstance(value, int) and value >= 1 for value in values):
        return ""
    found = values[0] if count == 1 and len(values) == 1 else values
    return f"{key} is {found}, expected {'a' if count == 1 else count} whole number{'s' * (count > 1)} of at least 1"
