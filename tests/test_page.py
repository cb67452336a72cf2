"""The page's work without the page: a visitor's session, what visitors share, and what they are told."""

import os
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import skimage.data
from conftest import FPS, ROOT, SIZE, talking_face, voice, wait_until

import app
import engine.drive
from engine.config import describe, load_config
from engine.options import InferenceConfig
from errors import InputError
from media.audio import SAMPLE_RATE, write_flac
from media.video import VideoReader, VideoWriter
from metrics.look import STYLE
from page import show
from page.limits import Limits
from page.session import Session, Stopped, loudest
from page.settings import SETTINGS, initial, overrides
from page.studio import Kept, Studio, Turns
from page.voice import speak, speak_command, synthesiser


@pytest.fixture(scope="module")
def studio():
    """Stage 1 alone: the quicker half of the chain."""
    studio = Studio(changes=["hr=null", "precision=float32", "layout=contiguous"], limits=Limits(seconds=4, letters=40))
    yield studio
    studio.close()
    assert not studio.folder.exists()


@pytest.fixture
def session(studio):
    session = Session(studio)
    yield session
    session.close()
    assert not session.folder.exists()


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """0.6 s, loud from .2 to .4 s."""
    path = tmp_path_factory.mktemp("sound") / "word.flac"
    wave = 0.01 * np.sin(2 * np.pi * 200 * np.arange(int(0.6 * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)
    wave[int(0.2 * SAMPLE_RATE) : int(0.4 * SAMPLE_RATE)] *= 50
    write_flac(path, wave)
    return path


@pytest.fixture(scope="module")
def crossing(tmp_path_factory) -> Path:
    """2.4 s: the left face is larger at first, the right one later and on the whole."""
    path = tmp_path_factory.mktemp("two") / "two.mp4"
    face = skimage.data.astronaut()[0:240, 110:330]
    with VideoWriter(path, (560, 288), FPS) as writer:
        for k in range(60):
            frame = np.full((288, 560, 3), 128, np.uint8)
            for left, scale in ((10, 0.8), (280, 0.6 + 0.6 * k / 59)):
                small = cv2.resize(face, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                frame[: small.shape[0], left : left + small.shape[1]] = small
            writer.write(frame)
    return path


@pytest.fixture
def held(monkeypatch) -> SimpleNamespace:
    """Painting that begins (`began`) and waits until it may go on (`goes_on`)."""
    events, paint = SimpleNamespace(began=threading.Event(), goes_on=threading.Event()), engine.drive.paint_base

    def wait(*inputs):
        events.began.set()
        assert events.goes_on.wait(60)
        return paint(*inputs)

    monkeypatch.setattr(engine.drive, "paint_base", wait)
    yield events
    events.goes_on.set()


def made(session, *args):
    *_, last = session.make(*args)
    return last


def files(studio) -> set[Path]:
    return {path for path in studio.folder.rglob("*") if path.is_file()}


def test_a_face_is_shown_one_moment_is_previewed_and_the_video_is_what_the_command_line_makes(
    session, talking_clip, sound, tmp_path
):
    (thumbnail,) = session.look(talking_clip)
    assert thumbnail.shape == (192, 192, 3) and thumbnail.std() > 20
    changes = ["audio.motion_gain=1.6", "crf=12"]
    preview = session.preview(0, sound, changes)
    *before, last = session.make(0, sound, changes)
    assert [stage.name for stage in last.stages] == ["track", "paint", "measure"]
    assert all(stage.done == stage.count for stage in last.stages) and before[0].made is None
    frames = [frame.rgb() for frame in VideoReader(last.made.path)]
    assert len(frames) == last.made.report.frames == 15 and last.made.report.untouched == 0
    # The preview is the frame of the loudest moment (.3 s), with mouth and all, but for the codec's loss.
    apart = [float(np.abs(preview[100:].astype(int) - frame[100:]).mean()) for frame in frames]
    assert np.argmin(apart) == 7 and min(apart) < 2 < max(apart)

    for path in (talking_clip, sound):
        (tmp_path / path.name).symlink_to(path)
    words = shlex.split(last.made.command)
    assert words[:2] == ["python", "inference.py"]
    words[:2] = [sys.executable, str(ROOT / "inference.py")]
    subprocess.run(words, cwd=tmp_path, check=True)
    for ours, theirs in zip(frames, VideoReader(tmp_path / "out.mp4"), strict=True):
        np.testing.assert_array_equal(ours, theirs.rgb())


def test_a_face_is_kept_for_the_next_sound_and_the_next_visitor(studio, session, talking_clip, sound):
    session.look(talking_clip)
    made(session, 0, sound)
    first = made(session, 0, sound).made.path
    session.look(talking_clip)
    again = made(session, 0, sound)
    assert [stage.name for stage in again.stages] == ["paint", "measure"]
    assert not first.exists() and again.made.path != first  # a browser would show what it fetched before
    other = Session(studio)
    other.look(talking_clip)
    assert [stage.name for stage in made(other, 0, sound).stages] == ["paint", "measure"]
    other.close()


def test_stopping_leaves_nothing_behind(studio, session, talking_clip, sound, held):
    session.look(talking_clip)
    held.goes_on.set()
    made(session, 0, sound)
    before, threads = files(studio), set(threading.enumerate())
    held.goes_on.clear()
    for state in (steps := session.make(0, sound)):
        if state.stages and state.stages[-1].name == "paint":
            session.stop()
            held.goes_on.set()
            break
    with pytest.raises(Stopped):
        list(steps)
    assert files(studio) == before
    abandoned = session.make(0, sound)  # as when the page is closed
    next(abandoned)
    abandoned.close()
    assert files(studio) == before and set(threading.enumerate()) <= threads
    assert made(session, 0, sound).made.report.frames == 15


def test_mistakes_are_told_and_leave_nothing(studio, session, talking_clip, sound, tmp_path):
    with pytest.raises(InputError, match="found no face; give a video"):
        session.preview(0, sound)
    noise, long, silent = tmp_path / "noise.png", tmp_path / "long.mp4", tmp_path / "silent.mp4"
    cv2.imwrite(str(noise), np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8))
    with VideoWriter(long, (64, 64), 5) as writer:
        for _ in range(30):
            writer.write(np.zeros((64, 64, 3), np.uint8))
    with VideoWriter(silent, SIZE, FPS) as writer:
        writer.write(talking_face(0))
    write_flac(tmp_path / "long.flac", voice(5))
    with pytest.raises(InputError, match="no face found"):
        session.look(noise)
    with pytest.raises(InputError, match="no face found"):
        list(session.make(0, sound))
    with pytest.raises(InputError, match="long.mp4: found 6 s of picture, expected at most 4"):
        session.look(long)
    session.look(talking_clip)
    for wrong, words in (
        (None, "found no voice"),
        (tmp_path / "long.flac", "found 5 s of sound, expected at most 4"),
        (silent, "no sound"),
        ("x" * 41, "text of 41 letters, expected at most 40"),
        (noise, "no sound"),
    ):
        for ask in (session.preview, lambda *args: list(session.make(*args))):
            with pytest.raises(InputError, match=words):
                ask(0, wrong)
    with pytest.raises(InputError, match="motion_gain is 9"):
        session.preview(0, sound, ["audio.motion_gain=9"])
    assert not files(studio)


def test_two_visitors_do_not_mix_and_wait_for_one_another(studio, talking_clip, crossing, sound, held):
    here, there = Session(studio), Session(studio)
    here.look(talking_clip)
    there.look(crossing)
    found, waited = {}, set()

    def work(session):
        for state in session.make(0, sound):
            waited.add(state.before)
        found[session] = state.made.path

    threads = [threading.Thread(target=work, args=(session,)) for session in (here, there)]
    threads[0].start()
    assert held.began.wait(60)
    threads[1].start()
    wait_until(lambda: 1 in waited)
    with pytest.raises(InputError, match="work under way"):
        here.preview(0, sound)
    held.goes_on.set()
    for thread in threads:
        thread.join()
    assert waited == {0, 1}
    assert VideoReader(found[here]).size == SIZE and VideoReader(found[there]).size == (560, 288)
    here.close()
    assert not found[here].exists() and found[there].exists()
    there.close()


def test_an_upload_goes_with_the_last_visitor_who_gave_it(studio, talking_clip):
    upload = studio.folder / "a" / "clip.mp4"  # where Gradio puts equal files of equal names
    upload.parent.mkdir()
    upload.write_bytes(talking_clip.read_bytes())
    here, there = Session(studio), Session(studio)
    for session in (here, there, here):
        session.choose(upload)
    here.close()
    assert upload.is_file()
    there.hold(None)
    there.close()
    assert not upload.exists()
    upload.parent.rmdir()


def test_a_face_that_was_given_during_other_work_is_looked_at_when_it_is_wanted(session, talking_clip, sound):
    session.look(talking_clip)
    with session._turn(), pytest.raises(InputError, match="work under way"):
        session.look(talking_clip)
    assert session.preview(0, sound).shape == (*SIZE[::-1], 3)


def test_a_page_that_begins_with_another_face_still_paints_the_chosen_one(crossing, sound):
    studio = Studio(changes=["hr=null", "precision=float32", "layout=contiguous", "face.index=1"])
    session = Session(studio)
    session.look(crossing)
    for choice, number in ((0, 1), (1, 0)):
        state = made(session, choice, sound)
        assert ("face.index=0" in state.made.command) == (number == 0)  # 1 is what the page's own settings say
        loud, source = (list(VideoReader(path))[8].rgb().astype(int) for path in (state.made.path, crossing))
        changed = [np.abs(loud - source)[:, half].max() for half in (slice(0, 270), slice(270, None))]
        assert np.argmax(changed) == choice
    session.close()
    studio.close()


def test_a_preview_beyond_a_short_video_shows_what_the_film_shows(session, talking_clip, tmp_path):
    """Twelve frames, and a sound that is loudest when the film runs backwards."""
    short, late = tmp_path / "short.mp4", tmp_path / "late.flac"
    with VideoWriter(short, SIZE, FPS) as writer:
        for frame in islice(VideoReader(talking_clip), 12):
            writer.write(frame)
    wave = 0.01 * np.sin(2 * np.pi * 200 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    wave[int(0.68 * SAMPLE_RATE) : int(0.88 * SAMPLE_RATE)] *= 50  # .78 s: frame 19, which is number 3 again
    write_flac(late, wave)
    session.look(short)
    preview = session.preview(0, late, ["crf=12"]).astype(int)
    film = [frame.rgb() for frame in VideoReader(made(session, 0, late, ["crf=12"]).made.path)]
    upper = [float(np.abs(preview[:100] - frame[:100]).mean()) for frame in film[:12]]
    assert np.argmin(upper) == 3 and np.abs(preview - film[19]).mean() < 2


def test_the_face_that_was_chosen_is_meant_also_where_another_is_larger_later(session, crossing, sound):
    assert len(session.look(crossing)) == 2
    halves = slice(0, 270), slice(270, None)
    for choice, number in ((0, 1), (1, 0)):
        state = made(session, choice, sound)
        assert (f"face.index={number}" in state.made.command) == bool(number)
        loud, source = (list(VideoReader(path))[8].rgb().astype(int) for path in (state.made.path, crossing))
        chosen, other = (np.abs(loud - source)[:, half].max() for half in (halves[choice], halves[1 - choice]))
        assert chosen > 2 * other


def test_a_text_is_read_where_a_program_can(session, studio, talking_clip, sound, tmp_path, monkeypatch):
    program = tmp_path / "espeak-ng"
    program.write_text(f'#!/bin/sh\ncat > "{tmp_path}/read"\ncp "{sound}" "$3"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert synthesiser() == "espeak-ng"
    session.look(talking_clip)
    state = made(session, 0, "Say 'hello' -w now")
    assert (tmp_path / "read").read_text() == "Say 'hello' -w now" and state.made.report.frames == 15
    first, second = state.made.command.splitlines()
    assert shlex.split(first)[2] == "Say 'hello' -w now" and "--audio voice.wav" in second
    with pytest.raises(InputError, match="no words"):
        session.preview(0, " ... ")
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(InputError, match="could not read the text"):
        speak("hello", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert synthesiser() is None and speak_command("a")[1] == "voice.wav"
    with pytest.raises(InputError, match="found no speech synthesiser"):
        speak("hello", tmp_path)


def test_settings_are_those_of_the_command_line_with_its_help(studio):
    told = " ".join(" ".join(describe(InferenceConfig())).split())
    assert all(setting.help in told for setting in SETTINGS)
    start = initial(studio.default)
    assert overrides(start, start) == [] and "hr" not in start
    changed = {**start, "audio.motion_gain": 2.0, "crf": 30, "watermark": True, "max_size": "1280x720"}
    config = load_config(InferenceConfig, None, overrides(changed, start))
    assert (config.audio.motion_gain, config.crf, config.watermark, config.max_size) == (2.0, 30, True, "1280x720")
    assert load_config(InferenceConfig, None, overrides({"hr": False}, {"hr": True})).hr is None


def test_other_settings_take_the_loaded_networks_and_other_weights_do_not(studio):
    default = studio.default
    other = studio.engine(["crf=30", "audio.motion_gain=2", "max_size=1280x720", "face.index=1"])
    assert other.base is default.base and other.hr is default.hr and other.landmarks is default.landmarks
    assert (other.gain, other.config.crf, other.settings.index, other.settings.max_size) == (2.0, 30, 1, "1280x720")
    assert (default.config.crf, default.settings.index) == (InferenceConfig().crf, 0)
    fewer = studio.engine(["batch=3"])
    assert fewer.base is not default.base and fewer.config.batch == 3
    assert studio.engine(["batch=3", "crf=30"]).base is fewer.base


def test_what_is_kept_is_what_was_used_last():
    kept = Kept(2)
    assert [kept.get(key, lambda key=key: key.upper()) for key in "abacb"] == [*"ABACB"]
    made_anew = []
    for key in "bca":
        kept.get(key, lambda key=key: made_anew.append(key))
    assert made_anew == ["a"]


def test_turns_come_in_the_order_of_asking_and_who_leaves_is_no_hindrance():
    turns, order, waiting = Turns(), [], [threading.Event() for _ in range(3)]

    def ask(number: int) -> None:
        def told(before: int) -> None:
            waiting[number].set()
            if number == 1:
                raise Stopped

        try:
            with turns.turn(told):
                order.append(number)
        except Stopped:
            order.append("left")

    with turns.turn(lambda before: None):
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread, told in zip(threads, waiting, strict=True):
            thread.start()
            assert told.wait(10)
        threads[1].join(10)
        assert order == ["left"]
    for thread in threads:
        thread.join(10)
    assert order == ["left", 0, 2]


def test_the_loudest_moment():
    wave = np.zeros(SAMPLE_RATE, np.float32)
    wave[8000:8800] = 0.5
    assert abs(loudest(wave) - 8400) <= 1600 and loudest(wave[:10]) == 5


def test_problems_are_told_without_the_places_of_temporary_files(studio):
    error = InputError(f"{studio.folder}/a1b2/me & you.mp4: no <face>")
    told = show.problem(error, studio.folder)
    assert "me &amp; you.mp4: no &lt;face&gt;" in told and "a1b2" not in told and str(studio.folder) not in told
    assert all(f".{name}" in STYLE for name in ("sheet", "bad", "key", "steps"))


@pytest.mark.parametrize("found", [None, "5.9.1"])
def test_without_gradio_6_one_line_says_what_to_install(found, monkeypatch):
    def version(name: str) -> str:
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(app, "version", version)
    with pytest.raises(InputError, match=r"found .*gradio.*; the page wants gradio 6: .*requirements-page\.txt"):
        app.check_gradio()


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_that_does_not_exist_is_told_before_anything_is_loaded(port, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["app.py", "--port", port])
    with pytest.raises(InputError, match=f"--port is {port}, expected 1 to 65535"):
        app.main()


def test_a_port_that_is_taken_is_told_in_one_line(studio, monkeypatch):
    def launch(host, port):
        raise OSError("Cannot find empty port in range: 7777-7777.")  # as gradio says it

    layout = SimpleNamespace(Page=lambda studio: SimpleNamespace(launch=launch))
    monkeypatch.setitem(sys.modules, "page.layout", layout)
    monkeypatch.setattr(app, "check_gradio", lambda: None)
    monkeypatch.setattr(sys, "argv", ["app.py", "--port", "7777", "--set", "hr=null"])
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards
    with pytest.raises(InputError, match=r"127\.0\.0\.1:7777 \(Cannot find empty port.*another --port"):
        app.main()


def test_a_sound_that_does_not_tell_its_length_is_measured(session, talking_clip, tmp_path):
    session.look(talking_clip)
    recorded = tmp_path / "recorded.mka"
    with av.open(str(recorded), "w", format="matroska", options={"live": "1"}) as container:  # as browsers record
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for start in range(0, 5 * SAMPLE_RATE, 4000):
            frame = av.AudioFrame.from_ndarray(np.full((1, 4000), 99, np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(recorded)) as container:
        assert container.duration is None
    with pytest.raises(InputError, match=r"recorded.mka: found 4\.\d+ s of sound, expected at most 4"):
        session.preview(0, recorded)


def test_a_face_that_another_largest_picture_does_not_show_is_told_and_looks_are_kept(
    session, crossing, sound, monkeypatch
):
    assert len(session.look(crossing)) == 2
    looked = []

    def fewer(path, engine):
        looked.append(engine.settings.max_size)
        return replace(look(path, engine), faces=[])

    look = session._looked
    monkeypatch.setattr(session, "_looked", fewer)
    for _ in range(2):
        for ask in (session.preview, lambda *args: list(session.make(*args))):
            with pytest.raises(InputError, match="found only 0 faces where the largest picture is 128x72"):
                ask(1, sound, ["max_size=128x72"])
    assert looked == ["128x72"]
