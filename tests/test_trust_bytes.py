"""Files with bytes changed at random are read or refused: nothing else comes of them, in bounded memory and time.

    python tests/test_trust_bytes.py KIND FOLDER COUNT [FIRST]   as the tests do it, in this process

One process reads all files of a kind; anything but an InputError, a crash or a hang ends it at that file.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {"video": ".mp4", "sound": ".wav", "photo": ".jpg", "weights": ".safetensors", "face": ".face"}
MEMORY = 4 << 30
SECONDS = 20
COUNTS = [40, pytest.param(2000, marks=pytest.mark.long)]


def readers() -> dict[str, Callable[[Path], object]]:
    from engine.prepared import PreparedFace
    from media.audio import read_audio
    from media.video import VideoReader
    from models.checkpoint import load_network

    def look(path: Path) -> None:
        for frame in VideoReader(path):
            frame.rgb()

    return {"video": look, "photo": look, "sound": read_audio, "weights": load_network, "face": PreparedFace.load}


def mutated(data: bytes, number: int) -> bytes:
    """The same change for the same number: values, stretches gone, doubled, filled or cut off, lengths made huge."""
    rng = np.random.default_rng(number)
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        # Half of them near the beginning, where headers are.
        end = len(changed) if rng.integers(2) else min(len(changed), 400)
        place = int(rng.integers(end))
        length = int(rng.integers(1, 64))
        way = rng.integers(7)
        if way == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif way == 1:
            changed[place] = int(rng.integers(256))
        elif way == 2:
            changed[place : place + length] = rng.bytes(min(length, len(changed) - place))
        elif way == 3:
            del changed[place : place + length]
        elif way == 4:
            changed[place:place] = changed[place : place + length]
        elif way == 5:
            extreme = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00")
            changed[place : place + 4] = extreme[int(rng.integers(4))][: len(changed) - place]
        elif len(changed) > 100:
            del changed[int(rng.integers(50, len(changed))) :]
    return bytes(changed)


def work(kind: str, folder: Path, count: int, first: int) -> None:
    """Read `count` changed copies of the file original.* in `folder`, printing each number and what came of it."""
    from errors import InputError

    original = folder / f"original{SUFFIXES[kind]}"
    read, data, path = readers()[kind], original.read_bytes(), folder / f"changed{SUFFIXES[kind]}"
    read(original)  # all modules are loaded by then
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    there = sorted([*os.listdir(folder), path.name])
    for number in range(first, first + count):
        path.write_bytes(mutated(data, number))
        print(number, end=" ", flush=True)
        signal.alarm(SECONDS)  # its default action ends the process, whatever it is in
        try:
            read(path)
            print("read", flush=True)
        except InputError as error:
            assert str(error) and "\n" not in str(error).strip(), repr(str(error))
            print("refused", flush=True)
        signal.alarm(0)
        assert sorted(os.listdir(folder)) == there, "a file was left"


@pytest.fixture(scope="module")
def originals(tmp_path_factory, talking_clip) -> dict[str, Path]:
    """A folder for each kind, with a small file of it."""
    import cv2
    import torch

    from engine.prepared import FaceSettings, PreparedFace
    from media.video import VideoWriter
    from models.checkpoint import save_network
    from models.config import HRConfig
    from models.hr_decoder import HRDecoder

    folders = {kind: tmp_path_factory.mktemp(kind) for kind in SUFFIXES}
    paths = {kind: folder / f"original{SUFFIXES[kind]}" for kind, folder in folders.items()}
    wave = (0.3 * np.sin(np.arange(8000) / 9)).astype(np.float32)
    rng = np.random.default_rng(0)
    pictures = [cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (96, 64)) for _ in range(12)]
    with VideoWriter(paths["video"], (96, 64), Fraction(25), audio=(wave, 16000)) as writer:
        for picture in pictures:
            writer.write(picture)
    write_wave(paths["sound"], wave)
    cv2.imwrite(str(paths["photo"]), pictures[0])
    torch.manual_seed(0)
    save_network(paths["weights"], HRDecoder(HRConfig(scale=1, width=4)))
    video = shutil.copy(paths["video"], folders["face"] / "me.mp4")
    settings = FaceSettings("template", "closed", 0, 8, 1, "none")
    arrays = np.zeros((12, 2, 3)), np.zeros(12, np.int64), np.zeros((1, 1, 128, 128, 3), np.uint8)
    pictures = np.ones((12, 1, 1), np.float32), np.zeros((1, 8, 8, 3), np.uint8), np.zeros(12, np.int64)
    times = [Fraction(index, 25) for index in range(12)]
    PreparedFace(Path(video), settings, times, *arrays, *pictures).save(paths["face"])
    return folders


def write_wave(path: Path, samples: np.ndarray) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", SUFFIXES)
def test_changed_files_are_read_or_refused(originals, kind, count):
    command = [sys.executable, __file__, kind, originals[kind], count]
    result = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60 + SECONDS * count,
        check=False,
    )
    lines = result.stdout.splitlines()
    last = lines[-1] if lines else "none"
    assert result.returncode == 0, f"exit {result.returncode} at file {last}: {result.stderr[-2000:]}"
    assert len(lines) == count and (kind == "sound" or any(line.endswith("refused") for line in lines))


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), *map(int, [*sys.argv[3:], 0][:2]))
