"""Scorers that run a network: equal to their references, and lower where something is wrong."""

import sys
from functools import partial

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from loud import Loud
from parity import weights

from errors import InputError
from face.topology import CONTOUR
from metrics.identity import FaceNetwork, IdentityScore, aligned
from metrics.perceptual import PerceptualScore, load_lpips
from metrics.scorers import Batch, ClipContext, Scorer
from metrics.select import make_scorers
from metrics.sync import ExpertScore, SyncNetScore, mfcc, turned
from models.checkpoint import load_network
from models.config import SyncConfig
from models.perceptual import load_perceptual
from models.syncnet import SyncExpert
from speech.offset import shift_means

GOLDEN_MFCC = (20.9099, 8.1372, -19.1452, 17.0022, -19.9517, -64.6003, -12.1638, 2.6123, -31.5065, 10.7531, 42.737,
               0.9266, 0.6416)  # fmt: skip


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """(6, 256, 256, 3): a face in six places."""
    picture = skimage.data.astronaut()
    return np.stack([picture[k : k + 256, 90 + k : 346 + k] for k in range(0, 24, 4)])


def landmarks(count: int) -> np.ndarray:
    """(count, 478, 2) px of 128: one plausible mouth, eyes and contour."""
    points = np.full((count, 478, 2), 64.0)
    points[:, [33, 133]], points[:, [263, 362]], points[:, 4] = (48, 48), (80, 48), (64, 64)
    points[:, 61], points[:, 291] = (52, 84), (76, 84)
    points[:, [0, 13, 14, 17, 37, 267, 84, 314, 91, 321]] = (64, 84)
    angles = np.linspace(np.pi, 0, len(CONTOUR))
    points[:, list(CONTOUR)] = 64 + 50 * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points


def batch(real: np.ndarray, generated: np.ndarray, first: int = 0) -> Batch:
    points = landmarks(len(real))
    return Batch(np.arange(first, first + len(real)), real, generated, points, points)


def run(
    scorer: Scorer, real: np.ndarray, generated: np.ndarray, context: ClipContext | None = None
) -> dict[str, float]:
    score = scorer(context or ClipContext(np.arange(len(real)) / 25))
    for start in range(0, len(real), 4):
        score.add(batch(real[start : start + 4], generated[start : start + 4], start))
    return score.result()


def listening(times: np.ndarray, wave: np.ndarray) -> ClipContext:
    """A context whose sound needs no file."""
    context = ClipContext(times)
    context.wave = wave
    return context


def test_lpips_is_the_packages_with_the_users_weights(tmp_path, crops):
    lpips = pytest.importorskip("lpips", reason="needs requirements-metrics.txt")
    with pytest.warns(UserWarning, match="pretrained"):
        reference = lpips.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False)
    torch.save(reference.state_dict(), tmp_path / "lpips.pth")
    distance = load_lpips(tmp_path / "lpips.pth")
    x, y = torch.from_numpy(crops[:2]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        wanted = float(reference(2 * x[None] - 1, 2 * y[None] - 1))
        assert float(distance(x[None], y[None])) == pytest.approx(wanted, rel=1e-5) and wanted != 0
    rows = run(partial(PerceptualScore, "lpips", distance, 1), crops, crops)
    assert rows == {"mouth_lpips": pytest.approx(0, abs=1e-6), "face_lpips": pytest.approx(0, abs=1e-6)}
    torch.save({"net.slice1.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "half.pth")
    with pytest.raises(InputError, match="half.pth does not fit LPIPS: .* missing"):
        load_lpips(tmp_path / "half.pth")


def test_what_needs_a_package_that_is_not_installed_says_so(tmp_path, monkeypatch):
    for name in ("lpips", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    torch.save({"key": torch.zeros(1)}, tmp_path / "any.pth")
    for load in (load_lpips, FaceNetwork):
        with pytest.raises(InputError, match="requirements-metrics.txt"):
            load(tmp_path / "any.pth")


def test_stlpips_grows_with_blur_and_only_inside_the_face(crops):
    scorer = partial(PerceptualScore, "stlpips", load_perceptual("stlpips"), 1)
    scores = [
        run(scorer, crops, np.stack([cv2.GaussianBlur(crop, (0, 0), sigma) for crop in crops])) for sigma in (0.7, 2, 4)
    ]
    for row in ("mouth_stlpips", "face_stlpips"):
        assert 0 < scores[0][row] < scores[1][row] < scores[2][row]
    outside = crops.copy()
    outside[:, :120] = 0
    assert run(scorer, crops, outside) == {
        "mouth_stlpips": pytest.approx(0, abs=1e-6),
        "face_stlpips": pytest.approx(0, abs=1e-6),
    }


def test_perceptual_step_skips_frames(crops):
    seen = []

    class Network(torch.nn.Module):
        def forward(self, output, target):
            seen.append(output.shape)
            return (output - target).abs().mean()[None]

    run(partial(PerceptualScore, "any", Network(), 3), crops, crops)
    assert len(seen) == 4  # frames 0 and 3, mouth and face


def test_mfcc_equals_python_speech_features():
    """Golden: python_speech_features 0.6, mfcc(wave * 32768, 16000)[4]."""
    seconds = np.arange(1600) / 16000
    coefficients = mfcc(0.3 * np.sin(2 * np.pi * 440 * seconds) + 0.1 * np.sin(2 * np.pi * 2500 * seconds))
    assert coefficients.shape == (9, 13)
    assert coefficients[4] == pytest.approx(GOLDEN_MFCC, abs=2e-3)
    assert np.isfinite(mfcc(np.zeros(100))).all()


def test_shift_means_find_the_shift_and_its_sign():
    rng = np.random.default_rng(0)
    sounds = {k: rng.normal(size=8) for k in range(-20, 80)}
    faces = {k: sounds[k + 3] for k in range(60)}
    distances = shift_means(faces, sounds, lambda face, heard: float(np.linalg.norm(face - heard)))
    assert min(distances, key=distances.__getitem__) == 3 and distances[3] == 0
    assert set(distances) == set(range(-15, 16))
    assert set(shift_means(faces, {k: sounds[k] for k in range(60)}, np.dot)) == set(range(-15, 16))
    assert 3 not in shift_means(faces, {k: sounds[k] for k in range(20)}, np.dot)


def test_turned_sounds_are_the_same_at_other_times():
    sounds = {k: np.array([k]) for k in range(-2, 9)}
    other = turned(sounds, {k: np.zeros(1) for k in range(7)})
    assert [int(other[k][0]) for k in range(-2, 9)] == [-2, -1, 3, 4, 5, 6, 0, 1, 2, 7, 8]


def bright_clip(frames: int, fps: float, late: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Crops of random brightness, a mel whose loudness is the same `late` frames of 1/25 s later, and times."""
    rng = np.random.default_rng(3)
    levels = np.convolve(rng.uniform(0, 1, 600), np.ones(3) / 3, "same")
    mel = np.zeros((1000, 80), np.float32)
    mel[:] = levels[np.clip((np.arange(1000) * 25 / 80 - late).astype(int), 0, 599), None]
    times = np.arange(frames) / fps
    shown = levels[np.round(times * 25).astype(int)]
    crops = np.repeat((shown * 255).astype(np.uint8), 256 * 256 * 3).reshape(frames, 256, 256, 3)
    return crops, mel, times


@pytest.mark.parametrize("fps, late", [(25, 4), (25, -2), (50, 4)])
def test_expert_finds_the_offset_of_the_sound_at_any_rate(monkeypatch, fps, late):
    crops, mel, times = bright_clip(4 * fps, fps, late)

    def rows_with(features: np.ndarray) -> dict[str, float]:
        monkeypatch.setattr("metrics.sync.sound_features", lambda wave, kind: features)
        return run(partial(ExpertScore, Loud("mel")), crops, crops, listening(times, np.zeros(1)))

    rows = rows_with(mel)
    assert rows["sync_offset"] == late and rows["sync_confidence"] > 0.05
    assert 0 < rows["sync_confidence_chance"] < rows["sync_confidence"] / 2
    shuffled = mel.reshape(50, 20, 80)[np.random.default_rng(0).permutation(50)].reshape(mel.shape)
    assert rows_with(shuffled)["sync_confidence"] < rows["sync_confidence"] / 2


@pytest.mark.parametrize("audio", ["mel", "whisper"])
def test_real_experts_of_both_kinds_score(crops, audio):
    scorer = partial(ExpertScore, SyncExpert(SyncConfig.of("light", audio=audio)).eval())
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    rows = run(scorer, crops, crops, listening(np.arange(6) / 25, wave))
    assert set(rows) == {"sync_confidence", "sync_confidence_chance", "sync_offset"}
    assert 0 <= rows["sync_confidence"] <= 1
    assert run(scorer, crops, crops) == {}  # no sound, no rows


def test_windows_with_a_frame_without_a_face_take_no_part(crops):
    times = np.arange(14) / 25
    scorer = partial(ExpertScore, SyncExpert(SyncConfig.of("light", audio="mel")).eval())
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    whole, holed = (scorer(listening(times, wave)) for _ in range(2))
    for score, seen in ((whole, range(14)), (holed, [*range(6), *range(9, 14)])):
        for index in seen:
            score.add(batch(crops[:1], crops[index % 6][None], index))
    assert whole._faces.starts() == list(range(10)) and holed._faces.starts() == [0, 1, 9]
    assert set(holed.result()) == set(whole.result())


class Blue:
    """A stand-in for SyncNet v2: faces are their five frames' blue, a sound its first coefficient in the same five."""

    def embed_lips(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[:, 0].mean((2, 3))

    def embed_audio(self, coefficients: torch.Tensor) -> torch.Tensor:
        return coefficients[:, 0, 0, 2::4]


@pytest.mark.parametrize("late", [4, -2])
def test_lse_is_the_least_mean_distance_and_how_far_it_is_below_the_median(monkeypatch, late):
    levels = np.random.default_rng(0).integers(0, 256, 60)
    crops = np.zeros((60, 256, 256, 3), np.uint8)
    crops[..., 2] = levels[:, None, None]
    heard = np.roll(levels, late)
    monkeypatch.setattr("metrics.sync.mfcc", lambda _: np.repeat(heard, 4)[:, None].repeat(13, 1).astype(np.float32))
    rows = run(partial(SyncNetScore, Blue()), crops, crops, listening(np.arange(60) / 25, np.zeros(1)))
    faces, sounds = (np.lib.stride_tricks.sliding_window_view(values.astype(float), 5) for values in (levels, heard))
    pairs = {shift: [(k, k + shift) for k in range(56) if 0 <= k + shift < 56] for shift in range(-15, 16)}
    means = [np.mean([np.linalg.norm(faces[k] - sounds[j]) for k, j in found]) for found in pairs.values()]
    assert rows["lse_offset"] == late and rows["lse_d"] == pytest.approx(min(means), abs=0.5)
    assert rows["lse_c"] == pytest.approx(np.median(means) - min(means), abs=0.5)
    assert rows["lse_d_chance"] > rows["lse_d"] + rows["lse_c"] / 2


def test_weights_in_syncnet_s_published_layout_score(tmp_path, crops):
    state = {key: torch.from_numpy(value) for key, value in weights.state_dict("syncnet_v2").items()}
    torch.save(state, tmp_path / "syncnet_v2.model")
    network = load_network(tmp_path / "syncnet_v2.model")
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    rows = run(partial(SyncNetScore, network), crops, crops, listening(np.arange(6) / 25, wave))
    assert set(rows) == {"lse_d", "lse_c", "lse_offset", "lse_d_chance", "lse_c_chance"} and rows["lse_d"] > 0


def test_identity_of_a_face_with_itself_and_with_another(shared, crops):
    pytest.importorskip("onnxruntime", reason="needs requirements-metrics.txt")
    scorer = partial(IdentityScore, FaceNetwork(shared("weights/face_recognition_sface_2021dec_int8bq.onnx")), 1)
    assert run(scorer, crops, crops)["identity"] == pytest.approx(1, abs=1e-5)
    noise = np.random.default_rng(0).integers(0, 255, crops.shape, np.uint8)
    assert run(scorer, crops, noise)["identity"] < 0.5


def test_alignment_puts_the_eyes_where_the_network_wants_them():
    picture = np.zeros((256, 256, 3), np.uint8)
    points = landmarks(1)[0]
    for x, y in ((48, 48), (80, 48)):
        cv2.circle(picture, (round(2 * x + 0.5), round(2 * y + 0.5)), 5, (255, 255, 255), -1)
    grey = aligned(picture, points)[..., 0].astype(float)
    rows, columns = np.nonzero(grey > 128)
    assert rows.mean() == pytest.approx(51.6, abs=2.5)
    assert columns[columns < 56].mean() == pytest.approx(38.3, abs=2.5) and columns[
        columns > 56
    ].mean() == pytest.approx(73.5, abs=2.5)


def test_scorers_without_weights_are_named_once(tmp_path):
    scorers, notes = make_scorers({}, step=5)
    assert len(scorers) == 2 and len(notes) == 2
    assert all(f"--{name}-weights" in notes[0] for name in ("sync", "syncnet", "lpips", "identity"))
    with pytest.raises(InputError, match="no file"):
        make_scorers({"identity": tmp_path / "absent.onnx"}, 5)
