"""The two detector backends and the landmark net, on real pictures and with the packages' own network classes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from errors import InputError
from face import detect, detect_68
from face.crop import TEMPLATE, CropTransform, fit_transforms
from face.detect import make_detector
from face.landmark_net import LandmarkNet, read_tflite

ROOT = Path(__file__).resolve().parent.parent
MIRROR = [2, 3, 0, 1, 4, 5, 6, 7, 8, 9]  # of the ten rigid points


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def test_mediapipe_finds_the_face_and_survives_repeated_times(astronaut):
    detector = make_detector("mediapipe")
    for time_s in (0.0, 0.04, 0.04, 0.0):
        (face,) = detector.detect(astronaut, time_s)
        assert face.landmarks.shape == (478, 2) and face.landmarks.dtype == np.float32
        assert 170 < face.box_xyxy[0] < face.box_xyxy[2] < 290 and 50 < face.box_xyxy[1] < face.box_xyxy[3] < 200
    detector.reset()
    assert len(detector.detect(astronaut, 0.0)) == 1
    assert detector.detect(np.zeros_like(astronaut), 0.04) == []
    detector.reset()


def test_search_finds_a_face_too_small_for_the_detector(astronaut):
    picture = np.full((720, 1280, 3), 128, np.uint8)
    picture[500:700, 1000:1200] = astronaut[20:220, 120:320]
    detector = make_detector("mediapipe")
    (face,) = detector.search(picture)
    expected = np.array([1000 - 120 + 225, 500 - 20 + 120])
    assert np.abs(face.box_xyxy.reshape(2, 2).mean(0) - expected).max() < 25


def test_mediapipe_prints_nothing():
    code = (
        "import skimage.data; from face.detect import make_detector; d = make_detector('mediapipe'); "
        "i = skimage.data.astronaut(); print(*(len(f) for f in (d.detect(i, 0), d.detect(i, 1), d.search(i)))); "
        "d.reset()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.stdout == "1 1 1\n" and result.stderr == ""


def test_pixel_centres_are_at_integers(astronaut):
    """A mirrored picture has mirrored landmarks: x and x' add up to width - 1."""
    transform = np.array([[0.72, -0.02, -97.0], [0.02, 0.72, -25.0]])
    face = CropTransform(transform).cut(astronaut, 128)
    (plain, mirrored), seen = LandmarkNet().landmarks(np.stack([face, face[:, ::-1]]))
    assert seen.all()
    rigid = [33, 133, 263, 362, 168, 6, 197, 195, 5, 4]
    sums = plain[rigid, 0] + mirrored[np.array(rigid)[MIRROR], 0]
    assert abs(sums.mean() - 127) < 1


def test_landmark_net_finds_what_opencv_finds_by_the_same_file(astronaut, monkeypatch):
    transform = np.array([[0.72, -0.02, -97.0], [0.02, 0.72, -25.0]])
    crops = [CropTransform(transform + [0, 0, 3 * k]).cut(astronaut, 128) for k in range(8)]
    net, known = LandmarkNet(), read_tflite()
    points, seen = net.landmarks(np.stack(crops))
    forward, logits = net._forward, []

    def by_opencv(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        known.setInput(np.ascontiguousarray(images.astype(np.float32).transpose(0, 3, 1, 2) / 255))
        found, presence = known.forward(["Identity", "Identity_1"])
        logits.append((presence.reshape(-1), forward(images)[1]))
        return found.reshape(len(images), -1, 3)[:, :, :2], presence.reshape(-1)

    monkeypatch.setattr(net, "_forward", by_opencv)
    wanted, wanted_seen = net.landmarks(np.stack(crops))
    np.testing.assert_allclose(points, wanted, atol=1e-3)
    np.testing.assert_allclose(*np.concatenate(logits, 1), atol=1e-3)
    assert np.abs(wanted[0] - wanted[7]).mean() > 10 and np.max(logits) > 2
    np.testing.assert_array_equal(seen, wanted_seen)


def test_landmark_net_serves_any_size_and_number(astronaut):
    transform = np.array([[0.72, -0.02, -97.0], [0.02, 0.72, -25.0]])
    net = LandmarkNet()
    small = net.landmarks(CropTransform(transform).cut(astronaut, 128)[None])[0][0]
    large, seen = net.landmarks(np.stack([CropTransform(transform).cut(astronaut, 256)] * 9))
    assert large.shape == (9, 478, 2) and seen.shape == (9,) and large.dtype == np.float32
    np.testing.assert_allclose(large[8], large[0], atol=1e-2)
    assert np.abs((large[0] + 0.5) / 2 - 0.5 - small).mean() < 0.7
    empty, none = net.landmarks(np.zeros((0, 128, 128, 3), np.uint8))
    assert empty.shape == (0, 478, 2) and none.shape == (0,)
    noise = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    assert seen.all() and not net.landmarks(noise)[1].any()


def test_template_fits_a_face(astronaut):
    detector = make_detector("mediapipe")
    (face,) = detector.search(astronaut)
    rigid = detector.rigid(face.landmarks)
    transform = fit_transforms(rigid[None], np.ones(1, bool), np.zeros(1, int))[0]
    error = CropTransform(transform).apply(rigid) - TEMPLATE
    assert np.abs(error).max() < 6 and np.sqrt((error**2).mean()) < 3


def test_unknown_backend_and_missing_model(monkeypatch):
    with pytest.raises(InputError, match="mediapipe or face_alignment"):
        make_detector("dlib")
    monkeypatch.setattr(detect, "MODEL", Path("nowhere.task"))
    with pytest.raises(InputError, match="nowhere.task"):
        make_detector("mediapipe")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A torch hub folder with stand-in weights of the right names and shapes; S3FD sees background everywhere."""
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    folder = tmp_path_factory.mktemp("hub")
    (folder / "checkpoints").mkdir()
    torch.manual_seed(0)
    finder, points = s3fd(), FAN(4)
    with torch.no_grad():
        for name, parameter in finder.named_parameters():
            if "mbox_conf" in name:
                parameter.zero_()
                if name.endswith("bias"):
                    parameter[:-1] = 10
    for name, network in zip(detect_68.WEIGHTS, (finder, points), strict=True):
        torch.save(network.state_dict(), folder / "checkpoints" / name)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    yield folder
    torch.hub.set_dir(before)


def test_face_alignment_runs_its_own_networks(hub, astronaut, monkeypatch):
    detector = make_detector("face_alignment", max_faces=1)
    assert detector.detect(astronaut[:192, :192], 0.0) == []
    big = np.tile(astronaut, (1, 3, 1))
    seen = []

    def boxes(image):
        seen.append(image.shape)
        return [np.array([10.0, 5, 60, 60, 0.9]), np.array([70.0, 20, 120, 90, 0.8])]

    monkeypatch.setattr(detector._net.face_detector, "detect_from_image", boxes)
    (face,) = detector.detect(big, 0.0)
    assert max(seen[0]) == detect_68.DETECTION_SIDE
    scale = 1536 / 640
    np.testing.assert_allclose(face.box_xyxy, np.array([70, 20, 120, 90]) * scale, rtol=1e-3)
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32 and np.isfinite(face.landmarks).all()
    assert detector.rigid(face.landmarks).shape == (10, 2) and len(detector.search(big)) == 1


def test_rigid_of_68_points_fits_the_template():
    landmarks = np.zeros((68, 2), np.float32)
    landmarks[[36, 39, 45, 42]] = TEMPLATE[:4]
    landmarks[27:31] = [(64, y) for y in np.linspace(46.3, 64, 4)]
    rigid = detect_68.FaceAlignmentDetector.rigid(None, landmarks)
    np.testing.assert_allclose(rigid, TEMPLATE, atol=1e-4)


def test_missing_weights_offline_are_one_line(tmp_path, monkeypatch):
    from urllib.error import URLError

    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        with pytest.raises(InputError) as error:
            make_detector("face_alignment")
    finally:
        torch.hub.set_dir(before)
    message = str(error.value)
    assert all(name in message for name in detect_68.WEIGHTS) and str(tmp_path / "checkpoints") in message
    assert "\n" not in message
