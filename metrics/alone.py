"""What can be told of a generated video without a real one beside it: do its lips and its sound belong together."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from chunks import chunks
from face.crop import CropTransform, is_shown
from media.video import Frame, VideoReader
from metrics.measure import BATCH, SIZE
from metrics.pairs import View
from metrics.scorers import Batch, ClipContext, Scorer


def score_alone(video: Path, transforms: np.ndarray, scorer: Scorer, frames: Iterable[Frame] | None = None) -> dict:
    """Rows of a scorer that looks at generated faces only; none where no frame shows a face.

    transforms (frames, 2, 3): px of the video to px of 128, NaN without a face. frames: the video's, where they come
    by way of somebody who watches.
    """
    reader, view = VideoReader(video, max_size=None), View(video)
    score = scorer(ClipContext(np.array(reader.told_times, float), video))
    known = (frame for frame in frames or reader if is_shown(transforms[frame.index]))
    for chunk in chunks(known, BATCH):
        index = np.array([frame.index for frame in chunk])
        faces = np.stack([view.face(frame, CropTransform(transforms[frame.index]), SIZE) for frame in chunk])
        nowhere = np.full((len(chunk), 478, 2), np.nan, np.float32)
        score.add(Batch(index, faces, faces, nowhere, nowhere))
    return score.result()
