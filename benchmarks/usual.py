"""A stand-in for the usual lip-sync pipeline: a detector on every whole frame, a generator at 96 px, a pasted box.

Weights are untrained, as they do not change speed; the detector is face-alignment's S3FD, the generator is our own with
as many operations as Wav2Lip's (arXiv 2008.10010).
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from face_alignment.detection.sfd.net_s3fd import s3fd
from torch import nn

from chunks import chunks
from media.video import Frame, VideoReader, VideoWriter
from models.blocks import ConvNormReLU, UpConvNormReLU

SIDE = 96
BATCH = 16


def generator() -> nn.Module:
    """(N, 6, 96, 96) -> (N, 3, 96, 96); 8 GFLOP a face (two for a multiply-add)."""
    large = [ConvNormReLU(64, 64, residual=True) for _ in range(5)]
    small = [ConvNormReLU(128, 128, residual=True) for _ in range(6)]
    down, up = ConvNormReLU(64, 128, stride=2), UpConvNormReLU(128, 64)
    return nn.Sequential(ConvNormReLU(6, 64), *large, down, *small, up, nn.Conv2d(64, 3, 3, padding=1)).eval()


@torch.inference_mode()
def usual_pipeline(video: Path, output: Path, frames: int) -> int:
    """Paint the first `frames` of a video into `output`; returns how many there were."""
    detector, paint = s3fd().eval(), generator()
    reader = VideoReader(video)
    count = 0
    with VideoWriter(output, reader.size, reader.fps, reader.colour) as writer:
        for chunk in chunks(islice(reader, frames), BATCH):
            pictures = [frame.rgb() for frame in chunk]
            for picture in pictures:
                detector(torch.from_numpy(picture).permute(2, 0, 1)[None].float() - 128)
            box = _box(reader.size)
            faces = np.stack([cv2.resize(_part(picture, box), (SIDE, SIDE)) for picture in pictures])
            shown = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
            painted = paint(torch.cat([shown, shown], 1)).clamp(0, 1).mul(255).byte().permute(0, 2, 3, 1).numpy()
            for frame in _pasted(chunk, painted, box):
                writer.write(frame, frame.time)
                count += 1
    return count


def _box(size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The detector is untrained, so the face is said to be here: x0, y0, x1, y1 px, even."""
    width, height = size_wh
    side = height // 4 * 2
    x0, y0 = (width - side) // 4 * 2, (height - side) // 4 * 2
    return x0, y0, x0 + side, y0 + side


def _part(picture: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box
    return picture[y0:y1, x0:x1]


def _pasted(frames: list[Frame], faces: np.ndarray, box: tuple[int, int, int, int]) -> Iterator[Frame]:
    side = box[2] - box[0]
    for frame, face in zip(frames, faces, strict=True):
        frame.write_rgb(box, cv2.resize(face, (side, side)))
        yield frame
