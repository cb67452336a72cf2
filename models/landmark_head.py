"""Throw-away head that teaches the audio path to hear lips before any picture is painted."""

from torch import Tensor, cat, nn

LANDMARK_SCALE = 4.0
"""Head outputs are in units of this many px of the 128 crop, so that they are about 1."""


class LandmarkHead(nn.Module):
    """Hyper vectors, a list of (N, hyper_width), to lip and chin points (N, 20, 2) in px of the 128 crop, less their
    mean.
    """

    def __init__(self, inputs: int, points: int = 20):
        super().__init__()
        self.linear = nn.Linear(inputs, points * 2)

    def forward(self, vectors: list[Tensor]) -> Tensor:
        return LANDMARK_SCALE * self.linear(cat(vectors, 1).float()).unflatten(1, (-1, 2))
