"""Where nothing but the output can be written: no home, a read-only one, a read-only checkout, unreadable inputs."""

import ctypes
import os
import stat
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from aside import caches
from datasets.clips import load_clips
from engine import precision
from engine.prepared import FaceSettings, PreparedFace
from errors import InputError
from face.landmark_net import read_tflite
from media.audio import read_audio
from media.video import VideoReader, VideoWriter
from models.checkpoint import load_network, save_network
from models.config import HRConfig
from models.hr_decoder import HRDecoder

ROOT = Path(__file__).resolve().parent.parent
ROOMS = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
EVERYTHING = """
import importlib, pkgutil, sys
for room in {rooms!r}:
    for module in pkgutil.iter_modules([f"{root}/{{room}}"]):
        try:
            importlib.import_module(f"{{room}}.{{module.name}}")
        except ModuleNotFoundError as error:
            if error.name != "gradio":  # the page's, which is optional
                raise
for script in ("inference", "evaluate", "train_base", "train_hr", "train_syncnet", "workers"):
    importlib.import_module(script)
"""
NOBODY = """
import pwd, tempfile
def unknown(_):
    raise KeyError("no such user")
pwd.getpwuid = pwd.getpwnam = unknown
"""
"""A sitecustomize.py: a process whose user no list knows, as in a container that was started with -u."""
_DROP_BOUNDING, _OVERRIDES = 24, (1, 2)
"""prctl's PR_CAPBSET_DROP, and what lets root pass over the rights of files."""


def without_overrides() -> None:
    """In the child, before its program begins: rights of files hold for root too."""
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in _OVERRIDES:
            ctypes.CDLL(None).prctl(_DROP_BOUNDING, capability, 0, 0, 0)


def run(*command: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """A process without home and caches but those that are given."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    return subprocess.run(
        [sys.executable, "-B", *map(str, command)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**kept, **environment},
        preexec_fn=without_overrides,
    )


@pytest.fixture(scope="module")
def locked(tmp_path_factory) -> Path:
    """A folder that cannot be written. Skips where rights of files hold for nobody."""
    folder = tmp_path_factory.mktemp("locked")
    folder.chmod(0o555)
    if run("-c", f"open({str(folder / 'x')!r}, 'w')").returncode == 0:
        pytest.skip("rights of files do not hold here")
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The project in a folder that cannot be written."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("results", "runs"):
            (folder / path.name).symlink_to(path)
    (folder / "inference.py").unlink()
    (folder / "inference.py").write_bytes((ROOT / "inference.py").read_bytes())
    folder.chmod(0o555)
    return folder


@pytest.mark.parametrize("home", ["unset", "missing", "read-only"])
def test_everything_works_without_a_home(locked, checkout, talking_clip, tmp_path, home):
    """All modules are imported, --help is printed and, where anything is other than that, a clip is lip-synced."""
    environment = {"unset": {}, "missing": {"HOME": str(tmp_path / "nowhere")}, "read-only": {"HOME": str(locked)}}[
        home
    ]
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    output = tmp_path / "out.mp4"
    arguments = ["--face", talking_clip, "--audio", talking_clip, "--base-only", "--output", output]
    calls = [["inference.py", "--help"], ["inference.py", *map(str, arguments)]][: 1 if home == "missing" else 2]
    script = f"""{EVERYTHING.format(rooms=ROOMS, root=ROOT)}
import runpy
for sys.argv in {calls!r}:
    try:
        runpy.run_path({str(checkout / "inference.py")!r}, run_name="__main__")
    except SystemExit as end:
        assert not end.code, end.code
"""
    result = run("-c", script, cwd=locked, **environment)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and "--face" in result.stdout
    assert len(calls) == 1 or VideoReader(output).frame_count >= 50
    assert not list(locked.iterdir())


def test_a_read_only_checkout_says_so(locked, checkout):
    result = run(checkout / "inference.py", "--base-only", cwd=locked)
    assert result.returncode == 2
    told = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(told) == 1 and "results not writable" in told[0] and "Traceback" not in result.stderr


@pytest.mark.parametrize("what", ["--face", "--audio", "--base", "face"])
def test_an_unreadable_folder_is_one_line(locked, talking_clip, tmp_path, what):
    closed = tmp_path / "closed"
    closed.mkdir()
    inside = closed / {"--base": "x.safetensors", "face": "x.face"}.get(what, "x.mp4")
    inside.write_bytes(talking_clip.read_bytes())
    closed.chmod(0)
    arguments = {"--face": talking_clip, "--audio": talking_clip, "--output": tmp_path / "out.mp4"}
    arguments["--face" if what == "face" else what] = inside
    result = run(ROOT / "inference.py", "--base-only", *(word for pair in arguments.items() for word in pair))
    closed.chmod(0o755)
    assert result.returncode == 2, result.stderr
    told = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(told) == 1 and "closed" in told[0] and "Traceback" not in result.stderr, result.stderr
    assert "Permission denied" in told[0], told[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda path: VideoReader(path),
        lambda path: read_audio(path),
        lambda path: load_network(path),
        lambda path: load_clips(path, "train"),
        lambda path: VideoWriter(path.with_suffix(".mp4"), (64, 64), 25).__enter__(),
    ],
    ids=["video", "sound", "weights", "data set", "output"],
)
def test_what_may_not_be_looked_at_is_an_input_error(tmp_path, monkeypatch, read):
    """As the system says it of a file in a folder without rights, on any machine."""

    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("stat", "open", "touch", "mkdir"):
        monkeypatch.setattr(Path, name, denied)
    with pytest.raises(InputError, match="Permission denied"):
        read(tmp_path / "file.safetensors")


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"a": 1}', '{"a": [1]}', "[" * 100_000])
def test_a_cache_of_something_else_is_none(tmp_path, monkeypatch, measurings, content):
    monkeypatch.setattr(precision, "CACHE", tmp_path / "precision.json")
    precision.CACHE.write_text(content)
    first, again = measurings()
    assert first > 0 == again


def test_without_any_place_for_a_cache_nothing_is_kept(monkeypatch, measurings):
    def nowhere():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    monkeypatch.setattr(precision, "CACHE", caches() / "precision.json")
    first, again = measurings()
    assert first == again > 0


def test_without_any_place_for_temporary_files_it_is_one_line(monkeypatch):
    def nowhere(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    with pytest.raises(InputError, match="found no folder for temporary files .No usable.*set TMPDIR"):
        read_tflite()


@pytest.mark.parametrize(("umask", "rights"), [(0o027, 0o640), (0o002, 0o664)])
def test_files_have_the_rights_that_the_umask_gives(tmp_path, umask, rights):
    (tmp_path / "a.mp4").touch()
    before = os.umask(umask)
    try:
        one_frame(tmp_path / "a.mp4").save(tmp_path / "a.face")
        save_network(tmp_path / "a.safetensors", HRDecoder(HRConfig(scale=1, width=8)))
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.face", "a.safetensors")] == [rights] * 2


def one_frame(video: Path) -> PreparedFace:
    """A prepared face of one frame."""
    settings = FaceSettings("template", "closed", 0, 128, 1, "none")
    arrays = np.zeros((1, 2, 3)), np.zeros(1, np.int64), np.zeros((1, 1, 128, 128, 3), np.uint8)
    pictures = np.ones((1, 1, 1), np.float32), np.zeros((1, 128, 128, 3), np.uint8), np.zeros(1, np.int64)
    return PreparedFace(video, settings, [Fraction(0)], *arrays, *pictures)


def test_a_prepared_face_that_cannot_be_kept_is_an_input_error(tmp_path, monkeypatch):
    """Where the folder may not be looked into, not even the half-written file can be removed."""
    (tmp_path / "a.mp4").touch()
    face = one_frame(tmp_path / "a.mp4")

    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    for name in ("mkdir", "unlink"):
        monkeypatch.setattr(Path, name, denied)
    with pytest.raises(InputError, match="cannot be written .*Permission denied"):
        face.save(tmp_path / "a.face")
