"""The sync expert in extraction: finds how late a sound is, moves it back, rejects what does not belong together."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, extract

from datasets.clips import Clip, load_clips
from errors import InputError
from media.audio import SAMPLE_RATE, read_audio
from preprocess.sync_check import sound_offset
from speech.offset import SyncEstimate, peak

EXPERT = str(ROOT / "checkpoints" / "sync_light.safetensors")


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory) -> dict[str, Clip]:
    """Two sentences of GRID's s1, extracted with the expert; a table claims that the first one's sound is 120 ms
    late.
    """
    folder = tmp_path_factory.mktemp("sync")
    (folder / "videos").mkdir()
    for name in ("bgah2p", "lbwr4p"):
        shutil.copy(shared / "data" / "grid_s1" / "val" / f"{name}.mp4", folder / "videos")
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
