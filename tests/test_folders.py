"""Folders of faces and sounds."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import voice

from engine.folders import plan
from errors import InputError
from media.audio import write_flac
from media.video import VideoReader

ROOT = Path(__file__).resolve().parent.parent


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_pairs_by_name_or_with_the_one_that_is_a_file(tmp_path):
    faces, sounds = touch(tmp_path / "f", "a.mp4", "b.face", "notes.txt"), touch(tmp_path / "s", "a.wav", "b.mp4")
    by_name = plan(faces, sounds, tmp_path / "o")
    assert [(pair.face.name, pair.audio.name, pair.output.name) for pair in by_name] == [
        ("a.mp4", "a.wav", "a.mp4"),
        ("b.face", "b.mp4", "b.mp4"),
    ]
    one_face = plan(faces / "a.mp4", sounds, tmp_path / "o")
    assert [(pair.face.name, pair.output.name) for pair in one_face] == [("a.mp4", "a.mp4"), ("a.mp4", "b.mp4")]
    one_sound = plan(faces, sounds / "b.mp4", tmp_path / "o")
    assert [(pair.audio.name, pair.output.name) for pair in one_sound] == [("b.mp4", "a.mp4"), ("b.mp4", "b.mp4")]


def test_names_without_a_partner_and_names_that_stand_twice_are_told(tmp_path):
    faces, sounds = touch(tmp_path / "f", "a.mp4", "b.mp4"), touch(tmp_path / "s", "a.wav", "c.wav")
    with pytest.raises(InputError, match="in one of them only: b, c"):
        plan(faces, sounds, tmp_path / "o")
    with pytest.raises(InputError, match="several files of one name"):
        plan(touch(tmp_path / "t", "a.mp4", "a.mov"), sounds, tmp_path / "o")
    with pytest.raises(InputError, match="found no sound in"):
        plan(faces, touch(tmp_path / "e", "a.txt"), tmp_path / "o")


def test_one_failure_ends_nothing_and_a_rerun_makes_what_is_missing(tmp_path, talking_clip):
    sounds, output = tmp_path / "sounds", tmp_path / "made"
    sounds.mkdir()
    write_flac(sounds / "good.flac", voice(0.4))
    (sounds / "broken.wav").write_text("no sound")

    def run() -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "inference.py", "--base-only", "--face", talking_clip, "--audio", sounds]
        done = subprocess.run(
            [*map(str, command), "--output", str(output)], capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    first = run()
    assert first.returncode == 1 and "1 done, 0 skipped, 1 failed" in first.stdout
    assert len(list(VideoReader(output / "good.mp4"))) == 10 and not (output / "broken.mp4").exists()
    (sounds / "broken.wav").unlink()
    again = run()
    assert again.returncode == 0 and "0 done, 1 skipped, 0 failed" in again.stdout
