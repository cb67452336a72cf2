"""How fast a data set gives samples, and how fast networks run and learn."""

import itertools
import time
from collections.abc import Callable

import torch
from torch.utils.data import Dataset

from datasets.base import BaseDataset
from datasets.clips import load_clips
from datasets.hr import HRDataset
from datasets.loader import batches, loader_workers
from datasets.splits import TRAIN
from engine.device import pick_device
from engine.options import TrainBaseConfig, TrainHRConfig
from engine.precision import Precision, choose_precision
from engine.threads import threads_kept, use_one_core
from engine.train_base import BaseObjective
from engine.train_hr import HRObjective
from models.config import BASE_SIZE, BaseConfig, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from workers import cores

BATCH = {("base", "infer"): 8, ("base", "train"): 32, ("HR 256", "infer"): 8, ("HR 256", "train"): 8}
"""About those that inference.py and the configs use."""
_STEPS = 100000


def bench_config(config: TrainBaseConfig | TrainHRConfig) -> str:
    """bench_loader of the data that a stage trains on."""
    workers = loader_workers(config.data.workers, pick_device(config.run.device))
    return bench_loader(_training_data(config), config.run.batch, workers)


def _training_data(config: TrainBaseConfig | TrainHRConfig) -> Dataset:
    clips, seed = load_clips(config.data.path, TRAIN, config.data.min_face_px), config.run.seed
    if isinstance(config, TrainHRConfig):
        return HRDataset(clips, config.data, config.augment, config.model, seed, HRObjective(config).heard)
    heard = BaseObjective(config).heard
    return BaseDataset(clips, config.data, config.augment, config.model, seed, heard, config.feed.window)


def bench_loader(dataset: Dataset, batch: int, workers: int, seconds: float = 10.0) -> str:
    """Samples/s of `workers` processes over `seconds`, and what a sample costs of one core, as a line to print."""
    with threads_kept():
        use_one_core()
        dataset[0]  # opens files, once
        start, until = time.process_time(), time.perf_counter() + seconds / 4
        for index in itertools.count(1):
            dataset[index]
            if time.perf_counter() > until:
                break
        cost = (time.process_time() - start) / index
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
        f"and second on an idle machine of {cores()} cores"
    )


def bench_presets(rounds: int) -> list[str]:
    """Frames/s of the published and the light preset, the best of `rounds` taken in turn, as rows of a table."""
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
    return rows


def inputs(network: HyperLipsBase | HRDecoder, batch: int) -> list[torch.Tensor]:
    """Random inputs of the shapes the network takes."""
    if isinstance(network, HRDecoder):
        config = network.config
        large = BASE_SIZE * config.scale
        extra = [torch.rand(batch, 6, large, large)] if config.reference else []
        return [*torch.rand(2, batch, 3, BASE_SIZE, BASE_SIZE), *extra]
    shape = (1, 80, 16) if network.config.audio == "mel" else (network.config.audio_window, 384)
    return [torch.randn(batch, *shape), torch.rand(batch, 6, BASE_SIZE, BASE_SIZE)]


def make_work(network: HyperLipsBase | HRDecoder, purpose: str, batch: int) -> Callable[[], None]:
    """One forward pass, or one training step, at the precision and layout that is fastest on this machine."""
    given = inputs(network, batch)
    network.train(purpose == "train")
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    cpu = torch.device("cpu")

    def work(precision: Precision) -> None:
        with torch.inference_mode(purpose == "infer"), precision.autocast(cpu):
            output = network(*given)
        if purpose == "train":
            output.float().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    precision = choose_precision("auto", network, work, f"benchmark {purpose} {batch}")
    print(f"  {type(network).__name__} {purpose}: {precision}")
    return lambda: work(precision)
