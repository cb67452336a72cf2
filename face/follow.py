"""A video's faces, followed: decoded, tracked, and cut smoothly."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from face.crop import box_transforms, fit_transforms
from face.detect import Detector
from face.track import Track, track_faces
from media.video import Frame


@dataclass(frozen=True)
class Followed:
    """One face over all frames of a video.

    times: s after the first frame. transforms (frames, 2, 3): frame px to px of the 128 crop, NaN without the face.
    """

    times: list[Fraction]
    track: Track
    transforms: np.ndarray


def follow(
    frames: Iterable[Frame],
    detector: Detector,
    crop: str = "template",
    picture: Callable[[Frame], np.ndarray] = Frame.rgb,
) -> list[Followed]:
    """Every face of a video, the largest first; none where none is seen.

    crop: `template` registers eyes and nose, `box` cuts upright boxes (published). picture: what of a frame is looked
    at, (H, W, 3) uint8 RGB; the transforms are in its px.
    """
    times: list[Fraction] = []

    def timed() -> Iterator[tuple[np.ndarray, float]]:
        for frame in frames:
            times.append(Fraction(frame.time))
            yield picture(frame), float(frame.time)

    return [Followed(times, track, _transforms(track, crop)) for track in track_faces(timed(), detector)]


def _transforms(track: Track, crop: str) -> np.ndarray:
    if crop == "box":
        return box_transforms(track.box, track.present, track.shot)
    return fit_transforms(track.rigid, track.present, track.shot)
