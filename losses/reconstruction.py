"""L1 terms. Images (N, 3, H, W) in 0..1."""

import torch
from torch import Tensor

LOWER_ROWS_FROM = 60 / 128
"""Share of the height from which the painted half is counted; a little above the mask's edge, so that no seam grows."""


def box_mask(boxes: Tensor, size: int) -> Tensor:
    """Boxes (N, 4) in px of the 128 crop (x0, y0, x1, y1), whole pixels at both ends, to 0/1 masks (N, 1, size, size)."""
    pixels = (torch.arange(size, device=boxes.device) + 0.5) * (128 / size) - 0.5
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    across = (pixels >= x0 - 0.5) & (pixels < x1 + 0.5)
    down = (pixels >= y0 - 0.5) & (pixels < y1 + 0.5)
    return (down[:, :, None] & across[:, None, :])[:, None].to(boxes.dtype)


def mouth_l1(output: Tensor, target: Tensor, boxes: Tensor, mouth_weight: float) -> Tensor:
    """Mean |error| over the lower rows, with `mouth_weight` inside the boxes of the real lips (N, 4)."""
    size = output.shape[-1]
    top = int(size * LOWER_ROWS_FROM)
    weight = 1 + (mouth_weight - 1) * box_mask(boxes, size)[:, :, top:]
    return ((output - target).abs()[:, :, top:] * weight).mean()


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean |error| over the whole image."""
    return (output - target).abs().mean()
