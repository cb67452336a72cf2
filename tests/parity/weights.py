"""Deterministic weights in the published HyperLips layout, for parity tests.

layout.json lists, for each published network, every state-dict key with its shape and dtype.
`state_dict(name)` fills those keys with values that depend on nothing but the key and the shape,
so that two programs that share no code can hold the same weights. golden.npz was made with them.

    python weights.py base out.pth       # a checkpoint as the published training script writes it
    python weights.py --list
"""

import argparse
import json
import math
import zlib
from pathlib import Path

import numpy as np

LAYOUT = json.loads((Path(__file__).parent / "layout.json").read_text())


def tensor(key: str, shape: list[int], dtype: str) -> np.ndarray:
    """Values for one key: He-scaled normals for kernels, mild ones for normalisation statistics."""
    if dtype == "int64":  # num_batches_tracked
        return np.zeros(shape, np.int64)
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if leaf == "running_mean":
        return rng.normal(0, 0.05, shape).astype(np.float32)
    if len(shape) == 1 and leaf == "weight":  # normalisation scale
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) == 1:
        return rng.normal(0, 0.05, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    if "hyperbias" in key:
        return rng.normal(0, 0.01, shape).astype(np.float32)
    if "hyperkernel" in key:  # a row per kernel element: keep the generated kernel mild
        kernel_fan_in = int(math.sqrt(shape[0] / 9)) * 9
        return rng.normal(0, 0.2 / math.sqrt(fan_in * kernel_fan_in), shape).astype(np.float32)
    return rng.normal(0, math.sqrt(2 / fan_in), shape).astype(np.float32)


def example(name: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """The input called `name` that golden.npz was made with (see README.md for the list)."""
    return np.random.RandomState(zlib.crc32(name.encode())).uniform(low, high, shape).astype(np.float32)


def waveform(seconds: float = 2.0, rate: int = 16000) -> np.ndarray:
    """A mono test signal in -1..1: a gliding harmonic tone that swells and falls, then near-silence."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (120 * t + 60 * t * t)
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    swell = np.sin(np.pi * np.clip(t / (0.75 * seconds), 0, 1)) ** 2
    return (0.2 * voice * swell + 1e-4 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32)


def state_dict(network: str) -> dict[str, np.ndarray]:
    return {key: tensor(key, shape, dtype) for key, shape, dtype in LAYOUT[network]}


def save(network: str, output: str | Path) -> None:
    """A checkpoint as the published training script writes it, on several GPUs."""
    import torch

    state = {f"module.{key}": torch.from_numpy(value) for key, value in state_dict(network).items()}
    torch.save({"state_dict": state, "optimizer": None, "global_step": 0, "global_epoch": 0}, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", choices=sorted(LAYOUT))
    parser.add_argument("output", nargs="?")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list or not args.output:
        for name, keys in LAYOUT.items():
            count = sum(
                int(np.prod(shape))
                for key, shape, dtype in keys
                if dtype == "float32" and not key.endswith(("running_mean", "running_var"))
            )
            print(f"{name:20} {len(keys):4} keys {count:>11,} parameters")
        return
    save(args.network, args.output)


if __name__ == "__main__":
    main()
