"""Stage 1: teach the ear, then the whole network.

    python train_base.py --config configs/base.yaml [--set data.path=DATA] [--set run.name=mine]

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.augment import AugmentConfig
from datasets.base import BaseDataset, DataConfig
from datasets.bench import bench_loader
from engine.config import add_config_arguments, load_config
from engine.distributed import distributed
from engine.fit import Task, TrainConfig, fit, start_from
from engine.loop import apply_step, not_finite
from engine.runlog import RunLog
from engine.trainer import Frozen, Trainer
from engine.validate import LipValidator
from errors import check_counts, run_cli
from losses.adversarial import generator_loss
from losses.perceptual import PerceptualConfig, load_perceptual
from losses.reconstruction import l1, lip_crops, mouth_l1
from losses.terms import JudgedTerms, scheduled, weighted
from models.discriminators import BaseDiscriminator, DiscriminatorConfig
from models.ear import EarHead, ear_loss
from models.hyperlips import BaseConfig, HyperLipsBase, face_input
from models.reference_encoder import mix_references


@dataclass
class EarConfig:
    """`ear` section: the audio path alone learns lip and chin points first."""

    steps: int = 1500
    batch: int = 128
    lr: float = 1e-3
    rate: float = 0.1
    """Share of optim.lr at which the audio path goes on learning with the pictures: more of it, and the ear forgets."""

    def __post_init__(self) -> None:
        check_counts(self, "batch")


@dataclass
class LossConfig(JudgedTerms):
    """`loss` section: weights of the terms; 0 leaves a term out. The adversary sees the lower half."""

    mouth: float = 1.0
    mouth_weight: float = 5.0
    """Weight of the real lips' box inside the mouth term."""
    face: float = 0.2
    ear: float = 0.05
    perceptual: float = 0.0
    """On the lips, see the `perceptual` section."""


@dataclass
class ValidationConfig:
    split: str = "val"
    clips: int = 10
    """Spread over the split; 0 takes all."""

    def __post_init__(self) -> None:
        check_counts(self, "clips", least=0)


@dataclass
class TrainBaseConfig(TrainConfig):
    """Everything a stage-1 run is made of."""

    model: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ear: EarConfig = field(default_factory=EarConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        self.loss.check_window(self.data.window)


class BaseTrainer(Trainer):
    """The network with its throw-away ear head, and the loss of a batch."""

    def __init__(self, config: TrainBaseConfig):
        loss = config.loss
        super().__init__(
            BaseDiscriminator(DiscriminatorConfig(loss.adversary_width)) if loss.adversarial else None, loss
        )
        self.weights = asdict(loss)
        self.network = HyperLipsBase(config.model)
        self.head = EarHead(len(config.model.latent_channels) * config.model.hyper_width)
        self.perceptual = Frozen(load_perceptual(**asdict(config.perceptual))) if loss.perceptual else None

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of BaseDataset items, (B, T, ...) each -> (weighted sum, terms by name)."""
        count, frames = batch["faces"].shape[:2]
        target = batch["faces"].flatten(0, 1)
        vectors = self.network.encode_audio(batch["audio"].flatten(0, 1))
        if self.network.config.apart:
            maps = self.network.encode_references(batch["references"].float() / 255)
            face, references = face_input(target), mix_references(maps, batch["shares"])
        else:
            face, references = face_input(target, batch["references"].repeat_interleave(frames, 0)), None
        output = self.network.paint(vectors, face, frames, references).float()
        target, boxes = target.float() / 255, batch["lip_box"].flatten(0, 1)
        return weighted(
            {
                "mouth": lambda: mouth_l1(output, target, boxes, self.weights["mouth_weight"]),
                "face": lambda: l1(output, target),
                "ear": lambda: ear_loss(self.head(vectors), batch["ear_points"].flatten(0, 1)),
                "perceptual": lambda: self.perceptual(lip_crops(output, boxes), lip_crops(target, boxes)).mean(),
                "sync": lambda: self.sync(batch["sync_audio"], output.unflatten(0, (count, frames)), batch["voiced"]),
                "adversarial": lambda: generator_loss(self.judge(output, target)[1]),
            },
            scheduled(self.weights, step, "sync", "adversarial"),
        )


def teach_ear(
    trainer: BaseTrainer, dataset: BaseDataset, config: TrainBaseConfig, device: torch.device, log: RunLog
) -> None:
    """Train audio encoder, HyperNets and head to predict lip and chin points; the pictures take no part."""
    optimizer = torch.optim.Adam([*trainer.network.audio_parameters(), *trainer.head.parameters()], config.ear.lr)
    rng = np.random.default_rng((config.run.seed, 1))
    for step in range(config.ear.steps):
        audio, points = dataset.ear_batch(rng, config.ear.batch)
        loss = ear_loss(trainer.head(trainer.network.encode_audio(audio.to(device))), points.to(device))
        if not torch.isfinite(loss):
            raise not_finite(step, {"ear": loss})
        apply_step(loss, optimizer, config.ear.lr * (1 - step / config.ear.steps), config.optim.clip, step)
        if step % 200 == 0 or step == config.ear.steps - 1:
            log.scalars(step, {"loss": loss.item()}, "ear")
            print(f"ear {step:6d}  loss {loss.item():.4f}", flush=True)


def train(config: TrainBaseConfig, init: Path | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use."""
    with distributed(config.run.device) as world:
        torch.manual_seed(config.run.seed)
        trainer, model = BaseTrainer(config), config.model
        expert = trainer.expert.network.config if trainer.expert else None
        dataset = BaseDataset(config.data, config.augment, "train", model, config.run.seed, expert)
        # As the loop calls it, in the first process only.
        validator = world.main and LipValidator(
            config.data.path, config.validation.split, model, config.validation.clips
        )
        heard = set(trainer.network.audio_parameters())
        groups = [
            {
                "params": [value for value in trainer.parameters() if value in heard],
                "name": "ear",
                "scale": config.ear.rate,
            },
            {"params": [value for value in trainer.parameters() if value not in heard], "name": "network"},
        ]

        def prepare(log: RunLog) -> None:
            if init is not None:
                start_from(trainer.network, init)
            else:
                teach_ear(trainer, dataset, config, world.device, log)

        def validate(network: nn.Module, step: int, log: RunLog) -> dict[str, float]:
            """The score: lips that follow the sound, and as far as real ones."""
            scores, strip, film = validator(network, world.device)
            log.images(step, "val", strip)
            log.film(step, "val", film)
            return scores | {
                "score": scores["fast_r"] * min(scores["articulation"], 1 / max(scores["articulation"], 1e-6))
            }

        return fit(
            config, Task(trainer, dataset, config.data.window, validate, "score", groups=groups, prepare=prepare), world
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, "configs/base.yaml")
    parser.add_argument(
        "--init", type=Path, metavar="CKPT", help="start from these weights instead of teaching the ear"
    )
    parser.add_argument(
        "--bench-loader", action="store_true", help="print how fast the data is loaded, and train nothing"
    )
    args = parser.parse_args()
    config = load_config(TrainBaseConfig, args.config, args.set)
    if args.bench_loader:
        expert = BaseTrainer(config).expert
        data = BaseDataset(
            config.data, config.augment, "train", config.model, config.run.seed, expert and expert.network.config
        )
        print(bench_loader(data, config.run.batch, config.data.workers))
        return
    best = train(config, args.init)
    print(f"weights to use: {best}")


if __name__ == "__main__":
    run_cli(main)
