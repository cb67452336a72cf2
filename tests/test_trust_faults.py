"""kill -9 at random moments, and full disks: the same command again ends as if nothing had been."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import FPS, LINUX, ROOT, SIZE, talking_face, voice
from faults import Command, assert_nothing_half, assert_nothing_stale, contents, kill_and_repeat, undisturbed
from test_adapt import SMALL, untrained
from test_training import FIXED

from media.audio import SAMPLE_RATE
from media.video import VideoWriter
from models.checkpoint import save_network
from models.hyperlips import HyperLipsBase

pytestmark = LINUX
SEEDS = range(10)
"""Each kills twice."""
QUICK = {
    "train_base": ["audio_pretrain.steps=2", "run.steps=6", "data.workers=1"],
    "train_hr": ["run.steps=6", "data.workers=1", "loss.lip_perceptual=0", "validation.film=5"],
}


def training(script: str, config: str, data: Path) -> Command:
    values = [f"data.path={data}", *FIXED, *QUICK[script]]

    def words(folder: Path) -> list[object]:
        options = [f"--set={value}" for value in (*values, f"run.folder={folder}")]
        return [f"{script}.py", "--config", ROOT / "configs" / config, *options]

    return Command(words, [data])


def extraction(videos: Path) -> Command:
    options = ["--size", 128, "--split", "train", "--workers", 2]
    return Command(
        lambda folder: ["-m", "preprocess.extract_clips", "--videos", videos, "--output", folder, *options], [videos]
    )


def painting(checkpoint: Path, data: Path) -> Command:
    return Command(
        lambda folder: ["-m", "preprocess.generate_base", "--checkpoint", checkpoint, "--data", folder],
        [checkpoint.parent],
        lambda folder: shutil.copytree(data, folder),
    )


def inference(clip: Path) -> Command:
    options = ["--base-only", "--set", "precision=float32", "layout=contiguous"]
    return Command(
        lambda folder: ["inference.py", "--face", clip, "--audio", clip, "--output", folder / "out.mp4", *options],
        [clip.parent],
    )


def adaptation(video: Path, weights: Path) -> Command:
    """It ends by its steps, in whatever time they take, so that all runs of it end alike."""
    options = [*untrained(weights), "--minutes", 10000, "--set", *SMALL]
    return Command(lambda folder: ["adapt.py", "--video", video, "--output", folder, *options], [video.parent, weights])


@pytest.fixture(scope="session")
def commands(data_set, painted, talking_clip, tmp_path_factory) -> dict[str, Callable[[], Command]]:
    place = tmp_path_factory.mktemp("commands")
    videos, unpainted = place / "videos", place / "unpainted"
    videos.mkdir()
    for name in ("a", "b"):
        with VideoWriter(videos / f"{name}.mp4", SIZE, FPS, audio=(voice(1.2), SAMPLE_RATE)) as writer:
            for index in range(30):
                writer.write(talking_face(index / 25))
    shutil.copytree(data_set, unpainted, ignore=shutil.ignore_patterns("base*"))
    for name in ("weights", "small_weights"):
        (place / name).mkdir()
    save_network(place / "weights" / "base.safetensors", HyperLipsBase())
    return {
        "extract_clips": extraction(videos),
        "generate_base": painting(place / "weights" / "base.safetensors", unpainted),
        "train_base": training("train_base", "tiny.yaml", unpainted),
        "train_hr": training("train_hr", "hr_tiny.yaml", painted),
        "inference": inference(videos / "a.mp4"),
        "adapt": adaptation(talking_clip, place / "small_weights"),
    }


NAMES = ["extract_clips", "generate_base", "train_base", "train_hr", "inference", "adapt"]


@pytest.fixture(scope="session")
def whole(commands, tmp_path_factory) -> Callable[[str], tuple[Path, float]]:
    """The folder of an undisturbed run of a command, and how long that took."""
    made: dict[str, tuple[Path, float]] = {}

    def get(name: str) -> tuple[Path, float]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "whole"
            made[name] = folder, undisturbed(commands[name], folder)
        return made[name]

    return get


@pytest.mark.long
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name in NAMES for seed in SEEDS])
def test_killed_at_any_moment_the_same_command_ends_as_if_undisturbed(commands, whole, tmp_path, name, seed):
    kill_and_repeat(commands[name], *whole(name), tmp_path / "whole", 100 * NAMES.index(name) + seed)


@pytest.fixture
def small_disk(tmp_path) -> Callable[[int], Path]:
    """Makes a disk of some KiB. Skips where none may be mounted."""
    mounted = []

    def mount(kib: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        result = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], capture_output=True, text=True, check=False
        )
        if result.returncode:
            pytest.skip(f"needs to mount a small disk ({result.stderr.strip()})")
        mounted.append(place)
        return place

    try:
        yield mount
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_one_line(commands, whole, small_disk, name):
    """The disk holds half of what the command writes; then it is made larger, and the same command ends well."""
    command, (done, _) = commands[name], whole(name)
    sizes = {path: path.stat().st_size for path in done.rglob("*") if path.is_file()}
    new = sum(size for path, size in sizes.items() if name != "generate_base" or path.name.startswith("base"))
    room = sum(sizes.values()) - new // 2
    disk = small_disk(room // 1024)
    folder = disk / "whole"
    command.prepare(folder)
    result = command.run(folder, TMPDIR="/tmp", HOME="/tmp")
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    told = [line for line in lines if any(words in line for words in ("No space left", "is full", "free space"))]
    assert len(lines) == 1 and told, result.stderr
    assert_nothing_half(folder)
    subprocess.run(["mount", "-o", f"remount,size={4 * room // 1024 + 4096}k", disk], check=True)
    again = command.run(folder, TMPDIR="/tmp", HOME="/tmp")
    assert again.returncode == 0, again.stderr
    assert_nothing_stale(folder)
    assert contents(folder) == contents(done)
