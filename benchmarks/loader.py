"""How fast a data set gives stage-1 samples.

python -m benchmarks.loader --config configs/base.yaml --set data.path=DATA data.workers=2
"""

import argparse
import itertools
import os
import time

import cv2
import torch
from torch.utils.data import Dataset

from datasets.base import BaseDataset
from datasets.loader import batches
from engine.config import add_config_arguments, load_config
from engine.options import TrainBaseConfig
from engine.train_base import BaseObjective
from errors import run_cli

_STEPS = 1000000


def bench_loader(dataset: Dataset, batch: int, workers: int, seconds: float = 10.0) -> str:
    """Samples/s of `workers` processes over `seconds`, and what a sample costs of one core, as a line to print."""
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    dataset[0]  # opens files, once
    start, until = time.process_time(), time.perf_counter() + seconds / 4
    for index in itertools.count(1):
        dataset[index]
        if time.perf_counter() > until:
            break
    cost = (time.process_time() - start) / index
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
    loader = iter(batches(dataset, batch, 0, _STEPS, workers))
    next(loader)
    start, loaded = time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        next(loader)
        loaded += batch
    rate = loaded / (time.perf_counter() - start)
    return (
        f"{rate:.0f} windows/s with {workers} workers; a window takes {1000 * cost:.2f} ms of one core, "
        f"so {1 / cost:.0f} a core "
        f"and second on an idle machine of {os.cpu_count()} cores"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, TrainBaseConfig, "base.yaml")
    args = parser.parse_args()
    config = load_config(TrainBaseConfig, args.config, args.set)
    expert = BaseObjective(config).expert
    dataset = BaseDataset(
        config.data, config.augment, "train", config.model, config.run.seed, expert and expert.network.config
    )
    print(bench_loader(dataset, config.run.batch, config.data.workers))


if __name__ == "__main__":
    run_cli(main)
