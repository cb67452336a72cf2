"""A new person in one command, on the suite's own clip and very small weights: whole, killed, stopped, refused."""

import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import FPS, SIZE, talking_face, voice

from adapt import adapt
from datasets.clips import load_clips, merge_index
from datasets.config import DataConfig
from datasets.splits import training_splits
from engine.before_after import Painter, compare
from engine.config import load_config
from engine.options import SYNC_EXPERT, AdaptConfig
from engine.person import Adaptation, Person
from errors import InputError
from face.landmark_net import LandmarkNet
from media.audio import SAMPLE_RATE, read_audio
from media.video import VideoReader, VideoWriter
from models.checkpoint import load_network, read_metadata, save_network
from models.config import BaseConfig, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from preprocess import extraction, person_videos
from preprocess.person_videos import first_used, read_videos

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    "sync=false",  # the clip's voice is made of tones
    *(
        f"{stage}.{key}"
        for stage in ("stage1", "stage2")
        for key in (
            "run.batch=2",
            "run.steps=4",
            "run.validate_every=2",
            "run.checkpoint_every=1",
            "data.workers=0",
            "data.window=1",
            "precision=float32",
            "layout=contiguous",
            "loss.sync=0",
        )
    ),
    "stage1.loss.perceptual=0",
    "stage1.run.steps=6",
    "stage1.optim.parts=[decoder]",
    "stage1.optim.lr=0.01",
    "stage1.optim.warmup=0",
    "stage1.optim.ema=0",
    "stage1.run.validate_start=false",  # so that what is kept has learned
    "stage2.loss.lip_perceptual=0",
    "stage2.validation.frames=4",
]


SHAPE = BaseConfig(latent_channels=[8, 8, 8, 16], hyper_width=16, audio_width=16, decoder_channels=[16, 8, 8])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[str]:
    return untrained(tmp_path_factory.mktemp("weights"))


def untrained(folder: Path) -> list[str]:
    """Options that name untrained weights of both stages, which are put into the folder."""
    save_network(folder / "base.safetensors", HyperLipsBase(SHAPE))
    save_network(folder / "hr.safetensors", HRDecoder(HRConfig(scale=1, width=8)))
    return ["--base", str(folder / "base.safetensors"), "--hr", str(folder / "hr.safetensors")]


def run(*arguments: object, patch: str = "", script: str = "adapt.py") -> subprocess.CompletedProcess:
    """The script as it is started, after a patch that interrupts it."""
    start = f"sys.argv = [{script!r}, *sys.argv[1:]]\nrunpy.run_path({script!r}, run_name='__main__')"
    code = f"import runpy, sys\n{patch}\n{start}"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def after(step: int, what: str) -> str:
    """A patch: `what` happens after the checkpoint of that step of stage 1."""
    return (
        "import os, signal; from engine.state import RunState; original = RunState.save\n"
        "def save(self, step, record):\n    original(self, step, record)\n"
        f"    if step == {step} and 'stage1' in str(self.folder): {what}\n"
        "RunState.save = save"
    )


def record(folder: Path) -> dict:
    return json.loads((folder / "adapt.json").read_text())


def test_killed_stopped_resumed_done_and_speaking(talking_clip, weights, tmp_path):
    me = tmp_path / "me"
    command = "--video", talking_clip, "--output", me, *weights, "--set", *SMALL

    killed = run(*command, patch=after(1, "os.kill(os.getpid(), signal.SIGKILL)"))
    assert killed.returncode == -9, killed.stderr
    assert record(me)["done"] == ["videos", "face"]

    stopped = run(*command, patch=after(3, "os.killpg(0, signal.SIGINT)"))
    assert stopped.returncode == 130, stopped.stderr
    assert "from step 1;" in stopped.stdout and "Traceback" not in stopped.stderr
    assert f"the best so far (stage1) is kept, and speaks by --person {me}" in stopped.stdout
    Person(me).check()
    assert Person(me).hr.read_bytes() == Path(weights[3]).read_bytes()  # stage 2 has not begun

    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert "from step 4;" in done.stdout  # the signal came during the fourth step, which was finished
    assert "stage 1, step 6, held out: fast lip r" in done.stdout and "stage 2, step 4, held out" in done.stdout
    assert "held out, general: fast lip r" in done.stdout and "held out, adapted: fast lip r" in done.stdout
    general, adapted = (load_network(path, kind=HyperLipsBase).state_dict() for path in (weights[1], Person(me).base))
    assert {name.split(".")[0] for name, value in general.items() if not value.equal(adapted[name])} == {"decoder"}
    assert isinstance(load_network(Person(me).hr), HRDecoder)
    assert read_metadata(Person(me).base) == read_metadata(me / "stage1" / "best.safetensors")
    strip, film = cv2.imread(str(me / "before_after.png")), me / "before_after.mp4"
    assert strip.shape == (3 * (128 + 24), 6 * 128, 3)
    (tail,) = training_splits(DataConfig(str(me / "data")), "val").validation
    real = tail.faces(range(tail.info.frames))
    rows = [
        real,
        *(
            painter(*pair).paint(tail, real, LandmarkNet())
            for pair in (weights[1::2], (Person(me).base, Person(me).hr))
        ),
    ]
    for shown, wanted in zip(first_of_rows(strip[..., ::-1]), rows, strict=True):
        assert np.abs(shown.astype(int) - wanted[0]).max() <= 2
    assert np.abs(rows[1][0].astype(int) - rows[2][0]).max() > 20
    assert VideoReader(film).size == (3 * 128, 128 + 24) and len(list(VideoReader(film))) == 25
    assert len(read_audio(film)) == pytest.approx(SAMPLE_RATE, abs=1000)

    for name in ("data", "stage1", "stage2"):  # which are of no more use
        shutil.rmtree(me / name)
    before = (me / "adapt.json").stat().st_mtime_ns
    again = run(*command)
    assert again.returncode == 0 and "is done already" in again.stdout
    assert (me / "adapt.json").stat().st_mtime_ns == before

    spoken = run("--person", me, "--audio", talking_clip, "--output", tmp_path / "out.mp4", script="inference.py")
    assert spoken.returncode == 0, spoken.stderr
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == -(-len(read_audio(talking_clip)) * 25 // SAMPLE_RATE)
    refused = run("--person", me, "--base-only", script="inference.py")
    assert refused.returncode == 2 and "--person brings its own weights" in refused.stderr


def painter(base: object, hr: object) -> Painter:
    return Painter("", load_network(Path(base), kind=HyperLipsBase), load_network(Path(hr), kind=HRDecoder))


def first_of_rows(strip: np.ndarray) -> list[np.ndarray]:
    """The first picture of the three rows of a strip, below their captions."""
    return [strip[row * (24 + 128) + 24 :][:128, :128] for row in range(3)]


def test_what_is_compared_is_shown_by_its_name_and_in_order(data_set):
    (clip,) = load_clips(data_set, "val")
    painters = [Painter(name, HyperLipsBase(SHAPE), HRDecoder(HRConfig(scale=1, width=8))) for name in ("a", "b")]
    compared = compare([clip.part(0, 10, "val"), clip.part(10, 20, "val")], painters, 10)
    real = clip.faces(range(10))
    rows = {"real": real} | {one.name: one.paint(clip.part(0, 10, "val"), real, LandmarkNet()) for one in painters}
    assert list(compared.pictures) == list(rows) and list(compared.scores) == ["a", "b"]
    assert all(np.array_equal(compared.pictures[name], wanted) for name, wanted in rows.items())
    assert np.array_equal(first_of_rows(compared.strip()), [faces[0] for faces in rows.values()])
    assert np.array_equal(compared.film().frames[3][24:, 256:], rows["b"][3])
    assert np.abs(rows["a"][0].astype(int) - rows["b"][0]).max() > 20


def test_told_to_end_outside_a_training_it_says_so_and_counts_the_time(talking_clip, weights, tmp_path):
    patch = (
        "import os, signal, preprocess.person_videos as videos\n"
        "videos.read_videos = lambda *_: os.kill(os.getpid(), signal.SIGTERM)"
    )
    told = run("--video", talking_clip, "--output", tmp_path / "me", *weights, "--set", *SMALL, patch=patch)
    assert told.returncode == 143, told.stderr
    assert "stopped before anything was learned; the same command goes on" in told.stdout
    assert record(tmp_path / "me")["seconds"] > 0 and "Traceback" not in told.stderr


def test_what_cannot_be_used_is_told_in_one_line_and_leaves_nothing(talking_clip, tmp_path):
    short, me = tmp_path / "short.mp4", tmp_path / "me"
    with VideoWriter(short, SIZE, FPS, audio=(voice(1.2), SAMPLE_RATE)) as writer:
        for index in range(30):
            writer.write(talking_face(index / 25))
    for arguments, message in (
        (("--video", short), r"short.mp4: found 1.2 s in one piece, expected 2 s or more"),
        (("--video", tmp_path / "no.mp4"), "found no file"),
        (("--video", talking_clip, "--minutes", "0"), "minutes is 0"),
        (("--video", talking_clip, "--set", "stage1.run.minutes=3"), "found stage1.run.minutes; expected none of"),
    ):
        refused = run(*arguments, "--output", me)
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not (me / "data").exists() and not (me / "adapt.json").exists()


@pytest.fixture
def wall(tmp_path) -> Path:
    """A video that shows nobody."""
    path = tmp_path / "wall.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(2), SAMPLE_RATE)) as writer:
        for _ in range(50):
            writer.write(talking_face(0)[::-1, ::-1] // 8)
    return path


def test_a_video_that_shows_nobody_is_refused_and_leaves_no_data(wall, weights, tmp_path):
    me = tmp_path / "me"
    refused = run("--video", wall, "--output", me, *weights)
    assert refused.returncode == 2 and "wall.mp4: nothing in it to learn from (no face found)" in refused.stderr
    assert not (me / "data").exists() and not (me / "adapt.json").exists()


def test_a_video_of_several_that_shows_nobody_is_left_out(wall, talking_clip, tmp_path, capsys):
    data = tmp_path / "data"
    read_videos([wall, talking_clip], data, 128, sync=False)
    assert [Path(clip.info.source).name for clip in load_clips(data, "train")] == ["talking.mp4"]
    assert first_used([wall, talking_clip], data) == talking_clip
    assert "warning: left out, " in (told := capsys.readouterr().err) and "wall.mp4: nothing in it to learn" in told


def test_several_videos_are_one_person_and_one_named_twice_is_one(talking_clip, tmp_path):
    short, data = tmp_path / "short.mp4", tmp_path / "data"
    with VideoWriter(short, SIZE, FPS, audio=(voice(1.2), SAMPLE_RATE)) as writer:
        for index in range(30):
            writer.write(talking_face(index / 25))
    read_videos([talking_clip, short, talking_clip], data, 128, sync=False)
    clips = load_clips(data, "train")
    found = sorted((Path(clip.info.source).name, clip.info.person, clip.info.frames) for clip in clips)
    assert found == [("short.mp4", "me", 30), ("talking.mp4", "me", 50)]
    assert len({clip.info.id for clip in clips}) == 2 == len(merge_index(data))


def test_the_sound_of_own_videos_is_put_in_step_and_trusted(talking_clip, tmp_path, monkeypatch):
    asked = []

    def offset(expert: str, faces: Path, sound: np.ndarray, trusted: bool) -> Fraction:
        asked.append((Path(expert), len(sound), trusted))
        return Fraction(2, 25)

    monkeypatch.setattr(extraction, "sound_offset", offset)
    monkeypatch.setattr(person_videos, "run", lambda jobs, cores, work, ready: [work(job) for job in jobs])
    read_videos([talking_clip], tmp_path / "data", 128, sync=True)
    assert asked == [(SYNC_EXPERT, 2 * SAMPLE_RATE, True)]
    (clip,) = load_clips(tmp_path / "data", "train")
    moved = SAMPLE_RATE * 2 // 25
    assert clip.info.offset_ms == 80
    np.testing.assert_allclose(clip.sound()[:-moved], read_audio(talking_clip)[moved : 2 * SAMPLE_RATE], atol=1e-3)


def test_a_folder_belongs_to_what_it_was_begun_with(tmp_path):
    Adaptation(tmp_path, {"videos": ["a"], "base": "b"}).save()
    assert Adaptation.of(tmp_path, {"videos": ["a"], "base": "b"}).done == []
    with pytest.raises(InputError, match="was begun with other videos; give those again"):
        Adaptation.of(tmp_path, {"videos": ["c"], "base": "b"})
    (tmp_path / "adapt.json").unlink()
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="holds data, which no adaptation made; choose another --output"):
        Adaptation.of(tmp_path, {"videos": ["a"]})
    (tmp_path / "data").rmdir()
    known: list[Adaptation] = []  # what a run would find after this one was killed in its first step
    begun = {"videos": ["a"]}
    Adaptation.of(tmp_path, begun).run("videos", lambda: known.append(Adaptation.of(tmp_path, {})))
    assert known[0].begun == begun and known[0].done == []
    (tmp_path / "adapt.json").write_text("{")
    with pytest.raises(InputError, match=r"adapt.json cannot be read"):
        Adaptation.of(tmp_path, {})
    with pytest.raises(InputError, match=r"has no base.safetensors, hr.safetensors, person.face; .* adapt.py"):
        Person(tmp_path).check()


def test_minutes_are_divided_and_stay_a_stage_s_own(weights, tmp_path, monkeypatch):
    """Ten minutes, of which reading took two and stage 1 five: a twentieth is the film's, .55 of the rest stage 1's."""
    given, spent = {}, {"videos": 2.0, "face": 0.0, "stage1": 5.0, "faces": 0.0}

    def learn(stage: str):
        def train(config, *_):
            given.setdefault(stage, []).append(config.run.minutes)
            if stage == "stage2":
                raise KeyboardInterrupt

        return train

    def run_step(state: Adaptation, name: str, work) -> None:
        if name in ("stage1", "stage2"):
            work()
        state.seconds += 60 * spent.get(name, 0)

    monkeypatch.setattr(Adaptation, "run", run_step)
    monkeypatch.setattr("engine.train_base.train", learn("stage1"))
    monkeypatch.setattr("engine.train_hr.train", learn("stage2"))
    config = load_config(AdaptConfig, ROOT / "configs" / "adapt.yaml", ["minutes=10"])
    config.base, config.hr = weights[1], weights[3]
    for _ in range(2):  # the second time they are those that the stages were given first
        state = Adaptation(tmp_path, {}, minutes=json.loads((tmp_path / "minutes").read_text()) if given else {})
        with pytest.raises(KeyboardInterrupt):
            adapt([tmp_path / "me.mp4"], config, state)
        (tmp_path / "minutes").write_text(json.dumps(state.minutes))
        spent["videos"] = 4.0
    assert given == {"stage1": pytest.approx([0.55 * 7.5] * 2), "stage2": pytest.approx([2.5] * 2)}
