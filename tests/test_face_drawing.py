"""Sketch, paste mask and paste-back, on the landmarks of a real face."""

import itertools

import cv2
import numpy as np
import pytest
import skimage.data

from face.crop import SIZE, CropTransform
from face.landmark_net import LandmarkNet
from face.mask import TOP_ROW, paste_mask
from face.paste import paste_face, paste_rect, sampled_part
from face.sketch import draw_sketch, to_68
from face.smooth import smoothed, stretches
from face.topology import CONTOUR, LIPS, LIPS_INNER, RIGID, SPEECH_POINTS, SPEECH_POINTS_MIRRORED

TRANSFORM = CropTransform(np.array([[0.72, -0.02, -97.0], [0.02, 0.72, -25.0]]))


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return TRANSFORM.cut(skimage.data.astronaut(), 256)


@pytest.fixture(scope="module")
def landmarks(face) -> np.ndarray:
    """(478, 2) px of the 128 crop."""
    return (LandmarkNet().landmarks(face[None])[0][0] + 0.5) / 2 - 0.5


@pytest.mark.parametrize("size", [128, 256, 512])
def test_sketch_lines_lie_on_the_landmarks(landmarks, size):
    sketch = draw_sketch(landmarks, size)
    assert sketch.shape == (size, size) and sketch.dtype == np.uint8
    for group in (LIPS, CONTOUR):
        x, y = np.rint((landmarks[list(group)] + 0.5) * size / 128 - 0.5).astype(int).T
        assert (sketch[y, x] > 128).mean() > 0.95
    forehead = landmarks[10]
    assert sketch[int(forehead[1] * size / 128), int(forehead[0] * size / 128)] == 0
    assert 0.03 < (sketch > 0).mean() < 0.2


def test_sketch_lines_are_two_px_of_128_and_move_by_subpixels():
    points = np.full((478, 2), -50.0)
    points[list(CONTOUR)] = np.stack([np.linspace(20, 100, len(CONTOUR)), np.full(len(CONTOUR), 60.0)], 1)
    widths = [draw_sketch(points, size)[:, size // 2].sum() / 255 * 128 / size for size in (128, 256, 512)]
    assert all(abs(width - 2) < 0.35 for width in widths)
    rows = [
        (draw_sketch(points + [0, shift]).astype(float)[:, 64] * np.arange(128)).sum()
        / draw_sketch(points + [0, shift])[:, 64].sum()
        for shift in (0, 0.25, 0.5)
    ]
    assert rows[0] < rows[1] < rows[2]


def test_sketch_of_68_points_and_wild_points(landmarks):
    sketch = draw_sketch(to_68(landmarks))
    assert to_68(landmarks[None]).shape == (1, 68, 2) and (sketch > 0).mean() > 0.03
    assert draw_sketch(np.full((478, 2), 1e9)).max() == 0
    both = draw_sketch(landmarks) > 0
    assert (both & (sketch > 0)).sum() > 0.5 * (sketch > 0).sum()


def test_smoothing_is_1_2_1_and_without_delay():
    def smooth(values: list[float], marks: list[int | None]) -> list[float]:
        given = ((np.float32([[value, 0]]), mark) for value, mark in zip(values, marks, strict=True))
        return [float(points[0, 0]) for points in smoothed(given)]

    assert smooth([0, 0, 4, 0, 0], [1] * 5) == [0, 1, 2, 1, 0]
    assert smooth([0, 1, 2, 3, 4, 5], [1] * 6) == [0.25, 1, 2, 3, 4, 4.75]
    assert smooth([], []) == []
    # Neither over a cut, nor over a frame without a face, which stays as it is.
    assert smooth([0, 4, 8, 8], [1, 1, 2, 2]) == [1, 3, 8, 8]
    assert smooth([0, 4, 100, 8, 8], [1, 1, None, 2, 2]) == [1, 3, 100, 8, 8]
    assert list(smoothed([(None, 3), (None, None)])) == [None, None]
    assert stretches(np.array([True, True, False, True])) == [0, 0, None, 1]


def test_speech_points_mirror(landmarks):
    mirrored = np.array(SPEECH_POINTS)[list(SPEECH_POINTS_MIRRORED)]
    assert len(set(SPEECH_POINTS)) == 20 and not set(SPEECH_POINTS) & set(RIGID)
    centre = landmarks[list(RIGID)].mean(0)
    offset = landmarks[list(SPEECH_POINTS)] - centre
    other = (landmarks[mirrored] - centre) * [-1, 1]
    assert np.abs(offset - other).max() < 12  # a real face, slightly turned; swapped sides would be 30 px and more off


@pytest.mark.parametrize("size", [128, 256, 512])
def test_mask_covers_the_mouth_and_nothing_else(landmarks, size):
    mask = paste_mask(landmarks, size)
    assert mask.shape == (size, size) and mask.dtype == np.float32 and mask.min() == 0 and mask.max() == 1
    scaled = np.rint((landmarks + 0.5) * size / 128 - 0.5).astype(int)
    for point in (*LIPS, 152):
        assert mask[scaled[point, 1], scaled[point, 0]] > 0.5
    for point in (10, 33, 263, 159, 386, 168, 6, 197, 234, 454):  # forehead, eyes, nose bridge, ears
        assert mask[scaled[point, 1], scaled[point, 0]] == 0
    assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_mask_stays_inside_the_pasted_rows_when_the_head_tilts(landmarks):
    turn = cv2.getRotationMatrix2D((64.0, 64.0), 50, 1)
    mask = paste_mask(CropTransform(turn).apply(landmarks), 256)
    assert not mask[: 2 * TOP_ROW].any() and mask.max() == 1
    assert np.abs(np.diff(mask, axis=0)).max() < 0.3


def test_mask_follows_the_generated_chin(landmarks):
    lower = landmarks.copy()
    lower[landmarks[:, 1] > landmarks[17, 1]] += [0, 6]
    reach = [np.flatnonzero(paste_mask(points, 128).max(1))[-1] for points in (landmarks, lower)]
    assert 4 <= reach[1] - reach[0] <= 8
    beyond = paste_mask(landmarks + [0, 40], 128)
    assert not beyond[-1].any()


def test_paste_changes_only_what_the_mask_covers(landmarks):
    image = skimage.data.astronaut()
    mask = paste_mask(landmarks, 256)
    rect = paste_rect(mask, TRANSFORM, (512, 512))
    x0, y0, x1, y1 = rect
    assert not any(value % 2 for value in rect)
    result = image.copy()
    result[y0:y1, x0:x1] = paste_face(image[y0:y1, x0:x1], rect, np.zeros((256, 256, 3), np.uint8), mask, TRANSFORM)
    changed = (result != image).any(2)
    mouth = TRANSFORM.inverse().apply(landmarks[list(LIPS_INNER)]).mean(0).astype(int)
    assert (result[mouth[1], mouth[0]] == 0).all()
    rows, columns = np.nonzero(changed)
    back = np.rint(TRANSFORM.apply(np.stack([columns, rows], 1)) * 2).astype(int).clip(0, 255)
    near = cv2.dilate(mask, np.ones((7, 7)))
    assert (near[back[:, 1], back[:, 0]] > 0).all()


@pytest.mark.parametrize("scale", [0.3, 0.72, 2.0])
def test_what_is_not_sampled_does_not_show(landmarks, scale):
    image = skimage.data.astronaut()
    transform = CropTransform(np.array([[scale, -0.02, 64 - 220 * scale], [0.02, scale, 64 - 120 * scale]]))
    masks = np.stack([paste_mask(landmarks + [shift, 0], 256) for shift in (-3, 2)])
    left, top, right, bottom = (2 * value for value in sampled_part(masks))
    assert (right - left) * (bottom - top) < 0.5 * 256**2 and top >= 2 * 48
    for mask in masks:
        whole = transform.cut(image, 256)
        part = 255 - whole
        part[top:bottom, left:right] = whole[top:bottom, left:right]
        x0, y0, x1, y1 = rect = paste_rect(mask, transform, (512, 512))
        pasted = (paste_face(image[y0:y1, x0:x1], rect, face, mask, transform) for face in (whole, part))
        np.testing.assert_array_equal(*pasted)
    assert sampled_part(0 * masks) == (0, 0, 128, 128)


@pytest.mark.parametrize("scale", [0.3, 0.72, 1.5])
def test_own_crop_pasted_back_changes_nothing_to_speak_of(scale):
    image = cv2.GaussianBlur(skimage.data.astronaut(), (0, 0), 3)
    turn = np.array([[scale, 0.05], [-0.05, scale]])
    transform = CropTransform(np.column_stack([turn, 64 - turn @ [220, 120]]))
    mask = np.zeros((256, 256), np.float32)
    mask[110:230, 60:190] = 1
    x0, y0, x1, y1 = rect = paste_rect(mask, transform, (512, 512))
    original = image[y0:y1, x0:x1]
    result = paste_face(original, rect, transform.cut(image, 256), mask, transform)
    difference = np.abs(result.astype(int) - original)
    assert (difference > 0).mean() > 0 and difference.max() <= 12 and difference.mean() < 0.5


@pytest.mark.parametrize("scale", [0.55, 0.72, 0.95])
def test_an_enlarged_crop_comes_back_as_sharp_as_it_was(scale):
    image = skimage.data.astronaut()
    turn = np.array([[scale, 0.05], [-0.05, scale]])
    transform = CropTransform(np.column_stack([turn, 64 - turn @ [220, 120]]))
    mask = np.zeros((256, 256), np.float32)
    mask[128:] = 1
    x0, y0, x1, y1 = rect = paste_rect(mask, transform, (512, 512))
    original = image[y0:y1, x0:x1]
    result = paste_face(original, rect, transform.cut(image, 256), mask, transform)
    inner = slice(len(original) // 4, -len(original) // 4)
    before, after = (
        cv2.Laplacian(cv2.cvtColor(picture[inner, inner], cv2.COLOR_RGB2GRAY), cv2.CV_32F).var()
        for picture in (original, result)
    )
    assert 0.75 < after / before < 1.05  # twice cubic; area means on the way back leave .4 to .6


def test_sharpness_does_not_jump_where_a_face_grows(landmarks):
    picture = cv2.resize(skimage.data.astronaut()[:256, 100:356], (256, 256))

    def sharpness(scale: float) -> float:
        transform = CropTransform(np.array([[scale, 0, 64 - scale * 256], [0, scale, 64 - scale * 256]]))
        mask = paste_mask(landmarks, 256)
        x0, y0, x1, y1 = rect = paste_rect(mask, transform, (512, 512))
        pasted = paste_face(np.zeros((y1 - y0, x1 - x0, 3), np.uint8), rect, picture, mask, transform)
        return cv2.Laplacian(cv2.cvtColor(pasted, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()

    steps = [sharpness(scale) for scale in np.geomspace(0.8, 1.4, 29)]
    assert max(abs(after / before - 1) for before, after in itertools.pairwise(steps)) < 0.15


@pytest.mark.parametrize("centre", [(0, 0), (512, 512), (-900, 100), (300, 2000)])
def test_rect_stays_inside_the_frame(centre):
    transform = CropTransform(np.array([[1.0, 0, 64 - centre[0]], [0, 1, 64 - centre[1]]]))
    mask = np.zeros((SIZE, SIZE), np.float32)
    assert paste_rect(mask, transform, (512, 384))[2:] <= (512, 384)  # of no mask
    mask[60:120, 20:100] = 1
    x0, y0, x1, y1 = rect = paste_rect(mask, transform, (512, 384))
    assert 0 <= x0 < x1 <= 512 and 0 <= y0 < y1 <= 384 and not any(value % 2 for value in rect)
    image = np.full((y1 - y0, x1 - x0, 3), 9, np.uint8)
    assert paste_face(image, rect, np.full((SIZE, SIZE, 3), 90, np.uint8), mask, transform).shape == image.shape
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(paste_face(image, rect, black, 0 * mask, transform), image)
