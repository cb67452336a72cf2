"""evaluate.py on real files: what it measures of known changes, how it pairs files, and what it says on exit."""

import csv
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import conftest
import cv2
import numpy as np
import pytest

import evaluate
from engine.sound import sound_features
from errors import InputError
from face.landmark_net import LandmarkNet
from media.audio import SAMPLE_RATE, read_audio, write_flac
from media.video import VideoReader, VideoWriter
from metrics.evaluation import CHANCE, COPY, REENCODED, ClipResult, complete, evaluate_clip
from metrics.jobs import Job, columns, listed, matched
from metrics.measure import Measured
from metrics.pairs import NoFace, View, find_face, look, match, nearest_frames, picture_lag
from metrics.scorers import PictureScorer
from metrics.table import markdown, summarise

ROOT = Path(__file__).resolve().parent.parent


def write(path: Path, pictures: list[np.ndarray], fps: Fraction = conftest.FPS, **options) -> View:
    height, width = pictures[0].shape[:2]
    with VideoWriter(path, (width, height), fps, **options) as writer:
        for picture in pictures:
            writer.write(picture)
    return View(path)


def faceless(path: Path) -> View:
    noise = np.random.default_rng(0).integers(90, 110, (12, 96, 128, 3), np.uint8)
    return write(path, list(noise))


@pytest.fixture(scope="module")
def pictures(talking_clip) -> list[np.ndarray]:
    return [frame.rgb() for frame in VideoReader(talking_clip)]


@pytest.fixture(scope="module")
def result(talking_clip, pictures, tmp_path_factory) -> ClipResult:
    """The talking clip against changed versions of itself, all in one pass."""
    folder = tmp_path_factory.mktemp("changed")
    half = [cv2.resize(picture, (180, 144), interpolation=cv2.INTER_AREA) for picture in pictures]
    beside = [np.pad(picture, ((0, 0), (40, 60), (0, 0)), "edge") for picture in pictures]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "_DROP", 6)
        mumbling = [conftest.talking_face((index + 0.5) / 25) for index in range(50)]
        patch.setattr(conftest, "_DROP", 12)
        original = conftest.openness
        patch.setattr(conftest, "openness", lambda seconds: original(seconds - 3 / 25))
        late_lips = [conftest.talking_face((index + 0.5) / 25) for index in range(50)]
    generated = {
        "self": View(talking_clip),
        "late": write(folder / "late.mp4", pictures[:1] * 3 + pictures[:-3]),
        "late lips": write(folder / "late_lips.mp4", late_lips),
        "mumbling": write(folder / "mumbling.mp4", mumbling),
        "soft": write(folder / "soft.mp4", [cv2.GaussianBlur(picture, (0, 0), 1) for picture in pictures]),
        "softer": write(folder / "softer.mp4", [cv2.GaussianBlur(picture, (0, 0), 2) for picture in pictures]),
        "half": write(folder / "half.mp4", half),
        "wide": write(folder / "wide.mp4", beside),
        "slow": write(folder / "slow.mp4", pictures[::2], conftest.FPS / 2),
        "short": write(folder / "short.mp4", pictures[:30]),
        "faceless": faceless(folder / "faceless.mp4"),
    }
    job = Job("talking", View(talking_clip), generated)
    found = evaluate_clip(job, [PictureScorer()], LandmarkNet(), folder, 18, sound_features)
    complete([found])
    return found


def notes(result: ClipResult, line: str) -> str:
    return "\n".join(note for note in result.notes if note.startswith(f"{line}: "))


def test_a_video_against_itself_is_perfect(result):
    rows = result.lines["self"]
    for row in ("lip_r", "lip_r_best", "fast_r", "articulation", "jitter", "sharpness", "mouth_ssim", "face_ssim"):
        assert rows[row] == pytest.approx(1, abs=1e-6), row
    assert rows["lmd"] == rows["lip_lag"] == rows["fast_lag"] == 0 and rows["frames"] == 50
    assert notes(result, "self") == ""


def test_our_own_codec_costs_little_but_something(result):
    rows = result.lines[REENCODED]
    assert 0.97 < rows["lip_r"] < 1 and 30 < rows["mouth_psnr"] < 50 and 0 < rows["lmd"] < 0.4


def test_a_late_picture_is_aligned_for_pictures_and_stated(result):
    rows = result.lines["late"]
    assert rows["lip_lag"] == rows["fast_lag"] == 3 and rows["lip_r_best"] > 0.97 > rows["lip_r"] + 0.3
    assert rows["mouth_psnr"] > 30 and rows["lmd"] < 0.4
    assert "3 frames late" in notes(result, "late")


def test_late_lips_in_a_punctual_head_are_a_lag_and_no_shift(result):
    rows = result.lines["late lips"]
    assert rows["lip_lag"] == 3 and rows["lip_r_best"] > 0.9 > rows["lip_r"] + 0.3
    assert "late" not in notes(result, "late lips").removeprefix("late lips")


def test_less_lip_motion_is_less_articulation(result):
    assert result.lines["mumbling"]["articulation"] == pytest.approx(0.5, abs=0.2)
    assert result.lines["mumbling"]["lip_r"] > 0.85


def test_blur_costs_sharpness_and_psnr_step_by_step(result):
    for row in ("sharpness", "mouth_psnr", "face_psnr", "mouth_ssim"):
        values = [result.lines[line][row] for line in (REENCODED, "soft", "softer")]
        assert values[0] > values[1] > values[2], row


def test_another_size_is_scaled_and_stated(result):
    assert (
        result.lines["half"]["lip_r"] > 0.9 and result.lines["half"]["lmd"] < 1 and "180x144" in notes(result, "half")
    )


def test_another_shape_is_cropped_by_its_own_face_and_stated(result):
    assert result.lines["wide"]["lip_r"] > 0.95 and result.lines["wide"]["mouth_psnr"] > 25
    assert "its own face" in notes(result, "wide")


def test_another_rate_is_paired_by_time_and_stated(result):
    assert result.lines["slow"]["lip_r"] > 0.7 and result.lines["slow"]["frames"] >= 49
    assert "12.5 fps, real 25" in notes(result, "slow")


def test_another_length_is_scored_where_both_are_shown_and_stated(result):
    assert result.lines["short"]["frames"] == 30 and result.lines["short"]["lip_r"] > 0.97
    assert "another length" in notes(result, "short")


def test_a_generated_video_without_a_face_has_no_lips(result):
    assert "faceless" not in result.lines
    assert any("faceless" in problem and "no face" in problem for problem in result.problems)


def test_copied_input_scores_pictures_but_not_lips_and_leaks_wholly(result):
    rows = result.lines[COPY]
    assert rows["mouth_psnr"] == result.lines[REENCODED]["mouth_psnr"]
    assert rows["leak"] == pytest.approx(1, abs=0.1) and rows["lip_r"] < 0.6
    assert result.lines[CHANCE]["lip_r"] < 0.6
    assert "clip's own" in notes(result, "chance lips")


def fake(name: str, person: str, gap: np.ndarray, fps: float = 25, **measured: np.ndarray) -> ClipResult:
    lines = {"generated": gap, REENCODED: gap}
    return ClipResult(
        Job(name, View(Path(name)), {}, person=person, driver="b" if name == "a" else None),
        fps,
        gap,
        {line: Measured(series, 0, {"articulation": 1.0}) for line, series in lines.items()},
        {name: Measured(series, 0, {}) for name, series in measured.items()},
    )


def test_chance_swap_and_leak_compare_with_the_right_lips():
    rng = np.random.default_rng(0)
    a, b, c = rng.uniform(0, 0.3, (3, 120))
    results = [fake("a", "ann", a, muted=0.25 * a, swapped=b), fake("b", "bob", b), fake("c", "ann", c)]
    complete(results)
    rows = results[0].lines
    assert rows["generated"]["swap_r"] == pytest.approx(1) and rows["generated"]["leak"] == pytest.approx(0.25)
    assert rows[COPY]["leak"] == 1 and rows[COPY]["swap_r"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert rows[CHANCE]["lip_r"] == pytest.approx(np.corrcoef(a, c)[0, 1])  # the same person's other clip alone
    assert "1 other clips of ann" in results[0].notes[0] and "other or unknown" in results[1].notes[0]
    assert "muted" not in rows and rows["generated"]["lip_r"] == pytest.approx(1)


def test_lips_of_clips_at_other_rates_are_compared_by_time():
    at_25, at_30 = (np.sin(5 * np.arange(4 * fps) / fps) for fps in (25, 30))
    results = [fake("a", "", at_25, swapped=at_25), fake("b", "", at_30, fps=30)]
    complete(results)
    assert results[0].lines["generated"]["swap_r"] > 0.999


def test_summary_has_mean_spread_and_number():
    results = [fake("a", "", np.zeros(9)), fake("b", "", np.zeros(9))]
    for result, value in zip(results, (0.5, 0.7), strict=True):
        result.lines = {"generated": {"lip_r": value, "lmd": float("nan")}}
    summary = summarise(results)
    assert summary == {
        "generated": {"lip_r": {"mean": pytest.approx(0.6), "sd": pytest.approx(0.1414, abs=1e-4), "n": 2}}
    }
    assert "| lip r, lag 0 | 0.600 ± 0.141 |" in markdown(summary)


def test_frames_are_paired_by_nearest_time():
    times = np.arange(10) / 25
    assert nearest_frames(times, times, 25).tolist() == list(range(10))
    assert nearest_frames(np.arange(5) / 12.5, times, 25).tolist() == [0, 2, 4, 6, 8]
    assert nearest_frames(np.array([-0.03, -0.01, 0.37, 0.39]), times, 25).tolist() == [-1, 0, 9, -1]
    assert nearest_frames(np.array([0.0, 1.0]), np.array([0.0]), 25).tolist() == [0, -1]


def test_a_still_picture_has_no_lag(tmp_path, pictures):
    still = write(tmp_path / "still.mp4", pictures[:1] * 20)
    assert picture_lag(look(still), look(still)) == 0


def test_views_of_a_side_by_side_file_see_only_their_rectangle(tmp_path, pictures):
    both = write(
        tmp_path / "both.mp4", [np.concatenate([picture, np.roll(picture, 9, 0)], 1) for picture in pictures[:8]]
    )
    job = columns(both.path, "0,0,360,288;moved=360,0,360,288")
    assert list(job.generated) == ["moved"]
    real = find_face(job.real)
    assert real.view.size(real.reader) == (360, 288)
    frame = next(iter(real.reader))
    face = real.view.face(frame, real.transforms[0], 128)
    whole = View(both.path).face(frame, real.transforms[0], 128)
    assert np.abs(face.astype(int) - whole).mean() < 2
    shown = look(job.generated["moved"])
    assert match(real, shown).scale == (1, 1)
    other = shown.view.face(frame, real.transforms[0], 128)
    assert np.abs(face.astype(int) - other).mean() > 5


@pytest.mark.parametrize("text", ["0,0,360", "0,0,a,b", "0,0,400,288", "r=0,0,100,100;r=0,0,90,90"])
def test_wrong_rectangles_are_an_input_error(talking_clip, text):
    with pytest.raises(InputError, match="--columns"):
        columns(talking_clip, text)


def test_folders_are_matched_by_name_and_the_rest_is_reported(tmp_path):
    real, other, sound = tmp_path / "real", tmp_path / "gen", tmp_path / "sound"
    for path in (
        real / "a.mp4",
        real / "b.mp4",
        real / "[x].mp4",
        other / "a.mkv",
        other / "a.wav",
        other / "[x].mp4",
        sound / "a.wav",
    ):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    videos = sorted(real.iterdir())
    jobs, missing = matched(videos, real, [str(other)], None, must=True)
    assert {job.name: job.generated["generated"].path.name for job in jobs} == {"a": "a.mkv", "[x]": "[x].mp4"}
    assert len(missing) == 1 and "b.mp4" in missing[0]
    jobs, missing = matched(videos, real, [f"ours={other}"], sound, must=True)
    assert {job.name: job.audio for job in jobs} == {"a": sound / "a.wav", "[x]": None} and len(missing) == 3
    with pytest.raises(InputError, match="named like"):
        matched([real / "b.mp4"], real, [str(other)], None, must=True)


def test_list_files_are_read(tmp_path):
    (tmp_path / "pairs.tsv").write_text("# comment\na.mp4\tb.mp4\na.mp4\tc.mp4\ts.wav\n")
    jobs = listed(tmp_path / "pairs.tsv")
    assert [job.name for job in jobs] == ["a (1)", "a (2)"] and jobs[1].audio == tmp_path / "s.wav"
    (tmp_path / "bad.tsv").write_text("a.mp4 b.mp4\n")
    with pytest.raises(InputError, match="line 1"):
        listed(tmp_path / "bad.tsv")


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
    ],
)
def test_impossible_arguments_are_an_input_error(arguments, message):
    with pytest.raises(InputError, match=message):
        evaluate.check_arguments(evaluate.parse_arguments(arguments))


@pytest.mark.parametrize("offset, first, last", [(0.0, 0, 100), (0.2, 20, 0), (-0.2, 0, 80)])
def test_a_late_sound_is_put_right_by_its_known_offset(tmp_path, pictures, offset, first, last):
    wave = np.arange(SAMPLE_RATE, dtype=np.float32) / SAMPLE_RATE
    write(tmp_path / "clip.mp4", pictures[:25])
    write_flac(tmp_path / "sound.flac", wave)
    job = Job("clip", View(tmp_path / "clip.mp4"), {}, audio=tmp_path / "sound.flac", offset_s=offset)
    heard = evaluate._heard(job)
    assert len(heard) == SAMPLE_RATE
    assert (heard[0], heard[-1]) == (pytest.approx(first / 100, abs=1e-3), pytest.approx(last / 100, abs=1e-3))


def run_script(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "evaluate.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_command_line_scores_reports_and_skips(tmp_path, talking_clip, pictures):
    real, made = tmp_path / "real", tmp_path / "made"
    for folder in (real, made):
        folder.mkdir()
        (folder / "clip.mp4").symlink_to(talking_clip)
    faceless(real / "noise.mp4")
    (made / "noise.mp4").symlink_to(real / "noise.mp4")
    (tmp_path / "offsets.tsv").write_text("file\toffset_ms\nclip.mp4\t40\n")
    result = run_script(
        "--real",
        real,
        "--generated",
        made,
        "--json",
        tmp_path / "o.json",
        "--csv",
        tmp_path / "o.csv",
        "--report",
        tmp_path / "report",
        "--offsets",
        tmp_path / "offsets.tsv",
    )
    assert result.returncode == 1, result.stderr
    assert "skipped: noise: no face" in result.stderr and "| lip r, lag 0" in result.stdout and "+40" in result.stdout
    told = json.loads((tmp_path / "o.json").read_text())
    assert told["clips"][0]["lines"]["generated"]["lip_r"] == 1 and told["summary"][REENCODED]["lip_r"]["mean"] > 0.97
    assert len(told["skipped"]) == 1 and told["clips"][0]["sound_offset_s"] == 0.04
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [row["line"] for row in rows] == ["generated", REENCODED, COPY, CHANCE]
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<svg" in page and "strip_0.jpg" in page and cv2.imread(str(tmp_path / "report" / "strip_0.jpg")) is not None


def test_command_line_generates_and_scores(tmp_path, talking_clip):
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("one.mp4", "two.mp4"):
        (clips / name).symlink_to(talking_clip)
    result = run_script(
        "--clips",
        clips,
        "--base",
        ROOT / "checkpoints" / "base_light.safetensors",
        "--keep",
        tmp_path / "kept",
        "--json",
        tmp_path / "o.json",
        "--set",
        "perceptual_step=10",
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "o.json").read_text())["summary"]
    assert summary[COPY]["leak"]["mean"] == pytest.approx(1, abs=0.1)
    assert {"leak", "swap_r", "lip_r", "mouth_psnr"} <= set(summary["generated"])
    assert summary["generated"]["mouth_psnr"]["mean"] < summary[REENCODED]["mouth_psnr"]["mean"] - 5
    assert summary["generated"]["leak"]["mean"] < 0.5 < summary["generated"]["articulation"]["mean"]
    made = tmp_path / "kept" / "one_own.mp4"
    assert len(read_audio(made)) == pytest.approx(2 * SAMPLE_RATE, abs=700)
    assert np.abs(read_audio(tmp_path / "kept" / "one_muted.mp4")).max() < 1e-3


def test_wrong_input_is_one_line_and_code_2(tmp_path):
    result = run_script("--real", tmp_path / "absent.mp4", "--generated", tmp_path / "absent.mp4")
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1 and "absent.mp4" in result.stderr
