"""What the tests of faults share: commands, each with a folder of its own, and what is to be true of such a folder."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT

from datasets.archive import Archive
from engine.options import PREPARED
from engine.prepared import PreparedFace
from engine.state import RunState
from media.video import VideoReader
from models.checkpoint import load_network, read_metadata

PATIENCE = 300
_POLL = 0.02
_WORK = "runs", "results"
"""Of the project's folder: where other trainings and inferences, which may run beside the tests, write."""


@dataclass(frozen=True)
class Command:
    """A command of the project that writes to a folder of its own.

    words: what is run, after `python`, given that folder. inputs: what it reads and must leave alone. prepare: puts
    into the folder what is written to in place.
    """

    words: Callable[[Path], list[object]]
    inputs: list[Path]
    prepare: Callable[[Path], object] = Path.mkdir

    def start(self, folder: Path, **environment: str) -> subprocess.Popen:
        """In a session of its own, with temporary files and caches beside the folder."""
        around = {
            "TMPDIR": _beside(folder, "tmp"),
            "HOME": _beside(folder, "home"),
            "XDG_CACHE_HOME": "",
            **environment,
        }
        return subprocess.Popen(
            [sys.executable, "-B", *map(str, self.words(folder))],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **around},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, folder: Path, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(folder, **environment)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _beside(folder: Path, name: str) -> str:
    place = folder.with_name(f"{folder.name}_{name}")
    place.mkdir(exist_ok=True)
    return str(place)


def undisturbed(command: Command, folder: Path) -> float:
    """Run it to its end; returns how many seconds that took."""
    command.prepare(folder)
    began = time.monotonic()
    result = command.run(folder)
    assert result.returncode == 0, result.stderr
    return time.monotonic() - began


def kill_and_repeat(command: Command, whole: Path, seconds: float, folder: Path, seed: int, kills: int = 2) -> None:
    """Kill it, begun again every time, at moments that depend on the seed; then the same command ends as the
    undisturbed one in `whole`.
    """
    outside, rng = {path: listing(path) for path in [ROOT, *command.inputs]}, random.Random(seed)
    command.prepare(folder)
    for _ in range(kills):
        process = command.start(folder)
        wait_for_moment(process, folder, seconds, rng)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        assert_no_orphan(process.pid)
        assert_nothing_half(folder)
    again = command.run(folder)
    assert again.returncode == 0 and "Traceback" not in again.stderr, again.stderr
    assert_nothing_half(folder)
    assert_nothing_stale(folder)
    ours, theirs = contents(folder), contents(whole)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if ours[name] != theirs[name]]
    assert not differing, f"other than undisturbed: {differing}"
    assert {path: listing(path) for path in outside} == outside
    for name in ("tmp", "home"):
        shutil.rmtree(_beside(folder, name))


def wait_for_moment(process: subprocess.Popen, folder: Path, seconds: float, rng: random.Random) -> None:
    """Half of the moments lie anywhere in the time it takes, half shortly after a file appears or changes."""
    if rng.random() < 0.5:
        deadline = time.monotonic() + rng.uniform(0, seconds)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL)
        return
    changes = rng.randint(1, 12)
    before = listing(folder)
    while process.poll() is None and changes:
        time.sleep(_POLL)
        now = listing(folder)
        changes -= now != before
        before = now
    time.sleep(rng.uniform(0, 0.1))


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of what lies in a folder; of the project, of what is not made by running it."""
    found = {}
    for path in _walk(folder):
        status = path.lstat()
        found[str(path.relative_to(folder))] = status.st_size, status.st_mtime_ns
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        passed = ("__pycache__", *_WORK) if Path(place) == ROOT else ("__pycache__",)
        folders[:] = [name for name in folders if not name.startswith(".") and name not in passed]
        yield from (Path(place, name) for name in names if os.path.lexists(Path(place, name)))


def assert_no_orphan(session: int) -> None:
    """What a killed process has started ends with it."""
    deadline = time.monotonic() + 10
    while left := members(session):
        assert time.monotonic() < deadline, f"left running: {left}"
        time.sleep(_POLL)


def members(session: int) -> list[int]:
    """Processes of a session, but those that have ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(of) == session and state not in "ZX":
            found.append(int(path.parent.name))
    return found


def assert_nothing_half(folder: Path) -> None:
    """Whatever has its final name can be read to its end."""
    for path in finished(folder):
        read(path)


def assert_nothing_stale(folder: Path) -> None:
    """Of what earlier runs left."""
    assert not [path for path in folder.rglob("*") if ".part" in path.name], "a part is left"
    assert not list(folder.rglob("aside/*")), "half a clip is left"


def finished(folder: Path) -> list[Path]:
    """Files with their final names: not parts, nor clips that are being made."""
    inside = [path for path in folder.rglob("*") if path.is_file() and ".part" not in path.name]
    return sorted(path for path in inside if "aside" not in path.relative_to(folder).parts)


def read(path: Path) -> object:
    """The content of a file, without what differs between two runs of the same command, such as times."""
    if path.suffix == ".zip":
        Archive(path).verify()
        with zipfile.ZipFile(path) as archive:
            return [(entry.filename, entry.CRC) for entry in archive.infolist()]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            # The painter is a digest of weights, whose file tells of the training.
            return {name: arrays[name].tobytes() for name in arrays if name != "painter"}
    if path.suffix == ".npy":
        return np.load(path).tobytes()
    if path.suffix == ".pt":
        saved = RunState(path.parent, 1).read(path)
        return saved.step, plain(saved.states)
    if path.suffix == ".safetensors":
        told = read_metadata(path).items()  # of stage 1 the painter is a digest, as above
        metadata = {name: text for name, text in told if name not in ("training", "painter")}
        return metadata, plain(load_network(path).state_dict())
    if path.suffix in (".mp4", ".mkv"):
        return [b"".join(plane.tobytes() for plane in frame.planes) for frame in VideoReader(path)]
    if path.suffix == PREPARED:
        return plain({name: value for name, value in vars(PreparedFace.load(path)).items() if name != "video"})
    if path.name == "adapt.json":
        record = json.loads(path.read_text())
        return record["begun"], record["done"]
    return path.read_bytes()


def plain(value: object) -> object:
    """Tensors and arrays in nested values as bytes, which can be compared."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return str(value.dtype), tuple(value.shape), np.asarray(value).tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value


_OF_A_START = ("lock", "ran.yaml", "metrics.jsonl", "config.yaml", "events.out")
"""Files that tell of each start, of times and of speed."""


def contents(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): read(path) for path in finished(folder) if not path.name.startswith(_OF_A_START)
    }
