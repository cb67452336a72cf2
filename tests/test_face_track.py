"""Following faces: cuts, gaps, two people; with a detector that reads its faces from a script, and a real one."""

from itertools import islice

import numpy as np
import pytest
import skimage.data

from benchmarks.memory import film
from face.crop import CropTransform
from face.detector import Face
from face.follow import follow
from face.pose import head_pose
from face.topology import LIP_GAP, RIGID
from face.track import track_faces
from media.video import Frame, VideoReader

FPS = 25
_MESH = np.random.default_rng(0).uniform(0, 1, (478, 2)).astype(np.float32)


class ScriptedDetector:
    """Returns the faces (x, y, size) that a script lists for each time."""

    lip_gap = LIP_GAP

    def __init__(self, script: list[list[tuple[float, float, float]]]):
        self.script, self.resets, self.searched = script, 0, 0

    def detect(self, image_rgb, time_s):
        return [self._face(*place) for place in self.script[round(time_s * FPS)]]

    def search(self, image_rgb):
        self.searched += 1
        return self.detect(image_rgb, 0.0)

    def reset(self):
        self.resets += 1

    def rigid(self, landmarks):
        return landmarks[list(RIGID)]

    @staticmethod
    def _face(x, y, size):
        landmarks = _MESH * size + [x, y]
        return Face(np.float32([x, y, x + size, y + size]), landmarks.astype(np.float32))


def run(script, colours=None):
    colours = colours or [60] * len(script)
    detector = ScriptedDetector(script)
    frames = ((np.full((120, 160, 3), colour, np.uint8), index / FPS) for index, colour in enumerate(colours))
    return track_faces(frames, detector), detector


def test_a_moving_face_is_one_track():
    tracks, detector = run([[(10 + 3 * k, 20, 60)] for k in range(30)])
    assert len(tracks) == 1
    assert tracks[0].present.all() and not tracks[0].interpolated.any() and not tracks[0].shot.any()
    np.testing.assert_allclose(tracks[0].box[:, 0], 10 + 3 * np.arange(30), atol=1e-4)
    assert detector.searched == 0


def test_short_gaps_are_interpolated_and_long_ones_are_not():
    script = [[(10.0 + k, 20, 60)] for k in range(60)]
    for k in [*range(10, 20), *range(30, 45)]:  # 0.4 s and 0.6 s
        script[k] = []
    (track,), _ = run(script)
    assert track.present[:30].all() and track.interpolated[10:20].all() and track.interpolated.sum() == 10
    np.testing.assert_allclose(track.box[10:20, 0], np.arange(20, 30), atol=1e-3)
    np.testing.assert_allclose(track.rigid[15] - track.rigid[14], np.tile([1, 0], (10, 1)), atol=1e-3)
    assert not track.present[30:45].any()
    assert np.isnan(track.rigid[30:45]).all() and np.isnan(track.lip_gap[30:45]).all()
    assert track.present[45:].all()


def test_two_people_are_never_mixed_up():
    script = []
    for k in range(50):
        people = [(10 + k / 4, 20, 60), (90 - k / 4, 22, 40)]
        script.append(people[::-1] if k % 2 else people)
    script[20], script[21] = script[20][:1], []
    tracks, _ = run(script)
    assert len(tracks) == 2
    np.testing.assert_allclose(tracks[0].box[:, 2] - tracks[0].box[:, 0], 60, atol=1e-3)
    np.testing.assert_allclose(tracks[1].box[:, 2] - tracks[1].box[:, 0], 40, atol=1e-3)


def test_largest_first_and_ties_by_time_on_screen():
    script = [[(5, 5, 40), (60, 5, 41)] for _ in range(20)]
    for k in range(10, 20):
        script[k] = [(5, 5, 40)]
    tracks, _ = run(script)
    assert tracks[0].box[0, 0] == 5 and tracks[1].present.sum() == 10
    tracks, _ = run([[(5, 5, 40), (60, 5, 70)] for _ in range(20)])
    assert tracks[0].box[0, 0] == 60


def test_a_face_is_not_taken_for_one_far_away():
    script = [[(5, 5, 40)]] * 10 + [[(5, 5, 40), (100, 60, 40)]] * 5 + [[(100, 60, 40)]] * 10
    tracks, _ = run(script)
    assert len(tracks) == 2
    assert sorted(track.present.sum() for track in tracks) == [15, 15]
    for track in tracks:
        assert len(np.unique(track.box[track.present, 0])) == 1


def test_cuts_start_shots_and_reset_the_detector():
    script = [[(5, 5, 40)]] * 10 + [[(60, 40, 60)]] * 10 + [[(62, 41, 61)]] * 10
    _, plain = run([[(5, 5, 40)]] * 30)
    tracks, detector = run(script, [60] * 20 + [200] * 10)  # first the face jumps, then the colours
    assert len(tracks) == 1 and detector.resets == plain.resets + 2
    assert tracks[0].shot.tolist() == [0] * 10 + [1] * 10 + [2] * 10 and tracks[0].present.all()


def test_gaps_are_not_bridged_over_a_cut():
    script = [[(5, 5, 40)]] * 10 + [[]] * 4 + [[(5, 5, 40)]] * 10
    (track,), _ = run(script, [60] * 12 + [200] * 12)
    assert not track.present[10:14].any() and track.shot[11] == 0 and track.shot[12] == 1


def test_second_detection_of_the_same_face_and_false_alarms_are_dropped():
    script = [[(5, 5, 40)] for _ in range(30)]
    script[12] = [(5, 5, 40), (8, 7, 42)]
    script[20] = [(5, 5, 40), (100, 60, 30)]
    tracks, _ = run(script)
    assert len(tracks) == 1 and tracks[0].present.all()


def test_still_is_searched_and_no_face_is_no_track():
    tracks, detector = run([[(5, 5, 40)]])
    assert detector.searched == 1 and len(tracks) == 1 and tracks[0].present.tolist() == [True]
    assert run([[]])[0] == [] and run([[]] * 5)[0] == [] and run([])[0] == []


def test_the_detector_is_closed_on_error():
    detector = ScriptedDetector([[(5, 5, 40)]] * 3)

    def frames():
        yield from ((np.zeros((9, 9, 3), np.uint8), k / FPS) for k in range(3))
        raise RuntimeError("broken file")

    with pytest.raises(RuntimeError):
        track_faces(frames(), detector)
    assert detector.resets == 2


def test_real_detector_follows_the_talking_clip(talking_clip):
    from face.detect import make_detector

    frames = ((frame.rgb(), float(frame.time)) for frame in VideoReader(talking_clip))
    tracks = track_faces(frames, make_detector("mediapipe"))
    assert len(tracks) == 1 and tracks[0].present.all() and not tracks[0].shot.any()
    assert np.ptp(tracks[0].lip_gap) > 0.08 and np.abs(head_pose(tracks[0].rigid)[:, 0]).max() < 30


def test_a_large_picture_is_looked_at_reduced_and_its_face_cut_as_from_the_whole(tmp_path, monkeypatch):
    from face.detect import make_detector

    reader, corners, seen = VideoReader(film(tmp_path / "large.mp4", 1)), [], []
    reduced = Frame.rgb_reduced
    monkeypatch.setattr(Frame, "rgb_reduced", lambda frame, *how: seen.append(how[0]) or reduced(frame, *how))
    for least_side in (360, None):
        detector = make_detector("mediapipe")
        detector.least_side = least_side
        (face,) = follow(reader, detector)
        square = np.array([(0, 0), (128, 0), (128, 128), (0, 128)]) - 0.5
        corners.append(np.stack([CropTransform(place).inverse().apply(square) for place in face.transforms]))
        enlarged = CropTransform(face.transforms[0]).scale
    assert seen == [2] * 25 + [1] * 25
    moved = enlarged * np.linalg.norm(corners[0] - corners[1], axis=-1)
    assert moved.mean() < 0.5 and moved.max() < 1.5  # px of the 128 crop
    assert len(follow(islice(reader, 1), make_detector("mediapipe"))) == 1 and seen[-1] == 1


class Sinking:
    """A detector of one face, which moves down by so many px from each picture to the next."""

    lip_gap, least_side = LIP_GAP, None

    def __init__(self, face: Face, step: float):
        self.face, self.step = face, step

    def detect(self, image_rgb, time_s):
        down = self.step * round(time_s * FPS)
        return [Face(self.face.box_xyxy + np.float32([0, down] * 2), self.face.landmarks + np.float32([0, down]))]

    def reset(self):
        pass

    def rigid(self, landmarks):
        return landmarks[list(RIGID)]


def test_a_face_whose_mouth_leaves_the_picture_is_followed_and_not_painted(talking_clip):
    from face.detect import make_detector

    frames = list(islice(VideoReader(talking_clip), 30))
    (seen,) = make_detector("mediapipe").search(frames[0].rgb())
    (face,) = follow(frames, Sinking(seen, 4))
    lips = seen.landmarks[list(LIP_GAP), 1].mean() + 4 * np.arange(30)
    height = frames[0].size[1]
    above, below = lips < height - 60, lips > height
    assert above.sum() > 5 and below.sum() > 3 and face.track.present.all()
    assert face.present[above].all() and not face.present[below].any()


def test_real_cut_between_two_pictures():
    astronaut = skimage.data.astronaut()
    frames = [(astronaut[:400, :400], k / FPS) for k in range(8)]
    other = 255 - astronaut[:400, 60:460, ::-1][:, ::-1] // 2  # of other colours, and elsewhere
    frames += [(other, (8 + k) / FPS) for k in range(8)]
    from face.detect import make_detector

    (track,) = track_faces(frames, make_detector("mediapipe"))
    assert track.present.all() and track.shot.tolist() == [0] * 8 + [1] * 8
