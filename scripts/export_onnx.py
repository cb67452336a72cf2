"""Networks as ONNX files, for runtimes without PyTorch: the audio encoder, stage 1 and stage 2.

python -m scripts.export_onnx --output onnx                                        the shipped weights
python -m scripts.export_onnx --base B.safetensors --hr H.safetensors --output onnx

Writes audio.onnx (a window of sound to hyper vectors), references.onnx (a frame's reference faces to maps, where the
weights encode them), base.onnx (vectors, masked faces and references to 128 px faces) and hr.onnx (these and sketches
to large ones), each for any number of frames at once. Pictures are float32 in 0..1 in the weights' own channel order;
each file's metadata hold the network's config, those of stage 1 also crop, windows and gain, as the checkpoint's do.
Wants `pip install onnx onnxscript`; onnxruntime runs the files.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from aside import aside
from engine.options import InferenceConfig
from engine.stages import silent_window
from errors import InputError, run_cli
from models.checkpoint import load_network
from models.compiled import portable
from models.config import BASE_SIZE
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase

OPSET = 18


class AudioPart(nn.Module):
    """Windows (N, ...) to the hyper vectors of the levels, (N, levels, hyper_width)."""

    def __init__(self, network: HyperLipsBase):
        super().__init__()
        self.network = network

    def forward(self, audio: Tensor) -> Tensor:
        return torch.stack(self.network.encode_audio(audio), 1)


class ReferencePart(nn.Module):
    """Reference faces (N, R, 3, 128, 128) to their maps (N, R, C, H, W), one a level."""

    def __init__(self, network: HyperLipsBase):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> list[Tensor]:
        return self.network.encode_references(pictures)


class PaintPart(nn.Module):
    """Hyper vectors (N, levels, hyper_width), masked faces (N, 3, 128, 128) and maps of references to faces (N, 3, 128,
    128).
    """

    def __init__(self, network: HyperLipsBase):
        super().__init__()
        self.network = network

    def forward(self, vectors: Tensor, face: Tensor, references: list[Tensor]) -> Tensor:
        return self.network.paint(list(vectors.unbind(1)), face, references)


@dataclass(frozen=True)
class Part:
    """A file: its network, what it takes for one frame, and what inputs and outputs are called."""

    name: str
    network: nn.Module
    inputs: Sequence[Tensor | list[Tensor]]
    names: Sequence[str]
    outputs: Sequence[str]


def base_parts(network: HyperLipsBase) -> list[Part]:
    """Audio encoder and stage 1. Raises InputError where the decoder remembers earlier frames."""
    if network.config.gru == "recurrent":
        raise InputError(
            "found stage-1 weights with model.gru recurrent, which carry a memory from frame to frame; "
            "expected none or zero_state"
        )
    network = portable(network)
    audio = torch.from_numpy(silent_window(network))[None]
    vectors = torch.zeros(1, len(network.hyper_nets), network.config.hyper_width)
    face = torch.zeros(1, 3, BASE_SIZE, BASE_SIZE)
    shown = face[:, None].repeat(1, network.config.references, 1, 1, 1)
    maps = network.encode_references(shown)
    names = [f"references_{level.shape[-1]}" for level in maps]
    parts = [Part("audio", AudioPart(network), [audio], ["audio"], ["vectors"])]
    if network.config.encodes_references:
        parts.append(Part("references", ReferencePart(network), [shown], ["pictures"], names))
    return [*parts, Part("base", PaintPart(network), [vectors, face, maps], ["vectors", "face", *names], ["picture"])]


def hr_part(network: HRDecoder) -> Part:
    """Stage 2; it takes `reference`, [masked face | reference face] at the output's size, where the weights do."""
    small, large = (torch.zeros(1, 3, BASE_SIZE, BASE_SIZE), BASE_SIZE * network.config.scale)
    inputs, names = [small, small.clone()], ["base", "sketch"]
    if network.config.reference:
        inputs.append(torch.zeros(1, 6, large, large))
        names.append("reference")
    return Part("hr", network, inputs, names, ["picture"])


def export(part: Part, folder: Path, metadata: dict[str, str]) -> Path:
    """Write `folder`/NAME.onnx, aside first. Raises InputError without the packages, or where it cannot."""
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter wants it)
    except ModuleNotFoundError as error:
        raise InputError(f"found no package {error.name}; pip install onnx onnxscript") from error
    # Two frames: a size of one would be taken for a constant.
    inputs = tree_map(lambda value: value.repeat(2, *[1] * (value.ndim - 1)), tuple(part.inputs))
    frames = torch.export.Dim("frames", min=1)
    program = torch.onnx.export(
        part.network.eval(),
        inputs,
        input_names=list(part.names),
        output_names=list(part.outputs),
        dynamic_shapes=tree_map(lambda _: {0: frames}, inputs),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    path = folder / f"{part.name}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with aside(path) as beside:
            onnx.save(model, beside)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); choose another --output") from error
    return path


def export_all(base: str, hr: str | None, folder: Path) -> list[Path]:
    """The files of both stages' weights. Raises InputError for weights that do not load or cannot be exported."""
    network = load_network(base, kind=HyperLipsBase)
    about = {"config": json.dumps(asdict(network.config)), "channel_order": network.channel_order}
    stage1 = {**about, "feed": json.dumps(asdict(network.feed))}
    parts = [(part, stage1) for part in base_parts(network)]
    if hr is not None:
        stage2 = load_network(hr, kind=HRDecoder)
        about = {"config": json.dumps(asdict(stage2.config)), "channel_order": stage2.channel_order}
        parts.append((hr_part(stage2), about))
    return [export(part, folder, metadata) for part, metadata in parts]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = InferenceConfig()
    parser.add_argument("--base", default=shipped.base, metavar="CKPT", help="stage-1 weights (default: the shipped)")
    parser.add_argument("--hr", default=shipped.hr, metavar="CKPT", help="stage-2 weights (default: the shipped ones)")
    parser.add_argument("--base-only", action="store_true", help="leave stage 2 out")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(arguments)
    for path in export_all(args.base, None if args.base_only else args.hr, args.output):
        print(path)


if __name__ == "__main__":
    run_cli(main)
