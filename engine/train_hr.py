"""Stage 2: stage-1 face and sketch to a sharp face."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from datasets.clips import FPS, Clip, locate
from datasets.hr import HRDataset, one_painter
from datasets.splits import training_splits
from engine.fit import fit
from engine.objective import Objective
from engine.options import TrainHRConfig
from engine.runlog import Film, RunLog
from engine.running import running
from engine.stages import run_hr
from engine.task import Show, Task
from engine.validate import MouthScorer
from losses.adversarial import relativistic_generator_loss
from losses.reconstruction import colour_l1, l1, lip_crops, mouth_l1, spectral_l1
from losses.terms import LATE, scheduled, weighted
from media.audio import SAMPLE_RATE
from models.channels import unit
from models.config import BASE_SIZE, DiscriminatorConfig, SyncConfig
from models.discriminators import HRDiscriminator
from models.hr_decoder import HRDecoder


class HRObjective(Objective):
    """The network and the loss of a batch."""

    def __init__(self, config: TrainHRConfig):
        loss = config.loss
        network = HRDecoder(config.model)  # first, so that a seed means the same first weights whatever the loss
        discriminator = HRDiscriminator(DiscriminatorConfig(loss.discriminator_width)) if loss.adversarial else None
        perceptual = config.perceptual if loss.perceptual or loss.lip_perceptual else None
        super().__init__(discriminator, loss, perceptual, relativistic=True)
        self.weights = asdict(loss)
        self.network = network

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of HRDataset items -> (weighted sum, terms by name)."""
        return self.judged(run_batch(self.network, batch).float(), batch, step)

    def judged(self, output: Tensor, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The same of what a network painted, (B * T, 3, S, S) float32."""
        count, frames = batch["face"].shape[:2]
        target, boxes = unit(batch["face"].flatten(0, 1)), batch["lip_box"].flatten(0, 1)
        lips = [lip_crops(images, boxes) for images in (output, target)]
        seen = lips if self.weights["discriminator_sees"] == "lips" else (output, target)
        return weighted(
            {
                "l1": lambda: l1(output, target),
                "mouth": lambda: mouth_l1(output, target, boxes, self.weights["mouth_weight"]),
                "perceptual": lambda: self.perceptual(output, target),
                "lip_l1": lambda: l1(*lips),
                "lip_perceptual": lambda: self.perceptual(*lips),
                "lip_colour": lambda: colour_l1(*lips),
                "lip_spectral": lambda: spectral_l1(*lips),
                "sync": lambda: self.sync(
                    batch["sync_audio"],
                    F.interpolate(output, BASE_SIZE, mode="area").unflatten(0, (count, frames)),
                    output.new_ones(count),
                ),
                "adversarial": lambda: relativistic_generator_loss(*self.logits(*seen)),
            },
            scheduled(self.weights, step),
        )


def run_batch(network: HRDecoder, batch: dict[str, Tensor]) -> Tensor:
    """HRDataset items (B, T, ...) uint8 -> (B * T, 3, S, S)."""
    base, sketches, faces = (batch[name].flatten(0, 1) for name in ("base", "sketch", "face"))
    return run_hr(network, base, sketches, faces, batch.get("reference", faces))  # without one it looks at none


def train(config: TrainHRConfig, init: Path | None = None, show: Show | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use. show: see Task."""
    with running(config) as world:
        torch.manual_seed(config.run.seed)
        objective = HRObjective(config)
        splits = training_splits(config.data, config.validation.split)
        world.say(splits.note)
        world.say(config.loss.too_late(config.run.steps))
        dataset = HRDataset(splits.train, config.data, config.augment, config.model, config.run.seed, objective.heard)
        validator = HRValidator(splits.validation, config, objective.heard, world.device) if world.main else None
        if validator is not None:
            one_painter([*dataset.clips, *validator.dataset.clips], config.data.path)

        @torch.no_grad()
        def validate(network: HRDecoder, step: int, log: RunLog | None) -> dict[str, float]:
            if log is None or validator is None:  # few frames, whose losses are means over all: not worth sharing
                return {}
            output = run_batch(network, validator.shown).float()
            shown = pictures(output, validator.shown)
            log.images(step, "val", validator.strip(shown))
            log.film(step, "val", validator.film(network))
            return validator.scores(objective, output, shown)

        task = Task(
            objective,
            dataset,
            config.data.window,
            validate,
            "loss",
            lower=True,
            init=init,
            painter=dataset.painter,
            show=show,
        )
        return fit(config, task, world)


class HRValidator:
    """Fixed frames spread over the validation clips, and a short video of one; a window's reference is the one that
    inference shows its first frame.
    """

    def __init__(self, clips: list[Clip], config: TrainHRConfig, expert: SyncConfig | None, device: torch.device):
        data = replace(config.data, cache="disk")  # it looks at few pictures, and keeps what it is shown of most
        self.dataset = HRDataset(clips, data, config.augment, config.model, config.run.seed, expert, thorough=True)
        self.device = device
        window, ends = config.data.window, np.cumsum(self.dataset.draw.counts)
        places = [
            locate(ends, int(k)) for k in np.linspace(0, ends[-1] - 1, max(config.validation.frames // window, 1))
        ]
        windows = [(clip, self.dataset.draw.at(clip, number)) for clip, number in places]
        self.shown = self._batch(windows)
        self.landmarks = np.concatenate([self.dataset.clips[clip].landmarks[frames] for clip, frames in windows])
        self.mouths = MouthScorer()
        self.filmed = np.arange(min(config.validation.film, self.dataset.clips[0].info.frames))
        self.sound = self.dataset.clips[0].sound()[: len(self.filmed) * SAMPLE_RATE // FPS]

    def _batch(self, places: list[tuple[int, np.ndarray]]) -> dict[str, Tensor]:
        moves = self.dataset.moves
        items = [self.dataset.sample(clip, frames, moves[clip].portraits.of(frames[0])) for clip, frames in places]
        return {name: value.to(self.device) for name, value in default_collate(items).items()}

    def scores(self, objective: HRObjective, painted: Tensor, shown: list[np.ndarray]) -> dict[str, float]:
        """The objective's terms, all set in, of what was `painted` of the fixed frames; the loss leaves out the
        discriminator, which changes. Also MouthScorer's scores of `shown`, its pictures.
        """
        terms = {name: value.item() for name, value in objective.judged(painted, self.shown, LATE)[1].items()}
        loss = sum(objective.weights[name] * value for name, value in terms.items() if name != "adversarial")
        *_, output, real = shown
        return terms | {"loss": loss} | self.mouths(output, real, self.landmarks)

    def strip(self, shown: list[np.ndarray], count: int = 6) -> np.ndarray:
        """Rows of `shown`, the pictures: stage-1 face (upscaled), sketch, output, real; a column each of `count`
        windows' first frames.
        """
        windows, frames = self.shown["base"].shape[:2]
        chosen = frames * np.linspace(0, windows - 1, count).astype(int)
        return np.concatenate([np.concatenate(list(row[chosen]), 1) for row in shown])

    def film(self, network: HRDecoder) -> Film:
        """Stage-1 face (upscaled), output and real beside each other."""
        batches = (self._batch([(0, part)]) for part in np.array_split(self.filmed, max(len(self.filmed) // 8, 1)))
        parts = [pictures(run_batch(network, batch), batch) for batch in batches]
        frames = [np.concatenate([base, output, real], 2) for base, _, output, real in parts]
        return Film(np.concatenate(frames), self.sound, FPS)


def pictures(output: Tensor, batch: dict[str, Tensor]) -> list[np.ndarray]:
    """Stage-1 faces (upscaled), sketches, outputs (N, 3, S, S) and real faces of a batch, (N, S, S, 3) uint8 each."""
    base, sketch, face = (unit(batch[name].flatten(0, 1)) for name in ("base", "sketch", "face"))
    size = face.shape[-1]
    rows = [
        F.interpolate(base, size),
        F.interpolate(sketch, size).expand(-1, 3, -1, -1),
        output.float().clamp(0, 1),
        face,
    ]
    return [(row * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for row in rows]
