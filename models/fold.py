"""Batch norms folded into the convolutions before them: a trained network paints the same with less to do."""

from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Network = TypeVar("Network", bound=nn.Module)


def folded(network: Network) -> Network:
    """The network (in place, in eval mode), whose batch norms are in the convolutions that stand right before them in
    their block. Outputs differ by rounding; it can no longer be trained or saved.
    """
    for block in network.modules():
        for (conv_name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
            if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(norm, nn.BatchNorm2d):
                transposed = isinstance(conv, nn.ConvTranspose2d)
                setattr(block, conv_name, fuse_conv_bn_eval(conv, norm, transposed))
                setattr(block, norm_name, nn.Identity())
    return network
