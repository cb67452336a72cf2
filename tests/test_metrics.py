"""Metrics prove themselves on landmarks and pictures whose scores are known."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
import skimage.data
import skimage.metrics

from face.crop import TEMPLATE
from face.lips import eye_distance, lip_gap
from face.pose import SHAPE
from face.topology import CONTOUR, LIPS, LIPS_INNER, LIPS_OUTER, RIGID
from metrics import image, landmark
from metrics.perceptual import picture_distance
from metrics.scorers import Batch, ClipContext, PictureScore
from models.perceptual import load_perceptual


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(200, 478, 2): a face whose mouth opens at speech's pace while the head turns, moves and grows a little."""
    rng = np.random.default_rng(0)
    time = np.arange(200)
    points = np.repeat(rng.uniform(30, 100, (1, 478, 2)), 200, 0)
    points[:, list(RIGID)] = TEMPLATE
    points[:, 13], points[:, 14] = (64, 84), (64, 86)
    points[:, 14, 1] += 8 * openness(time)
    angle, scale = 0.05 * np.sin(time / 30), 1 + 0.03 * np.sin(time / 40)
    turned = (
        points @ [1, 1j] * (scale * np.exp(1j * angle))[:, None]
        + (2 * np.sin(time / 20) + 1j * np.cos(time / 15))[:, None]
    )
    return np.stack([turned.real, turned.imag], -1)


def openness(time: np.ndarray) -> np.ndarray:
    """Syllables of irregular length and height, 0..1."""
    return np.clip(np.sin(time * 0.9) + 0.6 * np.sin(time * 0.53 + 1) + 0.5 * np.sin(time * 0.171), 0, None) / 2.1


def with_gap(points: np.ndarray, factor: float) -> np.ndarray:
    """The same face whose lower lip moves `factor` times as far round its mean."""
    moved, gap = points.copy(), points[:, 14] - points[:, 13]
    moved[:, 14] = points[:, 13] + gap.mean(0) + factor * (gap - gap.mean(0))
    return moved


def test_a_face_against_itself_is_perfect(face):
    gap = lip_gap(face)
    assert landmark.correlation(gap, gap) == pytest.approx(1)
    assert landmark.best_lag(gap, gap) == (pytest.approx(1), 0)
    assert landmark.articulation(gap, gap) == 1
    assert landmark.landmark_distance(face, face) == 0
    assert landmark.jitter(face, face, landmark.resting(gap)) == 1


def test_lip_gap_is_measured_in_eye_distances(face):
    assert lip_gap(face) == pytest.approx((2 + 8 * openness(np.arange(200))) / 32, abs=0.001)
    assert lip_gap(3 * face) == pytest.approx(lip_gap(face))


@pytest.mark.parametrize("lag", [-4, -1, 2, 5])
def test_delay_is_found_with_its_sign(face, lag):
    gap = lip_gap(face)
    late = np.roll(gap, lag)
    for part in (lambda series: series, landmark.fast_part):
        r, found = landmark.best_lag(part(late)[10:-10], part(gap)[10:-10])
        assert (found, r > 0.99) == (lag, True)
        assert landmark.correlation(part(late), part(gap)) < 0.9


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.7])
def test_articulation_follows_the_scale_of_lip_motion(face, factor):
    scaled, gap = lip_gap(with_gap(face, factor)), lip_gap(face)
    assert landmark.articulation(scaled, gap) == pytest.approx(factor, abs=0.05)
    if factor:
        assert landmark.correlation(scaled, gap) > 0.999


def test_fast_part_forgets_slow_motion_and_keeps_syllables(face):
    time, gap = np.arange(200), lip_gap(face)
    slow = 0.5 * np.sin(time / 60)
    assert np.abs(landmark.fast_part(slow + 1)[40:-40]).max() < 0.012
    assert landmark.correlation(gap + slow, gap) < 0.5
    assert landmark.correlation(landmark.fast_part(gap + slow), landmark.fast_part(gap)) > 0.97


def test_lip_rows_say_how_well_lips_follow_and_how_late(face):
    gap = lip_gap(face)
    rows = landmark.lip_rows(np.roll(gap, 3), gap, 25)
    for part in ("lip", "fast"):
        assert rows[f"{part}_lag"] == 3 and rows[f"{part}_r_best"] > 0.99 and rows[f"{part}_r"] < 0.9


def test_fast_part_means_the_same_seconds_at_another_rate():
    slow, fast = np.arange(250) / 25, np.arange(500) / 50
    at_25, at_50 = (np.sin(8 * seconds) + np.sin(1.5 * seconds) for seconds in (slow, fast))
    wanted = landmark.fast_part(at_25)[50:-50]
    assert landmark.fast_part(at_50, 50)[100:-100:2] == pytest.approx(wanted, abs=1e-4)


def test_frames_without_a_face_take_no_part(face):
    gap = lip_gap(face)
    holes = gap.copy()
    holes[40:60] = np.nan
    holes[::17] = np.nan
    assert landmark.correlation(holes, gap) == pytest.approx(1)
    assert landmark.articulation(holes, gap) == pytest.approx(1)
    assert landmark.correlation(landmark.fast_part(holes), landmark.fast_part(gap)) > 0.98
    assert landmark.correlation(np.full(200, np.nan), gap) == 0


def test_noise_raises_jitter_and_a_shift_or_turn_does_not(face):
    rng, where = np.random.default_rng(1), landmark.resting(lip_gap(face))
    scores = [landmark.jitter(face + rng.normal(0, sigma, face.shape), face, where) for sigma in (0.05, 0.1, 0.2)]
    assert 1 < scores[0] < scores[1] < scores[2]
    assert landmark.jitter(face * 1.2 + (5, -3), face, where) == pytest.approx(1)


def test_jitter_looks_only_where_the_mouth_rests(face):
    where = landmark.resting(lip_gap(face))
    assert where.sum() == pytest.approx(0.4 * len(face), abs=25)
    noisy = face.copy()
    busy = ~(where | np.roll(where, 1) | np.roll(where, -1))
    noisy[busy] += np.random.default_rng(2).normal(0, 1, face[busy].shape)
    assert landmark.jitter(noisy, face, where) == pytest.approx(1)


def test_landmark_distance_ignores_the_shift_of_the_face_but_not_of_the_lips(face):
    assert landmark.landmark_distance(face + (3, -7), face) == pytest.approx(0, abs=1e-9)
    moved = face.copy()
    moved[:, list(LIPS)] += (0, 2)
    assert landmark.landmark_distance(moved, face) == pytest.approx(2)


def test_chance_of_the_best_lag_is_not_zero_and_far_from_one(face):
    gap = landmark.fast_part(lip_gap(face))
    chance = np.mean([landmark.best_lag(gap, other)[0] for other in landmark.chance_series(gap, 25)])
    assert 0.1 < chance < 0.8


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(cv2.resize(skimage.data.astronaut()[:256, 100:356], (256, 256)))


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


BOX = (90, 110, 186, 180)


def test_psnr_and_ssim_equal_scikit_image(portrait):
    x0, y0, x1, y1 = BOX
    for other in (blurred(portrait, 2), np.roll(portrait, 3, 1), 255 - portrait):
        cut, real = other[y0:y1, x0:x1], portrait[y0:y1, x0:x1]
        assert image.psnr(cut, real) == pytest.approx(skimage.metrics.peak_signal_noise_ratio(real, cut), abs=1e-9)
        wanted = skimage.metrics.structural_similarity(real, cut, channel_axis=2)
        assert image.box_mean(image.ssim_map(other, portrait), BOX) == pytest.approx(wanted, abs=1e-9)


def test_a_picture_against_itself_is_perfect(portrait):
    assert image.psnr(portrait, portrait) == image.PSNR_CEILING
    assert image.ssim_map(portrait, portrait) == pytest.approx(np.ones((256, 256)))


def test_blur_lowers_sharpness_psnr_and_ssim_step_by_step(portrait):
    series = [blurred(portrait, sigma) for sigma in (0.6, 1.0, 1.6, 2.5)]
    for scores in (
        [image.sharpness(picture) for picture in (portrait, *series)],
        [image.psnr(picture, portrait) for picture in series],
        [image.ssim_map(picture, portrait).mean() for picture in (portrait, *series)],
    ):
        assert all(before > after for before, after in pairwise(scores))


def test_mouth_box_lies_round_the_mouth_and_inside_the_crop(face):
    points = face[:1].copy()
    points[0, list(image.MOUTH_BOX_POINTS)] = (64, 90)
    eyes = eye_distance(points)[0]
    x0, y0, x1, y1 = image.mouth_boxes(points, 256)[0]
    assert (x1 - x0, y1 - y0) == (pytest.approx(3 * eyes, abs=1), pytest.approx(2.2 * eyes, abs=1))
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == (pytest.approx(129, abs=1), pytest.approx(181, abs=1))
    points[0, list(image.MOUTH_BOX_POINTS)] = (140, 140)
    x0, y0, x1, y1 = image.mouth_boxes(points, 128)[0]
    assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128 and x1 - x0 >= image.LEAST_SIDE


@pytest.mark.parametrize(("size", "least"), [(128, image.LEAST_SIDE), (256, 31)])
@pytest.mark.parametrize("mouth", [(64, 90), (0, 127), (140, 140)])
def test_the_mouth_box_of_a_turned_head_can_be_compared(face, size, least, mouth):
    points = face[:1].copy()
    points[0] = points[0] * (0.3, 1) + (45, 0)  # the eyes come near to each other
    points[0, list(image.MOUTH_BOX_POINTS)] = mouth
    ((x0, y0, x1, y1),) = image.mouth_boxes(points, size, least)
    assert 0 <= x0 <= x1 - least and x1 <= size and 0 <= y0 <= y1 - least and y1 <= size
    pictures = np.zeros((2, size, size, 3), np.uint8)[:, y0:y1, x0:x1]
    assert picture_distance(load_perceptual("stlpips"), *pictures) == 0


def test_lower_face_is_inside_the_contour_and_below_the_middle(face):
    points = face[0].copy()
    angles = np.linspace(np.pi, 0, len(CONTOUR))
    points[list(CONTOUR)] = 64 + 50 * np.stack([np.cos(angles), np.sin(angles)], 1)
    mask = image.lower_face(points, 256)
    assert not mask[:128].any() and mask[140, 128] and not mask[250, 250]
    assert mask.sum() == pytest.approx(np.pi * 100**2 / 2, rel=0.03)


def test_colour_is_told_of_lips_and_of_what_is_between_them():
    corners = np.exp(2j * np.pi * np.arange(20) / 20)
    points = np.zeros((478, 2))
    points[list(LIPS_OUTER)] = np.stack([64 + 24 * corners.real, 88 + 16 * corners.imag], 1)
    points[list(LIPS_INNER)] = np.stack([64 + 14 * corners.real, 88 + 8 * corners.imag], 1)
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[...] = 255, 255, 255
    cv2.fillPoly(picture, [np.rint(2 * points[list(LIPS_OUTER)] + 0.5).astype(np.int32)], (255, 0, 0))
    cv2.fillPoly(picture, [np.rint(2 * points[list(LIPS_INNER)] + 0.5).astype(np.int32)], (0, 0, 0))
    lips, inner = image.mean_colours(picture, points)
    assert lips == pytest.approx([53.2, 80.1, 67.2], abs=2.5)  # sRGB red in CIE Lab, but for pixels at the rim
    assert inner == pytest.approx([0, 0, 0], abs=2.5)
    points[list(LIPS_INNER)] = 64, 88  # shut
    assert np.isnan(image.mean_colours(picture, points)[1]).all()


def test_mouths_are_told_apart_by_how_far_the_head_is_turned():
    turns = np.array([5.0, -20.0, 40.0, 10.0])
    rigid = np.stack([SHAPE[:, 0] * np.cos(turn) + SHAPE[:, 2] * -np.sin(turn) for turn in np.radians(turns)])
    points = np.random.default_rng(0).uniform(40, 90, (478, 2))[None].repeat(4, 0)
    points[:, list(RIGID)] = np.stack([rigid + 64, np.broadcast_to(SHAPE[:, 1] + 50, rigid.shape)], -1)
    real = np.random.default_rng(1).integers(20, 200, (4, 256, 256, 3)).astype(np.uint8)
    generated = real + np.array([1, 2, 4, 1], np.uint8)[:, None, None, None]
    score = PictureScore(ClipContext(np.arange(4) / 25))
    score.add(Batch(np.arange(4), real, generated, points, points))
    rows = score.result()
    for yaw, error in ((0, 1), (15, 2), (30, 4)):
        assert rows[f"mouth_psnr_yaw_{yaw}"] == pytest.approx(20 * np.log10(255 / error))
    assert "mouth_psnr_yaw_45" not in rows
