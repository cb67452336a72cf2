"""Stage 1: HyperLipsBase paints the lower half of a 128 px face to an audio window (arXiv 2310.05720)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from errors import InputError
from models.audio_encoder import LEVELS, make_audio_encoder
from models.face_decoder import FaceDecoder
from models.face_encoder import make_face_encoder
from models.hyper import ConcatBlock, HyperBlock, HyperNet
from models.mobilenet import TRUNK_CHANNELS
from models.presets import COPIED_ROWS, check_choice, check_widths, fill
from models.reference_encoder import JOINERS, ReferencedTrunk, ReferenceEncoder, below

_WINDOWS = {"mel": 16, "whisper": 18}

EDGE = 12
"""Rows below the copied ones that are painted, and then covered: convolutions miss what lies above them. 48 + 12 is
where the loss of the mouth begins, a little above the mask.
"""

PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "audio": "mel",
        "trunk": "mobilenet",
        "latent_channels": [16, 24, 40, 128],
        "hyper_width": 64,
        "audio_width": 128,
        "rewrite_levels": [0, 1, 2, 3],
        "condition": "hyper",
        "decoder_channels": [80, 40, 32],
        "full_channels": 64,
        "output_channels": 32,
        "decoder_size": 128,
        "copied_rows": 0,
        "gru": "zero_state",
        "reference_channels": [24, 32, 48, 96],
    },
    "light": {
        "audio": "whisper",
        "trunk": "plain",
        "latent_channels": [16, 24, 40, 96],
        "hyper_width": 64,
        "audio_width": 128,
        "rewrite_levels": [1, 2, 3],
        "condition": "hyper",
        "decoder_channels": [64, 40, 32],
        "full_channels": 32,
        "output_channels": 32,
        "decoder_size": 64,
        "copied_rows": 48,
        "gru": "none",
        "reference_channels": [24, 32, 48, 96],
    },
}


@dataclass
class BaseConfig:
    """Shape of HyperLipsBase. None means the preset's value. Raises InputError for values that cannot be built."""

    preset: Literal["published", "light"] = "light"
    audio: Literal["mel", "whisper"] | None = None
    """Front end whose windows `forward` takes."""
    trunk: Literal["mobilenet", "plain"] | None = None
    """Of the face encoder, and of the mel audio encoder."""
    latent_channels: list[int] | None = None
    """At 64, 32, 16 and 8 px; the mobilenet trunk fixes the first three."""
    hyper_width: int | None = None
    audio_width: int | None = None
    """Length of the one audio vector (not used by mel with the mobilenet trunk)."""
    audio_window: int | None = None
    """mel frames (a multiple of 16) or Whisper features."""
    rewrite_levels: list[int] | None = None
    """Which of the four latents audio rewrites; the others pass through."""
    condition: Literal["hyper", "concat"] | None = None
    """Audio writes kernels, or joins the latent as constant maps (ablation)."""
    decoder_channels: list[int] | None = None
    """At 16, 32 and 64 px."""
    full_channels: int | None = None
    """At 128 px; only with decoder_size 128."""
    output_channels: int | None = None
    """Before the last convolution."""
    decoder_size: Literal[64, 128] | None = None
    """Largest size the decoder convolves at; 64 ends in a pixel shuffle."""
    copied_rows: int | None = None
    """Rows of 128 at the top that are not painted: 0, 16, 32 or 48. Output shows the visible face there, and EDGE rows
    further.
    """
    gru: Literal["none", "zero_state", "recurrent"] | None = None
    """Decoder memory: none, restarted at every frame (published), or carried through a sequence call."""
    references: int = 1
    """Reference faces after the masked one; encoded apart from it, how many mouths a key pose shows."""
    reference_encoder: Literal["joint", "selected", "concatenated"] = "joint"
    """References as channels beside the masked face; or each encoded alone, mixed by pose, and one of them selected by
    groups of channels, or all of them concatenated.
    """
    reference_channels: list[int] | None = None
    """At 64, 32, 16 and 8 px, of references that are encoded alone."""
    reference_groups: int = 8
    """Groups of channels that select alike; divides all of `reference_channels`."""

    def __post_init__(self) -> None:
        fill(self, PRESETS)
        check_choice("audio", self.audio, _WINDOWS)
        if self.audio_window is None:
            self.audio_window = _WINDOWS[self.audio]
        check_choice("trunk", self.trunk, ("mobilenet", "plain"))
        check_choice("condition", self.condition, ("hyper", "concat"))
        check_choice("gru", self.gru, ("none", "zero_state", "recurrent"))
        check_choice("decoder_size", self.decoder_size, (64, 128))
        check_choice("copied_rows", self.copied_rows, COPIED_ROWS)
        check_widths("latent_channels", self.latent_channels, LEVELS)
        check_widths("decoder_channels", self.decoder_channels, 3)
        check_choice("reference_encoder", self.reference_encoder, ("joint", *JOINERS))
        check_widths("reference_channels", self.reference_channels, LEVELS)
        counts = "hyper_width", "audio_width", "audio_window", "full_channels", "output_channels", "references"
        for key in (*counts, "reference_groups"):
            check_widths(key, [getattr(self, key)], 1)
        if self.apart and self.trunk != "plain":
            raise InputError(f"reference_encoder is {self.reference_encoder}, which needs trunk: plain")
        if self.reference_encoder == "selected" and any(w % self.reference_groups for w in self.reference_channels):
            raise InputError(
                f"reference_groups is {self.reference_groups}, expected a divisor of all of {self.reference_channels}"
            )
        if self.audio == "mel" and self.audio_window % 16:
            raise InputError(f"audio_window is {self.audio_window}, expected a multiple of 16 with audio: mel")
        if self.trunk == "mobilenet" and list(self.latent_channels[:3]) != list(TRUNK_CHANNELS[:3]):
            raise InputError(
                f"latent_channels is {self.latent_channels}, expected it to start with "
                f"{list(TRUNK_CHANNELS[:3])} with trunk: mobilenet; or set trunk: plain"
            )
        if len(set(self.rewrite_levels)) < len(self.rewrite_levels) or not set(self.rewrite_levels) <= set(
            range(LEVELS)
        ):
            raise InputError(f"rewrite_levels is {self.rewrite_levels}, expected some of 0, 1, 2, 3, each once")
        if self.gru != "none" and any(width % 2 for width in (self.latent_channels[3], *self.decoder_channels)):
            raise InputError(
                f"decoder_channels is {self.decoder_channels}, expected even numbers (and an even last latent) with gru"
            )

    @property
    def apart(self) -> bool:
        """Whether references are encoded apart from the masked face."""
        return self.reference_encoder != "joint"


class HyperLipsBase(nn.Module):
    """Audio windows and masked faces to faces. Images are (N, C, 128, 128) in 0..1, channels in `channel_order`.

    With `reference_encoder: joint` a face is [masked face | references]. Otherwise it is the masked face, and the
    references are what `encode_references` made of a clip's key frames, mixed for each frame by
    `models.reference_encoder.mix_references`.
    """

    channel_order = "rgb"
    """`bgr` where published weights are loaded."""

    def __init__(self, config: BaseConfig | None = None):
        super().__init__()
        self.config = config = config or BaseConfig()
        picture = 3 if config.apart else 3 + 3 * config.references
        if config.apart:
            joining = config.references, config.reference_groups, config.hyper_width
            details = config.reference_channels[0]
            self.reference_encoder = ReferenceEncoder(config.reference_channels)
            self.face_encoder = ReferencedTrunk(
                config.reference_encoder, config.latent_channels, config.reference_channels, *joining
            )
            self.details = JOINERS[config.reference_encoder](config.decoder_channels[1], *joining)
        else:
            self.face_encoder = make_face_encoder(config.trunk, picture, config.latent_channels)
        self.audio_encoder = make_audio_encoder(config.audio, config.trunk, config.audio_window, config.audio_width)
        self.hyper_nets = nn.ModuleList(HyperNet(size, config.hyper_width) for size in self.audio_encoder.sizes)
        block = HyperBlock if config.condition == "hyper" else ConcatBlock
        self.rewriters = nn.ModuleDict(
            {
                str(level): block(config.latent_channels[level], config.hyper_width)
                for level in sorted(config.rewrite_levels)
            }
        )
        self.decoder = FaceDecoder(
            picture,
            config.latent_channels,
            config.decoder_channels,
            config.full_channels,
            config.output_channels,
            config.decoder_size,
            config.gru,
            self.details.outputs(details, config.references) if config.apart else 0,
        )

    def forward(self, audio: Tensor, face: Tensor, references: Sequence[Tensor] | None = None) -> Tensor:
        """One window a frame -> (N, 3, 128, 128) in 0..1.

        audio: mel (N, 1, 80, window) in -4..4 or Whisper features (N, window, 384); face (N, C, 128, 128), see
        `face_input`; references: maps (N, S, C, H, W) a level of those that are encoded apart. Sequences: audio
        (B, T, ...), face (B, C, T, 128, 128), references of B * T frames -> (B, 3, T, 128, 128).
        """
        if face.ndim == 4:
            return self.paint(self.encode_audio(audio), face, references=references)
        frames = face.shape[2]
        flat = face.transpose(1, 2).flatten(0, 1)
        output = self.paint(self.encode_audio(audio.flatten(0, 1)), flat, frames, references)
        return output.unflatten(0, (-1, frames)).transpose(1, 2)

    def follow(self, audio: Tensor, face: Tensor, references: Sequence[Tensor] | None = None) -> Tensor:
        """As `forward` without sequences, for consecutive frames of one clip: a recurrent decoder remembers from one to
        the next.

        It starts each call without a memory.
        """
        return self.paint(self.encode_audio(audio), face, len(face), references)

    def encode_references(self, pictures: Tensor) -> list[Tensor]:
        """Key frames (..., 3, 128, 128) in 0..1 -> maps (..., C, H, W) at 64, 32, 16 and 8 px; once a clip."""
        maps = self.reference_encoder(pictures.flatten(0, -4))
        return [level.unflatten(0, pictures.shape[:-3]) for level in maps]

    def encode_audio(self, audio: Tensor) -> list[Tensor]:
        """Audio windows (N, ...) -> four hyper vectors (N, hyper_width)."""
        return [net(vector) for net, vector in zip(self.hyper_nets, self.audio_encoder(audio), strict=True)]

    def paint(
        self, vectors: list[Tensor], face: Tensor, frames: int = 1, references: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Hyper vectors (N, hyper_width), faces (N, C, 128, 128); N = clips x `frames` -> (N, 3, 128, 128) in 0..1.

        references: maps (N, S, C, H, W) a level of those that are encoded apart.
        """
        copied, shown = self.config.copied_rows, self.config.copied_rows + EDGE
        details = None
        if references is None:
            latents = self.face_encoder(face)
        else:
            latents = self.face_encoder(face, references, vectors)
            fine = below(references[0], copied // 2)
            details = partial(self.details, references=fine, hyper=vectors[0])
        latents = [below(latent, copied * latent.shape[2] // face.shape[2]) for latent in latents]
        painted = self.decoder(self.rewrite(latents, vectors), face[:, :, copied:], frames, details)
        return torch.cat([face[:, :3, :shown].to(painted.dtype), painted[:, :, EDGE:]], 2) if copied else painted

    def rewrite(self, latents: list[Tensor], vectors: list[Tensor]) -> list[Tensor]:
        """Latents after audio has rewritten those of `rewrite_levels`."""
        rewritten = list(latents)
        for level, block in self.rewriters.items():
            rewritten[int(level)] = block(latents[int(level)], vectors[int(level)])
        return rewritten

    def audio_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the audio path: encoder and HyperNets."""
        yield from self.audio_encoder.parameters()
        yield from self.hyper_nets.parameters()


def mask_lower_half(face: Tensor) -> Tensor:
    """Rows >= H / 2 of (N, C, H, W) set to zero; the input is left as it is."""
    masked = face.clone()
    masked[..., face.shape[-2] // 2 :, :] = 0
    return masked


def face_input(face: Tensor, references: Tensor | None = None) -> Tensor:
    """What the networks see of a face: [face with its lower half zeroed | references, if any], float 0..1.

    face (N, 3, H, W), references (N, R, 3, H, W), both uint8 or both float in 0..1 -> (N, 3 + 3R, H, W).
    """
    joined = mask_lower_half(face)
    if references is not None:
        joined = torch.cat([joined, references.flatten(1, 2)], 1)
    return joined if joined.is_floating_point() else joined.float() / 255
