"""Crop transforms: fit, smoothing, exactness of pixel centres, and the way back."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from face.crop import TEMPLATE, CropTransform, area_reduce, box_transforms, fit_transforms
from face.follow import lips_inside
from media.frame import Colour, Frame, rgb_to_planes


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def points_of(transforms: np.ndarray) -> np.ndarray:
    """The rigid points in frames whose faces fit the template exactly."""
    return np.stack([CropTransform(transform).inverse().apply(TEMPLATE) for transform in transforms])


def steady(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(count, bool), np.zeros(count, int)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 3), st.floats(-3, 3), st.floats(-500, 500), st.floats(-500, 500))
def test_fit_recovers_a_similarity(scale, angle, x, y):
    transform = similarity(scale, angle, (x, y))
    fitted = fit_transforms(points_of([transform] * 4), *steady(4))
    np.testing.assert_allclose(fitted, np.stack([transform] * 4), atol=1e-6 * max(1, abs(x), abs(y)))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 3), st.floats(-3, 3), st.floats(-500, 500), st.floats(-500, 500))
def test_invert_undoes(scale, angle, x, y):
    transform = similarity(scale, angle, (x, y))
    points = np.array([(0.0, 0), (127, 0), (3.5, 99)])
    np.testing.assert_allclose(
        CropTransform(transform).inverse().apply(CropTransform(transform).apply(points)), points, atol=1e-6
    )


def test_fit_is_least_squares():
    rng = np.random.default_rng(0)
    rigid = points_of([similarity(0.4, 0.1, (3, 8))]) + rng.normal(0, 4, (1, 10, 2))
    fitted = fit_transforms(rigid, *steady(1))[0]
    error = ((CropTransform(fitted).apply(rigid[0]) - TEMPLATE) ** 2).sum()
    for row, column in np.ndindex(2, 3):
        nudge = np.zeros((2, 3))
        nudge[row, column] = 1e-3
        if column < 2:  # stay a similarity
            nudge[1 - row, 1 - column] = 1e-3 * (1 if row == column else -1)
        for nudged in (fitted + nudge, fitted - nudge):
            assert ((CropTransform(nudged).apply(rigid[0]) - TEMPLATE) ** 2).sum() >= error


def test_smoothing_keeps_time_and_stays_inside_a_shot():
    count = 60
    truth = np.stack([similarity(0.5, 0, (50 if k < 30 else -200, 0)) for k in range(count)])
    shot = (np.arange(count) >= 30).astype(int)
    np.testing.assert_allclose(fit_transforms(points_of(truth), np.ones(count, bool), shot), truth, atol=1e-6)
    sway = np.stack([similarity(0.5, 0, (10 * np.sin(k / 8), 0)) for k in range(count)])
    smooth = fit_transforms(points_of(sway), *steady(count))[:, 0, 2]
    lags = [np.corrcoef(sway[10:-10, 0, 2], np.roll(smooth, lag)[10:-10])[0, 1] for lag in (-1, 0, 1)]
    assert np.argmax(lags) == 1 and lags[1] > 0.999


def test_scale_is_smoothed_more_than_place():
    scales = 0.5 * np.exp(0.1 * (-1.0) ** np.arange(80) + 0.1 * np.sin(np.arange(80) / 2))
    rigid = points_of([similarity(scale, 0, (0, 0)) for scale in scales])
    fitted = fit_transforms(rigid, *steady(80))
    assert np.log(fitted[16:-16, 0, 0]).std() < 0.1 * np.log(scales).std()


def test_absent_frames_are_nan_and_split_the_smoothing():
    transforms = np.stack([similarity(0.5, 0, (0 if k < 10 else 300, 0)) for k in range(21)])
    present, shot = steady(21)
    present[10] = False
    rigid = points_of(transforms)
    rigid[10] = np.nan
    fitted = fit_transforms(rigid, present, shot)
    assert np.isnan(fitted[10]).all()
    np.testing.assert_allclose(np.delete(fitted, 10, 0), np.delete(transforms, 10, 0), atol=1e-6)
    assert fit_transforms(np.zeros((0, 10, 2)), *steady(0)).shape == (0, 2, 3)


def test_box_fills_the_crop():
    box = np.tile([100.0, 60, 200, 180], (5, 1))
    transform = box_transforms(box, *steady(5))[2]
    left_top, right = CropTransform(transform).apply(np.array([(100.0, 60), (200, 60)]))
    np.testing.assert_allclose(left_top, -0.5, atol=1e-9)
    np.testing.assert_allclose(right, (127.5, -0.5), atol=1e-9)
    assert transform[0, 1] == transform[1, 0] == 0


@pytest.mark.parametrize("size", [128, 256, 512])
def test_pixel_centres_agree_between_sizes(size):
    image = cv2.GaussianBlur(skimage.data.astronaut(), (0, 0), 6)
    transform = similarity(128 / 300, 0.2, (-20, 10))
    reduced = area_reduce(CropTransform(transform).cut(image, size), 128)
    np.testing.assert_allclose(reduced, CropTransform(transform).cut(image, 128), atol=2)
    corner = np.array([[7.0, 9]])
    at_128, at_large = CropTransform(transform).apply(corner), CropTransform(transform).at(size).apply(corner)
    np.testing.assert_allclose(at_large, (at_128 + 0.5) * size / 128 - 0.5)


def test_crop_at_one_to_one_is_the_picture():
    image = skimage.data.astronaut()
    transform = np.array([[1.0, 0, -40], [0, 1, -30]])
    np.testing.assert_array_equal(CropTransform(transform).cut(image, 128), image[30:158, 40:168])
    half = np.array([[0.5, 0, -20.25], [0, 0.5, -15.25]])
    np.testing.assert_array_equal(CropTransform(half).cut(image, 128), area_reduce(image[30:286, 40:296], 128))


def test_large_faces_are_reduced_without_aliasing():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(CropTransform(similarity(0.25, 0, (0, 0))).cut(stripes, 128).astype(int)[4:-4, 4:-4]) <= 4


def test_border_is_replicated():
    image = np.full((64, 64, 3), 50, np.uint8)
    assert (CropTransform(similarity(1, 0, (32, 32))).cut(image, 128) == 50).all()


def test_area_reduce_is_the_mean():
    image = np.arange(256 * 256 * 3, dtype=np.uint32).reshape(256, 256, 3).astype(np.uint8)
    expected = image.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(area_reduce(image, 128) - expected).max() <= 0.5
    with pytest.raises(ValueError):
        area_reduce(image[:200, :200], 128)


def test_lips_beyond_the_picture_are_told():
    upright = similarity(1, 0, (0, 0))  # the crop is the picture's upper left corner
    transforms = np.stack([upright, np.full((2, 3), np.nan)])
    assert lips_inside(transforms, (128, 128)).tolist() == [1, 0]
    assert lips_inside(transforms[:1], (128, 88)) == pytest.approx([4 / 9])  # four of the nine rows
    assert lips_inside(transforms[:1], (64, 128)) == pytest.approx([6 / 13])


@pytest.mark.parametrize("scale", [0.3, 0.9, 2.0])
def test_a_crop_of_a_part_of_the_frame_is_that_of_the_whole(scale):
    """Also where the crop reaches over the border."""
    picture = np.ascontiguousarray(skimage.data.astronaut()[:400, :480])
    frame = Frame(0, Fraction(0), rgb_to_planes(picture, Colour()), Colour())
    for x, y in ((200.0, 150.0), (20.0, 60.0), (470.0, 390.0)):
        turned = similarity(scale, 0.2, (0, 0))
        crop = CropTransform(turned + np.array([[0, 0, 64], [0, 0, 64]]) - turned @ [[0, 0, x], [0, 0, y], [0, 0, 0]])
        for size in (128, 256):
            whole = crop.cut(frame.rgb(), size)
            assert np.abs(crop.cut_from(frame, size).astype(int) - whole).max() <= 1 and whole.std() > 5
            upper = crop.cut_from(frame, size, rows=64)
            assert upper.shape == (size // 2, size, 3)
            assert np.abs(upper.astype(int) - whole[: size // 2]).max() <= 1
