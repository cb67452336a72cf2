"""The one training loop: resume, precision, step, log, validation, checkpoints, on any number of processes."""

import errno
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from datasets.clips import INDEX
from datasets.loader import batches, loader_workers
from engine.config import to_yaml
from engine.distributed import World, distributed
from engine.finite import Finite, LossScale
from engine.limits import Clock, validations_since_best
from engine.lock import run_lock
from engine.loop import Ema, apply_step, freeze, learning_rate, make_optimizer, match_layout, not_finite
from engine.objective import Objective
from engine.options import TrainConfig
from engine.precision import Precision, training_precision
from engine.prepared import file_digest
from engine.progress import Progress
from engine.resume import DATA, Ran, check_changes, record, resumed_precision
from engine.runlog import RunLog
from engine.state import RunState, Saved
from engine.stop import Stopped, StopSignals
from errors import InputError
from models.channels import PictureNetwork
from models.checkpoint import check_fit, load_network, read_metadata, save_network
from models.hyperlips import HyperLipsBase

Trained = TypeVar("Trained", bound=PictureNetwork)
Show = Callable[[int, float, Mapping[int, Mapping[str, float]]], None]
"""(steps done, share of the run that is over, 0 to 1, scores of the validations so far by step)."""


@dataclass
class Task:
    """What a script trains, and how it is scored."""

    objective: Objective
    dataset: Any
    """A torch Dataset with a length; sample k depends on (seed, k) alone."""
    frames: int
    """Frames in a sample, for frames/s."""
    validate: Callable[[Any, int, RunLog], dict[str, float]]
    """(network with the averaged weights in eval mode, step, log) -> scores; runs in process 0 only."""
    best: str
    """The score that decides which weights are kept as best.safetensors."""
    lower: bool = False
    """Whether less of it is better."""
    groups: list[dict] | None = None
    """Parameter groups, see make_optimizer; default: all trainable ones of the objective alike."""
    prepare: Callable[[RunLog], None] | None = None
    """Called before the first step of a new run, in process 0 only: gives the objective the weights to start from."""
    painter: str = ""
    """What painted the stage-1 faces that it learns from; another one makes them another data set."""
    watch: Callable[[int, Tensor, dict[str, Tensor]], str | None] | None = None
    """(steps done, loss, terms) of every step in process 0 -> a warning to print, or None."""
    show: Show | None = None
    """Called after every step and validation in process 0, in the place of their printed lines."""


@contextmanager
def running(config: TrainConfig) -> Iterator[World]:
    """The processes that train together, the first of which holds the run folder from here on: before data are loaded.

    Raises InputError for a run folder that cannot be written or is written by another process, and for a full disk.
    """
    with distributed(config.run.device) as world:
        lock = run_lock(Path(config.run.folder) / config.run.name) if world.main else nullcontext()
        try:
            with lock, _quiet_when_full():
                yield world
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise InputError(
                f"the disk of {config.run.folder} is full; the last checkpoint is kept: free space and run the same "
                "command again"
            ) from error


@contextmanager
def _quiet_when_full() -> Iterator[None]:
    """TensorBoard writes in a thread of its own, whose error is raised here too: its traceback would say no more."""
    before = threading.excepthook

    def quiet(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and args.exc_value.errno == errno.ENOSPC):
            before(args)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = before


def fit(config: TrainConfig, task: Task, world: World) -> Path:
    """Train, or resume the run of this name, within `running`; returns the path of the weights to use.

    It ends at run.steps, or before as run.minutes and run.patience say. On SIGTERM or SIGINT the step is finished, a
    checkpoint written, and Stopped raised. Raises InputError for a loss that is not finite, a run folder that does not
    fit, and for a config that is other than the run's so far, see engine.resume.
    """
    return _Run(config, task, world).fit()


def start_from(network: PictureNetwork, checkpoint: Path) -> None:
    """Load the weights of a network of the same class and shape. Raises InputError for others, see `load_start`."""
    state = load_start(checkpoint, type(network)).state_dict()
    check_fit(checkpoint, network, state)
    network.load_state_dict(state)


def load_start(checkpoint: Path, kind: type[Trained]) -> Trained:
    """Weights to start a training from. Raises InputError for those of another kind, and where they want BGR pictures:
    the data sets hold RGB.
    """
    network = load_network(checkpoint, kind=kind)
    if network.channel_order != "rgb":
        raise InputError(
            f"{checkpoint} was trained on {network.channel_order} pictures, this run trains on rgb; "
            "start from weights that were trained here"
        )
    return network


class _DiscriminatorStep(nn.Module):
    """The discriminator's half of a step as a module of its own, whose gradients are averaged on their own."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.discriminator = objective.discriminator
        self._discriminate = objective.discriminate

    def forward(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self._discriminate()


_SCALES = "loss_scales"
"""Key of a checkpoint's record: one `LossScale.state` an optimiser, of fp16."""


class _Run:
    def __init__(self, config: TrainConfig, task: Task, world: World):
        self.config, self.run, self.task, self.world = config, config.run, task, world
        self.share = world.share(self.run.batch)
        objective = self.objective = task.objective.to(world.device)
        freeze(objective.network, config.optim.parts)
        groups = _learning(task.groups or [{"params": list(objective.parameters()), "name": "network"}])
        self.optimizer = make_optimizer(groups, config.optim)
        self.ema = Ema(objective.network, config.optim.ema)
        objects = {"objective": objective, "optimizer": self.optimizer, "ema": self.ema}
        self.modules: list[nn.Module] = [objective]
        self.optimizers = [self.optimizer]
        if objective.discriminator is not None:
            discriminator = objective.discriminator.to(world.device)
            self.discriminator_optimizer = make_optimizer(
                [
                    {
                        "params": list(discriminator.parameters()),
                        "name": "discriminator",
                        "scale": config.optim.discriminator_lr / config.optim.lr,
                    }
                ],
                config.optim,
            )
            objects |= {"discriminator": discriminator, "discriminator_optimizer": self.discriminator_optimizer}
            self.modules.append(discriminator)
            self.optimizers.append(self.discriminator_optimizer)
        self.notes = Finite() if world.device.type == "cuda" else None
        self.folder = Path(self.run.folder) / self.run.name
        self.best = self.folder / "best.safetensors"
        self.state = RunState(self.folder / "checkpoints", self.run.keep, **objects)

    def fit(self) -> Path:
        world, saved = self.world, self._saved()
        first = saved.step if saved else 0
        self.clock = Clock(self.run.minutes, saved.record.get("seconds", 0.0) if saved else 0.0)
        so_far = resumed_precision(self.config, saved.record, world.device) if saved else None
        self._train_mode()
        precision = so_far or world.from_main(self._choose_precision)
        self._describe(precision)
        changes = self._go_on(saved) if saved else []
        self.log = RunLog(self.folder, self.config, first, self.ran) if world.main else None
        self._scale(precision, saved)
        if saved is None:
            self._start()
        self._distribute(precision)
        self._announce(f"{precision} as before" if so_far else str(precision), first, changes)
        self.clock.start()
        with StopSignals() as stop:
            try:
                self._loop(first, precision, stop)
            except Stopped:
                world.say(f"stopped by a signal: everything is in {self.state.newest()}; the same command resumes")
                raise
        if self.log is not None:
            self.log.close()
        return self.best

    def _saved(self) -> Saved | None:
        """The checkpoint to go on from, the same on every process; None for a new run."""
        path, damaged = self.world.from_main(self.state.newest_whole)
        self.world.say("\n".join(damaged))
        return None if path is None else self.state.read(path)

    def _describe(self, precision: Precision) -> None:
        """What this run and its checkpoints say of themselves."""
        ran = Ran.here(precision, self.world.device, self.world.size)
        index = self.world.from_main(lambda: file_digest(Path(self.config.data.path) / INDEX))
        self.record = record(to_yaml(self.config), ran, index, self.task.painter)
        self.ran = self.record["ran"] | {key: self.record[key] for key in DATA}

    def _go_on(self, saved: Saved) -> list[str]:
        """Take over a checkpoint's state; returns what differs from the run so far, a line each."""
        changes = check_changes(self.folder, saved.record, self.record, self.run.allow_changes)
        self.state.load(saved)
        return changes

    def _announce(self, precision: str, first: int, changes: list[str]) -> None:
        """One line about the run, one for each of the changes, and one where there is nothing to do."""
        if self.log is None:
            return
        windows, world = len(self.task.dataset), self.world
        processes = f" in {world.size} processes" if world.size > 1 else ""
        line = f"{self.folder}: {windows} windows, {precision} on {world.device}{processes}, from step {first}"
        world.say("\n  other than before: ".join([f"{line}; {self.log.version}", *changes]))
        if first >= self.run.steps or self.clock.over:
            limit = f"within {self.run.minutes:g} minutes" if self.clock.over else f"up to step {self.run.steps}"
            key = "run.minutes" if self.clock.over else "run.steps"
            world.say(f"nothing left to train {limit}: raise {key}, or give another run its own run.name")

    def _start(self) -> None:
        """The first checkpoint: whatever the script begins with, the same on every process."""
        if (prepare := self.task.prepare) is not None:
            self.world.from_main(lambda: prepare(self._written))
        self.world.spread(*self.modules)
        self.ema.restart(self.objective.network)
        self._save(0)

    def _choose_precision(self) -> Precision:
        sample = next(iter(batches(self.task.dataset, self.share, 0, 1, 0)))
        return training_precision(self.config.precision, self.objective, sample, self.world.device, self.config.layout)

    def _distribute(self, precision: Precision) -> None:
        """The modules that are called in a step: in their layout, compiled, their gradients averaged over the
        processes.
        """
        for module in self.modules:
            precision.place(module)
        for optimizer in self.optimizers:
            match_layout(optimizer)
        self.ema.match_layout(self.objective.network)
        for module in self.modules:
            if self.config.ddp.sync_bn:
                self.world.sync_norms(module)
        if self.config.compile:
            for part in _parts(self.objective.network):
                part.compile(
                    dynamic=False
                )  # batches are all of one size; with symbolic ones HyperConv does not compile
        self.generator = self.world.wrap(self.objective, self.objective.unused)
        self.discriminator = (
            self.world.wrap(_DiscriminatorStep(self.objective)) if self.objective.discriminator is not None else None
        )
        self._train_mode()

    def _scale(self, precision: Precision, saved: Saved | None) -> None:
        """An fp16 loss has a factor for each optimiser, which goes on as it was."""
        self.scales = [LossScale(self.world.device) if precision.fp16 else None for _ in self.optimizers]
        for scale, state in zip(self.scales, saved.record.get(_SCALES, []) if saved else [], strict=False):
            if scale is not None:
                scale.load(state)

    def _loop(self, first: int, precision: Precision, stop: StopSignals) -> None:
        run, world, device = self.run, self.world, self.world.device
        show = self.task.show if world.main else None
        progress = Progress(self.log, run.log_every, run.batch * self.task.frames, world, printed=show is None)
        over = self._is_over(first)
        if self._validates(first, over) and self._validate(first, stop):  # unless that was done before the run stopped
            over = True
        if over:
            return
        loader = batches(
            self.task.dataset,
            run.batch,
            first,
            run.steps,
            loader_workers(self.config.data.workers, device),
            world.rank,
            world.size,
            pinned=device.type == "cuda",
        )
        for step, batch in progress.batches(loader, first):
            # Chance depends on the step, so that it needs no memory.
            torch.manual_seed(int(np.random.SeedSequence((run.seed, step, world.rank)).generate_state(1)[0]))
            rate = learning_rate(step, self._length(step), self.config.optim)
            with precision.autocast(device):
                loss, terms = self.generator(batch, step)
            stopping = self._check(loss, terms, step, stop)
            self._apply(loss, 0, rate, step)
            if self.discriminator is not None and self.objective.seen:
                with precision.autocast(device):
                    discriminator_loss, discriminator_terms = self.discriminator()
                stopping = self._check(discriminator_loss, discriminator_terms, step, stop)
                self._apply(discriminator_loss, 1, rate, step)
                terms = terms | discriminator_terms
            self.ema.update(self.objective.network)
            done = step + 1
            over = self._is_over(done)
            saves = stopping or self._validates(done, over) or done % run.checkpoint_every == 0
            if saves or done % run.log_every == 0:
                self._read_notes(step)
            progress.log(done, {**terms, "loss": loss}, self._rates(rate))
            if world.main and self.task.watch is not None and (warning := self.task.watch(done, loss, terms)):
                print(f"{done:7d}  WARNING: {warning}", flush=True)
            if saves:
                self._save(done)
            if stopping:
                raise stop.stopped()
            if show is not None:
                show(done, self._share(done), self._written.validated)
            if self._validates(done, over):
                over |= self._validate(done, stop)
                progress.restart(done)
            if over:
                return

    def _check(self, loss: Tensor, terms: dict[str, Tensor], step: int, stop: StopSignals) -> bool:
        """Whether any process was told to stop. Raises InputError, on all of them, where the loss of one is not
        finite; a GPU only takes that down, see `_read_notes`.
        """
        if self.notes is not None:
            self.notes.note(step, "loss term", terms | {"total": loss})
            return self.world.any(stop.seen)[0]
        broken, stopping = self.world.any(not torch.isfinite(loss), stop.seen)
        if broken:
            raise not_finite(step, terms)
        return stopping

    def _apply(self, loss: Tensor, number: int, rate: float, step: int) -> None:
        """Move the parameters of an optimiser, the first or the discriminator's."""
        clip = self.config.optim.clip
        apply_step(loss, self.optimizers[number], rate, clip, step, self.notes, self.scales[number])

    def _read_notes(self, step: int) -> None:
        """Raises InputError, on all processes, where something was not finite since the last time on one of them.

        Not in every step, since it waits for the GPU; but before what came of it is logged or saved.
        """
        if self.notes is None:
            return
        problem = self.notes.read()
        if self.world.any(problem is not None)[0]:
            raise problem or not_finite(step, {})

    def _is_over(self, done: int) -> bool:
        """Whether this was the last step, on any process."""
        if self.run.minutes is None:
            return done >= self.run.steps
        return done >= self.run.steps or self.world.any(self.clock.over)[0]

    def _length(self, step: int) -> int:
        """Steps of the whole run, as far as they are known at this one; the same on every process."""
        steps = self.run.steps
        return steps if self.run.minutes is None else self.world.from_main(lambda: self.clock.length(step, steps))

    def _share(self, done: int) -> float:
        """How much of the run is over, 0 to 1."""
        return max(min(done / max(self.run.steps, 1), 1.0), self.clock.share)

    def _validates(self, done: int, over: bool) -> bool:
        return over or (done % self.run.validate_every == 0 if done else self.run.validate_start)

    def _validate(self, step: int, stop: StopSignals) -> bool:
        """Score the averaged weights and keep them if they are the best so far. The state was saved before. Returns
        whether there have been enough validations without a better one.
        """
        for module in self.modules:  # which validation may call
            module.eval()
        with stop.at_once():
            enough = self.world.from_main(lambda: self._score(step))
        self._train_mode()
        return enough

    @property
    def _written(self) -> RunLog:
        """The log of process 0, which alone writes."""
        assert self.log is not None
        return self.log

    def _score(self, step: int) -> bool:
        """Validate in process 0, unless that was done; see `_validate`."""
        if step not in self._written.validated:
            self._score_anew(step)
        if self.task.show is not None:
            self.task.show(step, self._share(step), self._written.validated)
        scores = [values[self.task.best] for values in self._written.validated.values()]
        return 0 < self.run.patience <= validations_since_best(scores, self.task.lower)

    def _score_anew(self, step: int) -> None:
        log = self._written
        trained = self.objective.network
        network = type(trained)(trained.config).to(self.world.device)
        network.load_state_dict(self.ema.average)
        if isinstance(network, HyperLipsBase):
            network.feed = trained.feed
        scores = self.task.validate(network.eval(), step, log)
        if self._is_best(scores[self.task.best]):
            self._keep(network, step, scores)
        log.scalars(step, scores, "val")  # last: a validation that is logged is done and never repeated
        if self.task.show is None:
            print(f"{step:7d}  val  " + "  ".join(f"{name} {value:.4g}" for name, value in scores.items()), flush=True)

    def _is_best(self, score: float) -> bool:
        if not self.best.is_file():
            return True
        kept = float(read_metadata(self.best)[self.task.best])
        return math.isnan(kept) or (score <= kept if self.task.lower else score >= kept)

    def _keep(self, network: nn.Module, step: int, scores: dict[str, float]) -> None:
        details = {name: f"{value:.5f}" for name, value in scores.items()}
        details |= {"step": str(step), "training": to_yaml(self.config), "code": self._written.version}
        try:
            save_network(self.best, network, details)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{self.best} could not be written ({error}); free space and run the same command again"
            ) from error

    def _save(self, step: int) -> None:
        if self.world.main:
            scales = [scale.state() for scale in self.scales if scale is not None]
            self.state.save(step, self.record | {"seconds": self.clock.seconds, _SCALES: scales})

    def _rates(self, rate: float) -> dict[str, float]:
        """Learning rates, that of the network and, under their names, those of groups that differ from it."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return {"lr": rate, **{f"lr_{group['name']}": rate * group["scale"] for group in groups if "scale" in group}}

    def _train_mode(self) -> None:
        for module in self.modules:
            module.train()
            for layer in module.modules():
                if isinstance(layer, _BatchNorm) and self.run.freeze_bn:
                    layer.eval()


def _learning(groups: list[dict]) -> list[dict]:
    """Parameter groups without what is frozen."""
    kept = [group | {"params": [value for value in group["params"] if value.requires_grad]} for group in groups]
    return [group for group in kept if group["params"]]


def _parts(network: nn.Module) -> list[nn.Module]:
    """The largest pieces of a network that are called as such."""
    lists = (nn.ModuleList, nn.ModuleDict)
    return [part for child in network.children() for part in (_parts(child) if isinstance(child, lists) else [child])]
