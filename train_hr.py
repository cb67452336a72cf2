"""Stage 2: stage-1 face and sketch to a sharp face.

    python -m preprocess.generate_base --checkpoint runs/base/best.safetensors --data DATA
    python train_hr.py --config configs/hr_256.yaml --set data.path=DATA

The same command again resumes. Writes runs/<name>/best.safetensors, the weights to use.
"""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from datasets.augment import AugmentConfig
from datasets.base import batches
from datasets.clips import locate
from datasets.hr import HRDataConfig, HRDataset
from engine.config import add_config_arguments, load_config, to_yaml
from engine.loop import Ema, OptimConfig, RunConfig, apply_step, learning_rate, make_optimizer, pick_device
from engine.precision import PrecisionName, training_precision
from engine.progress import Progress
from engine.runlog import RunLog
from engine.state import RunState
from errors import run_cli
from losses.perceptual import load_perceptual
from losses.reconstruction import l1, mouth_l1
from losses.terms import weighted
from models.checkpoint import load_network, read_metadata, save_network
from models.hr_decoder import HRConfig, HRDecoder
from models.hyperlips import face_input


@dataclass
class PerceptualConfig:
    """`perceptual` section: which trunk, and the local file that holds it."""

    kind: str = "stlpips"
    weights: str = "checkpoints/stlpips_alex.safetensors"


@dataclass
class LossConfig:
    """`loss` section: weights of the terms; 0 leaves a term out."""

    l1: float = 0.2
    mouth: float = 1.0
    mouth_weight: float = 3.0
    """Weight of the real lips' box inside the mouth term."""
    perceptual: float = 0.1


@dataclass
class ValidationConfig:
    split: str = "val"
    frames: int = 48


@dataclass
class TrainHRConfig:
    """Everything a stage-2 run is made of."""

    run: RunConfig = field(default_factory=RunConfig)
    model: HRConfig = field(default_factory=HRConfig)
    data: HRDataConfig = field(default_factory=HRDataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    precision: PrecisionName = "auto"


class HRTrainer(nn.Module):
    """The network and the loss of a batch."""

    def __init__(self, config: TrainHRConfig):
        super().__init__()
        self.weights = asdict(config.loss)
        self.network = HRDecoder(config=config.model)
        # A plain attribute, not a submodule: frozen, not part of the run's state.
        self.perceptual = [load_perceptual(config.perceptual.kind, config.perceptual.weights)] if config.loss.perceptual else []

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of HRDataset items -> (weighted sum, terms by name)."""
        output = run_network(self.network, batch).float()
        target = batch["face"].float() / 255
        half, quarter = output.shape[-1] // 2, output.shape[-1] // 4
        mouth = (..., slice(half, None), slice(quarter, -quarter))  # crops are stabilised: the mouth is always there
        return weighted({
            "l1": lambda: l1(output, target),
            "mouth": lambda: mouth_l1(output, target, batch["lip_box"], self.weights["mouth_weight"]),
            "perceptual": lambda: self.perceptual[0](output[mouth], target[mouth]).mean(),
        }, self.weights)


def run_network(network: HRDecoder, batch: dict[str, Tensor]) -> Tensor:
    """HRDataset items (N, ...) uint8 -> (N, 3, S, S)."""
    inputs = [batch["base"].float() / 255, batch["sketch"].float().div(255).expand(-1, 3, -1, -1)]
    if network.config.reference:
        inputs.append(face_input(batch["face"], batch["reference"][:, None]))
    return network(*inputs)


def train(config: TrainHRConfig, init: Path | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use."""
    device = pick_device(config.run.device)
    torch.manual_seed(config.run.seed)
    size = 128 * config.model.scale
    trainer = HRTrainer(config).to(device)
    dataset = HRDataset(config.data, config.augment, "train", size, config.run.seed)
    shown = validation_batch(config, size, device)
    folder = Path(config.run.folder) / config.run.name
    log = RunLog(folder, config)
    if init is not None:
        trainer.network.load_state_dict(load_network(init).state_dict())
    parameters = list(trainer.parameters())
    optimizer = make_optimizer(parameters, config.optim)
    ema = Ema(trainer.network, config.optim.ema)
    state = RunState(folder / "checkpoints", config.run.keep, trainer=trainer, optimizer=optimizer, ema=ema)
    first = state.resume()
    precision = training_precision(config.precision, trainer, next(iter(batches(dataset, config.run.batch, 0, 1, 0))), device)
    print(f"{folder}: {len(dataset)} frames, {precision} on {device}, from step {first}", flush=True)
    best = folder / "best.safetensors"
    progress = Progress(log, config.run.log_every, config.run.batch, device)
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
            validate(trainer, ema, shown, log, done, best, config)
            progress.restart(done)
        if done % config.run.checkpoint_every == 0 or done == config.run.steps:
            state.save(done)
    log.close()
    return best


def validation_batch(config: TrainHRConfig, size: int, device: torch.device) -> dict[str, Tensor]:
    """Fixed frames spread over the validation clips, each with its clip's most closed mouth as reference."""
    dataset = HRDataset(config.data, config.augment, config.validation.split, size, config.run.seed)
    positions = np.linspace(0, len(dataset) - 1, config.validation.frames).astype(int)
    items = []
    for position in positions:
        clip, frame = locate(dataset.ends, int(position))
        items.append(dataset.sample(clip, frame, int(dataset.gaps[clip].argmin())))
    return {name: value.to(device) for name, value in default_collate(items).items()}


@torch.no_grad()
def validate(trainer: HRTrainer, ema: Ema, shown: dict[str, Tensor], log: RunLog, step: int, best: Path,
             config: TrainHRConfig) -> None:
    """Score the averaged weights, log them with a strip, and keep them if their loss is the lowest so far."""
    network = HRDecoder(config=config.model).to(shown["base"].device)
    network.load_state_dict(ema.average)
    network.eval()
    trained, trainer.network = trainer.network, network
    loss, values = trainer(shown)
    trainer.network = trained
    scores = {**{name: value.item() for name, value in values.items()}, "loss": loss.item()}
    log.scalars(step, scores, "val")
    log.images(step, "val", strip(network, shown))
    print(f"{step:7d}  val  " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()), flush=True)
    if not best.is_file() or scores["loss"] <= float(read_metadata(best)["loss"]):
        save_network(best, network, {"step": str(step), "loss": f"{scores['loss']:.5f}", "training": to_yaml(config)})


def strip(network: HRDecoder, shown: dict[str, Tensor], count: int = 6) -> np.ndarray:
    """Rows: stage-1 face (upscaled), sketch, output, real; a column each of `count` frames spread over the batch."""
    chosen = np.linspace(0, len(shown["base"]) - 1, count).astype(int).tolist()
    batch = {name: value[chosen] for name, value in shown.items()}
    size = batch["face"].shape[-1]
    rows = [nn.functional.interpolate(batch["base"].float() / 255, size),
            nn.functional.interpolate(batch["sketch"].float() / 255, size).expand(-1, 3, -1, -1),
            run_network(network, batch).float().clamp(0, 1), batch["face"].float() / 255]
    picture = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    return (picture * 255).byte().permute(1, 2, 0).cpu().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, "configs/hr_256.yaml")
    parser.add_argument("--init", type=Path, metavar="CKPT", help="start from these weights")
    args = parser.parse_args()
    best = train(load_config(TrainHRConfig, args.config, args.set), args.init)
    print(f"weights to use: {best}")


if __name__ == "__main__":
    run_cli(main)
