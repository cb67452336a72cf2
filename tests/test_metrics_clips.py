"""Clips measured whole: known changes of a talking clip, the lines beside them, how frames and files are paired."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import conftest
import cv2
import numpy as np
import pytest

from face.crop import CropTransform
from media.video import VideoReader, VideoWriter
from metrics.alone import score_alone
from metrics.evaluation import ClipResult, complete, evaluate_clip
from metrics.jobs import CHANCE, COPY, MUTED, REENCODED, SWAPPED, Job, columns
from metrics.landmark import chance_series
from metrics.measure import Measured
from metrics.pairs import Match, NoFace, Shown, View, find_face, look, match, nearest_frames, picture_lag
from metrics.scorers import PictureScore
from metrics.table import markdown, offset_text, summarise


def write(path: Path, pictures: list[np.ndarray], fps: Fraction = conftest.FPS, **options) -> View:
    height, width = pictures[0].shape[:2]
    with VideoWriter(path, (width, height), fps, **options) as writer:
        for picture in pictures:
            writer.write(picture)
    return View(path)


def faceless(path: Path) -> View:
    noise = np.random.default_rng(0).integers(90, 110, (12, 96, 128, 3), np.uint8)
    return write(path, list(noise))


def broken(path: Path) -> View:
    path.write_bytes(b"no video")
    return View(path)


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
        "broken": broken(folder / "broken.mp4"),
    }
    job = Job("talking", View(talking_clip), generated)
    found = evaluate_clip(job, [PictureScore], 18)
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


def test_a_generated_file_that_is_no_video_is_a_problem_of_its_own(result):
    assert "broken" not in result.lines
    assert any(problem.startswith("broken: ") for problem in result.problems) and len(result.problems) == 2


def test_scoring_again_gives_the_same_numbers(result):
    job = replace(result.job, generated={"soft": result.job.generated["soft"]})
    again = evaluate_clip(job, [PictureScore], 18)
    complete([again])
    for line in ("soft", REENCODED, COPY):
        assert again.lines[line] == result.lines[line]


def test_a_face_that_was_tracked_already_is_not_tracked_again(result, talking_clip, monkeypatch):
    monkeypatch.setattr("metrics.pairs.follow", None)
    job = replace(result.job, generated={"soft": result.job.generated["soft"]}, transforms=result.transforms)
    again = evaluate_clip(job, [PictureScore], 18)
    complete([again])
    assert again.lines == {line: result.lines[line] for line in ("soft", REENCODED, COPY)} | {
        CHANCE: again.lines[CHANCE]
    }


def test_what_is_driven_otherwise_has_lips_and_no_line(result, talking_clip, tmp_path):
    extras = {MUTED: result.job.generated["mumbling"], SWAPPED: faceless(tmp_path / "noise.mp4")}
    job = Job("talking", View(talking_clip), {"self": View(talking_clip)}, transforms=result.transforms, extras=extras)
    found = evaluate_clip(job, [PictureScore], 18)
    complete([found])
    assert list(found.extras) == [MUTED] and set(found.lines) == {"self", REENCODED, COPY, CHANCE}
    assert found.lines["self"]["leak"] == result.lines["mumbling"]["articulation"]
    assert any(problem.startswith(f"{SWAPPED}: no face") for problem in found.problems)


def test_copied_input_scores_pictures_but_not_lips_and_leaks_wholly(result):
    rows = result.lines[COPY]
    assert rows["mouth_psnr"] == result.lines[REENCODED]["mouth_psnr"]
    assert rows["leak"] == pytest.approx(1, abs=0.1) and rows["lip_r"] < 0.6
    assert result.lines[CHANCE]["lip_r"] < 0.6
    assert "clip's own" in notes(result, "chance lips")


SYNC = {"sync_confidence": 0.5, "sync_confidence_chance": 0.1, "sync_offset": 2.0}


def fake(name: str, person: str, gap: np.ndarray, fps: float = 25, **measured: np.ndarray) -> ClipResult:
    def found(series: np.ndarray, **values: float) -> Measured:
        return Measured(series, Match(View(Path(name)), np.arange(len(series)), 0, (1.0, 1.0), []), values)

    return ClipResult(
        Job(name, View(Path(name)), {}, person=person, driver="b" if name == "a" else None),
        fps,
        gap,
        np.zeros((len(gap), 2, 3)),
        {line: found(gap, articulation=1.0, **SYNC) for line in ("generated", REENCODED)},
        {name: found(series) for name, series in measured.items()},
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
    assert "1 other clip of ann" in results[0].notes[0] and "other or unknown" in results[1].notes[0]
    assert "muted" not in rows and rows["generated"]["lip_r"] == pytest.approx(1)


def test_a_clip_that_is_scored_twice_is_no_chance_for_itself():
    gap = np.random.default_rng(0).uniform(0, 0.3, 120)
    results = [fake("a", "", gap), fake("a", "", gap)]
    complete(results)
    assert results[0].lines["generated"]["lip_r_best_chance"] < 0.5 and "clip's own" in results[0].notes[0]


def test_sync_of_copied_lips_and_by_chance_is_under_another_sound():
    result = fake("a", "", np.random.default_rng(0).uniform(0, 0.3, 120))
    complete([result])
    assert {row: result.lines["generated"][row] for row in SYNC} == SYNC
    for line in (COPY, CHANCE):
        assert result.lines[line]["sync_confidence"] == 0.1 and "sync_offset" not in result.lines[line]


def test_the_sound_offset_is_the_known_one_or_else_the_experts():
    result = fake("a", "", np.zeros(9))
    assert result.sound_offset() == (0.08, "by our expert") and offset_text(result) == "+80 ms, by our expert"
    result.measured[REENCODED].values["sync_confidence_chance"] = 0.4
    assert "no surer than by chance" in offset_text(result)
    result.job = replace(result.job, offset_s=-0.04)
    assert offset_text(result) == "-40 ms, known"
    result.job, result.measured = replace(result.job, offset_s=None), {}
    assert offset_text(result) == "unknown"


def test_lips_of_clips_at_other_rates_are_compared_by_time():
    at_25, at_30 = (np.sin(5 * np.arange(4 * fps) / fps) for fps in (25, 30))
    results = [fake("a", "", at_25, swapped=at_25), fake("b", "", at_30, fps=30)]
    complete(results)
    assert results[0].lines["generated"]["swap_r"] > 0.999


def test_a_video_alone_is_decoded_once_by_whoever_watches(talking_clip, monkeypatch):
    times, frames = VideoReader(talking_clip).times, list(VideoReader(talking_clip))
    place = find_face(View(talking_clip)).transforms
    place[3] = np.nan

    def decoded_again(reader):
        raise AssertionError("decoded a second time")

    class Score:
        def __init__(self, context):
            self.told, self.seen = context.times.tolist(), []

        def add(self, batch):
            self.seen += batch.index.tolist()

        def result(self):
            return {"times": self.told, "seen": self.seen}

    monkeypatch.setattr(VideoReader, "__iter__", decoded_again)
    rows = score_alone(talking_clip, place, Score, iter(frames))
    assert rows["times"] == list(map(float, times)) and rows["seen"] == [k for k in range(50) if k != 3]


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


def test_the_lag_of_a_long_video_takes_no_more_memory():
    noise = np.random.default_rng(0).integers(0, 256, (3000, 36, 64), np.uint8)
    reader, times = SimpleNamespace(fps=25), np.arange(3000) / 25
    real, late = (Shown(View(Path("x")), reader, times, thumbs) for thumbs in (noise, np.roll(noise, 3, 0)))
    with conftest.peak_memory() as peak:
        assert picture_lag(real, late) == 3 and picture_lag(late, real) == -3
        assert peak() < 20 << 20


def test_views_of_a_side_by_side_file_see_only_their_rectangle(tmp_path, pictures):
    both = write(
        tmp_path / "both.mp4", [np.concatenate([picture, np.roll(picture, 9, 0)], 1) for picture in pictures[:8]]
    )
    job = columns(both.path, "0,0,360,288;moved=360,0,360,288")
    assert list(job.generated) == ["moved"]
    real = find_face(job.real)
    assert real.view.size(real.reader) == (360, 288)
    frame = next(iter(real.reader))
    transform = CropTransform(real.transforms[0])
    face = real.view.face(frame, transform, 128)
    whole = View(both.path).face(frame, transform, 128)
    assert np.abs(face.astype(int) - whole).mean() < 2
    shown = look(job.generated["moved"])
    assert match(real, shown).scale == (1, 1)
    other = shown.view.face(frame, transform, 128)
    assert np.abs(face.astype(int) - other).mean() > 5


def test_only_the_rest_is_scored_from_a_time_on(talking_clip):
    def score(from_s: float) -> ClipResult:
        job = Job("talking", View(talking_clip), {"self": View(talking_clip)}, from_s=from_s)
        found = evaluate_clip(job, [PictureScore], 18)
        complete([found])
        return found

    rest = score(0.8)
    assert rest.lines["self"]["frames"] == 30 and np.isnan(rest.gap[:20]).all() and np.isfinite(rest.gap[20:]).all()
    assert rest.lines["self"]["lip_r"] == pytest.approx(1) and rest.lines[CHANCE]["lip_r"] != 0
    assert "scored from 0.8 s on" in rest.notes and not any("left out" in note for note in rest.notes)
    with pytest.raises(NoFace, match="ends before 9 s"):
        score(9)


def test_stand_ins_for_other_lips_are_turned_within_what_is_scored():
    gap = np.concatenate([np.full(60, np.nan), np.arange(40.0)])
    for other in chance_series(gap, 25):
        assert np.isnan(other[:60]).all() and sorted(other[60:]) == list(range(40)) and other[60] != 0
