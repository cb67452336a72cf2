"""The one interface of everything that scores face crops, and the scorers that need only pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from media.audio import read_audio
from metrics.image import box_mean, lower_face, mouth_boxes, psnr, sharpness, ssim_map


@dataclass(frozen=True)
class Batch:
    """Successive frames shown by the real and the generated video.

    index (n,): frame of the real video. real, generated: crops (n, S, S, 3) uint8 RGB. real_points, points: landmarks
    (n, 478, 2) in px of 128.
    """

    index: np.ndarray
    real: np.ndarray
    generated: np.ndarray
    real_points: np.ndarray
    points: np.ndarray


@dataclass
class ClipContext:
    """What a scorer may know of a video besides its crops.

    times (real frames,): s since the video's first frame at which it shows what belongs to each real frame. sound: what
    its lips should follow, read when a scorer asks for it.
    """

    times: np.ndarray
    sound: Path | None = None

    @cached_property
    def wave(self) -> np.ndarray | None:
        """(samples,) at 16 kHz; None where there is no sound."""
        return None if self.sound is None else read_audio(self.sound)


class ClipScore(Protocol):
    """The scores of one video, in the making."""

    def add(self, batch: Batch) -> None:
        """Take the next frames."""

    def result(self) -> dict[str, float]:
        """Values by row name; a row that cannot be told is left out."""


Scorer = Callable[[ClipContext], ClipScore]
"""A way of scoring, with its weights loaded: begins with a new video."""


class PictureScore:
    """PSNR and SSIM of mouth box and lower face, and sharpness of the mouth box.

    Rows mouth_psnr, face_psnr, mouth_ssim, face_ssim, sharpness.
    """

    def __init__(self, context: ClipContext) -> None:
        self._frames: list[tuple[float, ...]] = []
        self._sharp = [0.0, 0.0]

    def add(self, batch: Batch) -> None:
        boxes = mouth_boxes(batch.real_points, batch.real.shape[1])
        for box, points, real, generated in zip(boxes, batch.real_points, batch.real, batch.generated, strict=True):
            mask = lower_face(points, len(real))
            similarity = ssim_map(generated, real)
            mouth, real_mouth = (image[box[1] : box[3], box[0] : box[2]] for image in (generated, real))
            face = (psnr(generated[mask], real[mask]), similarity[mask].mean()) if mask.any() else (np.nan, np.nan)
            self._frames.append((psnr(mouth, real_mouth), box_mean(similarity, box), *face))
            self._sharp[0] += sharpness(mouth)
            self._sharp[1] += sharpness(real_mouth)

    def result(self) -> dict[str, float]:
        if not self._frames:
            return {}
        means = np.nanmean(self._frames, axis=0)
        names = "mouth_psnr", "mouth_ssim", "face_psnr", "face_ssim"
        return {
            **dict(zip(names, map(float, means), strict=True)),
            "sharpness": self._sharp[0] / max(self._sharp[1], 1e-9),
        }
