"""Where networks run."""

import re

import torch
from torch import Tensor

from errors import InputError


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one; CUDA is set up for speed. Raises InputError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}: expected auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}: expected auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {name}: {torch.cuda.device_count() or 'no'} CUDA devices are visible; use auto or cpu"
        )
    if device.type == "cuda":
        _check_kernels(device)
        # Ten bits of mantissa are more than bf16 has; all batches of a run are of one size.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def _check_kernels(device: torch.device) -> None:
    """Raises InputError for a card for which this torch was not built: its first kernel would end in a traceback.

    Code of a card runs on later ones of the same generation (sm_80 on 8.6); what was compiled for none (compute_80) is
    finished by the driver for any later one.
    """
    major, minor = torch.cuda.get_device_capability(device)
    built = torch.cuda.get_arch_list()
    codes = [match.groups() for arch in built if (match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", arch))]
    runs = any(
        (int(of) == major and int(least) <= minor) if kind == "sm" else (int(of), int(least)) <= (major, minor)
        for kind, of, least in codes
    )
    if codes and not runs:
        raise InputError(
            f"{torch.cuda.get_device_name(device)} is of capability {major}.{minor}, and this torch "
            f"({torch.__version__}) was built for {', '.join(built)}; install one that was built for it, see "
            "pytorch.org/get-started/previous-versions, or use device cpu"
        )


def upload(values: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device; a GPU fetches it from pinned memory while the program goes on."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
