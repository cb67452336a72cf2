"""Published checkpoints: the layouts of their keys, and how those map onto our networks."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from models.channels import PictureNetwork
from models.config import PUBLISHED_FEED, BaseConfig, HRConfig, SyncConfig
from models.discriminators import BaseDiscriminator, HRDiscriminator
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from models.syncnet import SyncExpert, SyncNetV2


@dataclass(frozen=True)
class Layout:
    """A published layout: the key it is known by, the network to build from its keys, and how its keys are renamed."""

    known_by: str
    build: Callable[[Mapping[str, Tensor]], PictureNetwork]
    renames: tuple[tuple[str, str], ...]


def _build_hr(state: Mapping[str, Tensor]) -> PictureNetwork:
    stages = len({key.split(".")[1] for key in state if key.startswith("up_conv.")})
    scale = {2: 1, 3: 2}.get(stages, 4)
    return HRDecoder(HRConfig.of("published", scale=scale))


def _build_discriminator(state: Mapping[str, Tensor]) -> PictureNetwork:
    return BaseDiscriminator() if any(key.startswith("face_encoder_blocks.6.") for key in state) else HRDiscriminator()


_ASPP = ((r"aspp1\.", "values."), (r"aspp2\.", "gate."))
_CONV_BLOCK = ((r"conv_block\.0\.", "conv."), (r"conv_block\.1\.", "norm."))
LAYOUTS = (
    Layout(
        "hyper_control_net.hnet0.lin1.weight",
        lambda state: HyperLipsBase(BaseConfig.of("published")),
        (
            *_CONV_BLOCK,
            *_ASPP,
            (r"^face_encoder\.", "face_encoder.trunk."),
            (r"^aspp\.", "face_encoder.aspp."),
            (r"^hyper_control_net\.audio_encoder\.", "audio_encoder.trunk."),
            (r"^hyper_control_net\.aspp_a\.", "audio_encoder.aspp."),
            (r"^hyper_control_net\.hnet(\d)\.lin1\.", r"hyper_nets.\1.0."),
            (r"^hyper_control_net\.hnet(\d)\.lin2\.", r"hyper_nets.\1.2."),
            (r"^hyper_control_net\.dconv_down(\d)\.0\.", r"rewriters.\1.conv1."),
            (r"^hyper_control_net\.dconv_down(\d)\.1\.", r"rewriters.\1.norm1."),
            (r"^hyper_control_net\.dconv_down(\d)\.3\.", r"rewriters.\1.conv2."),
            (r"^hyper_control_net\.dconv_down(\d)\.4\.", r"rewriters.\1.norm2."),
            (r"hyperkernel\.", "kernel."),
            (r"hyperbias\.", "bias."),
            (r"^decoder\.decode0\.conv\.0\.", "decoder.head.block.0.conv."),
            (r"^decoder\.decode0\.conv\.1\.", "decoder.head.block.0.norm."),
            (r"^decoder\.decode0\.conv\.3\.", "decoder.head.block.1.conv."),
            (r"^decoder\.decode0\.conv\.4\.", "decoder.head.block.1.norm."),
            (r"^decoder\.decode4\.gru\.", "decoder.memory.gru."),
            (r"^decoder\.decode3\.", "decoder.ups.0."),
            (r"^decoder\.decode2\.", "decoder.ups.1."),
            (r"^decoder\.decode1\.", "decoder.ups.2."),
            (r"^(decoder\.ups\.\d)\.conv\.0\.", r"\1.conv.conv."),
            (r"^(decoder\.ups\.\d)\.conv\.1\.", r"\1.conv.norm."),
            (r"^(decoder\.ups\.\d)\.gru\.", r"\1.memory.gru."),
            (r"gru\.ih\.0\.", "gru.gates."),
            (r"gru\.hh\.0\.", "gru.candidate."),
            (r"^up_conv\.", "decoder.head.refine."),
            (r"^output_block\.0\.", "decoder.head.refine.2."),
            (r"^output_block\.1\.", "decoder.head.output."),
        ),
    ),
    Layout(
        "conv_base.0.conv_block.0.weight",
        _build_hr,
        (
            *_CONV_BLOCK,
            (r"^conv_base\.", "entry."),
            (r"^up_conv\.", "body."),
            (r"^output_block\.0\.", "head."),
            (r"^output_block\.1\.", "output."),
        ),
    ),
    Layout(
        "face_encoder_blocks.0.0.conv_block.0.weight",
        _build_discriminator,
        ((r"^face_encoder_blocks\.", "stages."), (r"conv_block\.0\.", "0."), (r"^binary_pred\.0\.", "output.")),
    ),
    Layout(
        "face_encoder.0.conv_block.0.weight",
        lambda state: SyncExpert(SyncConfig.of("published")),
        (*_CONV_BLOCK, (r"^face_encoder\.", "face."), (r"^audio_encoder\.", "audio.")),
    ),
    Layout(
        "netcnnaud.0.weight",
        lambda state: SyncNetV2(),
        (
            (r"^netcnnaud\.", "audio."),
            (r"^netfcaud\.", "audio_head."),
            (r"^netcnnlip\.", "lips."),
            (r"^netfclip\.", "lip_head."),
        ),
    ),
)


def from_published(state: Mapping[str, Tensor]) -> tuple[PictureNetwork, dict[str, Tensor]] | None:
    """The network a published state dict belongs to, fresh, and its state under our names; None if it is unknown."""
    for layout in LAYOUTS:
        if layout.known_by in state:
            network = layout.build(state)
            network.channel_order = "bgr"
            if isinstance(network, HyperLipsBase):
                network.feed = replace(PUBLISHED_FEED)
            return network, {_rename(key, layout.renames): value for key, value in state.items()}
    return None


def _rename(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
