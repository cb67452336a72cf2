"""One road: training is shown what inference paints, and no speed setting changes a picture."""

import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FPS, SIZE, samples, talking_face, voice
from torch.utils.data import default_collate

from datasets.clips import Clip, load_clips
from datasets.config import DataConfig, HRAugmentConfig, HRDataConfig
from datasets.hr import HRDataset
from engine import drive
from engine.distributed import World
from engine.options import InferenceConfig
from engine.pipeline import LipSync
from engine.prepared import PreparedFace
from engine.stages import paint_base, paint_clip, paint_hr, to_network
from engine.train_hr import run_batch
from engine.validate import LipValidator
from face.landmark_net import LandmarkNet
from media.audio import SAMPLE_RATE
from media.video import VideoWriter
from models.checkpoint import save_network
from models.config import BaseConfig, Feed, HRConfig
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from preprocess.base_faces import generate_clip

GAP, CUT, END = 12, 36, 52
"""Frames: from GAP on 12 show no face; at CUT another shot begins."""


@pytest.fixture(scope="module")
def broken_clip(tmp_path_factory) -> Path:
    """A talking face with a gap too long to be bridged, and a cut."""
    path = tmp_path_factory.mktemp("broken") / "broken.mp4"
    with VideoWriter(path, SIZE, FPS, audio=(voice(END / 25), SAMPLE_RATE)) as writer:
        for index in range(END):
            face = talking_face((index + 0.5) / 25)
            if GAP <= index < GAP + 12:
                face = np.full_like(face, 90)
            writer.write(255 - np.roll(face, 30, 1)[..., ::-1] // 2 if index >= CUT else face)
    return path


def weights(folder: Path, **shape: object) -> str:
    """An untrained stage 1 whose lips the sound moves."""
    torch.manual_seed(0)
    path = folder / "base.safetensors"
    network = HyperLipsBase(BaseConfig(**shape))
    network.feed = Feed(motion_gain=1.5)
    save_network(path, network, half=False)
    return str(path)


def painted(engine: LipSync, face, sound: np.ndarray) -> tuple[np.ndarray, list[int]]:
    drive = engine.drive(face, sound)
    planes = [frame.planes[0].astype(int) for frame, _ in drive]
    return np.stack(planes), [int(present) for present in face.present]


@pytest.mark.parametrize("gru", ["none", "recurrent"])
def test_the_batch_changes_no_pixel_over_a_gap_and_a_cut(broken_clip, tmp_path, gru):
    base, outputs = weights(tmp_path, gru=gru), []
    for batch in (1, 5, 8):
        engine = LipSync(
            InferenceConfig(base=base, hr=None, batch=batch, precision="float32", layout="contiguous", runtime="torch")
        )
        face = engine.prepare(broken_clip)
        planes, present = painted(engine, face, voice(END / 25))
        outputs.append(planes)
    assert face.shot[CUT] != face.shot[CUT - 1] and present[GAP + 5] == 0 and present[CUT + 3] == 1
    for one, other in pairwise(outputs):
        assert np.abs(one - other).max() <= 1  # sums over batches of another size are rounded differently


def test_a_recurrent_memory_ends_at_a_gap(broken_clip, tmp_path):
    """After the gap the lips are those of a video that begins there."""
    engine = LipSync(InferenceConfig(base=weights(tmp_path, gru="recurrent"), hr=None, precision="float32"))
    face, seen = engine.prepare(broken_clip), []
    drive = engine.drive(face, voice(END / 25))
    based = drive._based

    def keep(chunk, half):
        done = based(chunk, half)
        seen.extend(item for item in done if item.face is not None)
        return done

    drive._based = keep
    list(drive)
    first = next(item for item in seen if item.frame.index >= GAP + 12)
    window = engine.sound(voice(END / 25), []).window(first.shown + Fraction(1, 50))
    shares = face.shares[first.frame.index][None]
    alone = paint_base(engine.base, window[None], first.face.picture[None], drive._references, shares, engine.gain)
    np.testing.assert_array_equal(first.face.base, alone[0])


class Blinking(LandmarkNet):
    """Sees no face in every 17th picture."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def landmarks(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, seen = super().landmarks(crops)
        numbers = self.count + np.arange(len(crops))
        self.count += len(crops)
        return points, seen & (numbers % 17 != 16)


@pytest.fixture
def data(data_set, tmp_path) -> Path:
    """A copy that may be painted into."""
    return shutil.copytree(data_set, tmp_path / "data")


def as_prepared(clip: Clip, engine: LipSync, video: Path) -> PreparedFace:
    """What inference prepares of a video, of a clip: it has the very crops and references of the data set."""
    faces, count = clip.faces(range(clip.info.frames), size=128), clip.info.frames
    chosen = clip.references(engine.settings.reference, engine.settings.references)
    with np.load(clip.folder / "track.npz") as track:
        transforms = track["transforms"]
    times, zeros = [Fraction(index, 25) for index in range(count)], np.zeros(count, int)
    shares = chosen.shares.astype(np.float32)
    return PreparedFace(
        video, engine.settings, times, transforms, zeros, faces[chosen.frames], shares, faces[:1], zeros
    )


def test_training_and_inference_see_the_same_stage_1_faces_and_landmarks(data, talking_clip, tmp_path, monkeypatch):
    clip = load_clips(data, "train")[0]
    engine = LipSync(InferenceConfig(base=weights(tmp_path), hr=None, batch=3, precision="float32"))
    faces = clip.faces(range(clip.info.frames), size=128)
    whole = paint_clip(engine.base, clip, faces)
    generate_clip(clip, engine.base, "test", Blinking())
    # Inference's own chain on the same pictures: batches of 3, its own windows, gain and smoothing.
    monkeypatch.setattr("engine.drive._seen", lambda crop, frame, size: faces[frame.index])
    engine.landmarks, items = Blinking(), []
    drive = engine.drive(as_prepared(clip, engine, talking_clip), clip.sound())
    finished = drive._finished
    drive._finished = lambda chunk: items.extend(chunk) or finished(chunk)
    list(drive)
    assert [item.frame.index for item in items] == list(range(len(faces)))
    assert np.abs(np.stack([item.face.base for item in items]).astype(int) - whole).max() <= 1
    landmarks = np.stack([item.face.landmarks for item in items])
    np.testing.assert_allclose(load_clips(data, "train")[0].base_landmarks, landmarks, atol=0.05)


def test_training_and_inference_feed_stage_2_alike(data, tmp_path):
    engine = LipSync(InferenceConfig(base=weights(tmp_path), hr=None, precision="float32"))
    for split in ("train", "val"):
        for clip in load_clips(data, split):
            generate_clip(clip, engine.base, "test", LandmarkNet())
    dataset = samples(HRDataset, HRDataConfig(str(data), min_face_px=0), HRAugmentConfig(), HRConfig(scale=1), 0)
    clip, frames = dataset.clips[0], np.arange(5, 9)
    reference = clip.moves.portraits.of(5)
    torch.manual_seed(0)
    network = HRDecoder(HRConfig(scale=1, width=8)).eval()
    batch = default_collate([dataset.sample(0, frames, reference)])
    with torch.no_grad():
        trained = run_batch(network, batch).clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    shown = clip.faces([*frames, reference])
    portrait = to_network(shown[-1:], network), np.zeros(len(frames), int)
    used = paint_hr(network, clip.faces(frames, "base.zip"), clip.base_landmarks[frames], shown[:-1], *portrait)
    np.testing.assert_array_equal(used, trained)
    part = paint_hr(
        network,
        clip.faces(frames, "base.zip"),
        clip.base_landmarks[frames],
        shown[:-1],
        *portrait,
        part=(20, 56, 108, 124),
    )
    outside = np.ones(used.shape, bool)
    outside[:, 56:124, 20:108] = False
    np.testing.assert_array_equal(part, np.where(outside, shown[:-1], used))


def test_painting_only_what_is_pasted_changes_no_frame(broken_clip, tmp_path, monkeypatch):
    engine = LipSync(InferenceConfig(base=weights(tmp_path), precision="float32"))
    face, parts = engine.prepare(broken_clip), []
    chosen = drive.sampled_part
    monkeypatch.setattr("engine.drive.sampled_part", lambda masks: parts.append(chosen(masks)) or parts[-1])
    some, _ = painted(engine, face, voice(END / 25))
    monkeypatch.setattr("engine.drive.sampled_part", lambda masks: None)
    whole, _ = painted(engine, face, voice(END / 25))
    assert max((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts) < 0.5 * 128**2
    assert np.abs(some - whole).max() <= 1  # sums over maps of another size may be rounded differently


def test_large_pictures_go_through_the_chain_in_smaller_parts_and_look_alike(broken_clip, tmp_path, monkeypatch):
    engine = LipSync(InferenceConfig(base=weights(tmp_path), precision="float32"))
    face, counts, paint = engine.prepare(broken_clip), [], drive.paint_base
    monkeypatch.setattr("engine.drive.paint_base", lambda *inputs: counts.append(len(inputs[2])) or paint(*inputs))
    whole, _ = painted(engine, face, voice(END / 25))
    width, height = SIZE
    monkeypatch.setattr("engine.drive._CHUNK_BYTES", 2 * 3 * width * height // 2)
    assert max(counts) > 2
    counts.clear()
    parts, _ = painted(engine, face, voice(END / 25))
    assert max(counts) == 2 and np.abs(parts - whole).max() <= 1


def test_validation_moves_lips_as_far_as_the_feed_says(data_set):
    torch.manual_seed(0)
    network = HyperLipsBase(BaseConfig()).eval()
    network.feed = Feed(motion_gain=1.5)
    validator = samples(LipValidator, DataConfig(str(data_set)), 1, World(0, 1, torch.device("cpu")), split="val")
    (clip,) = validator.store.clips
    faces = clip.faces(range(clip.info.frames), size=128)
    shown = validator(network)[2].frames[:, :, :128]
    moved = paint_clip(network, clip, faces)
    network.feed = Feed(motion_gain=1.0)
    plain = paint_clip(network, clip, faces)
    np.testing.assert_array_equal(shown, moved)
    assert not np.array_equal(moved, plain)
