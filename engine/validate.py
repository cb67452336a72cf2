"""Validation of stage 1 by the lips it paints, and of either stage's mouths: what the loss alone does not tell."""

import numpy as np
import torch

from chunks import evenly
from datasets.clips import FPS, Clip
from datasets.config import DataConfig
from datasets.damage import readable
from datasets.frames import FrameStore
from engine.distributed import World
from engine.runlog import Film
from engine.stages import paint_clip
from face.landmark_net import LandmarkNet
from face.lips import lip_gap
from media.audio import SAMPLE_RATE
from metrics.image import mouth_boxes, psnr
from metrics.landmark import articulation, lip_rows
from metrics.perceptual import picture_distance
from models.hyperlips import HyperLipsBase
from models.perceptual import load_perceptual

FILM_FRAMES = 75
_SHOWN = 6
"""Clips of the strip."""
_COMPARED = 25
"""Frames of a clip, spread over it, whose mouths ST-LPIPS compares."""


class MouthScorer:
    """How near painted mouths are to the real ones."""

    def __init__(self) -> None:
        self._distance = load_perceptual("stlpips")

    def __call__(self, output: np.ndarray, real: np.ndarray, landmarks: np.ndarray) -> dict[str, float]:
        """mouth_psnr (dB) and mouth_stlpips, means over pictures (n, S, S, 3) uint8 RGB; landmarks (n, 478, 2) of the
        real ones, px of 128.
        """
        boxes = mouth_boxes(landmarks, real.shape[1])
        mouths = [
            (made[y0:y1, x0:x1], shown[y0:y1, x0:x1])
            for made, shown, (x0, y0, x1, y1) in zip(output, real, boxes, strict=True)
        ]
        return {
            "mouth_psnr": float(np.mean([psnr(*pair) for pair in mouths])),
            "mouth_stlpips": float(
                np.mean([picture_distance(self._distance, *pair) for pair in evenly(mouths, _COMPARED)])
            ),
        }


class ClipScorer:
    """What evaluation says of lips and mouth, for a data set's clip whose faces are painted: no video is needed."""

    def __init__(self, device: torch.device):
        self.landmarks = LandmarkNet(device)
        self._mouths = MouthScorer()

    def __call__(self, clip: Clip, output: np.ndarray, real: np.ndarray) -> dict[str, float]:
        """lip_r, fast_r, fast_r_best (best lag), articulation, mouth_psnr and mouth_stlpips of a clip's faces, painted
        and real, (frames, S, S, 3) uint8 RGB each.
        """
        gap, real_gap = lip_gap(self.landmarks.landmarks(output)[0]), clip.moves.lip_gaps
        rows, seen = lip_rows(gap, real_gap, FPS), np.flatnonzero(clip.visible)
        return {
            **{name: rows[name] for name in ("lip_r", "fast_r", "fast_r_best")},
            "articulation": articulation(gap, real_gap),
            **self._mouths(output[seen], real[seen], clip.landmarks[seen]),
        }


class LipValidator:
    """Paints every frame of up to `count` of some clips (0: all), spread over them, as inference would; each process
    its share of them.
    """

    def __init__(self, clips: list[Clip], data: DataConfig, count: int, world: World):
        chosen = readable(evenly(clips, count or len(clips)), Clip.verify, data.path)
        self.world, self.numbers = world, world.own(range(len(chosen)))
        self.store = FrameStore(world.own(chosen), data.cache)
        self.score = ClipScorer(world.device)

    def __call__(self, network: HyperLipsBase) -> tuple[dict[str, float], np.ndarray, Film | None]:
        """Means over the clips of ClipScorer's scores (at 128 px, nothing pasted); a strip and a film. The lips move as
        far as the network's feed says.

        The strip (rows: masked input, reference, output, real) shows one frame of each of the first _SHOWN clips, the
        film output and real of the first clip side by side.
        """
        looked = self.world.gather(lambda: [self._look(network, place) for place in range(len(self.store.clips))])
        rows, columns, films = zip(*looked, strict=True)
        scores = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        strip = np.concatenate([column for column in columns if column is not None], 1)
        return scores, strip, films[0]

    def _look(self, network: HyperLipsBase, place: int) -> tuple[dict[str, float], np.ndarray | None, Film | None]:
        """Scores of one of this process's clips, of the first ones a column of the strip, of the first one the film."""
        clip, number = self.store.clips[place], self.numbers[place]
        real = self.store.get(place, np.arange(clip.info.frames))
        output = paint_clip(network, clip, real)
        column = _column(network, clip, output, real) if number < _SHOWN else None
        film = None
        if number == 0:
            sound = clip.sound()[: FILM_FRAMES * SAMPLE_RATE // FPS]
            film = Film(np.concatenate([output, real], 2)[:FILM_FRAMES], sound, FPS)
        return self.score(clip, output, real), column, film


def _column(network: HyperLipsBase, clip: Clip, output: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Masked input, reference (of the most closed mouth and the nearest pose), output and real of the frame with the
    widest mouth, below each other.
    """
    frame = int(np.nanargmax(clip.moves.lip_gaps))
    chosen = clip.references(network.feed.reference, network.config.references)
    reference = chosen.frames[chosen.shares[frame, :, 0].argmax(), 0]
    masked = real[frame].copy()
    masked[len(masked) // 2 :] = 0
    return np.concatenate([masked, real[reference], output[frame], real[frame]])
