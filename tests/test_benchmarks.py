"""What the usual pipeline is said to cost, and that it gives the frames it was given."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import usual
from media.video import VideoReader


def test_the_generator_has_eight_gflop():
    with FlopCounterMode(display=False) as counted, torch.device("meta"):
        usual.generator()(torch.empty(1, 6, usual.SIDE, usual.SIDE))
    assert 7.5e9 < counted.get_total_flops() < 8.5e9


def test_the_usual_pipeline_gives_every_frame(talking_clip, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(usual.s3fd, "forward", lambda self, picture: seen.append(picture.shape))
    monkeypatch.setattr(usual, "generator", lambda: torch.nn.Conv2d(6, 3, 3, padding=1))
    assert usual.usual_pipeline(talking_clip, tmp_path / "out.mp4", 20) == len(seen) == 20
    assert len(list(VideoReader(tmp_path / "out.mp4"))) == 20 and set(seen) == {(1, 3, 288, 360)}
