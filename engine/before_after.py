"""An adapted person beside the general weights, on what was not trained on: scores, a strip of pictures, a film."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from aside import aside
from datasets.clips import FPS, Clip
from engine.bar import told
from engine.device import pick_device
from engine.options import InferenceConfig
from engine.runlog import Film
from engine.stages import paint_clip, paint_hr_clip
from engine.validate import ClipScorer
from face.crop import area_reduce
from face.landmark_net import LandmarkNet
from face.smooth import smooth_stretches
from models.checkpoint import load_network
from models.config import BASE_SIZE
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase

REAL = "real"
_BAND = 24
"""Height of a caption, px."""


@dataclass(frozen=True)
class Painter:
    """Weights of both stages, and what they are called."""

    name: str
    base: HyperLipsBase
    hr: HRDecoder

    def paint(self, clip: Clip, real: np.ndarray, landmarks: LandmarkNet) -> np.ndarray:
        """Faces (frames, S, S, 3) uint8 RGB of a clip whose real ones are `real`, of that shape, from references of its
        own.
        """
        small = np.stack([area_reduce(picture, BASE_SIZE) for picture in real])
        base = paint_clip(self.base, clip, small)
        points = smooth_stretches(*landmarks.landmarks(base))
        return paint_hr_clip(self.hr, clip, base, points, real)


@dataclass
class Comparison:
    """Clips as they are and as painted, by name: pictures (n, S, S, 3) uint8 RGB, and the painted ones' mean scores."""

    pictures: dict[str, np.ndarray]
    sound: np.ndarray
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    def strip(self, columns: int = 6) -> np.ndarray:
        """A row each of the real and the painted faces, of frames spread over the clips: (H, W, 3) uint8 RGB."""
        count = len(self.pictures[REAL])
        chosen = np.linspace(0, count - 1, min(columns, count)).round().astype(int)
        rows = [captioned(np.concatenate(list(faces[chosen]), 1), name) for name, faces in self.pictures.items()]
        return np.concatenate(rows)

    def film(self) -> Film:
        """Beside each other, with the sound."""
        beside = zip(*self.pictures.values(), strict=True)
        frames = [
            np.concatenate([captioned(face, name) for name, face in zip(self.pictures, faces, strict=True)], 1)
            for faces in beside
        ]
        return Film(np.stack(frames), self.sound, FPS)


def compare(clips: Sequence[Clip], painters: Sequence[Painter], frames: int) -> Comparison:
    """Paint the first of the clips, until there are so many frames."""
    size, score = BASE_SIZE * painters[0].hr.config.scale, ClipScorer(painters[0].base.device)
    ends = np.cumsum([clip.info.frames for clip in clips])
    shown = clips[: int(np.searchsorted(ends, frames)) + 1]
    real = [clip.faces(range(clip.info.frames), size=size) for clip in shown]
    comparison = Comparison({REAL: np.concatenate(real)}, np.concatenate([clip.sound() for clip in shown]))
    for painter in painters:
        painted = [painter.paint(clip, faces, score.landmarks) for clip, faces in zip(shown, real, strict=True)]
        rows = [score(*trio) for trio in zip(shown, painted, real, strict=True)]
        comparison.scores[painter.name] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        comparison.pictures[painter.name] = np.concatenate(painted)
    return comparison


def write_both(folder: Path, clips: Sequence[Clip], weights: Mapping[str, InferenceConfig], frames: int) -> None:
    """before_after.png and before_after.mp4 of the clips, up to about so many frames, as painted with each config's
    weights, and a printed line of scores for each.
    """
    painters = [
        Painter(
            name,
            load_network(config.base, pick_device(config.device), HyperLipsBase),
            load_network(str(config.hr), pick_device(config.device), HRDecoder),
        )
        for name, config in weights.items()
    ]
    comparison = compare(clips, painters, frames)
    with aside(folder / "before_after.png") as part:
        Image.fromarray(comparison.strip()).save(part)
    comparison.film().write(folder / "before_after.mp4")
    for name, scores in comparison.scores.items():
        print(f"held out, {name}: {told(scores)}")


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture (H, W, 3) uint8 below a band with the text."""
    band = np.zeros((_BAND, picture.shape[1], 3), np.uint8)
    cv2.putText(band, text, (6, _BAND - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([band, picture])
