"""The extraction command on real bytes: layout, restart, trees of known data sets, offsets, shards, and what is
rejected.
"""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import FORKED, FPS, ROOT, SIZE, extract, run_here, talking_face, voice

from datasets.clips import load_clips, merge_index
from engine.lock import turn
from face.sketch import draw_sketch
from media.audio import SAMPLE_RATE, read_audio
from media.video import VideoReader, VideoWriter
from models.checkpoint import save_network
from models.hyperlips import HyperLipsBase
from preprocess import extraction
from preprocess.extract_clips import main as extract_clips
from preprocess.extraction import Piece, _crops, _Walk
from preprocess.generate_base import main as generate_base
from preprocess.jobs import Job, Settings, clips_by_source
from preprocess.sources import Source


@pytest.fixture(scope="module")
def second(tmp_path_factory) -> Path:
    """A talking clip of 1.2 s."""
    path = tmp_path_factory.mktemp("second") / "second.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(1.2), SAMPLE_RATE)) as writer:
        for index in range(30):
            writer.write(talking_face(index / 25))
    return path


@pytest.fixture
def extract_here(monkeypatch, capfd) -> Callable[..., str]:
    """Runs the extraction command from this process, for crops of 128 px; returns what it printed."""

    def run(*arguments: object) -> str:
        assert run_here(monkeypatch, extract_clips, "--workers", 1, "--size", 128, *arguments) == 0
        return "".join(capfd.readouterr())

    return run


def test_a_clip_holds_what_the_layout_promises(data_set):
    (clip,) = load_clips(data_set, "train")
    info = clip.info
    assert (info.frames, info.fps, info.size, info.person) == (50, 25, 128, "astronaut")
    assert clip.faces([0, 49]).shape == (2, 128, 128, 3)
    assert clip.landmarks.shape == (50, 478, 2)
    track = np.load(clip.folder / "track.npz")
    assert track["transforms"].shape == (50, 2, 3) and track["visible"].all()
    assert clip.features("mel").shape == (161, 80)
    assert clip.features("whisper").shape == (100 + 75, 384)
    assert len(read_audio(clip.folder / "audio.flac")) == 32000
    assert 150 < info.face_px < 300
    eyes = clip.landmarks[:, [33, 133]].mean((0, 1)), clip.landmarks[:, [263, 362]].mean((0, 1))
    assert np.allclose(eyes, [(48, 48.6), (80, 48.6)], atol=4)
    assert draw_sketch(clip.landmarks[0]).max() == 255


def test_the_crop_does_not_move_with_the_mouth(data_set):
    (clip,) = load_clips(data_set, "train")
    gap = np.linalg.norm(clip.landmarks[:, 13] - clip.landmarks[:, 14], axis=1)
    nose = clip.landmarks[:, [6, 197, 195, 5]].mean(1)
    assert gap.max() - gap.min() > 2
    assert nose.std(0).max() < 0.7


def test_a_second_run_extracts_nothing_again(second, extract_here, tmp_path):
    videos, data = tmp_path / "videos", tmp_path / "data"
    videos.mkdir()
    (videos / "clip.mp4").symlink_to(second)
    arguments = "--videos", videos, "--output", data
    extract_here(*arguments)
    before = {path: path.stat().st_mtime_ns for path in data.glob("clips/*/*")}
    assert before
    assert "another" not in extract_here(*arguments)
    said = extract_here(*arguments, "--size", 256, "--min-face", 40.0)
    assert "videos/clip.mp4: read before with another --size, and left as it was" in said
    assert {path: path.stat().st_mtime_ns for path in data.glob("clips/*/*")} == before
    extract_here(*arguments, "--again")
    after = {path: path.stat().st_mtime_ns for path in data.glob("clips/*/*")}
    assert after.keys() == before.keys() and all(after[path] > before[path] for path in after)
    (videos / "clip.mp4").unlink()
    (videos / "clip.mp4").write_bytes(b"")  # another video of that name
    assert "videos/clip.mp4" in extract_here(*arguments)
    assert len(merge_index(data)) == 1


def test_another_person_or_split_is_taken_over_without_reading_the_video_again(second, extract_here, tmp_path):
    videos, data = tmp_path / "anna", tmp_path / "data"
    videos.mkdir()
    (videos / "clip.mp4").symlink_to(second)
    said = extract_here("--videos", videos, "--output", data)
    assert "warning: 1 of 1 videos are of nobody known (--person)" in said and "1 of the clips of nobody known" in said
    faces = next(data.glob("clips/*/faces.zip"))
    before = faces.stat().st_mtime_ns
    (tmp_path / "val.txt").write_text("bert\nanna\n")
    lists = "--videos", videos, "--output", data, "--person", "parent", "--split", tmp_path / "val.txt"
    assert "1 videos that are done have another person or split now" in extract_here(*lists)
    (info,) = merge_index(data)
    assert (info.person, info.split) == ("anna", "val") and faces.stat().st_mtime_ns == before
    assert "another" not in extract_here(*lists)  # its record knows
    told = extract_here("--videos", videos, "--output", data)  # nothing is said of either
    assert "read before with another --person, --split, and left as it was" in told
    assert merge_index(data) == [info]


def test_what_earlier_lists_left_out_is_read_when_others_name_it(second, extract_here, tmp_path):
    videos, data, listed = tmp_path / "anna", tmp_path / "data", tmp_path / "val.txt"
    videos.mkdir()
    for name in ("clip", "other"):
        (videos / f"{name}.mp4").write_bytes(other_bytes(second, len(name)))
    arguments = "--videos", videos, "--output", data, "--split", listed
    for text, count in (("clip", 1), ("clip\nother", 2)):
        listed.write_text(text)
        extract_here(*arguments)
        assert len(merge_index(data)) == count


def test_clips_in_another_process_s_hands_are_left_to_it(tmp_path):
    settings = Settings(tmp_path, 128, "mediapipe", 40)
    settings.make_folders()
    (tmp_path / "a.mp4").touch()
    job = Job(Source(tmp_path / "a.mp4", "a.mp4", tmp_path), settings, "", "train", Fraction(0), [])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        folders = [tmp_path / "aside" / f"{job.source.id}-{process}" for process in (other.pid, os.getpid())]
        for folder in folders:
            folder.mkdir()
        job.forget()
        assert [folder.exists() for folder in folders] == [True, False]
        other.communicate(b"\n")
    job.forget()
    assert not folders[0].exists()


def other_bytes(clip: Path, number: int) -> bytes:
    """The same clip in other bytes: with boxes of the container that hold nothing."""
    return clip.read_bytes() + number * b"\0\0\0\x08free"


def test_pieces_are_told_from_sources_whose_ids_are_all_digits(tmp_path):
    names = ["a-20240101-48213377", "b-20240101-48213377-00", "b-20240101-48213377-101", "c-0badcafe-04"]
    for name in names:
        (tmp_path / "clips" / name).mkdir(parents=True)
    found = {source: sorted(path.name for path in folders) for source, folders in clips_by_source(tmp_path).items()}
    assert found == {"a-20240101-48213377": names[:1], "b-20240101-48213377": names[1:3], "c-0badcafe": names[3:]}


def test_a_video_replaced_in_place_is_told_and_what_was_made_of_it_stays(second, extract_here, tmp_path):
    videos, elsewhere, data = tmp_path / "videos", tmp_path / "elsewhere" / "videos", tmp_path / "data"
    for number, folder in enumerate((videos, elsewhere)):
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(other_bytes(second, number))

    def clips(*folders: Path) -> tuple[set[str], list[str]]:
        """The clips after a run, and what it said of files that were replaced."""
        told = extract_here("--output", data, "--split", "train", "--videos", *folders)
        found = {path.name for path in (data / "clips").iterdir()}
        assert found == {info.id for info in merge_index(data)}
        return found, [line for line in told.splitlines() if "what was made" in line]

    both, said = clips(videos, elsewhere)  # whose ids differ by their digits alone
    assert len(both) == 2 and not said

    shutil.move(videos / "clip.mp4", tmp_path / "kept.mp4")
    (videos / "clip.mp4").write_bytes(other_bytes(second, 2))
    three, (line,) = clips(videos)
    assert both < three and len(three) == 3
    assert line.startswith("warning: videos/clip.mp4: read before with other content")
    (named,) = re.findall(r"clips/([^*]+)\*", line)
    assert named in both and str(data / "sources" / f"{named}.json") in line

    third = tmp_path / "third" / "videos"
    third.mkdir(parents=True)
    shutil.move(tmp_path / "kept.mp4", third / "clip.mp4")
    assert clips(videos, third) == (three, [])  # it was moved, not replaced: it still is a source of this run


def test_pieces_that_follow_each_other_are_cut_in_one_reading(talking_clip):
    walk, place = _Walk(VideoReader(talking_clip)), np.array([[0.7, 0, -60], [0, 0.7, -40]])
    for numbers in ([0, 0, 1, 2], [2, 3, 3], [10, 12]):
        piece = Piece(np.array(numbers), 0.0, place + np.arange(len(numbers))[:, None, None] * [0, 0, 1])
        crops, alone = list(_crops(walk, piece, 128)), list(_crops(_Walk(VideoReader(talking_clip)), piece, 128))
        assert len(crops) == len(numbers) and np.array_equal(crops, alone)


@FORKED
def test_a_video_that_kills_its_worker_is_named_and_the_others_are_extracted(
    second, extract_here, tmp_path, monkeypatch
):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mp4", "deadly.mp4", "z.mp4"):
        (raw / name).symlink_to(second)
    extract_source = extraction.extract_source

    def deadly(job: Job) -> None:
        if "deadly" in job.name:
            os.kill(os.getpid(), signal.SIGKILL)
        extract_source(job)

    monkeypatch.setattr(extraction, "extract_source", deadly)
    told = extract_here("--videos", raw, "--output", tmp_path / "data", "--split", "train")
    assert f"{raw / 'deadly.mp4'}: its worker died (SIGKILL)" in told
    assert sorted(Path(info.source).name for info in merge_index(tmp_path / "data")) == ["a.mp4", "z.mp4"]
    with (tmp_path / "data" / "rejected.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"source": "raw/deadly.mp4", "reason": "its worker died (SIGKILL)"}]
    assert not list((tmp_path / "data" / "aside").iterdir())


def test_a_miniature_tree_of_a_known_data_set(second, extract_here, tmp_path):
    """LRS2's: people by folder, splits by lists. Names of other data sets are in test_sources."""
    persons, files = ["5535415699068794046", "5535496873950688380"], []
    for person, split in zip(persons, ("train", "val"), strict=True):
        (tmp_path / f"{split}.txt").write_text(f"{person}/00001\n")
        files.append(tmp_path / "raw" / "main" / person / "00001.mp4")
        files[-1].parent.mkdir(parents=True)
        files[-1].symlink_to(second)
    splits = f"{tmp_path / 'train.txt'},{tmp_path / 'val.txt'}"
    extract_here("--videos", tmp_path / "raw", "--output", tmp_path / "data", "--person", "parent", "--split", splits)
    found = {info.person: info.split for info in merge_index(tmp_path / "data")}
    assert found == dict(zip(persons, ("train", "val"), strict=True))


def test_offsets_shift_the_sound_and_rejects_are_listed(second, extract_here, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "late.mp4").symlink_to(second)
    (raw / "broken.mp4").write_text("no video")
    (tmp_path / "offsets.tsv").write_text("file\toffset_ms\nlate.mp4\t120\n")
    offsets = tmp_path / "offsets.tsv"
    extract_here("--videos", raw, "--output", tmp_path / "data", "--split", "train", "--offsets", offsets)
    (clip,) = load_clips(tmp_path / "data", "train")
    plain, shifted = read_audio(second), read_audio(clip.folder / "audio.flac")
    shift = int(Fraction(120, 1000) * 16000)
    assert np.allclose(shifted[: len(plain) - shift], plain[shift:], atol=2e-4)
    with (tmp_path / "data" / "rejected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["raw/broken.mp4"] and rows[0]["reason"]


def test_shards_share_the_work_and_the_index_is_merged(second, extract_here, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (raw / name).symlink_to(second)
    for shard, clips in (("1/2", 1), ("2/2", 2)):
        extract_here("--videos", raw, "--output", tmp_path / "data", "--split", "train", "--shard", shard)
        assert len(load_clips(tmp_path / "data", "train")) == clips


def test_generated_faces_lie_beside_the_real_ones(painted):
    (clip,) = load_clips(painted, "train")
    assert clip.faces([0], "base.zip").shape == (1, 128, 128, 3)
    assert clip.base_landmarks.shape == (50, 478, 2)


def test_faces_of_other_weights_are_painted_again(painted, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(painted, tmp_path / "data")
    counts = []
    for name in ("one.safetensors", "one.safetensors", "other.safetensors"):
        if not (tmp_path / name).is_file():
            save_network(tmp_path / name, HyperLipsBase())
        monkeypatch.setattr(
            "sys.argv",
            ["generate_base", "--checkpoint", str(tmp_path / name), "--data", str(copy), "--splits", "train"],
        )
        generate_base()
        counts.append(capsys.readouterr().out.split(",")[0])
    assert counts == ["1 clips painted", "0 clips painted", "1 clips painted"]


def test_what_there_is_is_painted(painted, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(painted, tmp_path / "data")
    shutil.rmtree(load_clips(copy, "val")[0].folder)
    merge_index(copy)
    save_network(tmp_path / "base.safetensors", HyperLipsBase())
    monkeypatch.setattr(
        "sys.argv", ["generate_base", "--checkpoint", str(tmp_path / "base.safetensors"), "--data", str(copy)]
    )
    generate_base()
    assert capsys.readouterr().out == "1 clips painted, 0 were there already\n"


@pytest.mark.parametrize(
    "module", ["preprocess.extract_clips", "preprocess.generate_base", "preprocess.augment_sound", "benchmarks.presets"]
)
def test_help_waits_for_no_torch(module):
    script = (
        f"import runpy, sys\nsys.argv = ['x', '--help']\ntry:\n    runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0 and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


def test_bad_arguments_are_one_line(tmp_path):
    result = extract("--videos", tmp_path / "none", "--output", tmp_path / "data")
    assert result.returncode == 2 and result.stderr.strip().splitlines() == [
        f"error: no such folder: {tmp_path / 'none'}"
    ]


def test_processes_take_turns_at_what_they_share(tmp_path):
    script = (
        "import sys; from pathlib import Path; from engine.lock import turn\nwith turn(Path(sys.argv[1])): print('in')"
    )
    with turn(tmp_path / ".lock"):
        other = subprocess.Popen([sys.executable, "-c", script, tmp_path / ".lock"], cwd=ROOT, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=30)[0] == b"in\n" and other.returncode == 0
