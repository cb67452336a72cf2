"""The sync expert: which lips and which sound belong together."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from chunks import evenly
from datasets.clips import Clip
from datasets.config import SyncDataConfig
from datasets.damage import readable
from datasets.frames import FrameStore
from datasets.splits import training_splits, validation_clips
from datasets.syncnet import SyncDataset
from engine.device import pick_device
from engine.distributed import World
from engine.fit import fit
from engine.objective import Objective
from engine.options import SyncValidationConfig, TrainSyncConfig
from engine.runlog import RunLog
from engine.running import running
from engine.task import Task
from errors import InputError
from losses.gather import gather
from losses.sync import candidates, contrastive, contrastive_chance, cosine_bce, out_of_sync, ranked_right
from models.channels import unit
from models.checkpoint import load_network
from models.config import MAX_SHIFT, SYNC_FRAMES
from models.syncnet import SyncExpert
from speech.offset import SyncEstimate, clip_vectors, estimate_offset

AT_CHANCE = 0.02
"""A loss within this share of chance, or an accuracy within this of 1/2, counts as chance."""
MAX_SCALE = 100.0
"""Bound of one over the learned temperature (Radford et al., arXiv 2103.00020, section 2.5)."""


class SyncObjective(Objective):
    """The expert, the temperature, and the loss of a batch."""

    def __init__(self, config: TrainSyncConfig):
        super().__init__()
        self.loss, self.windows, self.apart = config.loss, config.data.windows, config.data.apart
        self.network = SyncExpert(config.model)
        learned = config.loss.learn_temperature and config.loss.kind == "contrastive"
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.loss.temperature)), requires_grad=learned)

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Batch of SyncDataset items, (C, ...) each -> (loss, terms by name).

        Beside the loss: accuracy, the share of pairs in which a window's own sound beats another time of its clip;
        chance, the loss of an expert that knows nothing.
        """
        frames = unit(batch["frames"].flatten(0, 1))
        count = self.windows
        sounds, faces = self.network(_own_first(batch["audio"], count), frames)
        # Every window chooses among the sounds of all processes: their own ones first, then the further ones.
        own, further = (gather(part.float()) for part in (sounds[: len(faces)], sounds[len(faces) :]))
        faces, sounds = gather(faces.float()), torch.cat([own, further])
        batch = {name: gather(batch[name]) for name in ("starts", "clip")}
        starts = _own_first(batch["starts"], count)
        with torch.autocast(faces.device.type, enabled=False):
            cosines = faces @ sounds.T
        clips = batch["clip"].repeat_interleave(count)
        sound_clips = torch.cat([clips, batch["clip"].repeat_interleave(batch["starts"].shape[1] - count)])
        hard = out_of_sync(clips, starts[: len(clips)], sound_clips, starts, self.apart)
        own = cosines.diagonal()
        if self.loss.kind == "contrastive":
            allowed = candidates(clips, sound_clips, hard)
            scale = self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()
            loss, chance = contrastive(cosines, allowed, scale), contrastive_chance(allowed)
        else:
            # The wrong sound of a window is that of the next window of its clip.
            wrong = torch.arange(len(clips), device=clips.device).view(-1, count).roll(-1, 1).flatten()
            loss, chance = cosine_bce(own, cosines.gather(1, wrong[:, None])[:, 0]), own.new_full((), math.log(2))
        return loss, {self.loss.kind: loss, "accuracy": ranked_right(cosines, own, hard).detach(), "chance": chance}


def _own_first(sounds: Tensor, count: int) -> Tensor:
    """(C, W + S, ...) -> (C * (W + S), ...): the sounds of all `count` = W windows, then the further ones."""
    return torch.cat([sounds[:, :count].flatten(0, 1), sounds[:, count:].flatten(0, 1)])


class SyncValidator:
    """Scores an expert on whole clips, each process on its share: what preprocessing and evaluation will ask of it."""

    def __init__(
        self, clips: list[Clip], data: SyncDataConfig, validation: SyncValidationConfig, audio: str, world: World
    ):
        shortest = SYNC_FRAMES + data.apart
        found = [clip for clip in clips if clip.info.frames >= shortest]
        if not found:
            split = clips[0].info.split
            raise InputError(f"{data.path}: no clip of split {split!r} has {shortest} frames or more")
        chosen = readable(evenly(found, validation.clips or len(found)), Clip.verify, data.path)
        self.store, self.world = FrameStore(world.own(chosen), data.cache), world
        self.apart, self.every = data.apart, validation.every
        self.features = [clip.features(audio) for clip in self.store.clips]

    def __call__(self, network: SyncExpert) -> tuple[dict[str, float], dict[str, SyncEstimate]]:
        """Scores, and the estimate of every clip by its id.

        ranked: share of the pairs (window, shift of `apart` to MAX_SHIFT frames within its clip) whose own sound beats
        the shifted one; clip_ranked: the same for means over a clip's windows. found: share of the clips whose offset
        is 0 or +-1; distance: mean |offset| in frames. confidence: mean of the estimates'.
        """
        network.eval()
        looked = self.world.gather(lambda: [self._look(network, number) for number in range(len(self.store.clips))])
        estimates = {clip: estimate for clip, estimate, _ in looked}
        ranked, pairs = zip(*(share for *_, share in looked), strict=True)
        clip_ranked = [
            estimate.means[0] > mean
            for estimate in estimates.values()
            for shift, mean in estimate.means.items()
            if abs(shift) >= self.apart
        ]
        offsets = np.abs([estimate.offset for estimate in estimates.values()])
        scores = {
            "ranked": np.average(ranked, weights=pairs),
            "clip_ranked": np.mean(clip_ranked),
            "found": np.mean(offsets <= 1),
            "distance": np.mean(offsets),
            "confidence": np.mean([estimate.confidence for estimate in estimates.values()]),
        }
        return {name: float(value) for name, value in scores.items()}, estimates

    def _look(self, network: SyncExpert, number: int) -> tuple[str, SyncEstimate, tuple[float, int]]:
        """A clip's id, its estimate, and what `_ranked` says of it."""
        clip = self.store.clips[number]
        faces = self.store.get(number, np.arange(clip.info.frames))
        vectors = clip_vectors(network, faces, self.features[number], self.every)
        return clip.info.id, estimate_offset(*vectors), self._ranked(*vectors, clip.info.frames - SYNC_FRAMES)

    def _ranked(self, faces: dict[int, np.ndarray], sounds: dict[int, np.ndarray], last: int) -> tuple[float, int]:
        """Share of a clip's pairs ranked right, and how many there are; sounds from beyond its ends take no part."""
        starts, heard = torch.tensor(list(faces)), torch.arange(last + 1)
        cosines = torch.from_numpy(np.stack(list(faces.values())) @ np.stack([sounds[k] for k in range(last + 1)]).T)
        distance = (starts[:, None] - heard[None]).abs()
        rivals = (distance >= self.apart) & (distance <= MAX_SHIFT)
        return ranked_right(cosines, cosines.gather(1, starts[:, None])[:, 0], rivals).item(), int(rivals.sum())


class ChanceWatch:
    """Says in plain words that a training gets nowhere: looks every `every` steps, speaks after `patience` of them."""

    def __init__(self, every: int, patience: int):
        self.every, self.patience = every, patience
        self._sums: list[Tensor] = []
        self._stuck = {"loss": 0, "accuracy": 0}

    def add(self, done: int, loss: Tensor, terms: dict[str, Tensor]) -> str | None:
        """Take in one step; returns the warning when there is one to give."""
        self._sums.append(torch.stack([loss.detach(), terms["chance"], terms["accuracy"]]))
        if done % self.every:
            return None
        loss_mean, chance, accuracy = torch.stack(self._sums).mean(0).tolist()
        steps, self._sums = len(self._sums), []
        at_chance = {"loss": loss_mean >= (1 - AT_CHANCE) * chance, "accuracy": accuracy < 0.5 + AT_CHANCE}
        self._stuck = {name: self._stuck[name] + steps if stuck else 0 for name, stuck in at_chance.items()}
        if max(self._stuck.values()) < self.patience:
            return None
        name = max(self._stuck, key=self._stuck.__getitem__)
        since = self._stuck[name]
        self._stuck = dict.fromkeys(self._stuck, 0)
        if name == "loss":
            return (
                f"for {since} steps the loss has sat at {loss_mean:.3f}, and guessing gives {chance:.3f}: the expert "
                "has learned nothing. Most often the clips' sound is early or late (extract them with --offsets); else "
                "try a lower optim.lr, more run.batch and data.windows, or loss.kind=contrastive"
            )
        return (
            f"for {since} steps only {accuracy:.0%} of a clip's own times were ranked right, and guessing gives 50%: "
            "at best the expert tells clips apart, not lips. Most often the clips' sound is early or late (extract "
            "them with --offsets), or they hold little speech"
        )


def train(config: TrainSyncConfig, init: Path | None = None) -> Path:
    """Run or resume the training of `config`; returns the path of the weights to use."""
    with running(config) as world:
        torch.manual_seed(config.run.seed)
        objective = SyncObjective(config)
        splits = training_splits(config.data, config.validation.split)
        world.say(splits.note)
        dataset = SyncDataset(splits.train, config.data, config.augment, config.model, config.run.seed)
        validator = SyncValidator(splits.validation, config.data, config.validation, config.model.audio, world)
        patience = config.loss.warn_after
        watch = ChanceWatch(config.run.log_every, patience).add if patience else None

        def validate(network: SyncExpert, step: int, log: RunLog | None) -> dict[str, float]:
            scores, estimates = validator(network)
            if log is not None:
                log.scalars(step, {name: estimate.offset for name, estimate in estimates.items()}, "val_offset")
                print(offsets(estimates), flush=True)
            return scores

        frames = config.data.windows * SYNC_FRAMES
        return fit(config, Task(objective, dataset, frames, validate, "ranked", init=init, watch=watch), world)


def offsets(estimates: dict[str, SyncEstimate]) -> str:
    """Every clip's offset in frames (positive: the sound is late)."""
    return "         offsets  " + "  ".join(f"{name} {estimate.offset:+d}" for name, estimate in estimates.items())


def score(config: TrainSyncConfig, weights: Path) -> str:
    """Scores of an expert on the validation clips, and every clip's offset, as lines to print."""
    world = World(0, 1, pick_device(config.run.device))
    expert = load_network(weights, world.device, SyncExpert)
    clips = validation_clips(config.data, config.validation.split)
    scores, estimates = SyncValidator(clips, config.data, config.validation, expert.config.audio, world)(expert)
    return "  ".join(f"{name} {value:.3f}" for name, value in scores.items()) + "\n" + offsets(estimates)
