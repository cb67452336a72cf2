"""Training, validation and inference with references that are encoded apart from the face."""

import cv2
import numpy as np
import pytest
import torch
from test_training import FIXED, ROOT

from datasets.augment import AugmentConfig
from datasets.base import KEY_POSES_DRAWN, BaseDataset, DataConfig
from datasets.clips import load_clips
from engine.config import load_config
from engine.pipeline import FaceConfig, InferenceConfig, LipSync
from engine.validate import LipValidator, clip_references
from media.video import VideoReader
from models.checkpoint import save_network
from models.hyperlips import BaseConfig, HyperLipsBase
from train_base import BaseTrainer, TrainBaseConfig

MODEL = {"references": 2, "reference_encoder": "selected"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("apart") / "base.safetensors"
    save_network(path, HyperLipsBase(BaseConfig(**MODEL)))
    return path


def test_samples_hold_key_frames_with_their_shares(data_set):
    dataset = BaseDataset(DataConfig(str(data_set), window=5), AugmentConfig(), "train", BaseConfig(**MODEL), 7)
    item = dataset[0]
    assert item["references"].shape == (KEY_POSES_DRAWN, 2, 3, 128, 128) and item["references"].dtype == torch.uint8
    assert item["shares"].shape == (5, KEY_POSES_DRAWN, 2)
    torch.testing.assert_close(item["shares"].sum(1), torch.ones(5, 2))
    assert all(torch.equal(item[name], dataset[0][name]) for name in item)


def test_a_training_step_reaches_the_reference_encoder(data_set):
    config = load_config(
        TrainBaseConfig,
        ROOT / "configs" / "tiny.yaml",
        [f"data.path={data_set}", *FIXED, "model.references=2", "model.reference_encoder=selected"],
    )
    dataset = BaseDataset(config.data, config.augment, "train", config.model, 0)
    batch = torch.utils.data.default_collate([dataset[0], dataset[1]])
    trainer = BaseTrainer(config).train()
    loss, terms = trainer(batch, 0)
    loss.backward()
    assert terms["mouth"] > 0
    assert all(value.grad.abs().sum() > 0 for value in trainer.network.reference_encoder.parameters())


def test_validation_paints_from_key_frames(data_set):
    network = HyperLipsBase(BaseConfig(**MODEL))
    scores, strip, _ = LipValidator(str(data_set), "val", network.config, 1)(network, torch.device("cpu"))
    assert np.isfinite(list(scores.values())).all() and strip.shape == (4 * 128, 128, 3)
    clip = load_clips(data_set, "val")[0]
    frames, shares = clip_references(clip, network.config)
    assert shares.shape == (clip.info.frames, *frames.shape)
    assert clip.openness[frames[0, 0]] < clip.openness[frames[0, 1]]


@pytest.mark.parametrize("reference", ["closed", "first"])
def test_a_video_is_spoken(talking_clip, weights, reference):
    engine = LipSync(InferenceConfig(base=str(weights), hr=None, face=FaceConfig(reference=reference)))
    assert abs(sum(1 for _ in engine.frames(talking_clip, talking_clip)) - 50) <= 1


def test_a_still_is_spoken(talking_clip, weights, tmp_path):
    still = next(iter(VideoReader(talking_clip))).rgb()
    cv2.imwrite(str(tmp_path / "still.png"), still[:, :, ::-1])
    engine = LipSync(InferenceConfig(base=str(weights)))
    assert abs(sum(1 for _ in engine.frames(tmp_path / "still.png", talking_clip)) - 50) <= 1
