"""What several test files need: the folder of shared data, and a small talking clip made on the spot."""

import atexit
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before anything of the project: what others measured of this machine, before or meanwhile, is not the tests'.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="hyperlips_tests_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# Nor is what the shell says of a cluster's job, a page or git.
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GRADIO_SERVER_NAME"):
    os.environ.pop(name, None)
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import settings

from datasets.archive import write_archive
from datasets.clips import load_clips, merge_index, publish_clip
from datasets.config import DataSection
from engine import precision
from engine.threads import threads_kept
from errors import run_cli, warn
from media.audio import SAMPLE_RATE
from media.video import VideoWriter
from models.checkpoint import save_network
from models.hyperlips import HyperLipsBase

settings.register_profile("alike", derandomize=True, database=None)
settings.load_profile("alike")
ROOT = Path(__file__).resolve().parent.parent
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has what this is about")
FORKED = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="workers would not have what is patched or made up here"
)
FPS = Fraction(25)
SIZE = 360, 288
_CORNER, _ZOOM = np.array([100, 10]), 1.44  # of the astronaut's picture: her face becomes 130 px wide
_MOUTH_X, _UPPER_LIP, _LOWER_LIP, _BELOW_CHIN = 179, 187, 201, 262  # px of the clip
_DROP = 12  # px the lower lip moves


@pytest.fixture(autouse=True)
def alike() -> Iterator[None]:
    """Each test begins alike, whatever ran before: as many threads, in whose number sums differ in their last bits, the
    same chance, and nothing said.
    """
    torch.manual_seed(0)
    warn.cache_clear()
    with threads_kept():
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As the processes that a module's runs are compared with have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Gives what tells the most bytes that Python held since the block began."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def pass_by(monkeypatch) -> Callable[[float], None]:
    """A clock that moves on by the seconds that it is told alone."""
    now = [0.0]
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def move(seconds: float) -> None:
        now[0] += seconds

    return move


@pytest.fixture
def measurings(pass_by) -> Callable[[], list[int]]:
    """How often a small network's work is run where its precision is chosen, and where it is chosen again."""

    def count() -> list[int]:
        done: list[precision.Precision] = []

        def work(candidate: precision.Precision) -> None:
            done.append(candidate)
            pass_by(1)

        counts = []
        for _ in range(2):
            done.clear()
            precision.choose_precision("auto", torch.nn.Conv2d(1, 1, 1), work, "test")
            counts.append(len(done))
        return counts

    return count


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Gives files and folders of the shared data (HYPERLIPS_SHARED, or beside the project); the test is skipped where
    one is missing.
    """
    folder = Path(os.environ.get("HYPERLIPS_SHARED", ROOT.parent / "shared"))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"needs {name} in the shared data, {folder} (or set HYPERLIPS_SHARED)")
        return folder / name

    return find


@pytest.fixture(scope="session")
def talking_clip(tmp_path_factory) -> Path:
    """2 s at 25 fps, 360x288: a face whose mouth opens with a voice in the sound, while the head moves a little."""
    path = tmp_path_factory.mktemp("clip") / "talking.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(2), SAMPLE_RATE)) as writer:
        for index in range(50):
            writer.write(talking_face((index + 0.5) / 25))
    return path


def extract(*arguments: object) -> subprocess.CompletedProcess:
    """Run the extraction command in a process of its own, for crops of 128 px."""
    command = [sys.executable, "-m", "preprocess.extract_clips", "--workers", "1", "--size", "128"]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="session")
def data_set(talking_clip, tmp_path_factory) -> Path:
    """A data set of the talking clip, extracted by the real command into `train` and copied to `val`. Nobody writes
    into it, nor into `painted` and `brief`.
    """
    videos, data = tmp_path_factory.mktemp("videos") / "train", tmp_path_factory.mktemp("data")
    videos.mkdir()
    (videos / "clip.mp4").symlink_to(talking_clip)
    done = extract("--videos", videos, "--output", data, "--split", "train", "--person", "=astronaut")
    assert done.returncode == 0, done.stderr
    (clip,) = load_clips(data, "train")
    copy = shutil.copytree(clip.folder, data / "aside" / "val")
    publish_clip(copy, data, replace(clip.info, id=f"{clip.info.id}-val", split="val", source="val/clip.mp4"))
    merge_index(data)
    return data


@pytest.fixture(scope="session")
def painted(data_set, tmp_path_factory) -> Path:
    """A copy of the data set with stage-1 faces, painted by an untrained network of the shipped shape."""
    data = shutil.copytree(data_set, tmp_path_factory.mktemp("painted") / "data")
    checkpoint = tmp_path_factory.mktemp("untrained") / "base.safetensors"
    save_network(checkpoint, HyperLipsBase())
    subprocess.run(
        [sys.executable, "-m", "preprocess.generate_base", "--checkpoint", checkpoint, "--data", data],
        cwd=ROOT,
        check=True,
    )
    return data


@pytest.fixture(scope="session")
def brief(data_set, tmp_path_factory) -> Path:
    """Six frames of the data set: validation, which paints them all, takes a moment."""
    return cut_short(data_set, tmp_path_factory.mktemp("brief") / "data", 6, 128)


def own_files() -> list[Path]:
    """The project's files, relative to it: of a repository, those that it tracks and new ones beside them; otherwise
    all but hidden ones.
    """

    def listed(*words: str) -> list[str]:
        command = ["git", "ls-files", "-z", *words]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        return [name for name in done.stdout.split("\0") if (ROOT / name).is_file()]

    if tracked := listed() if shutil.which("git") else []:
        kept = {name.split("/")[0] for name in tracked}
        return [*map(Path, listed("--cached", "--others", "--exclude-standard", "--", *kept, ":(glob)*.py"))]
    inside = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path for path in inside if not any(part.startswith(".") for part in path.parts)]


def touch_or_skip(path: Path) -> None:
    """An empty file; the test is skipped where no file can have that name."""
    try:
        path.touch()
    except OSError as error:
        pytest.skip(f"this file system wants other names ({error})")


def samples(kind: Callable[..., Any], data: DataSection, *others: Any, split: str = "train", **options: Any) -> Any:
    """A data set or a validator of the clips of a split."""
    return kind(load_clips(data.path, split, data.min_face_px), data, *others, **options)


def cut_short(data: Path, target: Path, frames: int, size: int) -> Path:
    """A copy of a data set with the first frames of each clip, at another size (px)."""
    shutil.copytree(data, target)
    for split in ("train", "val"):
        (clip,) = load_clips(target, split)
        faces = [cv2.resize(face, (size, size), interpolation=cv2.INTER_CUBIC) for face in clip.faces(range(frames))]
        write_archive(clip.folder / "faces.zip", faces)
        if (clip.folder / "base.zip").is_file():
            write_archive(clip.folder / "base.zip", clip.faces(range(frames), "base.zip"))
        for name in ("track.npz", "base_track.npz"):
            if (clip.folder / name).is_file():
                _cut_track(clip.folder / name, frames)
        record = clip.folder / "clip.json"
        record.write_text(json.dumps(json.loads(record.read_text()) | {"frames": frames, "size": size}))
    merge_index(target)
    return target


def _cut_track(path: Path, frames: int) -> None:
    with np.load(path) as track:
        cut = {name: values[:frames] if (values := track[name]).ndim else values for name in track.files}
    np.savez(path, **cut)


def run_here(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *arguments: object) -> int:
    """Run a script's `main` with a command line in this process, as `run_cli` does; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["script", *map(str, arguments)])
    try:
        run_cli(main, tidy=False)  # the handler would stay
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def openness(seconds: np.ndarray | float) -> np.ndarray | float:
    """How far the mouth is open, and how loud the voice is, in 0..1: syllables, the fourth of them silent."""
    syllables = np.sin(np.pi * 3.1 * np.asarray(seconds)) ** 2 * (0.7 + 0.3 * np.sin(5 * np.asarray(seconds)))
    return syllables * (np.abs(np.asarray(seconds) - 3.5 / 3.1) > 0.5 / 3.1)


def voice(seconds: float) -> np.ndarray:
    """Harmonics of 130 Hz that swell with `openness`: (samples,) float32 at 16 kHz."""
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    harmonics = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 30))
    return (0.2 * openness(t) * harmonics).astype(np.float32)


def talking_face(seconds: float) -> np.ndarray:
    """The astronaut's face (288, 360, 3) uint8 as it looks at that time."""
    x, y = np.meshgrid(np.arange(SIZE[0], dtype=np.float32), np.arange(SIZE[1], dtype=np.float32))
    turn = 0.02 * np.sin(2 * seconds)  # the head sways: undo that first
    dx, dy = x - SIZE[0] / 2 - 2 * np.sin(3 * seconds), y - SIZE[1] / 2 - np.cos(4 * seconds)
    x, y = SIZE[0] / 2 + dx + turn * dy, SIZE[1] / 2 + dy - turn * dx
    down = np.clip((y - _UPPER_LIP) / (_LOWER_LIP - _UPPER_LIP), 0, 1)
    fade = np.clip((_BELOW_CHIN - y) / (_BELOW_CHIN - _LOWER_LIP), 0, 1)
    lowered = down**2 * (3 - 2 * down) * fade**2 * (3 - 2 * fade) * np.exp(-(((x - _MOUTH_X) / 45) ** 2))
    y = y - (openness(seconds) - 0.5) * _DROP * lowered
    return cv2.remap(
        skimage.data.astronaut(),
        (_CORNER[0] + x / _ZOOM).astype(np.float32),
        (_CORNER[1] + y / _ZOOM).astype(np.float32),
        cv2.INTER_CUBIC,
    )
