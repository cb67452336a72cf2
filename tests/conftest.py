"""What several test files need: the folder of shared data, and a small talking clip made on the spot."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from media.audio import SAMPLE_RATE
from media.video import VideoWriter
from models.checkpoint import save_network
from models.hyperlips import HyperLipsBase

ROOT = Path(__file__).resolve().parent.parent
FPS = Fraction(25)
SIZE = 360, 288
_CORNER, _ZOOM = np.array([100, 10]), 1.44  # of the astronaut's picture: her face becomes 130 px wide
_MOUTH_X, _UPPER_LIP, _LOWER_LIP, _BELOW_CHIN = 179, 187, 201, 262  # px of the clip
_DROP = 12  # px the lower lip moves


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data (HYPERLIPS_SHARED, or beside the project); the test is skipped without it."""
    folder = Path(os.environ.get("HYPERLIPS_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data in {folder} (or set HYPERLIPS_SHARED)")
    return folder


@pytest.fixture(scope="session")
def talking_clip(tmp_path_factory) -> Path:
    """2 s at 25 fps, 360x288: a face whose mouth opens with a voice in the sound, while the head moves a little."""
    path = tmp_path_factory.mktemp("clip") / "talking.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(2), SAMPLE_RATE)) as writer:
        for index in range(50):
            writer.write(talking_face((index + 0.5) / 25))
    return path


@pytest.fixture(scope="session")
def data_set(talking_clip, tmp_path_factory) -> Path:
    """A data set of the talking clip, extracted by the real command into both splits (crops of 128 px)."""
    videos, data = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        (videos / split).mkdir()
        (videos / split / "clip.mp4").symlink_to(talking_clip)
        subprocess.run(
            [
                sys.executable,
                "-m",
                "preprocess.extract_clips",
                "--videos",
                videos / split,
                "--output",
                data,
                "--size",
                "128",
                "--split",
                split,
                "--person",
                "=astronaut",
                "--workers",
                "1",
            ],
            cwd=ROOT,
            check=True,
        )
    return data


@pytest.fixture(scope="session")
def painted(data_set, tmp_path_factory) -> Path:
    """The data set with stage-1 faces, painted by an untrained network of the shipped shape."""
    checkpoint = tmp_path_factory.mktemp("untrained") / "base.safetensors"
    save_network(checkpoint, HyperLipsBase())
    subprocess.run(
        [sys.executable, "-m", "preprocess.generate_base", "--checkpoint", checkpoint, "--data", data_set],
        cwd=ROOT,
        check=True,
    )
    return data_set


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
