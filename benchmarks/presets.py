"""Frames/s of the light and the published preset, measured alternately in one run, in inference and in training.

    python -m benchmarks.presets [--rounds 3]

Machines are shared and differ sixfold: read the ratios, not the frames/s.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from engine.precision import choose_precision
from models.config import BaseConfig, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase

BATCH = {("base", "infer"): 8, ("base", "train"): 32, ("HR 256", "infer"): 8, ("HR 256", "train"): 8}
"""About those that inference.py and the configs use."""


def inputs(network: nn.Module, batch: int) -> list[torch.Tensor]:
    """Random inputs of the shapes the network takes."""
    config = network.config
    if isinstance(network, HRDecoder):
        extra = [torch.rand(batch, 6, 128 * config.scale, 128 * config.scale)] if config.reference else []
        return [torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 128, 128), *extra]
    audio = torch.randn(batch, 1, 80, 16) if config.audio == "mel" else torch.randn(batch, config.audio_window, 384)
    return [audio, torch.rand(batch, 6, 128, 128)]


def make_work(network: nn.Module, purpose: str, batch: int) -> Callable[[], None]:
    """One forward pass, or one training step, at the precision and layout that is fastest on this machine."""
    given = inputs(network, batch)
    network.train(purpose == "train")
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    cpu = torch.device("cpu")

    def work(precision) -> None:
        with torch.inference_mode(purpose == "infer"), precision.autocast(cpu):
            output = network(*given)
        if purpose == "train":
            output.float().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    precision = choose_precision("auto", network, work, f"benchmark {purpose} {batch}")
    print(f"  {type(network).__name__} {purpose}: {precision}")
    return lambda: work(precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="times each is measured, in turn; the best counts")
    rounds = parser.parse_args().rounds
    rows = []
    for name, build in (
        ("base", lambda preset: HyperLipsBase(BaseConfig.of(preset))),
        ("HR 256", lambda preset: HRDecoder(HRConfig.of(preset, scale=2))),
    ):
        for purpose in ("infer", "train"):
            batch = BATCH[name, purpose]
            works = {preset: make_work(build(preset), purpose, batch) for preset in ("published", "light")}
            best = dict.fromkeys(works, 0.0)
            for _ in range(rounds):
                for preset, work in works.items():
                    start = time.perf_counter()
                    work()
                    best[preset] = max(best[preset], batch / (time.perf_counter() - start))
            rows.append(
                f"| {name}, {purpose} | {best['published']:.1f} | {best['light']:.1f} | "
                f"{best['light'] / best['published']:.1f} |"
            )
    print("| network | published, frames/s | light, frames/s | ratio |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
