"""Stage 2: from the 128 px face and its landmark sketch to a face of 128, 256 or 512 px (arXiv 2310.05720)."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from errors import InputError
from models.blocks import ConvNormReLU, UpConvNormReLU
from models.presets import COPIED_ROWS, check_choice, check_widths, fill

BASE_SIZE = 128
MOUTH = (64.0, 92.0), (32.0, 28.0)
"""Centre and radii, px of the 128 crop, of the ellipse that holds lips and chin (lips of 158 speakers reach .57 of it
on average, .87 at most).
"""

PRESETS: dict[str, dict[str, Any]] = {
    "published": {
        "width": 64,
        "residuals": 2,
        "head_width": 32,
        "copied_rows": 0,
        "reference": False,
        "residual": False,
    },
    "light": {
        "width": 40,
        "residuals": 1,
        "head_width": 0,
        "size": BASE_SIZE,
        "copied_rows": 48,
        "reference": True,
        "residual": True,
    },
}


@dataclass
class HRConfig:
    """Shape of HRDecoder. None means the preset's value. Raises InputError for values that cannot be built."""

    preset: Literal["published", "light"] = "light"
    scale: Literal[1, 2, 4] = 2
    """Output side / 128."""
    width: int | None = None
    residuals: int | None = None
    """Residual convolutions at 128 px, or after each doubling of the size, beside the first one."""
    head_width: int | None = None
    """Channels of one more convolution before the last; 0 leaves it out."""
    size: int | None = None
    """Largest side it convolves at (published: the output's); the rest is a pixel shuffle."""
    copied_rows: int | None = None
    """Rows of 128 at the top, 0, 16, 32 or 48, that are not painted but copied: from the masked face with `reference`,
    else from the enlarged stage-1 face.
    """
    reference: bool | None = None
    """Also read [masked face | reference face] at the output's size, folded to 128 px."""
    sketch: Literal[478, 68, 0] = 478
    """Landmarks its sketches are drawn from, in training and inference alike; 0 leaves them black (ablation)."""
    residual: bool | None = None
    """Add a correction to the bilinearly enlarged stage-1 face instead of painting anew; with `reference`, to a blend
    of it and the person's own pixels (the visible upper half, the reference's lower half), whose shares are painted
    too, but are nothing round the mouth, where the reference says something else.
    """

    def __post_init__(self) -> None:
        fill(self, PRESETS)
        check_choice("scale", self.scale, (1, 2, 4))
        if self.size is None:
            self.size = BASE_SIZE * self.scale
        sizes = [BASE_SIZE * factor for factor in (1, 2, 4) if factor <= self.scale]
        if self.size not in sizes:
            raise InputError(
                f"size is {self.size}, expected one of {', '.join(map(str, sizes))} with scale {self.scale}"
            )
        check_choice("copied_rows", self.copied_rows, COPIED_ROWS)
        check_widths("width", [self.width], 1)
        check_widths("residuals", [self.residuals], 1)
        if self.head_width != 0:
            check_widths("head_width", [self.head_width], 1)


class HRDecoder(nn.Module):
    """Images are (N, 3, H, W) in 0..1, channels in `channel_order`."""

    channel_order = "rgb"
    """`bgr` where published weights are loaded."""

    def __init__(self, scale: int | None = None, config: HRConfig | None = None):
        """`scale` alone gives the light decoder of that scale; beside a config it replaces the config's."""
        super().__init__()
        config = config or HRConfig()
        if scale is not None and scale != config.scale:
            size = None if config.size == BASE_SIZE * config.scale else config.size
            config = replace(config, scale=scale, size=size)
        self.config = config
        width = config.width
        inputs = 6 + (6 * config.scale**2 if config.reference else 0)
        self.entry = nn.Sequential(ConvNormReLU(inputs, width), ConvNormReLU(width, width, residual=True))
        doublings = (config.size // BASE_SIZE).bit_length() - 1
        body: list[nn.Module] = []
        for _ in range(max(doublings, 1)):
            body += [UpConvNormReLU(width, width)] if doublings else []
            body += [ConvNormReLU(width, width, residual=True) for _ in range(config.residuals)]
        self.body = nn.Sequential(*body)
        self.head = ConvNormReLU(width, config.head_width) if config.head_width else nn.Identity()
        self.shuffle = BASE_SIZE * config.scale // config.size
        self.blends = config.residual and config.reference
        self.output = nn.Conv2d(config.head_width or width, (4 if self.blends else 3) * self.shuffle**2, 1)
        if config.residual:  # start close to the enlarged face
            with torch.no_grad():
                self.output.weight.mul_(0.1)
                self.output.bias.zero_()
                self.output.bias[3 * self.shuffle**2 :] = -2.0
        if self.blends:
            self.register_buffer("lendable", outside_mouth(BASE_SIZE * config.scale), persistent=False)

    def forward(self, base: Tensor, sketch: Tensor, reference: Tensor | None = None) -> Tensor:
        """base, sketch (N, 3, 128, 128) -> (N, 3, S, S), S = 128 * scale, in 0..1.

        `reference` (N, 6, S, S) = [masked face | reference face] is given just where the config has it (ValueError).
        With `residual`, only eval mode clamps to 0..1, so that training keeps its gradient.
        """
        if (reference is not None) != self.config.reference:
            found = "missing" if reference is None else "given"
            raise ValueError(f"reference is {found}, config.reference is {self.config.reference}")
        scale, copied = self.config.scale, self.config.copied_rows
        inputs = [base, sketch] + ([F.pixel_unshuffle(reference, scale)] if self.config.reference else [])
        x = self.output(self.head(self.body(self.entry(torch.cat([image[:, :, copied:] for image in inputs], 1)))))
        x = F.pixel_shuffle(x, self.shuffle)
        copied *= scale
        painted = (
            self._corrected(x.to(base.dtype), base, reference, copied) if self.config.residual else torch.sigmoid(x)
        )
        if not copied:
            return painted
        above = self._enlarged(base) if reference is None else reference[:, :3]
        return torch.cat([above[:, :, :copied].to(painted.dtype), painted], 2)

    def _enlarged(self, base: Tensor) -> Tensor:
        scale = self.config.scale
        return base if scale == 1 else F.interpolate(base, scale_factor=scale, mode="bilinear", align_corners=False)

    def _corrected(self, x: Tensor, base: Tensor, reference: Tensor | None, copied: int) -> Tensor:
        """x plus what it corrects, rows from `copied` on; in full precision under autocast."""
        known = self._enlarged(base)[:, :, copied:]
        if self.blends:
            half = reference.shape[2] // 2
            own = torch.cat([reference[:, :3, copied:half], reference[:, 3:, half:]], 2)
            known = torch.lerp(known, own, torch.sigmoid(x[:, 3:]) * self.lendable[:, :, copied:])
        x = x[:, :3] + known
        return x if self.training else x.clamp(0, 1)


def outside_mouth(size: int) -> Tensor:
    """(1, 1, size, size): 0 inside the MOUTH ellipse, 1 from a quarter of its radius outside it on, linear between."""
    pixels = (torch.arange(size) + 0.5) * (BASE_SIZE / size) - 0.5
    (x, y), (across, down) = MOUTH
    distance = torch.hypot((pixels[None] - x) / across, (pixels[:, None] - y) / down)
    return ((distance - 1) / 0.25).clamp(0, 1)[None, None]
