"""Stage 1 and stage 2 on pictures: the one road that training, validation, preprocessing and inference share."""

from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from datasets.clips import FPS, Clip
from engine.device import upload
from engine.precision import FLOAT32, Precision
from face.sketch import draw_sketches
from media.audio import SAMPLE_RATE
from models.channels import PictureNetwork, in_order, unit
from models.hr_decoder import HRDecoder, Part
from models.hyperlips import HyperLipsBase, Memory, face_beside, face_input
from models.reference_encoder import mix_references
from speech.features import sound_features
from speech.windows import audio_window_at, audio_windows

_BATCH = 16
"""Frames of a clip painted at a time."""
_CUDA_BATCH = 64
"""The same on a GPU, which is asked for each batch."""


@torch.inference_mode()
def encode_references(network: HyperLipsBase, references: np.ndarray, precision: Precision = FLOAT32) -> list[Tensor]:
    """What `paint_base` takes of a clip's key frames (K, R, 128, 128, 3) uint8 RGB; made once."""
    pictures = to_network(references.reshape(-1, *references.shape[2:]), network).unflatten(0, references.shape[:2])
    with precision.autocast(pictures.device):
        return network.encode_references(unit(pictures[None]))


@torch.inference_mode()
def paint_base(
    network: HyperLipsBase,
    windows: np.ndarray,
    faces: np.ndarray,
    references: list[Tensor],
    shares: np.ndarray,
    gain: float,
    precision: Precision = FLOAT32,
    memory: Memory | None = None,
) -> np.ndarray:
    """Stage-1 faces (n, 128, 128, 3) uint8 RGB of successive frames of one clip.

    windows (n, ...) float32: each frame's sound. faces (n, 128, 128, 3) uint8 RGB. references: see encode_references;
    shares (n, K, R) float32: how much of each of them a frame shows, see datasets.references.References. gain: what the
    sound says beyond silence is taken this many times; 1 leaves the lips as the network moves them. memory: of a
    recurrent decoder, from one call to the next of the same stretch; without it every call starts anew.
    """
    device = network.device
    sounds = np.concatenate([windows, silent_window(network)[None]]) if gain != 1 else windows
    with precision.autocast(device):
        vectors = network.encode_audio(upload(torch.from_numpy(sounds), device))
        if gain != 1:
            vectors = [torch.lerp(level[-1:], level[:-1], gain) for level in vectors]
        used = np.flatnonzero(shares.any((0, 2)))  # others, as those of other shots, would cost as much
        seen = slice(used[0], used[-1] + 1)
        weights = upload(torch.from_numpy(np.ascontiguousarray(shares[None, :, seen])), device)
        shown = mix_references([level[:, seen] for level in references], weights)
        output = network.paint(vectors, face_input(to_network(faces, network)), shown, len(faces), memory)
    return from_network(output, network)


def paint_clip(network: HyperLipsBase, clip: Clip, faces: np.ndarray) -> np.ndarray:
    """Stage-1 faces (frames, 128, 128, 3) uint8 RGB of a data set's clip, from references of its own, fed as the
    network's feed says.

    faces: the clip's, of that shape.
    """
    config = network.config
    features = clip.features(config.audio)
    windows = audio_windows(features, len(faces), Fraction(FPS), config.audio, config.audio_window, network.feed.window)
    chosen = clip.references(network.feed.reference, config.references)
    references = encode_references(network, faces[chosen.frames])
    memory: Memory = {}
    gain = network.feed.motion_gain
    painted = (
        paint_base(network, windows[part], faces[part], references, chosen.shares[part], gain, memory=memory)
        for part in _batches(len(faces), network)
    )
    return np.concatenate(list(painted))


@torch.inference_mode()
def paint_hr(
    network: HRDecoder,
    base: np.ndarray,
    landmarks: np.ndarray,
    faces: np.ndarray,
    portraits: Tensor,
    shown: np.ndarray,
    precision: Precision = FLOAT32,
    part: Part | None = None,
) -> np.ndarray:
    """Stage-2 faces (n, S, S, 3) uint8 RGB.

    base (n, 128, 128, 3) uint8 RGB: stage-1 faces, and their smoothed landmarks (n, 478, 2), px of 128. faces
    (n, S, S, 3) uint8 RGB. portraits (P, 3, S, S): what `to_network` makes of the clip's, once; shown (n,) int: the one
    that each frame sees. part: see HRDecoder; outside it the pictures are those of `faces`.
    """
    sketches = upload(torch.from_numpy(draw_sketches(landmarks, network.config.sketch)), network.device)
    small, large = (to_network(images, network) for images in (base, faces))
    known = portraits[upload(torch.from_numpy(shown), portraits.device)]
    with precision.autocast(sketches.device):
        painted = from_network(run_hr(network, small, sketches, large, known, part), network)
    if part is None:
        return painted
    x0, y0, x1, y1 = (network.config.scale * value for value in part)
    whole = faces.copy()
    whole[:, y0:y1, x0:x1] = painted
    return whole


def paint_hr_clip(
    network: HRDecoder, clip: Clip, base: np.ndarray, landmarks: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Stage-2 faces (frames, S, S, 3) uint8 RGB of a data set's clip, from portraits of its own.

    base, landmarks: of every frame, see paint_hr. faces: the clip's (frames, S, S, 3) uint8 RGB.
    """
    chosen = clip.moves.portraits
    portraits = to_network(faces[chosen.frames], network)
    painted = (
        paint_hr(network, base[part], landmarks[part], faces[part], portraits, chosen.shown[part])
        for part in _batches(len(faces), network)
    )
    return np.concatenate(list(painted))


def _batches(frames: int, network: PictureNetwork) -> Iterator[slice]:
    size = _CUDA_BATCH if network.device.type == "cuda" else _BATCH
    return (slice(start, start + size) for start in range(0, frames, size))


def run_hr(
    network: HRDecoder, base: Tensor, sketches: Tensor, faces: Tensor, references: Tensor, part: Part | None = None
) -> Tensor:
    """(n, 3, S, S), or `part` of it, see HRDecoder, of uint8 pictures in the network's channel order.

    base (n, 3, 128, 128), sketches (n, 1, 128, 128), faces (n, 3, S, S), references (m, 3, S, S), each for n / m
    frames.
    """
    inputs = [unit(base), unit(sketches).expand(-1, 3, -1, -1)]
    if network.config.reference:
        inputs.append(face_beside(faces, references.repeat_interleave(len(faces) // len(references), 0)[:, None]))
    return network(*inputs, part=part)


def silent_window(network: HyperLipsBase) -> np.ndarray:
    """What a frame in the middle of a silence sounds like to stage 1: (...) float32."""
    return _silence(network.config.audio, network.config.audio_window)


@lru_cache(maxsize=4)
def _silence(kind: str, length: int) -> np.ndarray:
    return audio_window_at(sound_features(np.zeros(2 * SAMPLE_RATE, np.float32), kind), 1.0, kind, length)


def to_network(images: np.ndarray, network: PictureNetwork) -> Tensor:
    """(n, S, S, 3) RGB uint8 -> (n, 3, S, S) uint8 in the network's channel order, on its device."""
    pictures = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return upload(in_order(pictures, network), network.device)


def from_network(output: Tensor, network: PictureNetwork) -> np.ndarray:
    """(n, 3, S, S) 0..1 in the network's channel order -> (n, S, S, 3) RGB uint8."""
    images = (in_order(output, network).float().clamp(0, 1) * 255).round().byte()
    return images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
