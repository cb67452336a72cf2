"""Stage 1: audio pre-training, then the whole network."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.base import BaseDataset
from datasets.splits import training_splits
from engine.device import upload
from engine.finite import Finite
from engine.fit import fit
from engine.objective import Objective
from engine.optimizers import apply_step, not_finite
from engine.options import TrainBaseConfig
from engine.runlog import RunLog
from engine.running import running
from engine.task import Show, Task
from engine.validate import LipValidator
from losses.adversarial import generator_loss
from losses.landmark import landmark_loss
from losses.reconstruction import colour_l1, l1, lip_crops, mouth_l1, spectral_l1
from losses.terms import scheduled, weighted
from models.channels import unit
from models.config import DiscriminatorConfig
from models.discriminators import BaseDiscriminator
from models.hyperlips import HyperLipsBase, face_input
from models.landmark_head import LandmarkHead
from models.reference_encoder import mix_references


class BaseObjective(Objective):
    """The network with its throw-away landmark head, and the loss of a batch."""

    def __init__(self, config: TrainBaseConfig):
        loss = config.loss
        # Before all that judges them, so that a seed means the same first weights whatever the loss.
        network = HyperLipsBase(config.model)
        head = LandmarkHead(len(config.model.latent_channels) * config.model.hyper_width)
        discriminator = BaseDiscriminator(DiscriminatorConfig(loss.discriminator_width)) if loss.adversarial else None
        super().__init__(discriminator, loss, config.perceptual if loss.perceptual else None)
        self.weights = asdict(loss)
        self.network, self.head = network, head
        self.network.feed = config.feed
        self.unused = not loss.landmark or not (loss.mouth or loss.face)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of BaseDataset items, (B, T, ...) each -> (weighted sum, terms by name)."""
        count, frames = batch["faces"].shape[:2]
        target = batch["faces"].flatten(0, 1)
        vectors = self.network.encode_audio(batch["audio"].flatten(0, 1))
        maps = self.network.encode_references(unit(batch["references"]))
        references = mix_references(maps, batch["shares"])
        output = self.network.paint(vectors, face_input(target), references, frames).float()
        target, boxes = unit(target), batch["lip_box"].flatten(0, 1)
        lips = [lip_crops(images, boxes) for images in (output, target)]
        return weighted(
            {
                "mouth": lambda: mouth_l1(output, target, boxes, self.weights["mouth_weight"]),
                "face": lambda: l1(output, target),
                "landmark": lambda: landmark_loss(self.head(vectors), batch["speech_points"].flatten(0, 1)),
                "perceptual": lambda: self.perceptual(*lips),
                "colour": lambda: colour_l1(*lips),
                "spectral": lambda: spectral_l1(*lips),
                "sync": lambda: self.sync(batch["sync_audio"], output.unflatten(0, (count, frames)), batch["voiced"]),
                "adversarial": lambda: generator_loss(self.logits(output, target)[1]),
            },
            scheduled(self.weights, step),
        )


def pretrain_audio(
    objective: BaseObjective, dataset: BaseDataset, config: TrainBaseConfig, device: torch.device, log: RunLog
) -> None:
    """Train audio encoder, HyperNets and head to predict lip and chin points; the pictures take no part."""
    notes = Finite() if device.type == "cuda" else None
    optimizer = torch.optim.Adam(
        [*objective.network.audio_parameters(), *objective.head.parameters()],
        config.audio_pretrain.lr,
        fused=None if notes is None else True,
    )
    rng = np.random.default_rng((config.run.seed, 1))
    for step in range(config.audio_pretrain.steps):
        audio, points = dataset.audio_batch(rng, config.audio_pretrain.batch)
        sounds, points = (upload(part, device) for part in (audio, points))
        loss = landmark_loss(objective.head(objective.network.encode_audio(sounds)), points)
        if notes is not None:
            notes.note(step, "loss term", {"landmark": loss})
        elif not torch.isfinite(loss):
            raise not_finite(step, {"landmark": loss})
        apply_step(
            loss,
            optimizer,
            config.audio_pretrain.lr * (1 - step / config.audio_pretrain.steps),
            config.optim.clip,
            step,
            notes,
        )
        if step % 200 == 0 or step == config.audio_pretrain.steps - 1:
            if notes is not None and (problem := notes.read()):
                raise problem
            told = {"loss": loss.item(), "deaf": landmark_loss(torch.zeros_like(points), points).item()}
            log.scalars(step, told, "audio_pretrain")
            print(
                f"audio pre-training {step:6d}  loss {told['loss']:.4f}  of one that hears nothing {told['deaf']:.4f}",
                flush=True,
            )


def train(config: TrainBaseConfig, init: Path | None = None, show: Show | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use. show: see Task."""
    with running(config) as world:
        torch.manual_seed(config.run.seed)
        objective, model = BaseObjective(config), config.model
        splits = training_splits(config.data, config.validation.split)
        world.say(splits.note)
        world.say(config.loss.too_late(config.run.steps))
        dataset = BaseDataset(
            splits.train, config.data, config.augment, model, config.run.seed, objective.heard, config.feed.window
        )
        validator = LipValidator(splits.validation, config.data, config.validation.clips, world)
        heard = set(objective.network.audio_parameters())
        groups: list[dict[str, Any]] = [
            {
                "params": [value for value in objective.parameters() if value in heard],
                "name": "audio",
                "scale": config.audio_pretrain.rate,
            },
            {"params": [value for value in objective.parameters() if value not in heard], "name": "network"},
        ]

        def validate(network: HyperLipsBase, step: int, log: RunLog | None) -> dict[str, float]:
            """The score: lips that follow the sound, and as far as real ones."""
            scores, strip, film = validator(network)
            if log is not None and film is not None:
                log.images(step, "val", strip)
                log.film(step, "val", film)
            return scores | {
                "score": scores["fast_r"] * min(scores["articulation"], 1 / max(scores["articulation"], 1e-6))
            }

        best = config.validation.best
        return fit(
            config,
            Task(
                objective,
                dataset,
                config.data.window,
                validate,
                best,
                lower=best == "mouth_stlpips",
                groups=groups,
                init=init,
                prepare=partial(pretrain_audio, objective, dataset, config, world.device),
                show=show,
            ),
            world,
        )
