"""The network of the perceptual terms, with its weights: ST-LPIPS or VGG19."""

from pathlib import Path

from torch import nn

from errors import InputError
from models.checkpoint import check_fit, read_state
from models.stlpips import STLPIPS
from models.vgg import load_vgg

STLPIPS_WEIGHTS = Path(__file__).resolve().parent.parent / "checkpoints" / "stlpips_alex.safetensors"


def load_perceptual(kind: str, weights: str | Path | None = None) -> nn.Module:
    """A frozen distance `net(output, target)` of images (N, 3, H, W), RGB in 0..1, to (N,).

    kind: "stlpips" (weights: a safetensors file, half or single precision) or "vgg19" (see models.vgg). Raises
    InputError for an unknown kind, and for a file that is missing, broken or of another network.
    """
    if kind == "vgg19":
        return load_vgg(weights)
    if kind != "stlpips":
        raise InputError(f"found perceptual kind {kind!r}, expected stlpips or vgg19; correct it")
    path = Path(STLPIPS_WEIGHTS if weights is None else weights)
    state = read_state(path)[0]
    network = STLPIPS()
    check_fit(path, network, state)
    network.load_state_dict(state)
    return network
