"""The loss of audio pre-training, and a term of stage 1: lip and chin points that the audio path predicts."""

from torch import Tensor

from models.landmark_head import LANDMARK_SCALE


def landmark_loss(predicted: Tensor, points: Tensor) -> Tensor:
    """L1 between predicted and real points (N, 20, 2), in units of LANDMARK_SCALE px."""
    return (predicted - points).abs().mean() / LANDMARK_SCALE
