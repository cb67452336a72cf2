"""A video to clips, in this process: where its stretches begin, what is heard in each, and what is left out."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import FPS, SIZE, talking_face, voice

from datasets.clips import load_clips, merge_index
from errors import InputError
from face.crop import CropTransform
from face.detect import make_detector
from face.follow import Followed, follow
from face.track import Track
from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import VideoReader, VideoWriter
from preprocess import extraction
from preprocess.extraction import _pieces, extract_source
from preprocess.jobs import Job, Settings, record_of
from preprocess.sources import find_sources

AWAY, BACK, END = 30, 45, 75
"""Frames: the face leaves, returns, and the video ends; two stretches of 1.2 s."""


@pytest.mark.parametrize("fps", [25, 50])
def test_stretches_begin_where_the_face_returns_or_a_shot_begins_and_are_no_longer_than_20_s(fps):
    """1.2 s, gone for .6 s, 1.2 s, a cut, 45 s, a cut, .8 s."""
    seconds = {(0, True): 1.2, (0, False): 0.6, (0, "again"): 1.2, (1, True): 45, (2, True): 0.8}
    counts = [round(fps * length) for length in seconds.values()]
    shot = np.repeat([number for number, _ in seconds], counts)
    present = np.repeat([bool(shown) for _, shown in seconds], counts)
    frames = np.arange(len(shot))
    transforms = np.where(present, frames, np.nan)[:, None, None] * np.ones((2, 3))
    nothing = np.zeros((len(shot), 0))
    track = Track(present, ~present, nothing, nothing, shot, nothing)
    pieces = list(_pieces(Followed([Fraction(int(index), fps) for index in frames], track, transforms)))
    assert [piece.start for piece in pieces] == pytest.approx([0, 1.8, 3, 18, 33])
    assert [len(piece.frames) for piece in pieces] == [30, 30, 375, 375, 375]
    for piece in pieces:
        np.testing.assert_array_equal(piece.frames, round(fps * piece.start) + np.arange(len(piece.frames)) * fps // 25)
        np.testing.assert_array_equal(piece.transforms[:, 0, 0], piece.frames)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("returns") / "returns.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(END / 25), SAMPLE_RATE)) as writer:
        for index in range(END):
            writer.write(np.full((*SIZE[::-1], 3), 90, np.uint8) if AWAY <= index < BACK else talking_face(index / 25))
    return path


@pytest.fixture(scope="module")
def faces(video) -> list[Followed]:
    return follow(VideoReader(video), make_detector("mediapipe"))


@pytest.fixture
def job(video, faces, tmp_path, monkeypatch) -> Job:
    monkeypatch.setattr(extraction, "follow", lambda *_: faces)
    settings = Settings(tmp_path / "data", 128, "mediapipe", 0)
    settings.make_folders()
    (source,) = find_sources([video.parent])
    return Job(source, settings, "somebody", "train", Fraction(0), [])


def rejected(job: Job) -> list[str]:
    assert not merge_index(job.settings.output) and not list((job.settings.output / "aside").iterdir())
    return json.loads(record_of(job.settings.output, job.source.id).read_text())["rejected"]


@pytest.mark.parametrize("offset", [Fraction(0), Fraction(1, 10)])
def test_every_stretch_is_heard_and_seen_when_it_was(job, video, offset):
    extract_source(replace(job, offset=offset))
    clips, wave, shown = load_clips_after(job), read_audio(video), list(VideoReader(video))
    assert [clip.info.frames for clip in clips] == [30, 30]
    for clip, first in zip(clips, (0, BACK), strict=True):
        begins, length = round((first / 25 + float(offset)) * SAMPLE_RATE), round(1.2 * SAMPLE_RATE)
        expected = wave[begins : begins + length]
        expected = np.pad(expected, (0, length - len(expected)))
        assert expected.std() > 0.05
        np.testing.assert_allclose(read_audio(clip.path("audio.flac")), expected, atol=2e-4)
        with np.load(clip.path("track.npz")) as track:
            places = track["transforms"]
        for index in (0, 29):
            cut = CropTransform(places[index]).cut_from(shown[first + index], 128)
            assert np.abs(clip.faces([index])[0].astype(int) - cut).mean() < 3  # JPEG


def load_clips_after(job: Job) -> list:
    merge_index(job.settings.output)
    return load_clips(job.settings.output, "train")


def test_faces_that_are_too_small_are_told_and_left_out(job):
    extract_source(replace(job, settings=replace(job.settings, min_face_px=1000)))
    first, second = rejected(job)
    assert first.startswith("piece 0 at 0.00 s: face ") and second.startswith("piece 1 at 1.80 s: face ")
    assert all(reason.endswith(" px wide, below --min-face 1000") for reason in (first, second))


@pytest.mark.parametrize(("share", "taken"), [(0.4, False), (0.6, True)])
def test_tracks_of_something_else_are_told_and_left_out(job, monkeypatch, share, taken):
    """The landmark net sees a face in a share of the crops."""

    class Doubtful:
        def __init__(self) -> None:
            self.count = 0

        def landmarks(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            numbers = self.count + np.arange(len(crops))
            self.count += len(crops)
            return np.full((len(crops), 478, 2), 64.0), numbers % 10 < 10 * share

    net = Doubtful()
    monkeypatch.setattr(extraction, "landmark_net", lambda: net)
    extract_source(job)
    if taken:
        assert [clip.visible.mean() for clip in load_clips_after(job)] == pytest.approx([share, share])
    else:
        assert rejected(job) == [
            f"piece {number} at {start} s: landmarks found in 40% of the crops only"
            for number, start in ((0, "0.00"), (1, "1.80"))
        ]


@pytest.mark.parametrize("beside", [True, False])
def test_a_silent_track_is_no_sound(job, video, tmp_path, beside):
    """A camera whose microphone was off, and the recorder's file beside it."""
    mute = tmp_path / "raw" / "mute.mp4"
    mute.parent.mkdir()
    with VideoWriter(mute, SIZE, FPS, audio=(np.zeros(3 * SAMPLE_RATE, np.float32), SAMPLE_RATE)) as writer:
        for frame in VideoReader(video):
            writer.write(frame)
    if beside:
        write_flac(mute.with_suffix(".FLAC"), voice(END / 25))
    (source,) = find_sources([mute.parent])
    job = replace(job, source=source)
    extract_source(job)
    if beside:
        assert all(clip.sound().std() > 0.05 for clip in load_clips_after(job))
    else:
        assert rejected(job) == ["mute.mp4 is silent, and no other sound lies beside it or in a twin audio tree"]


def test_a_video_that_memory_does_not_hold_is_left_out(job, monkeypatch):
    def too_much(*_):
        raise MemoryError

    monkeypatch.setattr(extraction, "follow", too_much)
    extract_source(job)
    assert rejected(job) == ["too little memory for it"]


def test_an_offset_that_the_expert_finds_is_taken_out_and_what_it_refuses_is_left_out(job, video, monkeypatch):
    def judge(expert: str, faces: Path, sound: np.ndarray, trusted: bool) -> Fraction:
        if next(calls):
            raise InputError("sound drifts")
        return Fraction(2, 25)

    calls = iter([False, True])
    monkeypatch.setattr(extraction, "sound_offset", judge)
    extract_source(replace(job, settings=replace(job.settings, sync_expert=__file__)))
    (clip,), wave = load_clips_after(job), read_audio(video)
    assert clip.info.offset_ms == 80
    np.testing.assert_allclose(clip.sound()[:16000], wave[1280:17280], atol=2e-4)
    record = json.loads(record_of(job.settings.output, job.source.id).read_text())
    assert record["rejected"] == ["piece 1 at 1.80 s: sound drifts"]
