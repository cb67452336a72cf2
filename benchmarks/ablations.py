"""Trains several configs with several seeds each, one after the other, and prints their validation numbers as one
table.

    python -m benchmarks.ablations --configs configs/base.yaml configs/ablations/concat.yaml --steps 4000 \\
        --seeds 0 1 2 [--set data.path=DATA] [--folder runs/ablations]

Each run is the config's own train script on runs/ablations/<config>_seed<k>. The same command again goes on where it
stopped and repeats nothing that is finished. A row holds the means over the seeds of the last validation, +- their
standard deviation.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from engine.changes import SCHEMAS, trained_otherwise
from engine.config import load_config, script_of, to_yaml
from errors import InputError, run_cli
from workers import end_with

ROOT = Path(__file__).resolve().parent.parent
_RAN = "code", "precision", "layout", "device", "threads", "processes", "torch_version"
"""Keys of ran.yaml that are to be the same in all runs of a table."""


@dataclass(frozen=True)
class Run:
    """One config with one seed."""

    config: Path
    seed: int
    script: str
    overrides: tuple[str, ...]
    folder: Path
    steps: int
    resolved: str
    """The config as the run folder will hold it."""

    def scores(self) -> dict[str, float] | None:
        """The validation at the last step, or None before there is one.

        Raises InputError where the folder holds a run of other settings.
        """
        saved, metrics = self.folder / "config.yaml", self.folder / "metrics.jsonl"
        if saved.is_file() and (
            others := trained_otherwise(saved.read_text(encoding="utf-8", errors="replace"), self.resolved)
        ):
            raise InputError(
                f"{self.folder} holds a run of other settings ({', '.join(others)}); remove it or name another --folder"
            )
        if not metrics.is_file():
            return None
        whole = metrics.read_text(encoding="utf-8").rpartition("\n")[0]
        for line in reversed(whole.splitlines()):
            values = json.loads(line)
            scores = {name.removeprefix("val/"): value for name, value in values.items() if name.startswith("val/")}
            if scores:
                return scores if values["step"] == self.steps else None
        return None

    def train(self) -> dict[str, float]:
        """Raises InputError where the script ends without the last validation."""
        options = [option for override in self.overrides for option in ("--set", override)]
        code = run_to_its_end([sys.executable, self.script, "--config", self.config.resolve(), *options])
        scores = self.scores()
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            sys.exit(code)  # it was told to stop, and has said so
        if code or scores is None:
            raise InputError(
                f"{self.script} --config {self.config} ended with code {code}, see above; "
                "the same command goes on from here"
            )
        return scores


def run_to_its_end(command: list[str | Path]) -> int:
    """The exit code of a command, run here. What tells this process to stop tells the command, and it is waited for: a
    training stops well. It is also told when this process is killed.
    """
    told_with_us = partial(end_with, os.getpid(), signal.SIGTERM)
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=told_with_us)
    told: dict[int, int] = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        told[signal.SIGHUP] = signal.SIGTERM
    before = {number: signal.signal(number, lambda number, _: process.send_signal(told[number])) for number in told}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def plan(
    configs: Sequence[Path], steps: int, seeds: Sequence[int], overrides: Sequence[str], folder: Path
) -> list[Run]:
    """Every config with every seed; all configs are read before anything is trained."""
    names = [config.stem for config in configs]
    if len(set(names)) < len(names):
        raise InputError(f"--configs {' '.join(names)}: two of one name would share a run folder; name each once")
    runs = []
    for config in configs:
        for seed in seeds:
            name = f"{config.stem}_seed{seed}"
            chosen = (
                *overrides,
                f"run.name={name}",
                f"run.folder={folder.resolve()}",
                f"run.seed={seed}",
                f"run.steps={steps}",
                "run.patience=0",  # all are compared at the same step
                "run.minutes=null",
            )
            script, resolved = _script(config, chosen)
            runs.append(Run(config, seed, script, chosen, folder.resolve() / name, steps, resolved))
    return runs


def _script(config: Path, overrides: Sequence[str]) -> tuple[str, str]:
    """The train script that the config is for, and the config resolved."""
    script = script_of(config)
    if script not in SCHEMAS:
        raise InputError(f"{config} has script: {script}, expected one of {', '.join(SCHEMAS)}; see configs/")
    return script, to_yaml(load_config(SCHEMAS[script], config, overrides))


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: a row a config, a column a score; mean, and +- the standard deviation over seeds where there are
    several.
    """
    columns = list(dict.fromkeys(name for scores in rows.values() for row in scores for name in row))
    lines = [f"| config | seeds | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, scores in rows.items():
        cells = [_cell([row[column] for row in scores if column in row]) for column in columns]
        lines.append(f"| {name} | {len(scores)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def ran_otherwise(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What finished runs ended with that differs among them, such as code or precision: its values by name."""
    found: dict[str, list[str]] = {}
    for run in runs:
        path = run.folder / "ran.yaml"  # earlier versions wrote none
        last = yaml.safe_load(path.read_text(encoding="utf-8"))[-1] if path.is_file() else {}
        for name in _RAN:
            if (value := str(last.get(name, "unknown"))) not in found.setdefault(name, []):
                found[name].append(value)
    return {name: values for name, values in found.items() if len(values) > 1}


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    digits = 3 if max(map(abs, values)) < 10 else 1
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", required=True, type=Path, metavar="YAML", help="of one script")
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="of each run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="K", help="a run each (default 0)")
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override values in all of them"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/ablations"), metavar="DIR", help="where the runs lie")
    args = parser.parse_args()
    runs = plan(args.configs, args.steps, args.seeds, args.set, args.folder)
    known = [run.scores() for run in runs]  # of all before any is trained: one may hold other settings
    rows: dict[str, list[dict[str, float]]] = {}
    for run, scores in zip(runs, known, strict=True):
        rows.setdefault(run.config.stem, []).append(scores or run.train())
    print(table(rows))
    for name, values in ran_otherwise(runs).items():
        print(f"note: the runs differ in {name}: {', '.join(values)}")


if __name__ == "__main__":
    run_cli(main)
