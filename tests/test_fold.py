"""Folded batch norms: less to do, the same pictures."""

import pytest
import torch
from torch import nn

from models.config import BaseConfig, HRConfig
from models.fold import folded
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase


def used(network: nn.Module) -> nn.Module:
    """With statistics as training leaves them, not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.3, 2),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.3, 0.3),
            ):
                values.data.uniform_(low, high, generator=generator)
    return network.eval()


@pytest.mark.parametrize("preset", ["light", "published"])
@pytest.mark.parametrize("kind", ["base", "concat", "hr"])
@torch.no_grad()
def test_folded_networks_paint_the_same(kind, preset):
    torch.manual_seed(0)
    if kind == "hr":
        network = used(HRDecoder(HRConfig.of(preset, scale=2)))
        given = [torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128), torch.rand(2, 6, 256, 256)]
    else:
        network = used(HyperLipsBase(BaseConfig.of(preset, **({"condition": kind} if kind == "concat" else {}))))
        config = network.config
        shape = (1, 80, config.audio_window) if config.audio == "mel" else (config.audio_window, 384)
        given = [torch.randn(2, *shape), torch.rand(2, 3 + 3 * config.references, 128, 128)]
    if kind == "hr" and not network.config.reference:
        given.pop()
    wanted, side = network(*given), 256 if kind == "hr" else 128
    assert wanted.shape == (2, 3, side, side)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert folded(network) is network
    left = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    generated = 2 * len(network.rewriters) if kind == "base" else 0  # such kernels cannot take them in
    assert left == generated < norms
    assert (network(*given) - wanted).abs().max() < 1e-5 and wanted.std() > 0.005
