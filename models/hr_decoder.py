"""Stage 2: from the 128 px face and its landmark sketch to a face of 128, 256 or 512 px (arXiv 2310.05720)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks import ConvNormReLU, UpConvNormReLU
from models.channels import PictureNetwork, unit
from models.compiled import Convertible
from models.config import BASE_SIZE, HRConfig

Part = tuple[int, int, int, int]
"""x0, y0, x1, y1, px of 128."""
MOUTH = (64.0, 92.0), (32.0, 28.0)
"""Centre and radii, px of the 128 crop, of the ellipse that holds lips and chin (lips of 158 speakers reach .57 of it
on average, .87 at most).
"""


class HRDecoder(PictureNetwork, Convertible):
    """Images are (N, 3, H, W) in 0..1, channels in `channel_order`."""

    lendable: Tensor
    varying = 0, 2, 3

    def __init__(self, config: HRConfig | None = None):
        super().__init__()
        config = config or HRConfig()
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
        blends = config.residual and config.reference
        self.output = nn.Conv2d(config.head_width or width, (4 if blends else 3) * self.shuffle**2, 1)
        if config.residual:  # start close to the enlarged face
            with torch.no_grad():
                weight, bias = self.output.parameters()
                weight.mul_(0.1)
                bias.zero_()
                bias[3 * self.shuffle**2 :] = -2.0
        if blends:
            self.register_buffer("lendable", outside_mouth(BASE_SIZE * config.scale), persistent=False)

    def forward(
        self, base: Tensor, sketch: Tensor, reference: Tensor | None = None, part: Part | None = None
    ) -> Tensor:
        """base, sketch (N, 3, 128, 128) -> (N, 3, S, S), S = 128 * scale, in 0..1.

        `reference` (N, 6, S, S) = [masked face | reference face], also as uint8, of which only what is looked at is
        made float, is given just where the config has it (ValueError).
        `part` (x0, y0, x1, y1), px of 128, which ends below the copied rows: only what is inside is painted and
        returned, (N, 3, y1 - y0, x1 - x0) times scale, as it is in the whole. With `residual`, only eval mode clamps to
        0..1, so that training keeps its gradient.
        """
        if (reference is not None) != self.config.reference:
            found = "missing" if reference is None else "given"
            raise ValueError(f"reference is {found}, config.reference is {self.config.reference}")
        scale, copied = self.config.scale, self.config.copied_rows
        x0, y0, x1, y1 = part or (0, 0, BASE_SIZE, BASE_SIZE)
        top = max(y0, copied)
        left, above, right, below = seen = (
            max(x0 - self.reach, 0),
            max(top - self.reach, copied),
            min(x1 + self.reach, BASE_SIZE),
            min(y1 + self.reach, BASE_SIZE),
        )
        inputs = [_cut(base, seen), _cut(sketch, seen)]
        if reference is not None:
            inputs.append(F.pixel_unshuffle(unit(_cut(reference, seen, scale)), scale))
        (x,) = self.run(torch.cat(inputs, 1))
        x = _cut(F.pixel_shuffle(x, self.shuffle), (x0 - left, top - above, x1 - left, y1 - above), scale)
        painted = x0, top, x1, y1
        image = (
            self._corrected(x.to(base.dtype), base, reference, painted) if self.config.residual else torch.sigmoid(x)
        )
        if y0 >= copied:
            return image
        source = self._enlarged(base) if reference is None else reference[:, :3]
        return torch.cat([unit(_cut(source, (x0, y0, x1, copied), scale)).to(image.dtype), image], 2)

    def core(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The convolutions: (N, C, h, w) -> (N, C', h', w'), any part."""
        (x,) = inputs
        return (self.output(self.head(self.body(self.entry(x)))),)

    @property
    def reach(self) -> int:
        """How far from a pixel, px of 128, others change it: one px a convolution, at larger sizes less."""
        return len(self.entry) + len(self.body) + isinstance(self.head, ConvNormReLU)

    def _enlarged(self, base: Tensor) -> Tensor:
        scale = self.config.scale
        return base if scale == 1 else F.interpolate(base, scale_factor=scale, mode="bilinear", align_corners=False)

    def _corrected(self, x: Tensor, base: Tensor, reference: Tensor | None, part: Part) -> Tensor:
        """x, which is a part, plus what it corrects; in full precision under autocast."""
        scale = self.config.scale
        x0, y0, x1, y1 = part
        # Bilinear, so a pixel on every side is seen beyond the part.
        left, above = max(x0 - 1, 0), max(y0 - 1, 0)
        known = self._enlarged(_cut(base, (left, above, x1 + 1, y1 + 1)))
        known = _cut(known, (x0 - left, y0 - above, x1 - left, y1 - above), scale)
        if reference is not None:
            half = BASE_SIZE // 2
            upper, lower = (x0, y0, x1, min(y1, half)), (x0, max(y0, half), x1, y1)
            own = torch.cat([_cut(reference[:, :3], upper, scale), _cut(reference[:, 3:], lower, scale)], 2)
            known = torch.lerp(known, unit(own), torch.sigmoid(x[:, 3:]) * _cut(self.lendable, part, scale))
        x = x[:, :3] + known
        return x if self.training else x.clamp(0, 1)


def _cut(images: Tensor, part: Part, scale: int = 1) -> Tensor:
    """The part (x0, y0, x1, y1) of (N, C, H, W) that are `scale` times as large."""
    x0, y0, x1, y1 = (scale * value for value in part)
    return images[:, :, y0:y1, x0:x1]


def outside_mouth(size: int) -> Tensor:
    """(1, 1, size, size): 0 inside the MOUTH ellipse, 1 from a quarter of its radius outside it on, linear between."""
    pixels = (torch.arange(size) + 0.5) * (BASE_SIZE / size) - 0.5
    (x, y), (across, down) = MOUTH
    distance = torch.hypot((pixels[None] - x) / across, (pixels[:, None] - y) / down)
    return ((distance - 1) / 0.25).clamp(0, 1)[None, None]
