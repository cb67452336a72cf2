"""Losses of the sync expert on cosines of its vectors. Sound i belongs to face i; further sounds have no face."""

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-6


def out_of_sync(clips: Tensor, starts: Tensor, sound_clips: Tensor, sound_starts: Tensor, apart: int) -> Tensor:
    """The hard negatives, (B, M) bool: sounds (M,) of the same clip as a face (B,), at least `apart` frames away."""
    same = clips[:, None] == sound_clips[None]
    return same & ((starts[:, None] - sound_starts[None]).abs() >= apart)


def candidates(clips: Tensor, sound_clips: Tensor, hard: Tensor) -> Tensor:
    """Which sounds a face has to choose from: its own, the hard negatives, and those of other clips. (B, M) bool.

    What remains, the same clip's sounds close by, is neither right nor wrong.
    """
    own = torch.eye(*hard.shape, dtype=torch.bool, device=hard.device)
    return own | hard | (clips[:, None] != sound_clips[None])


def contrastive(cosines: Tensor, allowed: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al., arXiv 1807.03748; with a scale as in CLIP, arXiv 2103.00020).

    cosines, allowed (B, M >= B): each face picks its sound among all the allowed ones, and each of the first B sounds
    its face. scale: one over the temperature. Chance is `contrastive_chance(allowed)`.
    """
    logits = (cosines * scale).masked_fill(~allowed, -torch.inf)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, : len(logits)].T, own)) / 2


def contrastive_chance(allowed: Tensor) -> Tensor:
    """`contrastive` when all cosines are alike: the mean log of how many there are to choose from."""
    return (allowed.sum(1).log().mean() + allowed[:, : len(allowed)].sum(0).log().mean()) / 2


def cosine_bce(in_sync: Tensor, shifted: Tensor) -> Tensor:
    """Wav2Lip's loss (arXiv 2008.10010): the cosine, in 0..1, is the probability that face and sound belong together.

    in_sync, shifted: cosines (N,) of pairs that do and that do not. Chance is ln 2.
    """
    right = torch.cat([in_sync, 1 - shifted])
    return -right.clamp_min(_EPSILON).log().mean()


def sync_loss(sounds: Tensor, faces: Tensor, counted: Tensor) -> Tensor:
    """Mean of 1 - cosine of a frozen expert's unit vectors (N, embedding) of sounds and of generated faces; in 0..1.

    counted (N,): 1 or 0, whether a row takes part.
    Its gradient is bounded, unlike that of the published -log(cosine) (arXiv 2008.10010), which has the same minimum.
    """
    return ((1 - (sounds * faces).sum(1)) * counted).sum() / counted.sum().clamp_min(1)


def ranked_right(cosines: Tensor, own: Tensor, rivals: Tensor) -> Tensor:
    """Share of rivals (B, M) bool whose cosine (B, M) is below the own one (B,); a tie counts half: chance is 1/2.

    Counted without picking the rivals out, as a GPU would have to be asked how many there are.
    """
    ahead = (own[:, None] > cosines).float() + (own[:, None] == cosines).float() / 2
    return (ahead * rivals).sum() / rivals.sum()
