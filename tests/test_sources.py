"""Data set trees, persons, official lists, offsets and shards, on names alone."""

import codecs
import os
import shutil
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import touch_or_skip

from errors import InputError
from metrics.jobs import listed
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


def test_folders_of_one_name_share_no_ids(tmp_path):
    """MEAD has a folder `video` for every person: none may hide another's clips, given at once or later."""
    roots = [tmp_path / person / "video" for person in ("M003", "M005", "W009")]
    for root in roots:
        touch(root / "001.mp4").write_text(str(root))
    ids = [item.id for item in find_sources(roots)]
    assert len(set(ids)) == 3 and ids == [find_sources([root])[0].id for root in roots]
    touch(roots[0] / "000.mp4")
    assert {item.id for item in find_sources(roots)} > set(ids)


def test_ids_stay_where_a_folder_is_moved_or_copied(tmp_path):
    for name in ("a/1.mp4", "b/1.mp4"):
        touch(tmp_path / "raw" / name).write_text(name)
    ids = [item.id for item in find_sources([tmp_path / "raw"])]
    copy = shutil.copytree(tmp_path / "raw", tmp_path / "elsewhere" / "deep" / "raw")
    assert [item.id for item in find_sources([copy])] == ids
    assert [item.root for item in find_sources([tmp_path / "raw", copy])] == [tmp_path / "raw"] * 2
    (copy / "a" / "1.mp4").write_text("another")
    assert [item.id == name for item, name in zip(find_sources([copy]), ids, strict=True)] == [False, True]


def test_a_folder_inside_another_or_named_through_a_link_is_the_same(tmp_path):
    touch(tmp_path / "raw" / "a" / "1.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "raw")
    (only,) = find_sources([tmp_path / "raw", tmp_path / "raw" / "a", tmp_path / "link"])
    assert only.relative == "a/1.mp4"


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "disk" / "1.mp4")
    root = tmp_path / "raw"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "disk")
    (root / "loop").symlink_to(root)
    (tmp_path / "disk" / "back").symlink_to(root)
    assert [item.relative for item in find_sources([root])] == ["linked/1.mp4"]
    (root / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    assert [item.relative for item in find_sources([root])] == ["gone.mp4", "linked/1.mp4", "self.mp4"]


def test_names_that_are_not_utf_8(tmp_path):
    names = [b"caf\xe9.mp4", b"\xd5\xc5\xc8\xfd.mp4"]
    for name in names:
        touch_or_skip(tmp_path / os.fsdecode(name))
    found = find_sources([tmp_path])
    assert len({item.id for item in found}) == 2 and all(item.id.isascii() for item in found)
    for item in found:
        item.name.encode("utf-8")
        str(InputError(f"no face in {item.path}")).encode("utf-8")
        assert Splits("hash")(item, "") in ("train", "val")


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
        ("x/1.MP4", "x/1.WAV"),
    ],
)
def test_sound_of_a_silent_video_is_found(tmp_path, video, sound):
    touch(tmp_path / video)
    notes: list[str] = []
    assert find_sound(source(tmp_path, video), notes) is None
    touch(tmp_path / sound)
    assert find_sound(source(tmp_path, video), notes) == tmp_path / sound and not notes
    other = touch((tmp_path / sound).with_suffix(".opus"))
    assert find_sound(source(tmp_path, video), notes) == tmp_path / sound
    assert notes == [f"its sound is {Path(sound).name}, others of that name were left: {other}"]


def test_a_file_that_is_named_as_a_folder_of_sounds_is_none_of_them(tmp_path):
    touch(tmp_path / "set" / "video" / "1.mp4")
    touch(tmp_path / "set" / "audio.wav")
    assert find_sound(source(tmp_path, "set/video/1.mp4"), []) is None


@pytest.mark.parametrize(
    ("rule", "relative", "person"),
    [
        (r"^([MW]\d+)/", "M003/video/front/angry/level_1/001.mp4", "M003"),
        ("parent", "main/553541/00001.mp4", "553541"),
        (r"^((RD|WDA|WRA)_[A-Za-z]+)", "WDA_KatieHill_000.mp4", "WDA_KatieHill"),
        (r"^(M\d+)|^(W\d+)", "W011/video/001.mp4", "W011"),
        ("=s1", "train/bbaf2n.mp4", "s1"),
        ("=Ann (2", "train/bbaf2n.mp4", "Ann (2"),
        ("none", "a/b.mp4", ""),
        (r"^(id\d+)/", "other/b.mp4", ""),
    ],
)
def test_persons(rule, relative, person):
    assert Persons(rule)(source(Path("/d"), relative)) == person


def test_hash_split_keeps_a_person_together_and_puts_a_twentieth_into_val():
    splits = Splits("hash")
    by_person = {
        person: {splits(source(Path("/d"), f"p{person}/{clip}.mp4"), f"p{person}") for clip in range(3)}
        for person in range(400)
    }
    assert all(len(found) == 1 for found in by_person.values())
    assert 10 < sum(found == {"val"} for found in by_person.values()) < 35


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


@pytest.mark.parametrize(
    ("listing", "line", "name", "split"),
    [
        ("train.txt", "my clip 1", "my clip 1", "train"),
        ("train.txt", "my clip 1.mp4", "my clip 1", "train"),
        ("train.txt", "mic test", "mic test", "train"),
        ("train.txt", "2 girls", "2 girls", "train"),
        ("train.txt", "a/my clip 1 MV0", "a/my clip 1", "train"),
        ("train.txt", "Smith, John", "Smith, John", "train"),
        ("train.txt", "v1.2 take", "v1.2 take", "train"),
        ("train.txt", "sub\\clip one.mp4", "sub/clip one", "train"),
        ("list.csv", '"my clip 1",val', "my clip 1", "val"),
        ("list.csv", "my clip 1\ttest", "my clip 1", "test"),
        ("list.txt", "my clip Val", "my clip", "val"),
        ("list.txt", "2 my clip", "my clip", "val"),
        ("list.txt", "a/b.wav 3", "a/b", "test"),
        ("list.txt", "Zoe\u0308 1 train", "Zo\u00eb 1", "train"),
    ],
)
def test_names_in_lists(tmp_path, listing, line, name, split):
    (tmp_path / listing).write_text(f"{line}\n", encoding="utf-8")
    splits = Splits(str(tmp_path / listing))
    assert splits(source(Path("/d"), f"{name}.mp4"), "") == split
    assert splits(source(Path("/d"), f"{name.split()[0]}.mp4"), "") != split or " " not in name


ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-32": b"",
    "utf-16-le": b"",
    "utf-16-be": codecs.BOM_UTF16_BE,
}  # the mark that the codec does not write itself


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_of_lists(tmp_path, encoding):
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_bytes(ENCODINGS[encoding] + text.encode(encoding))
        return tmp_path / name

    splits = Splits(str(write("train.txt", "caf\u00e9 1\r\nb2\r\n")))
    assert [splits(source(Path("/d"), name), "") for name in ("caf\u00e9 1.mp4", "b2.mp4")] == ["train", "train"]
    offsets = read_offsets(write("offsets.tsv", "file\toffset_ms\ncaf\u00e9 1.mp4\t40\n"))
    assert offset_of(source(tmp_path, "caf\u00e9 1.mp4"), offsets) == Fraction(40, 1000)
    (job,) = listed(write("pairs.tsv", "caf\u00e9 1.mp4\tmade.mp4\n"))
    assert job.real.path == tmp_path / "caf\u00e9 1.mp4"


@pytest.mark.parametrize("read", [lambda path: Splits(str(path)), read_offsets, listed])
def test_other_encodings_are_refused_in_one_line(tmp_path, read):
    path = tmp_path / "train.txt"
    path.write_bytes("a1\tb\n\u5f20\u4e09\tc\n".encode("gbk"))
    with pytest.raises(InputError, match="train.txt: found text .*line 2.*save it as UTF-8"):
        read(path)
    path.write_bytes(b"\xff\xfea\0b")
    with pytest.raises(InputError, match="UTF-8"):
        read(path)


def test_a_list_that_names_no_video_is_an_input_error(tmp_path):
    sources = [source(Path("/d"), "a/1.mp4"), source(Path("/d"), "b/2.mp4")]
    (tmp_path / "train.txt").write_text("x/1\ny\n")
    with pytest.raises(InputError, match="train.txt: found no entry that names one of the 2 videos"):
        Splits(str(tmp_path / "train.txt")).check(sources, Persons("none"))
    (tmp_path / "val.txt").write_text("b\n")
    Splits(f"{tmp_path}/train.txt,{tmp_path}/val.txt").check(sources, Persons("none"))
    Splits("hash").check(sources, Persons("none"))
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(InputError, match="empty list"):
        Splits(str(tmp_path / "test.txt"))


def test_reported_trees_and_lists(shared):
    reports = shared("data/reports")
    found = find_sources([reports / "mead_parts" / person / "video" for person in ("M003", "M005", "W009")])
    assert len({item.id for item in found}) == 3
    for name, clip in (("spaces", "my clip 1"), ("spaces", "my clip 2"), ("bom", "a1"), ("u16", "a1"), ("u16", "b2")):
        assert Splits(f"{reports}/lists/train_{name}.txt")(source(Path("/d"), f"{clip}.mp4"), "") == "train"
    with pytest.raises(InputError, match="UTF-8"):
        Splits(f"{reports}/lists/train_gbk.txt")


def test_bad_split_rules_are_input_errors(tmp_path):
    with pytest.raises(InputError, match="list file"):
        Splits("nowhere.txt")
    for name in ("names.txt", "latest.txt", "device_list.txt"):  # which hold the letters of test and dev
        (tmp_path / name).write_text("a/b\n")
        with pytest.raises(InputError, match="names no split"):
            Splits(str(tmp_path / name))
    (tmp_path / "My-Train_2.txt").write_text("a/b\n")
    assert set(Splits(str(tmp_path / "My-Train_2.txt")).entries.values()) == {"train"}


def test_offsets_are_matched_by_folder_and_name(tmp_path):
    table = tmp_path / "offsets.tsv"
    table.write_text("# comment\nset\tfile\toffset_ms\ntrain\ta.mp4\t160\ngrid/train\ta.mp4\t-20\n\tb.mp4\t40\n")
    offsets = read_offsets(table)
    assert offset_of(source(tmp_path / "more" / "train", "a.mp4"), offsets) == Fraction(160, 1000)
    assert offset_of(source(tmp_path / "any", "b.mp4"), offsets) == Fraction(40, 1000)
    assert offset_of(source(tmp_path / "any", "a.mp4"), offsets) is None
    table.write_text("set\tfile\toffset_ms\n\ta.mp4\t40\ntrain\ta.mp4\t160\n")
    assert offset_of(source(tmp_path / "more" / "train", "a.mp4"), read_offsets(table)) == Fraction(160, 1000)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a\t40\na\t40\na\t-40", "a is given twice with other offsets"),
        ("a\t1e400", "a by 1e400 ms, expected a minute at most"),
        ("a\tnan", "expected milliseconds"),
    ],
)
def test_offsets_that_cannot_be_meant_are_input_errors(tmp_path, rows, message):
    (tmp_path / "o.tsv").write_text(f"file\toffset_ms\n{rows}\n")
    with pytest.raises(InputError, match=message):
        read_offsets(tmp_path / "o.tsv")


def test_a_line_that_two_lists_have_for_other_splits_is_an_input_error(tmp_path):
    lists = [tmp_path / name for name in ("train.txt", "pretrain.txt", "val.txt")]
    for path in lists:
        path.write_text("a/b\n")
    assert set(Splits(f"{lists[0]},{lists[1]}").entries.values()) == {"train"}
    with pytest.raises(InputError, match=r"val.txt: line 'a/b' is listed for train and val"):
        Splits(",".join(map(str, lists)))


def test_lists_may_name_persons(tmp_path):
    listed, persons = tmp_path / "val.txt", Persons(r"^([a-z]+)_")
    listed.write_text("anna\n")
    sources = [source(Path("/d"), name) for name in ("anna_take1.mp4", "bert_take1.mp4")]
    splits = Splits(str(listed))
    splits.check(sources, persons)
    assert [splits(one, persons(one)) for one in sources] == ["val", None]
    with pytest.raises(InputError, match="found no entry that names one of the 2 videos"):
        splits.check(sources, Persons("none"))


def test_hidden_files_are_no_videos(tmp_path):
    for name in ("a.mp4", "._a.mp4", ".a.here.123.part.mp4", ".git/annex/b.mp4", ".Trashes/501/c.mp4"):
        touch(tmp_path / name)
    assert [found.relative for found in find_sources([tmp_path])] == ["a.mp4"]


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
