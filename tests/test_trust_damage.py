"""Damage in the middle: a corrupt clip among others, a corrupt packet of a video. The rest goes on, and it is said."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import ROOT, samples
from test_preprocess import extract
from test_training import tiny
from test_trust_sync import check, constant, every_second, speak, write

from datasets.base import BaseDataset
from datasets.clips import Clip, load_clips, merge_index, publish_clip
from datasets.config import AugmentConfig, DataConfig, HRAugmentConfig, HRDataConfig
from datasets.hr import HRDataset
from datasets.loader import batches
from engine.train_base import train
from errors import InputError
from media.video import VideoReader
from models.checkpoint import save_network
from models.config import BaseConfig, HRConfig
from models.hyperlips import HyperLipsBase
from preprocess.generate_base import main as generate_base
from preprocess.jobs import read_records


def several(data: Path, folder: Path, count: int = 5) -> Path:
    """A data set of that many copies of the train clip and one of the val clip."""
    (folder / "clips").mkdir(parents=True)
    (clip,), (val,) = load_clips(data, "train"), load_clips(data, "val")
    for number in range(count):
        aside = shutil.copytree(clip.folder, folder / "aside")
        publish_clip(aside, folder, replace(clip.info, id=f"clip{number}"))
    shutil.copytree(val.folder, folder / "clips" / val.info.id)
    merge_index(folder)
    return folder


def cut(name: str) -> Callable[[Path], None]:
    def damage(clip: Path) -> None:
        (clip / name).write_bytes((clip / name).read_bytes()[:-100])

    return damage


def change_pictures(name: str = "faces.zip") -> Callable[[Path], None]:
    """One byte of every picture; the archive itself stays whole."""

    def damage(clip: Path) -> None:
        content = bytearray((clip / name).read_bytes())
        for start in Clip.archive(Clip(clip, None), name)._starts:
            content[start + 300] ^= 0xFF
        (clip / name).write_bytes(content)

    return damage


def shorten(clip: Path) -> None:
    np.save(clip / "whisper.npy", np.load(clip / "whisper.npy")[:20])


def not_a_number(clip: Path) -> None:
    mel = np.load(clip / "mel.npy")
    mel[3] = np.nan
    np.save(clip / "mel.npy", mel)


DAMAGE = {
    "archive cut short": cut("faces.zip"),
    "track cut short": cut("track.npz"),
    "features cut short": cut("mel.npy"),
    "features of another length": shorten,
    "not a number": not_a_number,
    "a file gone": lambda clip: (clip / "whisper.npy").unlink(),
    "folder gone": shutil.rmtree,
    "pictures changed": change_pictures(),
}


def base_samples(data: Path, cache: str) -> BaseDataset:
    return samples(BaseDataset, DataConfig(str(data), cache=cache), AugmentConfig(), BaseConfig(), 0)


def hr_samples(data: Path, cache: str = "disk", **options: bool) -> HRDataset:
    return samples(
        HRDataset,
        HRDataConfig(str(data), cache=cache, min_face_px=0),
        HRAugmentConfig(),
        HRConfig(scale=1),
        0,
        **options,
    )


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_clip_is_named_counted_and_left_out(data_set, tmp_path, capsys, what):
    data = several(data_set, tmp_path / "data")
    DAMAGE[what](data / "clips" / "clip2")
    dataset = base_samples(data, "memory")
    assert [clip.info.id for clip in dataset.store.clips] == ["clip0", "clip1", "clip3", "clip4"]
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(told) == 2 and "clip2" in told[0] and "extract the clip again" in told[0]
    assert told[1].endswith(f"{data}: 1 of 5 clips cannot be read and are left out")
    assert dataset[7]["faces"].shape == (1, 3, 128, 128)


def test_more_than_half_of_them_are_refused(data_set, tmp_path):
    data = several(data_set, tmp_path / "data")
    for number in (0, 2, 3):
        cut("faces.zip")(data / "clips" / f"clip{number}")
    with pytest.raises(InputError, match=r"3 of 5 clips cannot be read, the first: .*clip0/faces.zip"):
        load_clips(data, "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_met_later_give_way_to_others_the_same_every_time(data_set, tmp_path, capfd, workers):
    data = several(data_set, tmp_path / "data")
    change_pictures()(data / "clips" / "clip2")
    first, second = ([*batches(base_samples(data, "disk"), 2, 0, 10, workers)] for _ in range(2))
    assert len(first) == 10
    assert all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)
    assert "left out where it is met: picture" in capfd.readouterr().err
    for number in (0, 1, 3, 4):
        change_pictures()(data / "clips" / f"clip{number}")
    with pytest.raises(InputError, match="picture .* is damaged"):
        [*batches(base_samples(data, "disk"), 2, 0, 10, workers)]


def test_training_goes_on(data_set, tmp_path, capsys):
    data = several(data_set, tmp_path / "data", 2)
    cut("track.npz")(data / "clips" / "clip1")
    assert train(tiny(data, tmp_path, "audio_pretrain.steps=0", "run.steps=1")).is_file()
    assert "1 of 2 clips cannot be read and are left out" in capsys.readouterr().err


def test_stage_1_faces_of_damaged_clips(painted, tmp_path, capsys, monkeypatch):
    data = several(painted, tmp_path / "data", 4)
    clips = data / "clips"
    change_pictures()(clips / "clip0")
    cut("base_track.npz")(clips / "clip1")
    (clips / "clip0" / "base.zip").unlink()
    (clips / "clip0" / "base_track.npz").unlink()
    hr = hr_samples(data)
    assert [clip.info.id for clip in hr.clips] == ["clip2", "clip3"]  # 0 cannot have any, those of 1 are damaged
    assert "clip1/base_track.npz is damaged" in capsys.readouterr().err
    change_pictures("base.zip")(clips / "clip2")
    assert len(hr_samples(data).clips) == 2
    for looked_at in (hr_samples(data, thorough=True), hr_samples(data, "memory")):
        assert [clip.info.id for clip in looked_at.clips] == ["clip3"] and len(looked_at.landmarks) == 1
    checkpoint = tmp_path / "base.safetensors"
    save_network(checkpoint, HyperLipsBase())
    monkeypatch.setattr("sys.argv", ["generate_base", "--checkpoint", str(checkpoint), "--data", str(data)])
    capsys.readouterr()
    generate_base()
    said = capsys.readouterr()
    assert "4 clips painted, 0 were there already" in said.out and "1 of 5 clips cannot be read" in said.err
    assert [clip.info.id for clip in hr_samples(data).clips] == ["clip1", "clip2", "clip3"]
    (clips / "clip3" / "base.zip").unlink()  # no damage: only not painted yet
    with pytest.raises(InputError, match="clip3 has no base.zip; run python -m preprocess.generate_base"):
        hr_samples(data)


def test_a_damaged_line_of_a_clip_leaves_the_others_in_the_index(data_set, tmp_path, capsys):
    data = several(data_set, tmp_path / "data", 2)
    (data / "clips" / "clip1" / "clip.json").write_text('{"id": "cli')
    assert "clip1" not in [info.id for info in merge_index(data)] and len(merge_index(data)) == 2
    assert "left out" in capsys.readouterr().err


def damage_packets(path: Path, chosen: slice) -> Path:
    """Fill the packets of some pictures with what no decoder understands."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for position, size in packets[chosen]:
        content[position : position + size] = b"\xff" * size
    path.write_bytes(content)
    return path


def test_sound_stays_in_step_beyond_damaged_pictures(tmp_path):
    film = every_second(constant(8))
    source = damage_packets(write(tmp_path / "source.mp4", film), slice(125, 135))
    reader = VideoReader(source)
    times = [frame.time for frame in reader]
    assert any("damaged" in note for note in reader.notes)
    # What refers to a lost picture may be lost with it.
    assert times == sorted(set(times)) and len(film.times) - 20 <= len(times) <= len(film.times) - 10
    check(speak(source, source, tmp_path / "out.mp4"), len(film.clicks))


def test_pictures_decoded_in_part_are_told(tmp_path):
    source = tmp_path / "part.mp4"
    source.write_bytes((ROOT / "assets" / "grid_s1_demo.mp4").read_bytes())
    with av.open(str(source)) as container:
        key = next(packet for packet in container.demux(video=0) if packet.is_keyframe)
    content = bytearray(source.read_bytes())
    for place in range(key.pos + key.size // 2, key.pos + key.size, 3):
        content[place] ^= 0x55
    source.write_bytes(content)
    reader = VideoReader(source)
    assert len(list(reader)) == 75
    assert any("1 video frames are damaged" in note for note in reader.notes)


def test_damage_is_told_once_however_often_a_video_is_read(talking_clip, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(talking_clip.read_bytes())
    damage_packets(path, slice(20, 23))
    reader = VideoReader(path)
    frames = list(reader)
    assert "3 damaged video packets were skipped" in (told := list(reader.notes))
    pictures = iter(reader)
    for _ in range(21):
        next(pictures)
    pictures.close()
    assert len(list(reader.reversed_frames())) == len(frames) and reader.notes == told


def test_extraction_says_which_videos_are_damaged(talking_clip, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.mp4").write_bytes(talking_clip.read_bytes())
    damage_packets(raw / "a.mp4", slice(20, 23))
    result = extract("--videos", raw, "--output", tmp_path / "data", "--split", "train")
    assert result.returncode == 0, result.stderr
    (clip,) = load_clips(tmp_path / "data", "train")
    assert clip.info.frames == 50
    with (tmp_path / "data" / "notes.csv").open() as file:
        notes = list(csv.DictReader(file))
    assert notes == [{"source": "raw/a.mp4", "note": "3 damaged video packets were skipped"}]
    assert "1 notes, see" in result.stdout and "raw/a.mp4: 3 damaged video packets" in result.stdout
    (record,) = (tmp_path / "data" / "sources").glob("*.json")
    record.write_text(record.read_text()[:10])
    part = record.with_name(".b.elsewhere.1.part.json")  # of another machine, which writes it just now
    part.touch()
    assert not read_records(tmp_path / "data")
    assert not record.exists() and part.exists()  # the same command does that video again
