"""By how many frames a clip's sound is late, told by a sync network (SyncNet's evaluation, arXiv 1611.08362 style)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from models.config import MAX_SHIFT, SYNC_FRAMES
from models.syncnet import SyncExpert
from speech.windows import face_windows, sound_windows

_BATCH = 32


@dataclass(frozen=True)
class SyncEstimate:
    """How a clip's sound lies to its picture.

    offset: frames at 25 fps by which the sound is late. confidence: the mean cosine at that offset less the median over
    the shifts searched. means: mean cosine by shift.
    """

    offset: int
    confidence: float
    means: dict[int, float]


def estimate_offset(faces: Mapping[int, np.ndarray], sounds: Mapping[int, np.ndarray]) -> SyncEstimate:
    """The shift within +-MAX_SHIFT frames at which faces and sounds, unit vectors (embedding,) by first frame, agree
    best.

    `estimate_offset(*clip_vectors(expert, faces, features))`. To put a clip right, give frame i the sound of frame
    i + offset.
    """
    means = shift_means(faces, sounds, lambda face, heard: float(face @ heard))
    best = max(means, key=means.__getitem__)
    return SyncEstimate(best, means[best] - float(np.median(list(means.values()))), means)


def shift_means(
    faces: Mapping[int, np.ndarray],
    sounds: Mapping[int, np.ndarray],
    compare: Callable[[np.ndarray, np.ndarray], float],
) -> dict[int, float]:
    """Mean of compare(face vector, sound vector) over the windows, by shift (25 fps frames, positive: sound late).

    A shift at which less than half of the windows have a sound is left out.
    """
    means = {}
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        values = [compare(vector, sounds[k + shift]) for k, vector in faces.items() if k + shift in sounds]
        if values and len(values) >= len(faces) / 2:
            means[shift] = float(np.mean(values))
    return means


@torch.inference_mode()
def clip_vectors(
    expert: SyncExpert, faces: np.ndarray, features: np.ndarray, every: int = 1
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Unit vectors (embedding,) of every `every`th face window and of all sounds up to MAX_SHIFT beyond both ends, by
    first frame.

    faces (n, 128, 128, 3) uint8 RGB at 25 fps; features: the sound's, of the expert's kind, from the first face on.
    """
    device = next(expert.parameters()).device
    last = len(faces) - SYNC_FRAMES
    starts = np.arange(0, last + 1, every)
    indices = starts[:, None] + np.arange(SYNC_FRAMES)
    windows = (
        torch.from_numpy(np.ascontiguousarray(faces[indices[start : start + _BATCH]].transpose(0, 1, 4, 2, 3)))
        for start in range(0, len(indices), _BATCH)
    )
    seen = [expert.embed_face(face_windows(window.to(device), expert)).cpu().numpy() for window in windows]
    heard = np.arange(-MAX_SHIFT, last + MAX_SHIFT + 1)
    sounds = torch.from_numpy(sound_windows(features, heard, expert.config)).split(_BATCH)
    listened = [expert.embed_audio(sound.to(device)).cpu().numpy() for sound in sounds]
    return (
        dict(zip(starts.tolist(), np.concatenate(seen), strict=True)),
        dict(zip(heard.tolist(), np.concatenate(listened), strict=True)),
    )


def peak(estimate: SyncEstimate) -> float:
    """The offset in frames between whole ones: the top of the parabola through the best mean cosine and its
    neighbours.
    """
    best = estimate.means[estimate.offset]
    before, after = (estimate.means.get(estimate.offset + step) for step in (-1, 1))
    if before is None or after is None or before + after == 2 * best:
        return float(estimate.offset)
    return estimate.offset + (before - after) / (2 * (before + after - 2 * best))
