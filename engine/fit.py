"""The one training loop: resume, precision, step, log, validation, checkpoints, on any number of processes."""

import copy
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from datasets.clips import INDEX
from datasets.loader import batches, loader_workers
from digest import file_digest
from engine.best import Best
from engine.config import to_yaml
from engine.distributed import World
from engine.ema import Ema
from engine.limits import Clock
from engine.objective import Objective
from engine.optimizers import Optimizers, freeze, learning_rate, not_finite
from engine.options import TrainConfig
from engine.precision import Precision, training_precision
from engine.progress import Progress
from engine.resume import FILES, Ran, check_changes, record, resumed_precision
from engine.runlog import RunLog
from engine.start import start_digest, start_from
from engine.state import RunState, Saved
from engine.stop import Stopped, StopSignals
from engine.task import Task
from losses.gather import alone

Thing = TypeVar("Thing")
_SCALES = "loss_scales"
"""Key of a checkpoint's record, see Optimizers.scales."""


def fit(config: TrainConfig, task: Task, world: World) -> Path:
    """Train, or resume the run of this name, within `running`; returns the path of the weights to use.

    It ends at run.steps, or before as run.minutes and run.patience say. On SIGTERM or SIGINT the step is finished, a
    checkpoint written, and Stopped raised. Raises InputError for a loss that is not finite, a run folder that does not
    fit, and for a config that is other than the run's so far, see engine.resume.
    """
    return _Run(config, task, world).fit()


class _DiscriminatorStep(nn.Module):
    """The discriminator's half of a step as a module of its own, whose gradients are averaged on their own."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.discriminator = objective.discriminator
        self._discriminate = objective.discriminate

    def forward(self) -> tuple[Tensor, dict[str, Tensor]]:
        return self._discriminate()


class _Run:
    def __init__(self, config: TrainConfig, task: Task, world: World):
        self.config, self.run, self.task, self.world = config, config.run, task, world
        self.share = world.share(self.run.batch)
        objective = self.objective = task.objective.to(world.device)
        freeze(objective.network, config.optim.parts)
        self.modules: list[nn.Module] = [objective]
        if objective.discriminator is not None:
            self.modules.append(objective.discriminator.to(world.device))
        objects = dict(zip(("objective", "discriminator"), self.modules, strict=False))
        self.optimizers = Optimizers(objective, task.groups, config.optim, world.device)
        self.ema = Ema(objective.network, config.optim.ema)
        self.folder = Path(self.run.folder) / self.run.name
        self.state = RunState(
            self.folder / "checkpoints", self.run.keep, **objects, **self.optimizers.named, ema=self.ema
        )

    def fit(self) -> Path:
        world, saved = self.world, self._saved()
        first = saved.step if saved else 0
        self.enough = False
        self.clock = Clock(self.run.minutes, saved.record.get("seconds", 0.0) if saved else 0.0)
        so_far = resumed_precision(self.config, saved.record, world.device) if saved else None
        self._train_mode()
        precision = so_far or world.from_main(self._choose_precision)
        self._describe(precision)
        changes = self._go_on(saved) if saved else []
        self.log = RunLog(self.folder, self.config, first, self.ran, anew=saved is None) if world.main else None
        path = self.folder / "best.safetensors"
        self.best: Best | None = None
        if self.log is not None:
            self.best = Best(path, self.record, self.run.patience, self.task, self.log, begins=saved is None)
        if saved is None:
            self._start()
        self._distribute(precision)
        self.optimizers.prepare(precision.products == "fp16", saved.record.get(_SCALES, []) if saved else [])
        self._announce(f"{precision} as before" if so_far else str(precision), first, changes)
        self.clock.start()
        with StopSignals() as stop:
            try:
                announced = first >= self.run.steps or self.clock.over
                last = self._loop(first, precision, stop)
                if not announced and last < self.run.steps:
                    self._tell_end()
            except Stopped:
                world.say(f"stopped by a signal: everything is in {self.state.newest()}; the same command resumes")
                raise
            finally:
                if self.log is not None:
                    self.log.close()  # TensorBoard writes what it was told minutes later
        return path

    def _saved(self) -> Saved | None:
        """The checkpoint to go on from, the same on every process; None for a new run."""
        path, damaged = self.world.from_main(self.state.newest_whole)
        self.world.say("\n".join(damaged))
        return None if path is None else self.state.read(path)

    def _describe(self, precision: Precision) -> None:
        """What this run and its checkpoints say of themselves."""
        ran = Ran.here(precision, self.world.device, self.world.size)
        index = self.world.from_main(lambda: file_digest(Path(self.config.data.path) / INDEX))
        init = self.world.from_main(lambda: start_digest(self.task.init))
        files = {"painter": self.task.painter, "init": init, **self.objective.judges}
        self.record = record(to_yaml(self.config), ran, index, **files)
        self.ran = self.record["ran"] | {key: self.record[key] for key in FILES}

    def _go_on(self, saved: Saved) -> list[str]:
        """Take over a checkpoint's state; returns what differs from the run so far, a line each."""
        changes = check_changes(self.folder, saved.record, self.record, self.run.allow_changes)
        self.state.load(saved)
        saved.states.clear()  # as large as the run itself
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

    def _tell_end(self) -> None:
        """Why the run ends before its last step, unless something else shows how far it is."""
        if self.task.show is None:
            limit = f"its {self.run.minutes:g} minutes are over, see run.minutes" if self.clock.over else ""
            bored = f"{self.run.patience} validations brought nothing better, see run.patience"
            self.world.say(f"ended: {bored if self.enough else limit}")

    def _start(self) -> None:
        """The first checkpoint: whatever the script begins with, the same on every process."""
        if (init := self.task.init) is not None:
            self.world.from_main(lambda: start_from(self.objective.network, init))
        elif (prepare := self.task.prepare) is not None:
            self.world.from_main(lambda: prepare(self._main(self.log)))
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

    def _loop(self, first: int, precision: Precision, stop: StopSignals) -> int:
        """Returns the last step."""
        run, world, device = self.run, self.world, self.world.device
        show = self.task.show if world.main else None
        progress = Progress(self.log, run.log_every, run.batch * self.task.frames, world, printed=show is None)
        over = self._is_over(first)
        if self._validates(first, over) and self._validate(first, stop):  # unless that was done before the run stopped
            over = True
        if over:
            return first
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
            self.optimizers.step("optimizer", loss, rate, step)
            if self.discriminator is not None and self.objective.seen:
                with precision.autocast(device):
                    discriminator_loss, discriminator_terms = self.discriminator()
                stopping = self._check(discriminator_loss, discriminator_terms, step, stop)
                self.optimizers.step("discriminator_optimizer", discriminator_loss, rate, step)
                terms = terms | discriminator_terms
            self.ema.update(self.objective.network)
            done = step + 1
            over = self._is_over(done)
            saves = stopping or self._validates(done, over) or done % run.checkpoint_every == 0
            if saves or done % run.log_every == 0:
                self._read_notes(step)
            progress.log(done, {**terms, "loss": loss}, self.optimizers.rates(rate))
            if world.main and self.task.watch is not None and (warning := self.task.watch(done, loss, terms)):
                print(f"{done:7d}  WARNING: {warning}", flush=True)
            if saves:
                self._save(done)
            if stopping:
                raise stop.stopped()
            if show is not None:
                show(done, self._share(done), self._main(self.log).validated)
            if self._validates(done, over):
                over |= self._validate(done, stop)
                progress.restart(done)
            if over:
                return done
        return run.steps

    def _check(self, loss: Tensor, terms: dict[str, Tensor], step: int, stop: StopSignals) -> bool:
        """Whether any process was told to stop. Raises InputError, on all of them, where the loss of one is not
        finite; a GPU only takes that down, see `_read_notes`.
        """
        if self.optimizers.notes is not None:
            self.optimizers.notes.note(step, "loss term", terms | {"total": loss})
            return self.world.any(stop.seen)[0]
        broken, stopping = self.world.any(not torch.isfinite(loss), stop.seen)
        if broken:
            raise not_finite(step, terms)
        return stopping

    def _read_notes(self, step: int) -> None:
        """Raises InputError, on all processes, where something was not finite since the last time on one of them.

        Not in every step, since it waits for the GPU; but before what came of it is logged or saved.
        """
        if self.optimizers.notes is None:
            return
        problem = self.optimizers.notes.read()
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
        if self.run.minutes is None:
            return steps
        return round(self.world.mean({"steps": self.clock.length(step, steps)})["steps"])

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
        with stop.at_once(), alone():
            if self.world.from_main(lambda: self._main(self.best).lacks(step)):
                self._score(step)
            self.enough = self.world.from_main(lambda: self._main(self.best).enough(step, self._share(step)))
        self._train_mode()
        return self.enough

    def _score(self, step: int) -> None:
        network = copy.deepcopy(self.objective.network)
        network.load_state_dict(self.ema.average)
        self.world.spread(network)  # statistics of BatchNorm are each process's own
        scores = self.task.validate(network.eval(), step, self.log)
        if self.best is not None:
            self.best.add(step, network, scores)

    @staticmethod
    def _main(thing: Thing | None) -> Thing:
        """What process 0 alone has, there."""
        assert thing is not None
        return thing

    def _save(self, step: int) -> None:
        if self.world.main:
            self.state.save(step, self.record | {"seconds": self.clock.seconds, _SCALES: self.optimizers.scales()})

    def _train_mode(self) -> None:
        for module in self.modules:
            module.train()
            for layer in module.modules():
                if isinstance(layer, _BatchNorm) and (self.run.freeze_bn or not layer.weight.requires_grad):
                    layer.eval()  # a part that does not learn keeps its statistics too


def _parts(network: nn.Module) -> list[nn.Module]:
    """The largest pieces of a network that are called as such."""
    lists = (nn.ModuleList, nn.ModuleDict)
    return [part for child in network.children() for part in (_parts(child) if isinstance(child, lists) else [child])]
