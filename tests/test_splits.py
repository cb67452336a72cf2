"""One clip alone trains: its last tenth is for validation, cut alike in all that belongs to it; what is missing is
told.
"""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import test_syncnet_training
from test_training import ROOT, tiny

from datasets.clips import Clip, clips_of, load_clips, merge_index
from datasets.config import DataSection
from datasets.draw import clips_with
from datasets.splits import tail_start, training_splits, validation_clips
from engine.config import load_config
from engine.options import TrainHRConfig
from engine.train_base import train as train_base
from engine.train_hr import train as train_hr
from engine.train_syncnet import train as train_syncnet
from errors import InputError
from models.checkpoint import load_network, read_metadata
from speech.windows import audio_windows


@pytest.fixture(scope="module")
def alone(painted, tmp_path_factory) -> Path:
    """A data set of one clip of 50 frames."""
    data = shutil.copytree(painted, tmp_path_factory.mktemp("alone") / "data")
    shutil.rmtree(load_clips(data, "val")[0].folder)
    merge_index(data)
    return data


def test_a_part_is_a_clip_of_its_own_with_all_that_belongs_to_it(alone):
    (clip,) = load_clips(alone, "train")
    part = clip.part(20, 45, "a part")
    assert (part.info.frames, part.info.seconds, part.info.id) == (25, 1.0, clip.info.id)
    for name in ("landmarks", "visible", "base_landmarks"):
        assert np.array_equal(getattr(part, name), getattr(clip, name)[20:45]), name
    assert np.array_equal(part.moves.lip_gaps, clip.moves.lip_gaps[20:45], equal_nan=True)
    for name in ("boxes", "speech"):
        assert np.array_equal(getattr(part.lips, name), getattr(clip.lips, name)[20:45]), name
    later = part.part(10, 20, "a part")
    assert np.array_equal(later.landmarks, clip.landmarks[30:40]) and np.array_equal(later.faces([3]), clip.faces([33]))
    for archive in ("faces.zip", "base.zip"):
        assert np.array_equal(part.faces([0, 24], archive), clip.faces([20, 44], archive))
    assert np.array_equal(part.sound(), clip.sound()[20 * 640 : 45 * 640])
    assert part.painted_by == clip.painted_by
    for kind in ("mel", "whisper"):
        own, whole = part.features(kind), clip.features(kind)
        assert len(own) == (81 if kind == "mel" else 50 + 75)
        inside = np.arange(5, 20)  # far enough from the ends
        length = 16 if kind == "mel" else 18
        parts = [
            audio_windows(f, list(k), Fraction(25), kind, length) for f, k in ((own, inside), (whole, inside + 20))
        ]
        assert np.array_equal(*parts)
    whole = clip.part(0, 50, "train")
    assert all(np.array_equal(whole.features(kind), clip.features(kind)) for kind in ("mel", "whisper"))
    assert np.array_equal(whole.sound(), clip.sound())


@pytest.mark.parametrize(("frames", "start"), [(500, 450), (499, 450), (123, 95), (50, 25), (49, None), (25, None)])
def test_the_last_tenth_is_a_second_or_more_and_starts_at_fives(alone, frames, start):
    (clip,) = load_clips(alone, "train")
    clip = clip.part(0, frames, "train")
    clip.visible = np.ones(frames, bool)
    assert tail_start(clip) == start
    clip.visible = np.arange(frames) < frames - 24  # the last second shows next to nothing
    assert tail_start(clip) == (None if frames < 240 else start)


def test_the_split_is_told_and_only_where_it_is_needed(alone, data_set):
    both, same = training_splits(DataSection(str(data_set)), "val"), training_splits(DataSection(str(alone)), "train")
    assert [clip.info.split for clip in (*both.train, *both.validation)] == ["train", "val"]
    assert same.train == same.validation and both.note == same.note == ""
    splits = training_splits(DataSection(str(alone)), "val")
    assert "no clip is in split 'val', so the last tenth of 1 train clips, 1.0 s, is kept for validation" in splits.note
    (head,), (tail,) = splits.train, splits.validation
    assert (head.info.split, tail.info.split) == ("train[:90%]", "train[90%:]")
    with pytest.raises(InputError, match=r"no clip of split 'train\[90%:\]' has data.window = 26 frames in a row"):
        clips_with(splits.validation, 26)
    assert (head.info.frames, tail.info.frames) == (25, 25)
    assert np.array_equal(np.concatenate([head.landmarks, tail.landmarks]), load_clips(alone, "train")[0].landmarks)


def test_clips_to_validate_on_need_no_others(data_set, alone, tmp_path):
    data = shutil.copytree(data_set, tmp_path / "data")
    shutil.rmtree(load_clips(data, "train")[0].folder)
    merge_index(data)
    assert [clip.info.split for clip in validation_clips(DataSection(str(data)), "val")] == ["val"]
    assert [clip.info.split for clip in validation_clips(DataSection(str(alone)), "val")] == ["train[90%:]"]
    with pytest.raises(InputError, match="none of its 1 clips is in split 'train'"):
        training_splits(DataSection(str(data)), "val")


def test_one_clip_trains_both_stages_and_the_expert(alone, tmp_path, capsys):
    best = read_metadata(train_base(tiny(alone, tmp_path)))
    assert np.isfinite(float(best["fast_r"]))
    overrides = [f"data.path={alone}", f"run.folder={tmp_path}"]
    assert load_network(train_hr(load_config(TrainHRConfig, ROOT / "configs" / "hr_tiny.yaml", overrides)))
    assert load_network(train_syncnet(test_syncnet_training.tiny(alone, tmp_path)))
    assert capsys.readouterr().out.count("is kept for validation and not trained on") == 3


def test_a_split_that_is_missing_is_told_with_cause_and_cure(alone, tmp_path):
    with pytest.raises(InputError, match=r"none of its 1 clips is in split 'val' \(1 in 'train'\); choose .* --split"):
        load_clips(alone, "val")
    with pytest.raises(InputError, match=r"its 1 clips of split 'train' show faces of \d+.* asks for 900; lower that"):
        load_clips(alone, "train", 900)
    assert len(clips_of(alone, ["train", "val"])) == 1
    with pytest.raises(InputError, match="none of its 1 clips is in split 'val' or 'test'"):
        clips_of(alone, ["val", "test"])
    empty = tmp_path / "empty"
    (empty / "clips").mkdir(parents=True)
    merge_index(empty)
    with pytest.raises(InputError, match="it holds no clip; rejected.csv there says why"):
        training_splits(DataSection(str(empty)), "val")


def test_a_clip_too_short_to_share_is_told(alone, monkeypatch):
    monkeypatch.setattr(Clip, "visible", np.zeros(50, bool))
    with pytest.raises(InputError, match="none of its 1 train clips can lend its last tenth: .*validation.split=train"):
        training_splits(DataSection(str(alone)), "val")
