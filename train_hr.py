"""Stage 2: stage-1 face and sketch to a sharp face.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA
    python train_hr.py --config configs/hr_256.yaml --set data.path=DATA

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from datasets.augment import HRAugmentConfig
from datasets.clips import FPS, locate
from datasets.hr import HRDataConfig, HRDataset
from engine.config import add_config_arguments, load_config
from engine.distributed import distributed
from engine.fit import Task, TrainConfig, fit, start_from
from engine.runlog import Film, RunLog
from engine.trainer import Frozen, Trainer
from errors import check_counts, run_cli
from losses.adversarial import relativistic_generator_loss
from losses.perceptual import PerceptualConfig, load_perceptual
from losses.reconstruction import l1, lip_crops, mouth_l1
from losses.terms import LATE, JudgedTerms, scheduled, weighted
from media.audio import SAMPLE_RATE, read_audio
from models.discriminators import DiscriminatorConfig, HRDiscriminator
from models.hr_decoder import HRConfig, HRDecoder
from models.hyperlips import face_input
from models.syncnet import SyncConfig


@dataclass
class LossConfig(JudgedTerms):
    """`loss` section: weights of the terms; 0 leaves a term out. The adversary is relativistic average."""

    l1: float = 0.2
    mouth: float = 1.0
    mouth_weight: float = 3.0
    """Weight of the real lips' box inside the mouth term."""
    perceptual: float = 0.0
    """On the whole face, see the `perceptual` section."""
    lip_l1: float = 0.0
    lip_perceptual: float = 0.1
    """The same on the box of the real lips."""
    adversarial_ramp: int = 500
    adversary_sees: Literal["face", "lips"] = "face"
    """The lips alone cost a seventh."""


@dataclass
class ValidationConfig:
    split: str = "val"
    frames: int = 48
    film: int = 50
    """Frames of the video that is shown at each validation."""

    def __post_init__(self) -> None:
        check_counts(self, "frames", "film")


@dataclass
class TrainHRConfig(TrainConfig):
    """Everything a stage-2 run is made of."""

    model: HRConfig = field(default_factory=HRConfig)
    data: HRDataConfig = field(default_factory=HRDataConfig)
    augment: HRAugmentConfig = field(default_factory=HRAugmentConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        self.loss.check_window(self.data.window)


class HRTrainer(Trainer):
    """The network and the loss of a batch."""

    def __init__(self, config: TrainHRConfig):
        loss = config.loss
        adversary = HRDiscriminator(DiscriminatorConfig(loss.adversary_width)) if loss.adversarial else None
        super().__init__(adversary, loss, relativistic=True)
        self.weights = asdict(loss)
        self.network = HRDecoder(config=config.model)
        judged = loss.perceptual or loss.lip_perceptual
        self.perceptual = Frozen(load_perceptual(**asdict(config.perceptual))) if judged else None

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of HRDataset items -> (weighted sum, terms by name)."""
        count, frames = batch["face"].shape[:2]
        output = run_network(self.network, batch).float()
        target, boxes = batch["face"].flatten(0, 1).float() / 255, batch["lip_box"].flatten(0, 1)
        lips = [lip_crops(images, boxes) for images in (output, target)]
        judged = lips if self.weights["adversary_sees"] == "lips" else (output, target)
        return weighted(
            {
                "l1": lambda: l1(output, target),
                "mouth": lambda: mouth_l1(output, target, boxes, self.weights["mouth_weight"]),
                "perceptual": lambda: self.perceptual(output, target).mean(),
                "lip_l1": lambda: l1(*lips),
                "lip_perceptual": lambda: self.perceptual(*lips).mean(),
                "sync": lambda: self.sync(
                    batch["sync_audio"],
                    F.interpolate(output, 128, mode="area").unflatten(0, (count, frames)),
                    output.new_ones(count),
                ),
                "adversarial": lambda: relativistic_generator_loss(*self.judge(*judged)),
            },
            scheduled(self.weights, step, "sync", "adversarial"),
        )


def run_network(network: HRDecoder, batch: dict[str, Tensor]) -> Tensor:
    """HRDataset items (B, T, ...) uint8 -> (B * T, 3, S, S)."""
    frames = batch["face"].shape[1]
    base, sketch = (batch[name].flatten(0, 1).float() / 255 for name in ("base", "sketch"))
    inputs = [base, sketch.expand(-1, 3, -1, -1)]
    if network.config.reference:
        inputs.append(face_input(batch["face"].flatten(0, 1), batch["reference"].repeat_interleave(frames, 0)[:, None]))
    return network(*inputs)


def train(config: TrainHRConfig, init: Path | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use."""
    with distributed(config.run.device) as world:
        torch.manual_seed(config.run.seed)
        trainer, size = HRTrainer(config), 128 * config.model.scale
        expert = trainer.expert.network.config if trainer.expert else None
        dataset = HRDataset(config.data, config.augment, "train", size, config.run.seed, config.model.sketch, expert)
        validator = HRValidator(config, size, expert, world.device) if world.main else None

        def prepare(log: RunLog) -> None:
            if init is not None:
                start_from(trainer.network, init)

        def validate(network: HRDecoder, step: int, log: RunLog) -> dict[str, float]:
            log.images(step, "val", validator.strip(network))
            log.film(step, "val", validator.film(network))
            return validator.scores(network, trainer)

        return fit(
            config, Task(trainer, dataset, config.data.window, validate, "loss", lower=True, prepare=prepare), world
        )


class HRValidator:
    """Fixed frames spread over the validation clips, and a short video of one; each clip's most closed mouth is its
    reference.
    """

    def __init__(self, config: TrainHRConfig, size: int, expert: SyncConfig | None, device: torch.device):
        self.dataset = HRDataset(
            config.data, config.augment, config.validation.split, size, config.run.seed, config.model.sketch, expert
        )
        self.device = device
        window, ends = config.data.window, np.cumsum(self.dataset.draw.counts)
        places = [
            locate(ends, int(k)) for k in np.linspace(0, ends[-1] - 1, max(config.validation.frames // window, 1))
        ]
        self.shown = self._batch([(clip, self.dataset.draw.at(clip, number)) for clip, number in places])
        self.filmed = np.arange(min(config.validation.film, self.dataset.clips[0].info.frames))
        self.sound = read_audio(self.dataset.clips[0].path("audio.flac"))[: len(self.filmed) * SAMPLE_RATE // FPS]

    def _batch(self, places: list[tuple[int, np.ndarray]]) -> dict[str, Tensor]:
        items = [
            self.dataset.sample(clip, frames, int(np.nanargmin(self.dataset.gaps[clip]))) for clip, frames in places
        ]
        return {name: value.to(self.device) for name, value in default_collate(items).items()}

    @torch.no_grad()
    def scores(self, network: HRDecoder, trainer: HRTrainer) -> dict[str, float]:
        """The trainer's terms, all set in, with this network in the place of its own; the loss leaves out the
        adversary, which changes.
        """
        trained, trainer.network = trainer.network, network
        terms = {name: value.item() for name, value in trainer(self.shown, LATE)[1].items()}
        trainer.network = trained
        return terms | {
            "loss": sum(trainer.weights[name] * value for name, value in terms.items() if name != "adversarial")
        }

    def strip(self, network: HRDecoder, count: int = 6) -> np.ndarray:
        """Rows: stage-1 face (upscaled), sketch, output, real; a column each of `count` windows' first frames."""
        chosen = np.linspace(0, len(self.shown["base"]) - 1, count).astype(int).tolist()
        rows = pictures(network, {name: value[chosen] for name, value in self.shown.items()})
        return np.concatenate([np.concatenate(list(row[:: len(row) // len(chosen)]), 1) for row in rows])

    def film(self, network: HRDecoder) -> Film:
        """Stage-1 face (upscaled), output and real beside each other."""
        parts = [
            pictures(network, self._batch([(0, part)]))
            for part in np.array_split(self.filmed, max(len(self.filmed) // 8, 1))
        ]
        frames = [np.concatenate([base, output, real], 2) for base, _, output, real in parts]
        return Film(np.concatenate(frames), self.sound, FPS)


@torch.no_grad()
def pictures(network: HRDecoder, batch: dict[str, Tensor]) -> list[np.ndarray]:
    """Stage-1 faces (upscaled), sketches, outputs and real faces of a batch, (N, S, S, 3) uint8 each."""
    base, sketch, face = (batch[name].flatten(0, 1).float() / 255 for name in ("base", "sketch", "face"))
    size = face.shape[-1]
    rows = [
        F.interpolate(base, size),
        F.interpolate(sketch, size).expand(-1, 3, -1, -1),
        run_network(network, batch).float().clamp(0, 1),
        face,
    ]
    return [(row * 255).byte().permute(0, 2, 3, 1).cpu().numpy() for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, "configs/hr_256.yaml")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="start from these weights")
    args = parser.parse_args()
    best = train(load_config(TrainHRConfig, args.config, args.set), args.init)
    print(f"weights to use: {best}")


if __name__ == "__main__":
    run_cli(main)
