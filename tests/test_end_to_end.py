"""The chain as a user meets it: on real files, where scripts are started with no ffmpeg program on PATH."""

import hashlib
import os
import subprocess
import sys
import wave
from argparse import Namespace
from fractions import Fraction
from operator import attrgetter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import skimage.data
from conftest import ROOT, run_here, voice
from parity.weights import save

from engine.options import AudioConfig, InferenceConfig
from engine.person import Person
from engine.pipeline import LipSync, lip_sync
from engine.stages import from_network
from errors import InputError
from face.crop import SIZE, CropTransform
from face.landmark_net import LandmarkNet
from face.lips import lip_gap
from face.mask import TOP_ROW
from face.paste import paste_rect
from inference import configure, parse_arguments, take_person
from inference import main as inference_main
from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import VideoReader
from models.checkpoint import save_network
from models.config import BaseConfig
from models.discriminators import HRDiscriminator
from models.hyperlips import HyperLipsBase
from speech.mel import log_mel


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ("--watermark", "watermark", True),
        ("--lossless", "lossless", True),
        ("--max-size 640x360", "max_size", "640x360"),
        ("--audio-track 1", "audio.track", 1),
        ("--face-index 1", "face.index", 1),
        ("--hr mine.safetensors", "hr", "mine.safetensors"),
        ("--base mine.safetensors", "base", "mine.safetensors"),
        ("--base-only", "hr", None),
        ("--device cpu", "device", "cpu"),
        ("--set watermark=true crf=3", "crf", 3),
    ],
)
def test_options_reach_the_config(monkeypatch, options, key, value):
    monkeypatch.setattr(sys, "argv", ["inference.py", *options.split()])
    read = attrgetter(key)
    assert read(configure(parse_arguments())) == value != read(InferenceConfig())


ODD_FACES = [
    "h264_pcm.avi",
    "hevc_portrait_1080x1920.mp4",
    "hevc_vfr_face_leaves.mov",
    "mpeg1_mp2_broken_start.mpg",
    "noaudio_14985fps.mp4",
    "rot90_vfr_phone.mp4",
    "still_face.jpg",
    "still_many_faces.jpg",
    "two_faces_mixed_speech.mp4",
]
NO_FACE = ["av1.mkv", "cover_art_stream.mp4", "hevc_10bit.mp4", "no_duration.webm", "rot90_tiny.mov"]


def run_script(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """It finds no other program."""
    environment = {**os.environ, "PATH": os.devnull, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, ROOT / "inference.py", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
        env=environment,
    )


def check_output(output: Path, face: Path, audio: Path) -> None:
    """Frame count, rate, size and sound of a result against its inputs."""
    made, source = VideoReader(output), VideoReader(face)
    seconds = Fraction(len(read_audio(audio)), SAMPLE_RATE)
    frames = list(made)
    assert made.size == source.size
    if not (source.is_still or source.is_variable):
        assert abs(float(made.fps - source.fps)) < 0.02 * float(source.fps)
    assert abs(len(read_audio(output)) / SAMPLE_RATE - seconds) <= 0.04
    times = [float(frame.time) for frame in frames]
    assert times == sorted(set(times)) and times[-1] < seconds
    if not source.is_variable:
        fps = 25 if source.is_still else source.fps
        assert abs(len(frames) - float(seconds * fps)) <= 1


def test_demo_needs_no_arguments_and_no_ffmpeg_program(tmp_path):
    result = run_script("--output", tmp_path / "demo.mp4")
    assert result.returncode == 0, result.stderr
    assert "frames/s" in result.stdout.splitlines()[-1]
    check_output(tmp_path / "demo.mp4", ROOT / "assets" / "grid_s1_demo.mp4", ROOT / "assets" / "grid_s1_demo.m4a")


def test_lips_move_with_the_sound_and_rest_without_it(tmp_path, talking_clip, monkeypatch):
    silence = tmp_path / "silence.flac"
    write_flac(silence, np.zeros(2 * SAMPLE_RATE, np.float32))
    speech = ROOT / "assets" / "grid_s1_demo.m4a"
    engine, spread = LipSync(InferenceConfig(hr=None, precision="float32", layout="contiguous")), {}
    face = engine.prepare(talking_clip)
    for name, audio in (("speech", speech), ("silence", silence)):
        crops = []

        def keep(output, network, crops=crops):
            images = from_network(output, network)
            crops.extend(images)
            return images

        monkeypatch.setattr("engine.stages.from_network", keep)
        list(engine.drive(face, audio))
        spread[name] = lip_gap(LandmarkNet().landmarks(np.stack(crops))[0]).std()
    assert spread["speech"] > 2 * spread["silence"]


def test_the_motion_gain_scales_the_motion(talking_clip):
    """At 0 nothing is said; between 1 and 2 the mouth's pixels move farther from that."""
    moved, face = [], None
    for gain in (0.0, 1.0, 2.0):
        engine = LipSync(InferenceConfig(hr=None, audio=AudioConfig(motion_gain=gain)))
        face = face or engine.prepare(talking_clip)
        frames = [frame.rgb()[150:230, 130:230].astype(int) for frame, _ in engine.drive(face, talking_clip)]
        moved.append(np.stack(frames))
    one, two = (np.abs(frames - moved[0]).mean() for frames in moved[1:])
    assert 1.2 * one < two < 2.5 * one
    with pytest.raises(InputError, match="motion_gain is -1"):
        AudioConfig(motion_gain=-1)


def test_references_go_from_a_closed_mouth_to_a_wide_one(tmp_path, talking_clip):
    save_network(tmp_path / "base.safetensors", HyperLipsBase(BaseConfig(references=3, audio="mel", audio_window=16)))
    engine = LipSync(InferenceConfig(base=str(tmp_path / "base.safetensors"), hr=None))
    references = engine.prepare(talking_clip).references[0]
    gaps = lip_gap(engine.landmarks.landmarks(references)[0])
    assert references.shape == (3, 128, 128, 3) and gaps[0] < gaps[1] < gaps[2]
    cv2.imwrite(str(tmp_path / "still.png"), next(iter(VideoReader(talking_clip))).rgb()[:, :, ::-1])
    references = engine.prepare(tmp_path / "still.png").references[0]
    assert all(np.array_equal(reference, references[0]) for reference in references)  # a picture has one


def test_pixels_outside_the_face_are_the_sources_own(talking_clip):
    originals = list(VideoReader(talking_clip))
    engine = LipSync(InferenceConfig(hr=None))
    for frame, _ in engine.drive(engine.prepare(talking_clip), talking_clip):
        changed = np.abs(frame.planes[0].astype(int) - originals[frame.index].planes[0]) > 0
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        # One rectangle round the lower face: what lies above the eyes or far beside the face keeps every bit.
        assert np.ptp(rows) * np.ptp(columns) < 0.6 * changed.size
        assert rows.min() > 60 and changed.any()


def test_lossless_output_keeps_every_pixel_outside_the_face(tmp_path, talking_clip):
    engine = LipSync(InferenceConfig(hr=None, lossless=True, precision="float32"))
    face, output = engine.prepare(talking_clip), tmp_path / "out.mp4"
    face.transforms[20:30] = np.nan  # as if no face were seen
    lower = np.repeat(np.arange(SIZE)[:, None] >= TOP_ROW, SIZE, 1)
    report = lip_sync(face, talking_clip, output, engine=engine)
    assert report.passed == [(0.8, 1.2)] and report.untouched == 10
    for source, made in zip(VideoReader(talking_clip), VideoReader(output), strict=False):
        outside = np.ones(source.planes[0].shape, bool)
        if face.present[source.index]:
            x0, y0, x1, y1 = paste_rect(lower, CropTransform(face.transforms[source.index]), source.size)
            outside[y0:y1, x0:x1] = False
        for plane, other in zip(source.planes, made.planes, strict=True):
            step = len(outside) // len(plane)
            np.testing.assert_array_equal(plane[outside[::step, ::step]], other[outside[::step, ::step]])


def test_a_file_says_that_it_is_synthetic_and_may_show_it(tmp_path, talking_clip):
    engine = LipSync(InferenceConfig(hr=None, lossless=True, watermark=True))
    lip_sync(talking_clip, talking_clip, tmp_path / "out.mkv", engine=engine)
    with av.open(str(tmp_path / "out.mkv")) as container:
        comment = {name.lower(): value for name, value in container.metadata.items()}["comment"]
    digest = hashlib.sha256((ROOT / "checkpoints" / "base_light.safetensors").read_bytes()).hexdigest()
    assert "Synthetic" in comment and "HyperLips" in comment and f"base_light.safetensors sha256 {digest}" in comment
    (source, made) = (next(iter(VideoReader(path))).rgb().astype(int) for path in (talking_clip, tmp_path / "out.mkv"))
    changed = np.argwhere(np.abs(made - source).max(2) > 40)
    corner = changed[(changed[:, 0] > 265) & (changed[:, 1] > 280)]
    assert len(corner) > 60 and np.abs(made - source)[:60].max() == 0


def test_a_still_speaks(tmp_path, talking_clip):
    picture = tmp_path / "face.png"
    cv2.imwrite(str(picture), next(iter(VideoReader(talking_clip))).rgb()[..., ::-1])
    report = lip_sync(picture, talking_clip, tmp_path / "still.mp4", InferenceConfig(hr=None))
    assert report.frames > 0
    check_output(tmp_path / "still.mp4", picture, talking_clip)


def test_weights_in_the_published_layout_speak(tmp_path, talking_clip):
    checkpoint = tmp_path / "base.pth"
    save("base", checkpoint)
    feed = LipSync(InferenceConfig(base=str(checkpoint), hr=None)).settings
    assert (feed.crop, feed.reference) == ("box", "first")
    sound, output = tmp_path / "sound.flac", tmp_path / "out.mp4"
    write_flac(sound, voice(0.48))
    weights = "--base", checkpoint, "--base-only"
    result = run_script(*weights, "--face", talking_clip, "--audio", sound, "--output", output)
    assert result.returncode == 0, result.stderr
    check_output(output, talking_clip, sound)


def test_weights_in_the_published_layout_hear_what_published_training_heard(tmp_path, talking_clip, monkeypatch):
    """Windows that begin where it began them, with nothing done to what they say."""
    save("base", tmp_path / "base.pth")
    engine = LipSync(InferenceConfig(base=str(tmp_path / "base.pth"), hr=None, precision="float32"))
    windows, gains = [], set()

    def listen(network: object, heard: np.ndarray, faces: np.ndarray, *others: object) -> np.ndarray:
        windows.extend(heard)
        gains.add(others[2])
        return faces

    monkeypatch.setattr("engine.drive.paint_base", listen)
    sound = voice(0.6)
    assert len(list(engine.drive(engine.prepare(talking_clip), sound))) == len(windows) == 15
    rows = log_mel(sound)
    for index in range(1, 12):
        first = int(80 * (index - 1) / 25)
        np.testing.assert_array_equal(windows[index][0].T, rows[first : first + 16])
    assert gains == {1.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory, talking_clip) -> Path:
    """A folder of files with something wrong, beside a clip that is whole."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "clip.mp4").symlink_to(talking_clip)
    (folder / "text.mp4").write_text("not a video")
    with wave.open(str(folder / "silent.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
    save_network(folder / "wrong.safetensors", HRDiscriminator())
    cv2.imwrite(str(folder / "faceless.png"), np.full((128, 128, 3), 90, np.uint8))
    return folder


WHOLE = "--face clip.mp4 --audio clip.mp4 --output out.mp4"
BAD = {
    "no such file": "--face none.mp4 --audio clip.mp4 --output out.mp4",
    "text named mp4": "--face text.mp4 --audio clip.mp4 --output out.mp4",
    "no face": "--face faceless.png --audio clip.mp4 --output out.mp4",
    "audio without sound": "--face clip.mp4 --audio faceless.png --output out.mp4",
    "text as audio": "--face clip.mp4 --audio text.mp4 --output out.mp4",
    "empty sound": "--face clip.mp4 --audio silent.wav --output out.mp4",
    "wrong network": f"{WHOLE} --base wrong.safetensors",
    "unknown key": f"{WHOLE} --set face.bakend=x",
    "output not writable": "--face clip.mp4 --audio clip.mp4 --output text.mp4/out.mp4",
    "no such face": f"{WHOLE} --face-index 3",
    "faces are counted from 0": f"{WHOLE} --face-index -1",
    "no batch": f"{WHOLE} --set batch=0",
    "demo beside a face": f"{WHOLE} --demo still",
    "source as output": "--face clip.mp4 --audio clip.mp4 --output clip.mp4",
    "face alone": "--face clip.mp4",
}


def assert_one_line(code: int, err: str) -> None:
    assert code == 2 and len(err.strip().splitlines()) == 1 and err.startswith("error: "), err


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(files, monkeypatch, capfd, name):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    code = run_here(monkeypatch, inference_main, *BAD[name].split())
    assert_one_line(code, capfd.readouterr().err)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("name", ["no such file", "empty sound"])
def test_so_it_is_for_the_script(files, name):
    before = sorted(files.iterdir())
    result = run_script(*BAD[name].split(), cwd=files)
    assert_one_line(result.returncode, result.stderr)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("name", NO_FACE)
def test_odd_files_without_a_face_are_refused(shared, tmp_path, talking_clip, monkeypatch, capfd, name):
    face, output = shared(f"data/odd/{name}"), tmp_path / "out.mp4"
    code = run_here(monkeypatch, inference_main, "--face", face, "--audio", talking_clip, "--output", output)
    err = capfd.readouterr().err
    assert_one_line(code, err)
    assert "face" in err and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def engine() -> LipSync:
    return LipSync()


@pytest.mark.parametrize("name", ODD_FACES)
def test_odd_files_with_a_face_are_spoken(shared, engine, tmp_path, name):
    """A face that leaves is followed a while longer."""
    face, audio = shared(f"data/odd/{name}"), tmp_path / "speech.flac"
    seconds = 4 if "leaves" in name else 1.2
    write_flac(audio, read_audio(shared("data/odd/speech_jfk.flac"))[: int(seconds * SAMPLE_RATE)])
    lip_sync(face, audio, tmp_path / "out.mp4", engine=engine)
    check_output(tmp_path / "out.mp4", face, audio)


def test_the_demo_s_portrait_speaks(tmp_path, monkeypatch):
    sound, output = tmp_path / "sound.flac", tmp_path / "still.mp4"
    write_flac(sound, voice(0.6))
    monkeypatch.setattr("inference.DEMO_AUDIO", sound)
    assert run_here(monkeypatch, inference_main, "--demo", "still", "--base-only", "--output", output) == 0
    frames = [frame.rgb() for frame in VideoReader(output)]
    assert len(frames) == 15 and len(read_audio(output)) == pytest.approx(0.6 * SAMPLE_RATE, abs=0.04 * SAMPLE_RATE)
    astronaut = skimage.data.astronaut()
    assert frames[0].shape == astronaut.shape
    changed = np.ptp(np.stack(frames).astype(int), 0).max(2) > 40  # above what coding changes: the mouth
    rows, columns = np.nonzero(changed)
    assert len(rows) > 20 and 100 < np.median(rows) < 200 and 170 < np.median(columns) < 280
    assert np.abs(frames[0].astype(int) - astronaut)[250:].mean() < 4


def test_a_person_brings_weights_and_a_face_unless_one_is_given(tmp_path):
    person = Person(tmp_path)
    for path in (person.base, person.hr, person.face):
        path.touch()
    for given, used in ((None, str(person.face)), ("other.mp4", "other.mp4")):
        args = Namespace(person=tmp_path, face=given, base=None, hr=None, base_only=False, demo=None)
        take_person(args)
        assert (args.base, args.hr, args.face) == (str(person.base), str(person.hr), used)
