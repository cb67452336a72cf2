"""Files that mean harm: nothing in them is run, leads outside its folder, or is believed of its size."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from test_training import tiny

from datasets.clips import ClipInfo, load_clips, read_index
from digest import file_digest
from engine.config import load_config
from engine.options import InferenceConfig
from engine.prepared import FaceSettings, PreparedFace
from engine.state import RunState
from engine.train_base import train
from errors import InputError
from media.video import VideoReader
from models.checkpoint import load_network, read_metadata

ROOT = Path(__file__).resolve().parent.parent
HUGE = 60000


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def pickled(path: Path, mark: Path, how: str) -> Path:
    state = {"state_dict": {"weight": torch.zeros(1)}, "step": 1, "harm": Harm(mark)}
    if how == "zip":
        torch.save(state, path)
    elif how == "old":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    return path


HOWS = ["zip", "old", "pickle"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ""])
def test_weights_are_not_run(tmp_path, how, suffix):
    path, mark = pickled(tmp_path / f"net{suffix}", tmp_path / "mark", how), tmp_path / "mark"
    blocked = suffix in (".pth", ".pt") and how != "old"
    with pytest.raises(InputError, match="holds objects that run code" if blocked else "net"):
        load_network(path)
    assert not mark.exists()
    with path.open("rb") as file:  # the file does harm where it is trusted
        torch.load(file, weights_only=False) if suffix in (".pth", ".pt") and how != "pickle" else None
    assert mark.exists() == (suffix in (".pth", ".pt") and how != "pickle")


def test_inference_does_not_run_them(tmp_path, talking_clip):
    path = pickled(tmp_path / "net.pth", tmp_path / "mark", "zip")
    command = ["--face", talking_clip, "--audio", talking_clip, "--output", tmp_path / "out.mp4", "--base", path]
    result = subprocess.run(
        [sys.executable, "inference.py", *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2 and result.stderr.startswith("error:") and result.stderr.count("\n") == 1
    assert "run code on loading" in result.stderr and os.listdir(tmp_path) == [path.name]


def test_training_does_not_run_them(tmp_path, data_set):
    """From --init, and where a run goes on."""
    mark, quick = tmp_path / "mark", ["audio_pretrain.steps=0", "run.steps=1"]
    with pytest.raises(InputError, match="run code on loading"):
        train(tiny(data_set, tmp_path / "runs", *quick), pickled(tmp_path / "net.pth", mark, "zip"))
    folder = tmp_path / "begun" / "tiny" / "checkpoints"
    folder.mkdir(parents=True)
    pickled(folder / "step_00000001.pt", mark, "zip")
    with pytest.raises(InputError, match="is damaged"):
        train(tiny(data_set, tmp_path / "begun", *quick))
    assert not mark.exists()


@pytest.mark.parametrize("how", HOWS)
def test_a_checkpoint_of_a_run_is_not_run(tmp_path, how):
    with pytest.raises(InputError, match="is damaged"):
        RunState(tmp_path, 1).read(pickled(tmp_path / "step_00000001.pt", tmp_path / "mark", how))
    assert not (tmp_path / "mark").exists()


ROW = {
    "id": "a",
    "split": "train",
    "source": "a.mp4",
    "fps": 25,
    "frames": 50,
    "size": 128,
    "person": "p",
    "seconds": 2.0,
    "sha256": "0",
    "face_px": 100.0,
}
OUTSIDE = ["../../x", "/x", "..", ".", "", "a/b", "a\\..\\b", "a\0b", "x/../../y"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_clips_lie_in_their_data_set(tmp_path, name):
    """A clip folder outside, whole in itself, is not reached by an id of the index."""
    data = tmp_path / "data"
    for folder in (tmp_path / "x", data / "clips" / "a" / "b", data / "clips"):
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("faces.zip", "track.npz", "mel.npy", "whisper.npy"):
            (folder / file).touch()
    (data / "index.jsonl").write_text(json.dumps({**ROW, "id": name}) + "\n")
    with pytest.raises(InputError, match="id"):
        load_clips(data, "train")
    with pytest.raises(ValueError, match="id"):
        ClipInfo(**{**ROW, "id": name})


def read_index_of(data: Path, row: dict) -> list:
    data.mkdir(exist_ok=True)
    (data / "index.jsonl").write_text(json.dumps(row) + "\n")
    return read_index(data)


@pytest.mark.parametrize("name", ["a", "a-01", "s1 bbaf2n", "张伟", "..a", "a..b", ".a"])
def test_plain_names_are_ids(tmp_path, name):
    assert read_index_of(tmp_path, {**ROW, "id": name})[0].id == name


def write_face(path: Path, video: str, digest: str, **changes: np.ndarray) -> Path:
    settings = FaceSettings("box", "closed", 0, 128, 1, "none")
    tensors = {
        "times": np.array([(0, 1)], np.int64),
        "transforms": np.zeros((1, 2, 3)),
        "shot": np.zeros(1, np.int64),
        "references": np.zeros((1, 1, 128, 128, 3), np.uint8),
        "shares": np.ones((1, 1, 1), np.float32),
        "portraits": np.zeros((1, 128, 128, 3), np.uint8),
        "portrait_shown": np.zeros(1, np.int64),
    }
    details = {"prepared_face": "3", "video": video, "sha256": digest}
    safetensors.numpy.save_file({**tensors, **changes}, path, {**details, "settings": json.dumps(vars(settings))})
    return path


def test_a_prepared_face_opens_only_the_video_it_was_made_of(tmp_path, talking_clip):
    """Its video may lie anywhere, but is that very file: no folder, pipe or device, and nothing else that is there."""
    (tmp_path / "in").mkdir()
    secret, pipe = tmp_path / "secret.txt", tmp_path / "pipe.mp4"
    secret.write_text("secret")
    os.mkfifo(pipe)
    face = tmp_path / "in" / "me.face"
    for video, words in (
        ("../secret.txt", "is not the video"),
        (str(secret), "is not the video"),
        ("../pipe.mp4", "is gone"),
        ("/dev/zero", "is gone"),
        ("..", "is gone"),
        ("../../../../../../../../dev/stdin", "is gone"),
        ("a\0b", "is gone"),
    ):
        with pytest.raises(InputError, match=words):
            PreparedFace.load(write_face(face, video, "0" * 64))
    loaded = PreparedFace.load(write_face(face, "../secret.txt", file_digest(secret)))
    with pytest.raises(InputError, match="secret.txt"):  # it can only be read as a video
        VideoReader(loaded.video)
    shutil.copy(talking_clip, tmp_path / "me.mp4")
    loaded = PreparedFace.load(write_face(face, "../me.mp4", file_digest(talking_clip)))
    assert VideoReader(loaded.video).frame_count == 50


@pytest.mark.parametrize(
    "changes",
    [
        {"times": np.array([(np.inf, 1.0)])},
        {"times": np.array([(0, 0)], np.int64)},
        {"times": np.array([(1, 1), (0, 1)], np.int64), "transforms": np.zeros((2, 2, 3)), "shot": np.zeros(2, int)},
        {"transforms": np.zeros((1, 2, 3), np.int64)},
        {"shot": np.zeros(1)},
        {"shares": np.ones((1, 2, 1), np.float32)},
        {"portrait_shown": np.ones(1, np.int64)},
    ],
)
def test_a_prepared_face_of_odd_values_is_refused(tmp_path, changes):
    (tmp_path / "a.mp4").touch()
    digest = file_digest(tmp_path / "a.mp4")
    PreparedFace.load(write_face(tmp_path / "fine.face", "a.mp4", digest))
    with pytest.raises(InputError, match="me.face is (no prepared face|damaged)"):
        PreparedFace.load(write_face(tmp_path / "me.face", "a.mp4", digest, **changes))


@pytest.mark.parametrize("content", [b"one\n", b"\xff\xfe\n"])
def test_a_list_of_digests_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "SHA256SUMS").write_bytes(content)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(InputError, match="SHA256SUMS cannot be read"):
        load_network(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_no_sources(tmp_path, kind):
    path = tmp_path / "a.mp4"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="found a pipe or a device"):
        VideoReader(path)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "crf: !!python/object/apply:os.system ['touch {mark}']",
        "crf: !!python/name:os.system",
        "face: !!python/object/new:os.system ['touch {mark}']",
    ],
)
def test_yaml_builds_no_objects(tmp_path, text):
    path, mark = tmp_path / "a.yaml", tmp_path / "mark"
    path.write_text(text.format(mark=mark))
    with pytest.raises(InputError):
        load_config(InferenceConfig, path)
    with pytest.raises(InputError):
        load_config(InferenceConfig, None, ["crf=" + text.rpartition(": ")[2].format(mark=mark)])
    assert not mark.exists()


@pytest.mark.parametrize(
    "header, length",
    [
        ({"a": {"dtype": "F32", "shape": [10**15], "data_offsets": [0, 4 * 10**15]}}, None),
        ({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 0]}}, None),
        ({}, 2**63),
        ({}, 10**12),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, None),
    ],
)
def test_safetensors_are_not_believed_their_size(tmp_path, header, length):
    text = json.dumps(header).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + bytes(64))
    for read in (load_network, read_metadata, PreparedFace.load):
        with pytest.raises(InputError) as refused:
            read(path)
        assert "\n" not in str(refused.value)


def png(width: int, height: int) -> bytes:
    """That says it is that large."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    tables = b"\xff\xdb\x00\x43\x00" + b"\x01" * 64
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(100)
    return b"\xff\xd8" + tables + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + scan + b"\xff\xd9"


@pytest.mark.parametrize("name, data", [("a.png", png(HUGE, HUGE)), ("a.jpg", jpeg(HUGE, HUGE))], ids=["png", "jpg"])
def test_a_huge_picture_is_refused_before_it_is_allocated(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    script = f"""
import resource, sys
from benchmarks.memory import peak_mib
from errors import InputError
from media.video import VideoReader
if sys.platform == "linux":
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
before = peak_mib()
try:
    list(VideoReader({str(tmp_path / name)!r}))
except InputError as error:
    print(error, peak_mib() - before)
"""
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "60000x60000" in result.stdout, result.stderr
    assert float(result.stdout.split()[-1]) < 64  # MiB
