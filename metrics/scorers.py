"""The one interface of everything that scores face crops, and the scorers that need only pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from metrics.image import PSNR_CEILING, box_mean, lower_face, mouth_boxes, psnr, sharpness, ssim_map


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


class ClipContext:
    """What a scorer may know of a video besides its crops. The sound is read when a scorer asks for it."""

    def __init__(
        self,
        line: str,
        times: np.ndarray,
        read: Callable[[], np.ndarray] | None = None,
        extract: Callable[[np.ndarray, str], np.ndarray] | None = None,
    ):
        """line: what the video is called in the table. times (real frames,): s since its first frame at which it shows
        what belongs to each real frame. read: gives the 16 kHz sound its lips should follow. extract: (wave, kind) ->
        features, for kind `mel` or `whisper`."""
        self.line, self.times = line, times
        self._read, self._extract = read, extract
        self._features: dict[str, np.ndarray] = {}

    @cached_property
    def wave(self) -> np.ndarray | None:
        """(samples,) at 16 kHz; None where there is no sound."""
        return None if self._read is None else self._read()

    def features(self, kind: str) -> np.ndarray | None:
        """The sound's features; None where there is no sound."""
        if self.wave is None or self._extract is None:
            return None
        if kind not in self._features:
            self._features[kind] = self._extract(self.wave, kind)
        return self._features[kind]


class ClipScore(Protocol):
    """The scores of one video, in the making."""

    def add(self, batch: Batch) -> None:
        """Take the next frames."""

    def result(self) -> dict[str, float]:
        """Values by row name; a row that cannot be told is left out."""


class Scorer(Protocol):
    """A way of scoring, with its weights loaded."""

    def start(self, context: ClipContext) -> ClipScore:
        """Begin with a new video."""


class PictureScorer:
    """PSNR and SSIM of mouth box and lower face, and sharpness of the mouth box.

    Rows mouth_psnr, face_psnr, mouth_ssim, face_ssim, sharpness.
    """

    def start(self, context: ClipContext) -> "_PictureScore":
        return _PictureScore()


class _PictureScore:
    def __init__(self) -> None:
        self._frames: list[tuple[float, ...]] = []
        self._sharp = [0.0, 0.0]

    def add(self, batch: Batch) -> None:
        boxes = mouth_boxes(batch.real_points, batch.real.shape[1])
        for box, points, real, generated in zip(boxes, batch.real_points, batch.real, batch.generated, strict=True):
            mask = lower_face(points, len(real))
            similarity = ssim_map(generated, real)
            mouth, real_mouth = (image[box[1] : box[3], box[0] : box[2]] for image in (generated, real))
            face = (
                (min(psnr(generated[mask], real[mask]), PSNR_CEILING), similarity[mask].mean())
                if mask.any()
                else (np.nan, np.nan)
            )
            self._frames.append((min(psnr(mouth, real_mouth), PSNR_CEILING), box_mean(similarity, box), *face))
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
