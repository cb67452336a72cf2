"""evaluate.py: which files it pairs, what it writes, and what it says on exit."""

import csv
import errno
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from parity.weights import save
from test_metrics_clips import broken, faceless, write

import evaluate
from engine.evaluate import Speaker, heard
from engine.evaluate import evaluate as score
from engine.options import InferenceConfig
from errors import InputError
from face.follow import follow
from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import VideoReader
from metrics.jobs import (
    CHANCE,
    COPY,
    MUTED,
    OURS,
    OWN_LINES,
    REENCODED,
    SWAPPED,
    Job,
    columns,
    listed,
    matched,
    numbered,
)
from metrics.pairs import NoFace, View, find_face
from metrics.report import write_report
from metrics.table import Outcome
from models.checkpoint import save_network
from models.config import SyncConfig
from models.syncnet import SyncExpert

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "text", ["0,0,360", "0,0,a,b", "0,0,400,288", "r=0,0,100,100;r=0,0,90,90", "0,0,90,90;chance=0,0,90,90"]
)
def test_wrong_rectangles_are_an_input_error(talking_clip, text):
    with pytest.raises(InputError, match="--columns"):
        columns(talking_clip, text)


def test_folders_are_matched_by_name_and_the_rest_is_reported(tmp_path):
    real, other, sound = tmp_path / "real", tmp_path / "gen", tmp_path / "sound"
    names = "real/a.mp4", "real/b.mp4", "real/[x].mp4", "gen/a.mkv", "gen/a.wav", "gen/[x].mp4", "sound/a.wav"
    for path in map(tmp_path.joinpath, names):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    videos = sorted(real.iterdir())
    jobs, missing = matched(videos, real, [str(other)], None, must=True)
    assert {job.name: job.generated["generated"].path.name for job in jobs} == {"a": "a.mkv", "[x]": "[x].mp4"}
    assert len(missing) == 1 and "b.mp4" in missing[0]
    jobs, missing = matched(videos, real, [f"mine={other}"], sound, must=True)
    assert {job.name: job.audio for job in jobs} == {"a": sound / "a.wav", "[x]": None} and len(missing) == 3
    for name in OWN_LINES:
        with pytest.raises(InputError, match="lines of our own; give every method a name"):
            matched(videos, real, [f"{name}={other}"], None, must=True)
    with pytest.raises(InputError, match="named like"):
        matched([real / "b.mp4"], real, [str(other)], None, must=True)


def test_a_partner_has_the_very_name_and_is_the_only_one(tmp_path, monkeypatch):
    real, other = tmp_path / "real", tmp_path / "gen"
    for name in ("real/a.mp4", "real/b.mp4", "gen/a.b.mp4", "gen/a.json", "gen/b.json", "gen/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed_folders: list[Path] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: listed_folders.append(folder) or iterdir(folder))
    (job,), (missing,) = matched([real / "a.mp4", real / "b.mp4"], real, [str(other)], None, must=True)
    assert job.generated["generated"].path == other / "b.mp4" and "a.mp4: no video of that name" in missing
    assert listed_folders == [other]  # once, however many videos there are
    (other / "b.mov").touch()
    with pytest.raises(InputError, match=r"found .*/gen/b.mov and .*/gen/b.mp4, expected one"):
        matched([real / "b.mp4"], real, [str(other)], None, must=True)


def test_list_files_are_read(tmp_path):
    (tmp_path / "pairs.tsv").write_text("# comment\na.mp4\tb.mp4\na.mp4\tc.mp4\ts.wav\n")
    jobs = numbered(listed(tmp_path / "pairs.tsv"))
    assert [job.name for job in jobs] == ["a (1)", "a (2)"] and jobs[1].audio == tmp_path / "s.wav"
    (tmp_path / "bad.tsv").write_text("a.mp4 b.mp4\n")
    with pytest.raises(InputError, match="line 1"):
        listed(tmp_path / "bad.tsv")


def test_clips_of_one_name_are_told_apart(tmp_path):
    for name in ("a.mp4", "a.mov", "x/b.mp4", "x_b.mp4", "c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    args = evaluate.parse_arguments(["--clips", str(tmp_path), "--base", "c"])
    names = [job.name for job in evaluate.plan(args, evaluate.EvaluateConfig())[0]]
    assert len(set(names)) == 5 and "c" in names and {name[0] for name in names} == {"a", "x", "c"}


def test_a_clip_without_a_face_cannot_be_scored(tmp_path):
    with pytest.raises(NoFace):
        find_face(faceless(tmp_path / "noise.mp4"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to score"),
        (["--real", "a", "--clips", "b"], "--real and --clips"),
        (["--clips", "b"], "--base"),
        (["--real", "a.mp4"], "alone"),
        (["--list", "a", "--hr", "c"], "--hr without --base"),
        (["--list", "a", "--keep", "c"], "--keep without --base"),
        (["--clips", "a", "--base", "b", "--keep", "a/kept"], "--keep a/kept in the folder of the real videos"),
        (["--clips", "a", "--columns", "0,0,16,16"], "--columns without --real"),
        (["--list", "a", "--columns", "0,0,16,16"], "--columns without --real"),
        (["--real", "a", "--columns", "0,0,16,16", "--generated", "b"], "--generated or --audio"),
        (["--list", "a", "--audio", "b"], "--generated or --audio"),
        (["--list", "a", "--set", "inference.hr=c"], "--hr without --base"),
        (["--real", "a", "--set", "inference.base=no.safetensors"], "found no file no.safetensors"),
        (["--list", "a", "--set", "inference.face.index=1"], "the largest face is scored"),
        (["--list", "a", "--set", "inference.audio.track=1"], "first track that is not silent is scored"),
    ],
)
def test_impossible_arguments_are_an_input_error(arguments, message):
    with pytest.raises(InputError, match=message):
        args = evaluate.parse_arguments(arguments)
        evaluate.configure(args)
        evaluate.check_arguments(args)


def test_a_clip_that_cannot_be_read_stops_nothing_unless_it_is_all_there_is(tmp_path, talking_clip):
    bad = Job("bad", broken(tmp_path / "bad.mp4"), {})
    with pytest.raises(InputError, match="bad.mp4"):
        score([bad], [], 18)
    with pytest.raises(InputError, match="noise: no face found in .*noise.mp4"):
        score([Job("noise", faceless(tmp_path / "noise.mp4"), {})], [], 18)
    good = Job("good", View(talking_clip), {})
    results, skipped = score([bad, good], [], 18)
    assert [found.job.name for found in results] == ["good"] and len(skipped) == 1 and skipped[0].startswith("bad: ")


@pytest.mark.parametrize("offset, first, last", [(0.0, 0, 100), (0.2, 20, 0), (-0.2, 0, 80)])
def test_a_late_sound_is_put_right_by_its_known_offset(tmp_path, offset, first, last):
    wave = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    write(tmp_path / "clip.mp4", [np.zeros((96, 128, 3), np.uint8)] * 25)
    write_flac(tmp_path / "sound.flac", wave)
    sound = heard(Job("clip", View(tmp_path / "clip.mp4"), {}, audio=tmp_path / "sound.flac", offset_s=offset))
    assert len(sound) == SAMPLE_RATE
    assert (sound[0], sound[-1]) == (pytest.approx(first / 100, abs=1e-3), pytest.approx(last / 100, abs=1e-3))


@pytest.fixture(scope="module")
def short_clip(talking_clip, tmp_path_factory) -> Path:
    """Its first 12 frames, with their sound."""
    pictures = [frame.rgb() for frame in VideoReader(talking_clip)][:12]
    sound = read_audio(talking_clip)[: 12 * SAMPLE_RATE // 25]
    return write(tmp_path_factory.mktemp("short") / "short.mp4", pictures, audio=(sound, SAMPLE_RATE)).path


def test_a_clip_is_tracked_once_for_all_its_sounds(tmp_path, short_clip, monkeypatch):
    watched = []
    for place in ("engine.pipeline", "metrics.pairs"):
        monkeypatch.setattr(f"{place}.follow", lambda *args, **more: watched.append(args) or follow(*args, **more))
    jobs = [Job(name, View(short_clip), {}) for name in ("one", "two")]
    speaker = Speaker(InferenceConfig(hr=None), tmp_path, extras=True)
    results, skipped = score(jobs, [], 18, speaker)
    assert len(watched) == 2 and skipped == []
    job = results[0].job
    assert list(results[0].extras) == [MUTED, SWAPPED] and job.driver == "two"
    assert np.array_equal(job.transforms, find_face(View(short_clip)).transforms, equal_nan=True)
    assert list(speaker.added(jobs[0], jobs[0], skipped).extras) == [MUTED]  # no other clip


def test_our_video_that_cannot_be_made_leaves_the_others_to_be_scored(tmp_path, talking_clip):
    write(tmp_path / "mute.mp4", [frame.rgb() for frame in VideoReader(talking_clip)])
    speaker, mute, skipped = Speaker(InferenceConfig(hr=None), tmp_path, extras=False), View(tmp_path / "mute.mp4"), []
    job = Job("mute", mute, {"other": mute})
    assert speaker.added(job, job, skipped) == job and "mute: found no sound" in skipped[0]
    with pytest.raises(InputError, match="found no sound"):
        speaker.added(Job("mute", mute, {}), job, skipped)


def test_another_clip_s_sound_that_cannot_be_read_costs_only_what_it_would_drive(tmp_path, short_clip):
    write(tmp_path / "mute.mp4", [frame.rgb() for frame in VideoReader(short_clip)])
    speaker, skipped = Speaker(InferenceConfig(hr=None), tmp_path, extras=True), []
    job = speaker.added(Job("one", View(short_clip), {}), Job("mute", View(tmp_path / "mute.mp4"), {}), skipped)
    assert list(job.generated) == [OURS] and list(job.extras) == [MUTED] and job.driver is None
    assert len(skipped) == 1 and skipped[0].startswith("one with the sound of mute: found no sound")


def test_a_face_tracked_in_smaller_pictures_is_tracked_again_to_be_scored(tmp_path, short_clip):
    speaker = Speaker(InferenceConfig(hr=None, max_size="200x160"), tmp_path, extras=False)
    job = Job("one", View(short_clip), {})
    assert speaker.added(job, job, []).transforms is None


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_command_line_scores_reports_and_skips(tmp_path, talking_clip):
    real, made = tmp_path / "real", tmp_path / "made"
    for folder in (real, made):
        folder.mkdir()
        (folder / "clip.mp4").symlink_to(talking_clip)
    faceless(real / "noise.mp4")
    (made / "noise.mp4").symlink_to(real / "noise.mp4")
    (tmp_path / "offsets.tsv").write_text("file\toffset_ms\nclip.mp4\t40\n")
    save_network(tmp_path / "expert.safetensors", SyncExpert(SyncConfig.of("light", width=4)))
    result = run_script(
        "--real", real, "--generated", made, "--json", tmp_path / "o.json", "--csv", tmp_path / "o.csv",
        "--report", tmp_path / "report", "--offsets", tmp_path / "offsets.tsv",
        "--sync-weights", tmp_path / "expert.safetensors",
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert "skipped: noise: no face" in result.stderr
    assert "| lip r, lag 0" in result.stdout and "+40 ms, known" in result.stdout
    told = json.loads((tmp_path / "o.json").read_text())
    assert told["clips"][0]["lines"]["generated"]["lip_r"] == 1 and told["summary"][REENCODED]["lip_r"]["mean"] > 0.97
    assert len(told["skipped"]) == 1 and told["clips"][0]["sound_offset_s"] == 0.04
    lines = told["clips"][0]["lines"]  # an untrained expert: any number will do, but the same picture has the same
    assert lines[COPY]["sync_confidence"] == lines[REENCODED]["sync_confidence_chance"]
    assert lines[CHANCE]["sync_confidence"] == lines["generated"]["sync_confidence_chance"]
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [row["line"] for row in rows] == ["generated", REENCODED, COPY, CHANCE]
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("<svg") == 1 and "noise: no face" in page and "+40 ms, known" in page
    for name in ("strip_0.jpg", "strip_0_1.jpg"):  # the same faces, from the same file
        assert f'src="{name}"' in page
        assert cv2.imread(str(tmp_path / "report" / name)).shape == (160, 8 * 160, 3)
    assert (tmp_path / "report" / "strip_0.jpg").read_bytes() == (tmp_path / "report" / "strip_0_1.jpg").read_bytes()


def test_one_result_that_cannot_be_written_costs_no_other(tmp_path, monkeypatch, capsys):
    names = {name: tmp_path / f"{name}.txt" for name in ("json", "csv")}
    args = evaluate.parse_arguments([f"--{key}={path}" for key, path in names.items()])
    names["json"].write_text("before")
    outcome = Outcome([], [], [], {})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("metrics.table.json.dumps", full)
    assert not evaluate.tell(outcome, args)
    told = capsys.readouterr().err.splitlines()
    assert told[0].endswith("json.txt could not be written (No space left on device); free space or give another")
    assert told[1:] == [f"written: {names['csv']}"]
    assert names["json"].read_text() == "before" and names["csv"].read_text().startswith("clip,person,line")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["csv.txt", "json.txt"]
    page = write_report(tmp_path, Outcome([], [], ["caf\udce9: gone"], {}))  # a name that is no UTF-8
    assert "caf\\udce9: gone" in page.read_text()


def test_command_line_generates_and_scores(tmp_path, talking_clip):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("one.mp4", "two.mp4"):
        (clips / name).symlink_to(talking_clip)
    result = run_script(
        "--clips", clips, "--base", ROOT / "checkpoints" / "base_light.safetensors", "--keep", tmp_path / "kept",
        "--json", tmp_path / "o.json", "--set", "perceptual_step=10",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "o.json").read_text())["summary"]
    assert summary[COPY]["leak"]["mean"] == pytest.approx(1, abs=0.1)
    assert {"leak", "swap_r", "lip_r", "mouth_psnr"} <= set(summary["generated"])
    assert summary["generated"]["mouth_psnr"]["mean"] < summary[REENCODED]["mouth_psnr"]["mean"] - 5
    assert summary["generated"]["leak"]["mean"] < min(0.5, summary["generated"]["articulation"]["mean"])
    made = tmp_path / "kept" / "one_own.mp4"
    assert len(read_audio(made)) == pytest.approx(2 * SAMPLE_RATE, abs=700)
    assert np.abs(read_audio(tmp_path / "kept" / "one_muted.mp4")).max() < 1e-3


def test_weights_in_the_published_layout_are_fed_as_they_want_it(tmp_path, short_clip):
    checkpoint = tmp_path / "published.pth"
    save("base", checkpoint)
    result = run_script("--clips", short_clip, "--base", checkpoint, "--keep", tmp_path, "--json", tmp_path / "o.json")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "o.json").read_text())["summary"]["generated"]
    assert rows["frames"]["mean"] > 0 and {"lip_r", "leak", "mouth_psnr"} <= set(rows)
    changed = [
        np.abs(made.rgb().astype(int) - real.rgb()).max((0, 2))
        for made, real in zip(VideoReader(tmp_path / "short_own.mp4"), VideoReader(short_clip), strict=True)
    ]
    assert np.max(changed) > 100


def test_mistakes_are_told_before_torch_is_there(tmp_path, talking_clip):
    code = "import atexit, sys, errors, evaluate; atexit.register(lambda: print('torch' in sys.modules))\n"
    code += "errors.run_cli(evaluate.main)"
    for arguments in (["--clips", tmp_path / "none", "--base", "x"], ["--real", talking_clip, "--generated", "none"]):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 2 and "error: found no file" in result.stderr and result.stdout == "False\n"


def test_wrong_input_is_one_line_and_code_2(tmp_path):
    result = run_script("--real", tmp_path / "absent.mp4", "--generated", tmp_path / "absent.mp4")
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1 and "absent.mp4" in result.stderr
