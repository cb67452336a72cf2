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
from datasets.base import BaseDataset, DataConfig, batches
from engine.config import add_config_arguments, load_config, to_yaml
from engine.loop import Ema, OptimConfig, RunConfig, apply_step, learning_rate, make_optimizer, pick_device
from engine.precision import PrecisionName, training_precision
from engine.progress import Progress
from engine.runlog import RunLog
from engine.state import RunState
from engine.validate import LipValidator
from errors import run_cli
from losses.reconstruction import l1, mouth_l1
from losses.terms import weighted
from models.checkpoint import load_network, read_metadata, save_network
from models.ear import EarHead, ear_loss
from models.hyperlips import BaseConfig, HyperLipsBase, face_input


@dataclass
class EarConfig:
    """`ear` section: the audio path alone learns lip and chin points first."""

    steps: int = 1500
    batch: int = 128
    lr: float = 1e-3
    rate: float = 0.1
    """Share of optim.lr at which the audio path goes on learning with the pictures: more of it, and the ear forgets."""


@dataclass
class LossConfig:
    """`loss` section: weights of the terms; 0 leaves a term out."""

    mouth: float = 1.0
    mouth_weight: float = 5.0
    """Weight of the real lips' box inside the mouth term."""
    face: float = 0.2
    ear: float = 0.05


@dataclass
class ValidationConfig:
    split: str = "val"
    clips: int = 10


@dataclass
class TrainBaseConfig:
    """Everything a stage-1 run is made of."""

    run: RunConfig = field(default_factory=RunConfig)
    model: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    ear: EarConfig = field(default_factory=EarConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    precision: PrecisionName = "auto"


class BaseTrainer(nn.Module):
    """The network with its throw-away ear head, and the loss of a batch."""

    def __init__(self, config: TrainBaseConfig):
        super().__init__()
        self.weights = asdict(config.loss)
        self.network = HyperLipsBase(config.model)
        self.head = EarHead(len(config.model.latent_channels) * config.model.hyper_width)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of BaseDataset items, (B, T, ...) each -> (weighted sum, terms by name)."""
        batch = {name: value.flatten(0, 1) if name != "references" else
                 value.repeat_interleave(batch["faces"].shape[1], 0) for name, value in batch.items()}
        vectors = self.network.encode_audio(batch["audio"])
        output = self.network.paint(vectors, face_input(batch["faces"], batch["references"])).float()
        target = batch["faces"].float() / 255
        return weighted({
            "mouth": lambda: mouth_l1(output, target, batch["lip_box"], self.weights["mouth_weight"]),
            "face": lambda: l1(output, target),
            "ear": lambda: ear_loss(self.head(vectors), batch["ear_points"]),
        }, self.weights)


def teach_ear(trainer: BaseTrainer, dataset: BaseDataset, config: TrainBaseConfig, device: torch.device, log: RunLog) -> None:
    """Train audio encoder, HyperNets and head to predict lip and chin points; the pictures take no part."""
    parameters = [*trainer.network.audio_parameters(), *trainer.head.parameters()]
    optimizer = torch.optim.Adam(parameters, config.ear.lr)
    rng = np.random.default_rng((config.run.seed, 1))
    trainer.train()
    for step in range(config.ear.steps):
        audio, points = dataset.ear_batch(rng, config.ear.batch)
        loss = ear_loss(trainer.head(trainer.network.encode_audio(audio.to(device))), points.to(device))
        lr = config.ear.lr * (1 - step / config.ear.steps)
        apply_step(loss, {"ear": loss}, step, optimizer, parameters, lr, config.optim.clip)
        if step % 200 == 0 or step == config.ear.steps - 1:
            log.scalars(step, {"loss": loss.item()}, "ear")
            print(f"ear {step:6d}  loss {loss.item():.4f}", flush=True)


def train(config: TrainBaseConfig, init: Path | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use."""
    device = pick_device(config.run.device)
    torch.manual_seed(config.run.seed)
    trainer = BaseTrainer(config).to(device)
    model = config.model
    dataset = BaseDataset(config.data, config.augment, "train", model.audio, model.references, config.run.seed)
    validator = LipValidator(config.data.path, config.validation.split, model.audio, model.references, config.validation.clips)
    folder = Path(config.run.folder) / config.run.name
    log = RunLog(folder, config)
    parameters = list(trainer.parameters())
    heard = set(trainer.network.audio_parameters())
    groups = [{"params": [parameter for parameter in parameters if parameter in heard], "scale": config.ear.rate},
              {"params": [parameter for parameter in parameters if parameter not in heard]}]
    optimizer = make_optimizer(groups, config.optim)
    ema = Ema(trainer.network, config.optim.ema)
    state = RunState(folder / "checkpoints", config.run.keep, trainer=trainer, optimizer=optimizer, ema=ema)
    first = state.resume()
    if first == 0:
        if init is not None:
            trainer.network.load_state_dict(load_network(init).state_dict())
        else:
            teach_ear(trainer, dataset, config, device, log)
        ema = state.objects["ema"] = Ema(trainer.network, config.optim.ema)
        state.save(0)
    sample = next(iter(batches(dataset, config.run.batch, 0, 1, 0)))
    precision = training_precision(config.precision, trainer, sample, device)
    print(f"{folder}: {len(dataset)} windows, {precision} on {device}, from step {first}", flush=True)
    best = folder / "best.safetensors"
    progress = Progress(log, config.run.log_every, config.run.batch * config.data.window, device)
    loader = batches(dataset, config.run.batch, first, config.run.steps, config.data.workers)
    trainer.train()
    for step, batch in progress.batches(loader, first):
        with precision.autocast(device):
            loss, values = trainer(batch)
        lr = learning_rate(step, config.run.steps, config.optim)
        apply_step(loss, values, step, optimizer, parameters, lr, config.optim.clip)
        ema.update(trainer.network)
        done = step + 1
        progress.log(done, loss, values, lr)
        if done % config.run.validate_every == 0 or done == config.run.steps:
            validate(trainer, ema, validator, device, log, done, best, config)
            progress.restart(done)
        if done % config.run.checkpoint_every == 0 or done == config.run.steps:
            state.save(done)
    log.close()
    return best


def validate(trainer: BaseTrainer, ema: Ema, validator: LipValidator, device: torch.device, log: RunLog, step: int,
             best: Path, config: TrainBaseConfig) -> None:
    """Score the averaged weights, log them with a strip, and keep the best: lips that follow the sound, and as far as real ones."""
    network = HyperLipsBase(config.model).to(device)
    network.load_state_dict(ema.average)
    scores, strip = validator(network, device)
    scores["score"] = scores["fast_r"] * min(scores["articulation"], 1 / max(scores["articulation"], 1e-6))
    log.scalars(step, scores, "val")
    log.images(step, "val", strip)
    print(f"{step:7d}  val  " + "  ".join(f"{name} {value:.3f}" for name, value in scores.items()), flush=True)
    if not best.is_file() or scores["score"] >= float(read_metadata(best)["score"]):
        save_network(best, network, {"step": str(step), "score": f"{scores['score']:.4f}", "training": to_yaml(config)})
    trainer.train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, "configs/base.yaml")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="start from these weights instead of teaching the ear")
    args = parser.parse_args()
    best = train(load_config(TrainBaseConfig, args.config, args.set), args.init)
    print(f"weights to use: {best}")


if __name__ == "__main__":
    run_cli(main)
