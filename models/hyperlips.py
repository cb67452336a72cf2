"""Stage 1: HyperLipsBase paints the lower half of a 128 px face to an audio window (arXiv 2310.05720)."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.audio_encoder import make_audio_encoder
from models.channels import PictureNetwork, unit
from models.compiled import Convertible
from models.config import BaseConfig, Feed
from models.face_decoder import FaceDecoder, Memory
from models.face_encoder import make_face_encoder
from models.hyper import ConcatBlock, HyperBlock, HyperNet
from models.reference_encoder import ReferencedTrunk, ReferenceEncoder, below, make_joiner, make_mover

EDGE = 12
"""Rows below the copied ones that are painted, and then covered: convolutions miss what lies above them. 48 + 12 is
where the loss of the mouth begins, a little above the mask.
"""


class HyperLipsBase(PictureNetwork, Convertible):
    """An audio window becomes four hyper vectors; these write the kernels that rewrite the latents of a face whose
    lower half is masked; from those the decoder paints it. Images are (N, C, 128, 128) in 0..1, channels in
    `channel_order`.

    References show what the mask hides, at other times. They are encoded once a clip (`encode_references`), mixed for
    every frame (`mix_references`) and seen by `paint`. With `reference_encoder: joint` their maps are the pictures
    themselves, channels beside the masked face.
    """

    def __init__(self, config: BaseConfig | None = None):
        super().__init__()
        self.config = config = config or BaseConfig()
        self.feed = Feed()
        picture = 3 if config.encodes_references else 3 + 3 * config.references
        details = 0
        if config.encodes_references:
            self.reference_encoder = ReferenceEncoder(config.reference_channels)
            self.face_encoder: nn.Module = ReferencedTrunk(config)
            decoded, channels = config.decoder_channels[1], config.reference_channels[0]
            self.mover = make_mover(config, decoded, channels)
            self.details = make_joiner(config, decoded, channels)
            details = self.details.outputs
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
            details,
        )

    def forward(self, audio: Tensor, face: Tensor) -> Tensor:
        """One window a frame -> (N, 3, 128, 128) in 0..1.

        audio: mel (N, 1, 80, window) in -4..4 or Whisper features (N, window, 384); face (N, 3 + 3 * references, 128,
        128), see `face_input`. Sequences: audio (B, T, ...), face (B, C, T, 128, 128) -> (B, 3, T, 128, 128).
        """
        if face.ndim == 4:
            return self._paint_alone(self.encode_audio(audio), face, 1)
        frames = face.shape[2]
        output = self._paint_alone(self.encode_audio(audio.flatten(0, 1)), face.transpose(1, 2).flatten(0, 1), frames)
        return output.unflatten(0, (-1, frames)).transpose(1, 2)

    def _paint_alone(self, vectors: list[Tensor], face: Tensor, frames: int) -> Tensor:
        """Faces (N, 3 + 3 * references, 128, 128) that bring references of their own."""
        maps = self.encode_references(face[:, 3:].unflatten(1, (-1, 3)))
        return self.paint(vectors, face[:, :3], maps, frames)

    def encode_audio(self, audio: Tensor) -> list[Tensor]:
        """Audio windows (N, ...) -> four hyper vectors (N, hyper_width)."""
        return [net(vector) for net, vector in zip(self.hyper_nets, self.audio_encoder(audio), strict=True)]

    def encode_references(self, pictures: Tensor) -> list[Tensor]:
        """References (..., 3, 128, 128) in 0..1 -> maps (..., C, H, W) of four levels, at 64, 32, 16 and 8 px; joint:
        of one, the pictures. Once a clip.
        """
        if not self.config.encodes_references:
            return [pictures]
        maps = self.reference_encoder(pictures.flatten(0, -4))
        return [level.unflatten(0, pictures.shape[:-3]) for level in maps]

    def paint(
        self,
        vectors: list[Tensor],
        face: Tensor,
        references: Sequence[Tensor],
        frames: int = 1,
        memory: Memory | None = None,
    ) -> Tensor:
        """Hyper vectors (N, hyper_width), masked faces (N, 3, 128, 128), maps (N, R, C, H, W) of their references as
        `encode_references` gives them, mixed; N = clips x `frames` -> (N, 3, 128, 128) in 0..1.

        memory: a recurrent decoder goes on from the frames painted with it before, and keeps its states in it.
        """
        if self.config.gru == "recurrent":
            return self._paint(vectors, face, references, frames, memory)
        return self.run(face, *vectors, *references)[0]

    def core(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """`paint` of frames that are on their own: masked faces (N, 3, 128, 128), four vectors (N, hyper_width) and
        the references' maps (N, R, C, H, W) -> the faces (N, 3, 128, 128), one tensor.
        """
        face, *others = inputs
        levels = len(self.hyper_nets)
        return (self._paint(others[:levels], face, others[levels:], 1, None),)

    def _paint(
        self, vectors: list[Tensor], face: Tensor, references: Sequence[Tensor], frames: int, memory: Memory | None
    ) -> Tensor:
        copied, shown = self.config.copied_rows, self.config.copied_rows + EDGE
        details = None
        if self.config.encodes_references:
            seen, latents = face, self.face_encoder(face, references, vectors)
            details = partial(self._details, references=below(references[0], copied // 2), hyper=vectors[0])
        else:
            seen = torch.cat([face, references[0].flatten(1, 2)], 1)
            latents = self.face_encoder(seen)
        latents = [below(latent, copied * latent.shape[2] // face.shape[2]) for latent in latents]
        painted = self.decoder(self.rewrite(latents, vectors), seen[:, :, copied:], frames, memory, details)
        return torch.cat([face[:, :, :shown].to(painted.dtype), painted[:, :, EDGE:]], 2) if copied else painted

    def _details(self, decoded: Tensor, references: Tensor, hyper: Tensor) -> Tensor:
        """What the decoder sees at 64 px of references (N, R, C, h, 64): moved (config), and joined."""
        return self.details(decoded, references if self.mover is None else self.mover(decoded, references), hyper)

    def rewrite(self, latents: list[Tensor], vectors: list[Tensor]) -> list[Tensor]:
        """Four latents (N, C, H, W), and as many vectors (N, hyper_width), to latents of the same shapes: audio has
        rewritten those of `rewrite_levels`.
        """
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
    return unit(face_beside(face, references))


def face_beside(face: Tensor, references: Tensor | None = None) -> Tensor:
    """As `face_input`, of the type of the pictures."""
    masked = mask_lower_half(face)
    return masked if references is None else torch.cat([masked, references.flatten(1, 2)], 1)
