"""The one interface of everything that scores face crops, and the scorers that need only pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from face.pose import head_pose
from face.topology import RIGID
from media.audio import read_audio
from metrics.image import box_mean, lower_face, mean_colours, mouth_boxes, psnr, sharpness, ssim_map


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


YAWS = 0, 15, 30, 45
"""Degrees from which on, to either side, frames are told apart by how far the head is turned."""


def _known_means(values: np.ndarray) -> list[float]:
    """Means of the columns of (n, k) over what is known; NaN where nothing is."""
    return [float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else np.nan for column in values.T]


class PictureScore:
    """PSNR and SSIM of mouth box and lower face, sharpness of the mouth box, and how far the mouth's colours are off.

    Rows mouth_psnr, face_psnr, mouth_ssim, face_ssim, sharpness; mouth_psnr_yaw_<degrees> of the frames whose head is
    turned so far (and less than the next of YAWS); lips_lab and inner_lab: distance of mean colours in CIE Lab.
    """

    def __init__(self, context: ClipContext) -> None:
        self._frames: list[tuple[float, ...]] = []
        self._yaws: list[np.ndarray] = []
        self._colours: list[np.ndarray] = []
        self._sharp = [0.0, 0.0]

    def add(self, batch: Batch) -> None:
        self._yaws.append(np.abs(head_pose(batch.real_points[:, RIGID])[:, 0]))
        boxes = mouth_boxes(batch.real_points, batch.real.shape[1])
        pictures = zip(boxes, batch.real, batch.generated, batch.real_points, batch.points, strict=True)
        for box, real, generated, real_points, points in pictures:
            mask = lower_face(real_points, len(real))
            similarity = ssim_map(generated, real)
            mouth, real_mouth = (image[box[1] : box[3], box[0] : box[2]] for image in (generated, real))
            face = (psnr(generated[mask], real[mask]), similarity[mask].mean()) if mask.any() else (np.nan, np.nan)
            self._frames.append((psnr(mouth, real_mouth), box_mean(similarity, box), *face))
            difference = mean_colours(generated, points) - mean_colours(real, real_points)
            self._colours.append(np.linalg.norm(difference, axis=1))
            self._sharp[0] += sharpness(mouth)
            self._sharp[1] += sharpness(real_mouth)

    def result(self) -> dict[str, float]:
        if not self._frames:
            return {}
        means = _known_means(np.concatenate([self._frames, self._colours], 1))
        names = "mouth_psnr", "mouth_ssim", "face_psnr", "face_ssim", "lips_lab", "inner_lab"
        cells, mouths = np.digitize(np.concatenate(self._yaws), YAWS) - 1, np.array(self._frames)[:, 0]
        by_yaw = {f"mouth_psnr_yaw_{yaw}": float(mouths[cells == k].mean()) for k, yaw in enumerate(YAWS) if k in cells}
        return {
            **dict(zip(names, means, strict=True)),
            **by_yaw,
            "sharpness": self._sharp[0] / max(self._sharp[1], 1e-9),
        }
