"""Data set trees, persons, official lists, offsets and shards, on names alone."""

from fractions import Fraction
from pathlib import Path

import pytest

from errors import InputError
from preprocess.shard import shard
from preprocess.sources import Persons, Source, Splits, find_sound, find_sources, offset_of, read_offsets


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def source(root: Path, relative: str) -> Source:
    return Source(root / relative, relative, root)


def test_sources_are_found_in_depth_and_have_distinct_ids(tmp_path):
    for name in ("a/00001.mp4", "b/00001.mp4", "b/notes.txt", "c/x.MKV"):
        touch(tmp_path / name)
    found = find_sources([tmp_path])
    assert [item.relative for item in found] == ["a/00001.mp4", "b/00001.mp4", "c/x.MKV"]
    assert len({item.id for item in found}) == 3
    assert found[0].id == find_sources([tmp_path])[0].id


def test_missing_and_empty_folders_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="no video"):
        find_sources([tmp_path])


@pytest.mark.parametrize(
    ("video", "sound"),
    [
        ("M003/video/front/angry/level_1/001.mp4", "M003/audio/angry/level_1/001.m4a"),
        ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "dev/aac/id00012/21Uxsk56VDQ/00001.m4a"),
        ("x/1.mp4", "x/1.wav"),
    ],
)
def test_sound_of_a_silent_video_is_found(tmp_path, video, sound):
    touch(tmp_path / video)
    assert find_sound(source(tmp_path, video)) is None
    touch(tmp_path / sound)
    assert find_sound(source(tmp_path, video)) == tmp_path / sound


@pytest.mark.parametrize(
    ("rule", "relative", "person"),
    [
        (r"^([MW]\d+)/", "M003/video/front/angry/level_1/001.mp4", "M003"),
        ("parent", "main/553541/00001.mp4", "553541"),
        (r"^((RD|WDA|WRA)_[A-Za-z]+)", "WDA_KatieHill_000.mp4", "WDA_KatieHill"),
        ("=s1", "train/bbaf2n.mp4", "s1"),
        ("none", "a/b.mp4", ""),
        (r"^(id\d+)/", "other/b.mp4", ""),
    ],
)
def test_persons(rule, relative, person):
    assert Persons(rule)(source(Path("/d"), relative)) == person


def test_hash_split_keeps_a_person_together_and_is_stable_when_data_is_added():
    splits = Splits("hash", val_share=0.3)
    sources = [source(Path("/d"), f"p{person}/{clip}.mp4") for person in range(40) for clip in range(3)]
    chosen = {(item.relative, splits(item, item.relative.split("/")[0])) for item in sources}
    by_person = {}
    for relative, split in chosen:
        by_person.setdefault(relative.split("/")[0], set()).add(split)
    assert all(len(found) == 1 for found in by_person.values())
    assert {"train", "val"} == {split for _, split in chosen}


def test_official_lists(tmp_path):
    (tmp_path / "train.txt").write_text("5535415699068794046/00001\n")
    (tmp_path / "val.txt").write_text("5535496873950688380/00002\n")
    (tmp_path / "iden_split.txt").write_text(
        "1 id10001/xyz/00001.wav\n2 id10001/xyz/00002.wav\n3 id10002/a/00001.wav\n"
    )
    (tmp_path / "hdtf.csv").write_text("WDA_KatieHill, val\nRD_Radio1 train\n")
    lrs2 = Splits(f"{tmp_path}/train.txt,{tmp_path}/val.txt")
    assert lrs2(source(Path("/d"), "5535415699068794046/00001.mp4"), "") == "train"
    assert lrs2(source(Path("/d"), "main/5535496873950688380/00002.mp4"), "") == "val"
    assert lrs2(source(Path("/d"), "main/5535496873950688380/00003.mp4"), "") is None
    vox = Splits(str(tmp_path / "iden_split.txt"))
    assert [
        vox(source(Path("/d"), name), "")
        for name in ("id10001/xyz/00001.mp4", "id10001/xyz/00002.mp4", "id10002/a/00001.mp4")
    ] == ["train", "val", "test"]
    hdtf = Splits(str(tmp_path / "hdtf.csv"))
    assert hdtf(source(Path("/d"), "WDA_KatieHill_000.mp4"), "") == "val"


def test_bad_split_rules_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="list file"):
        Splits("nowhere.txt")
    (tmp_path / "names.txt").write_text("a/b\n")
    with pytest.raises(InputError, match="names no split"):
        Splits(str(tmp_path / "names.txt"))


def test_offsets_are_matched_by_folder_and_name(tmp_path):
    table = tmp_path / "offsets.tsv"
    table.write_text("# comment\nset\tfile\toffset_ms\ntrain\ta.mp4\t160\ngrid/train\ta.mp4\t-20\n\tb.mp4\t40\n")
    offsets = read_offsets(table)
    assert offset_of(source(tmp_path / "more" / "train", "a.mp4"), offsets) == Fraction(160, 1000)
    assert offset_of(source(tmp_path / "any", "b.mp4"), offsets) == Fraction(40, 1000)
    assert offset_of(source(tmp_path / "any", "a.mp4"), offsets) is None


def test_a_table_without_its_columns_is_an_input_error(tmp_path):
    (tmp_path / "o.tsv").write_text("name\tms\na\t1\n")
    with pytest.raises(InputError, match="offset_ms"):
        read_offsets(tmp_path / "o.tsv")


@pytest.mark.parametrize("text", ["0/2", "3/2", "a/2", "1"])
def test_bad_shards_are_input_errors(text):
    with pytest.raises(InputError, match="--shard"):
        shard([1, 2, 3], text)


def test_shards_count_from_one():
    assert [shard(range(10), text) for text in ("1/1", "2/3", "3/3")] == [range(10), range(1, 10, 3), range(2, 10, 3)]
