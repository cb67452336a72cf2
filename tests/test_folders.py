"""Folders of faces and sounds."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import voice

from engine import folders
from engine.folders import Pair, plan
from engine.options import InferenceConfig
from engine.report import Report
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
    faces = touch(tmp_path / "f", "a.mp4", "b.face", "notes.txt", "._a.mp4")
    sounds = touch(tmp_path / "s", "a.wav", "b.mp4")
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
    with pytest.raises(InputError, match=r"several files of one name \(a.mov\)"):
        plan(touch(tmp_path / "t", "a.mp4", "a.mov"), sounds, tmp_path / "o")
    with pytest.raises(InputError, match="found no sound in"):
        plan(faces, touch(tmp_path / "e", "a.txt"), tmp_path / "o")


def test_videos_are_not_made_among_the_sources(tmp_path):
    faces, sounds = touch(tmp_path / "f", "a.mov", "b.mov"), touch(tmp_path / "s", "a.wav", "b.wav")
    for face, sound, output in ((faces, sounds, faces), (faces / "a.mov", sounds, tmp_path / "f" / ".." / "s")):
        with pytest.raises(InputError, match="holds the sources, expected another folder"):
            plan(face, sound, output)


def test_a_source_is_never_taken_for_a_video_that_is_there(tmp_path):
    faces, sounds = touch(tmp_path / "f", "a.mp4", "b.mp4"), touch(tmp_path / "s", "b.wav")
    with pytest.raises(InputError, match=r"f/b.mp4 would be made, and is a source itself"):
        plan(faces / "b.mp4", sounds, faces)


def test_one_failure_ends_nothing_and_a_rerun_makes_what_is_missing(tmp_path, talking_clip):
    sounds, output = tmp_path / "sounds", tmp_path / "made"
    sounds.mkdir()
    write_flac(sounds / "good.flac", voice(0.4))
    (sounds / "broken.wav").write_text("no sound")

    def run() -> tuple[int, list[str]]:
        """The exit code, and the table at the end with its columns one space apart."""
        command = [sys.executable, ROOT / "inference.py", "--base-only", "--face", talking_clip, "--audio", sounds]
        done = subprocess.run(
            [*map(str, command), "--output", str(output)], capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, [" ".join(line.split()) for line in done.stdout.partition("\n\n")[2].splitlines()]

    code, (head, broken, good, counts) = run()
    assert (code, head, counts) == (
        1,
        "output frames seconds what happened",
        "2 pairs: 1 made, 0 already there, 1 failed",
    )
    assert re.fullmatch(rf"{output}/broken.mp4 0 \d+.\d failed: found no readable video, .* or convert it", broken)
    assert re.fullmatch(rf"{output}/good.mp4 10 \d+.\d made", good)
    assert len(list(VideoReader(output / "good.mp4"))) == 10 and not (output / "broken.mp4").exists()

    (sounds / "broken.wav").unlink()
    assert run() == (0, [head, f"{output}/good.mp4 10 0.0 already there", "1 pairs: 0 made, 1 already there, 0 failed"])

    later = time.time() + 60
    os.utime(sounds / "good.flac", (later, later))
    write_flac(sounds / "odd.flac", voice(0.4))
    (output / "odd.mp4").write_bytes(b"")
    code, (_, changed, odd, counts) = run()
    assert code == 1 and counts == "2 pairs: 0 made, 1 already there, 1 failed"
    assert f"already there: {sounds}/good.flac changed since; remove the video" in changed
    assert "failed: it is there, but no video" in odd


def test_a_face_is_tracked_once_and_one_that_cannot_be_is_looked_at_once(tmp_path, monkeypatch):
    faces = touch(tmp_path / "f", "a.mp4", "b.mp4")
    looked: list[str] = []

    class Engine:
        def __init__(self, config: InferenceConfig):
            pass

        def prepare(self, face: Path, watch: object) -> str:
            looked.append(face.name)
            if face.name == "b.mp4":
                raise InputError("no face\nin it")
            return "a face"

    monkeypatch.setattr(folders, "LipSync", Engine)
    monkeypatch.setattr(folders, "lip_sync", lambda *given, **named: Report(frames=7))
    pairs = [Pair(face, Path(name), tmp_path / f"{face.stem}{name}.mp4") for face in faces.iterdir() for name in "xyz"]
    outcomes = list(folders.speak(sorted(pairs, key=str), InferenceConfig()))
    assert looked == ["a.mp4", "b.mp4"]
    assert [str(outcome) for outcome in outcomes] == ["made"] * 3 + ["failed: no face in it"] * 3
