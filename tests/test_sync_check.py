"""The sync expert in extraction: finds how late a sound is, moves it back, rejects what does not belong together."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, extract
from loud import Loud

from datasets.archive import write_archive
from datasets.clips import Clip, load_clips
from errors import InputError
from media.audio import SAMPLE_RATE, read_audio
from preprocess.sync_check import sound_offset
from speech.offset import SyncEstimate, peak

HALVES = slice(0, 60), slice(60, 120)
EXPERT = str(ROOT / "checkpoints" / "sync_light.safetensors")


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory) -> dict[str, Clip]:
    """Two sentences of GRID's s1, extracted with the expert; a table claims that the first one's sound is 120 ms
    late.
    """
    folder = tmp_path_factory.mktemp("sync")
    (folder / "videos").mkdir()
    for name in ("bgah2p", "lbwr4p"):
        shutil.copy(shared(f"data/grid_s1/val/{name}.mp4"), folder / "videos")
    (folder / "offsets.tsv").write_text("file\toffset_ms\nbgah2p.mp4\t120\n", encoding="utf-8")
    places = "--videos", folder / "videos", "--output", folder / "data", "--split", "val"
    done = extract(*places, "--sync-expert", EXPERT, "--offsets", folder / "offsets.tsv")
    assert done.returncode == 0, done.stderr
    return {Path(clip.info.source).stem: clip for clip in load_clips(folder / "data", "val")}


def test_a_wrong_offset_is_taken_out_again(clips):
    assert set(clips) == {"bgah2p", "lbwr4p"}
    assert all(abs(clip.info.offset_ms) <= 40 for clip in clips.values())  # these recordings are in step


@pytest.mark.parametrize("frames", [-4, 3, 7])
def test_moving_the_sound_moves_the_estimate(clips, frames):
    clip = clips["bgah2p"]
    sound, move = read_audio(clip.path("audio.flac")), frames * SAMPLE_RATE // 25
    moved = np.pad(sound, (max(move, 0), max(-move, 0)))[max(-move, 0) :][: len(sound)]
    assert 25 * sound_offset(EXPERT, clip.path("faces.zip"), moved) == pytest.approx(frames, abs=0.5)


def test_noise_does_not_belong_to_lips(clips):
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE).astype(np.float32)
    with pytest.raises(InputError, match="do not belong together"):
        sound_offset(EXPERT, clips["bgah2p"].path("faces.zip"), noise)


@pytest.mark.parametrize(
    ("late", "found"),
    [
        ((0, 0), 0),
        ((3, 3), 3),
        ((-6, -6), -6),
        ((0, 5), "sound drifts: late by 0 frames in the first half, 5 in the second"),
        ((15, 15), "out of sync by 15 frames or more"),
        (None, "lips and sound do not belong together"),
    ],
)
def test_a_constant_offset_is_found_and_a_drift_is_told(tmp_path, monkeypatch, late, found):
    """Faces that are as bright as the sound is loud, some frames late; None: a hum."""
    levels = np.random.default_rng(0).integers(0, 256, 120)
    write_archive(tmp_path / "faces.zip", (np.full((128, 128, 3), level, np.uint8) for level in levels))
    if late is None:
        heard = np.full(120, 128)
    else:
        heard = np.concatenate([np.roll(levels, frames)[part] for frames, part in zip(late, HALVES, strict=True)])
    mel = np.repeat(heard[(np.arange(384) / 3.2).astype(int), None] / 255, 80, 1).astype(np.float32)
    monkeypatch.setattr("preprocess.sync_check._expert", lambda _: Loud("mel"))
    monkeypatch.setattr("preprocess.sync_check.sound_features", lambda *_: mel)
    if isinstance(found, str):
        with pytest.raises(InputError, match=found):
            sound_offset("expert", tmp_path / "faces.zip", np.zeros(0, np.float32))
    else:
        offset = 25 * sound_offset("expert", tmp_path / "faces.zip", np.zeros(0, np.float32))
        assert offset == pytest.approx(found, abs=0.2)


@pytest.mark.parametrize(("offset", "taken"), [(-1, True), (1, True), (2, False)])
def test_somebody_s_own_recording_is_believed_where_the_estimate_is_near_and_weak(clips, monkeypatch, offset, taken):
    monkeypatch.setattr("preprocess.sync_check.estimate_offset", lambda *_: SyncEstimate(offset, 0.06, {offset: 0.1}))
    clip = clips["bgah2p"]
    found = EXPERT, clip.path("faces.zip"), clip.sound()
    if taken:
        assert sound_offset(*found, trusted=True) == 0
    for trusted in {False, not taken}:
        with pytest.raises(InputError, match=r"do not belong together \(confidence 0.060, expected 0.080\)"):
            sound_offset(*found, trusted=trusted)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({1: 0.2, 2: 0.5, 3: 0.2}, 2.0),
        ({1: 0.2, 2: 0.5, 3: 0.5}, 2.5),
        ({2: 0.5, 3: 0.2}, 2.0),  # nothing on one side
        ({1: 0.5, 2: 0.5, 3: 0.5}, 2.0),
    ],
)
def test_the_peak_lies_between_whole_frames(means, expected):
    assert peak(SyncEstimate(2, 0.3, means)) == pytest.approx(expected)
