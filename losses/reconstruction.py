"""How far a picture is from the real one: its pixels, its colour, its spectrum; and the crops that mouth terms look at.

Images (N, 3, H, W) in 0..1; every term is one number, (), a mean of |error|.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from face.crop import rescale

LIP_CROP = 40 / 128, 56 / 128
"""Height and width of a lip crop, in shares of the image: about the widened box of lips half open."""

COLOUR_SQUARE = 4
"""px over which the colour of a lip crop is averaged."""

LOWER_ROWS_FROM = 60 / 128
"""Share of the height from which the painted half is counted; a little above the mask's edge, so that no seam grows."""


def box_mask(boxes: Tensor, size: int) -> Tensor:
    """Boxes (N, 4) in px of the 128 crop (x0, y0, x1, y1), whole pixels at both ends, to 0/1 masks (N, 1, size,
    size).
    """
    pixels = rescale(torch.arange(size, device=boxes.device), size, 128)
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


def colour_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean |error| of colour, what a pixel has beside its grey, over squares of COLOUR_SQUARE px: colour is
    seen coarsely, and brightness has terms of its own.
    """
    error = output - target
    return F.avg_pool2d(error - error.mean(1, keepdim=True), COLOUR_SQUARE).abs().mean()


def spectral_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean |error| of the spectrum's amplitudes, image by image and channel by channel: the mean error forgives a blur
    where it cannot tell the place of an edge, this asks for as much edge as the target has, wherever it lies.
    """
    spectra = [torch.fft.rfft2(images, norm="ortho").abs() for images in (output, target)]
    return (spectra[0] - spectra[1]).abs().mean()


def lip_crops(images: Tensor, boxes: Tensor) -> Tensor:
    """The boxes (N, 4) of the real lips, px of the 128 crop, cut out of (N, 3, S, S) and brought to one size of
    LIP_CROP.
    """
    size = images.shape[-1]
    corners = torch.cat([boxes[:, :2], boxes[:, 2:] + 1], 1) * (size / 128)  # whole pixels at both ends
    height, width = (round(share * size) for share in LIP_CROP)
    own = torch.arange(len(images), device=boxes.device)[:, None]
    places = torch.cat([own, corners], 1).to(images)  # a list of boxes would be put together one by one
    return roi_align(images, places, (height, width), sampling_ratio=1, aligned=True)
