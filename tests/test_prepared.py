"""A face prepared once: kept in one file, bound to its video, speaking several sounds as if it were tracked anew."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import inference
from engine.options import InferenceConfig, is_prepared
from engine.pipeline import LipSync, lip_sync
from engine.prepared import PreparedFace
from errors import InputError
from media.audio import read_audio
from media.video import VideoReader

ROOT = Path(__file__).resolve().parent.parent
CONFIG = InferenceConfig(hr=None, precision="float32")


@pytest.fixture(scope="module")
def engine() -> LipSync:
    return LipSync(CONFIG)


@pytest.fixture(scope="module")
def prepared(engine, talking_clip) -> PreparedFace:
    return engine.prepare(talking_clip)


def frames(drive) -> np.ndarray:
    return np.stack([frame.planes[0] for frame, _ in drive])


def test_a_kept_face_is_the_same_face(engine, prepared, talking_clip, tmp_path):
    video = shutil.copy(talking_clip, tmp_path)
    again = engine.prepare(video)
    again.save(tmp_path / "me.face")
    loaded = PreparedFace.load(tmp_path / "me.face")
    assert loaded.times == prepared.times and loaded.settings == prepared.settings
    for name in ("transforms", "shot", "references", "shares", "portraits", "portrait_shown"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(prepared, name))
    # Folder and all may move.
    (tmp_path / "there").mkdir()
    for name in (Path(video).name, "me.face"):
        shutil.move(tmp_path / name, tmp_path / "there")
    assert PreparedFace.load(tmp_path / "there" / "me.face").video.parent.name == "there"


def test_a_video_whose_name_is_no_utf_8_is_found_again(prepared, talking_clip, tmp_path):
    try:
        video = Path(shutil.copy(talking_clip, tmp_path / "caf\udce9.mp4"))
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    replace(prepared, video=video).save(tmp_path / "me.face")
    assert PreparedFace.load(tmp_path / "me.face").video == video
    video.unlink()
    with pytest.raises(InputError, match="which is gone"):
        PreparedFace.load(tmp_path / "me.face")


def test_several_sounds_for_one_face_and_no_memory_between_them(engine, prepared, talking_clip):
    wave = read_audio(talking_clip)
    first = frames(engine.drive(prepared, wave))
    silent = engine.drive(prepared, np.zeros_like(wave))
    assert np.abs(first.astype(int) - frames(silent)).max() > 8
    np.testing.assert_array_equal(frames(engine.drive(prepared, talking_clip)), first)
    assert silent.report.frames == len(first) and "track" not in silent.report.seconds


def test_a_video_never_takes_the_place_of_what_it_is_made_from(engine, prepared, talking_clip, tmp_path):
    video = Path(shutil.copy(talking_clip, tmp_path))
    for face, sound in (
        (replace(prepared, video=video), np.zeros(16000, np.float32)),
        (video, np.zeros(16000, np.float32)),
        (talking_clip, video),
    ):
        with pytest.raises(InputError, match="is a source itself"):
            lip_sync(face, sound, video, engine=engine)
    assert video.read_bytes() == talking_clip.read_bytes() and list(tmp_path.iterdir()) == [video]


def test_only_what_was_shown_is_told_of(engine, prepared):
    transforms = prepared.transforms.copy()
    transforms[5:10] = transforms[40:] = np.nan  # as if no face were seen
    drive = engine.drive(replace(prepared, transforms=transforms), np.zeros(8 * 640, np.float32))
    assert len(frames(drive)) == 8 and drive.report.passed == [(0.2, 0.32)] and drive.report.untouched == 3


@pytest.mark.parametrize(
    "sound", [np.zeros(0, np.float32), np.zeros((16000, 2), np.float32), np.zeros(16000, np.int16)]
)
def test_a_sound_that_cannot_be_heard_is_refused_before_the_face_is_tracked(engine, talking_clip, tmp_path, sound):
    def watch(items, what, count):
        raise AssertionError(what)

    with pytest.raises(InputError, match="found a sound of"):
        lip_sync(talking_clip, sound, tmp_path / "out.mp4", engine=engine, watch=watch)
    assert not list(tmp_path.iterdir())


def test_a_prepared_face_that_cannot_be_written_is_told_before_tracking(talking_clip, tmp_path, monkeypatch):
    (tmp_path / "folder.face").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(LipSync, "__init__", lambda *_: pytest.fail("networks are loaded"))
    for target, message in (("folder.face", "found a folder at"), ("file/me.face", "file not writable")):
        monkeypatch.setattr(sys, "argv", ["i", "--face", str(talking_clip), "--prepare", str(tmp_path / target)])
        with pytest.raises(InputError, match=message):
            inference.main()


def test_a_prepared_face_is_known_by_its_suffix_in_any_case(monkeypatch):
    assert is_prepared("me.FACE") and not is_prepared("face")
    monkeypatch.setattr(sys, "argv", ["i", "--face", "me.Face", "--prepare", "you.face"])
    with pytest.raises(InputError, match="no prepared one"):
        inference.check_arguments(inference.parse_arguments())


def test_a_face_prepared_for_other_weights_is_refused(prepared):
    with pytest.raises(InputError, match=r"prepared with size 128 \(wanted 256\); give the options"):
        LipSync(InferenceConfig(precision="float32")).drive(prepared, np.zeros(16000, np.float32))


def test_a_face_without_its_video_or_with_another_is_refused(engine, talking_clip, tmp_path):
    video, face = Path(shutil.copy(talking_clip, tmp_path)), tmp_path / "me.face"
    engine.prepare(video).save(face)
    video.write_bytes(video.read_bytes() + b"x")
    with pytest.raises(InputError, match="is not the video that .*me.face was prepared from"):
        PreparedFace.load(face)
    video.unlink()
    with pytest.raises(InputError, match="which is gone"):
        PreparedFace.load(face)


@pytest.mark.parametrize("damage", ["text", "weights", "cut", "shapes", "settings"])
def test_what_is_no_prepared_face_is_refused(engine, prepared, tmp_path, damage):
    face = tmp_path / "me.face"
    prepared.save(face)
    whole = face.read_bytes()
    if damage == "text":
        face.write_text("a face")
    elif damage == "weights":
        shutil.copy(ROOT / "checkpoints" / "hr_light_256.safetensors", face)
    elif damage == "cut":
        face.write_bytes(whole[: len(whole) // 2])
    else:
        with safetensors.safe_open(str(face), "np") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if damage == "shapes":
            tensors["shot"] = tensors["shot"][:-1]
        else:
            metadata["settings"] = '{"crop": "template"}'
        safetensors.numpy.save_file(tensors, face, metadata)
    with pytest.raises(InputError, match="me.face is (no prepared face|damaged)"):
        PreparedFace.load(face)


def test_from_the_command_line(tmp_path, talking_clip):
    def run(*arguments: object) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "inference.py", "--base-only", *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, check=False)

    face, output = tmp_path / "me.face", tmp_path / "out.mp4"
    assert run("--face", talking_clip, "--prepare", face).returncode == 0
    made = run("--face", face, "--audio", talking_clip, "--output", output)
    assert made.returncode == 0, made.stderr
    assert len(list(VideoReader(output))) == -(-len(read_audio(talking_clip)) * 25 // 16000)
    wrong = run("--face", talking_clip, "--prepare", tmp_path / "me.mp4")
    assert wrong.returncode == 2 and "expected a name that ends in .face" in wrong.stderr
    assert run("--face", talking_clip, "--prepare", face, "--audio", talking_clip).returncode == 2
