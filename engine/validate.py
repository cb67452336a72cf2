"""Validation of a stage-1 network by the lips it paints: what the loss alone does not tell."""

import numpy as np
import torch

from datasets.clips import FPS, Clip
from datasets.frames import FrameStore
from datasets.splits import load_split
from engine.runlog import Film
from engine.stages import paint_clip
from face.landmark_net import LandmarkNet
from face.lips import lip_gap
from media.audio import SAMPLE_RATE
from metrics.image import mouth_boxes, psnr
from metrics.landmark import articulation, lip_rows
from models.hyperlips import HyperLipsBase

FILM_FRAMES = 75


class LipValidator:
    """Paints every frame of up to `count` clips (0: all) of a split, spread over its persons, as inference would."""

    def __init__(self, data: str, split: str, count: int, device: torch.device):
        clips = load_split(data, split)
        chosen = [clips[round(k)] for k in np.linspace(0, len(clips) - 1, min(count or len(clips), len(clips)))]
        self.store = FrameStore(chosen, "memory")
        self.landmarks = LandmarkNet(device)

    def __call__(self, network: HyperLipsBase) -> tuple[dict[str, float], np.ndarray, Film]:
        """Means over the clips of lip_r, fast_r, fast_r_best (best lag), articulation and mouth_psnr (dB, at 128 px,
        nothing pasted); a strip and a film. The lips move as far as the network's feed says.

        The strip (rows: masked input, reference, output, real) shows one frame of each of the first six clips, the film
        output and real of the first clip side by side.
        """
        rows: list[dict[str, float]] = []
        columns: list[np.ndarray] = []
        for number, clip in enumerate(self.store.clips):
            real = self.store.get(number, np.arange(clip.info.frames))
            output = paint_clip(network, clip, real, network.feed.motion_gain)
            rows.append(_scores(self.landmarks.landmarks(output)[0], clip, output, real))
            if number == 0:
                sound = clip.sound()[: FILM_FRAMES * SAMPLE_RATE // FPS]
                film = Film(np.concatenate([output, real], 2)[:FILM_FRAMES], sound, FPS)
            if len(columns) < 6:
                frame = int(np.nanargmax(clip.lip_gaps))
                masked = real[frame].copy()
                masked[len(masked) // 2 :] = 0
                reference = real[clip.references(1)[0]]
                columns.append(np.concatenate([masked, reference, output[frame], real[frame]]))
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, np.concatenate(columns, 1), film


def _scores(points: np.ndarray, clip: Clip, output: np.ndarray, real: np.ndarray) -> dict[str, float]:
    gap, real_gap = lip_gap(points), clip.lip_gaps
    rows = lip_rows(gap, real_gap, FPS)
    seen = np.flatnonzero(clip.visible)
    boxes = zip(seen, mouth_boxes(clip.landmarks[seen], real.shape[1]), strict=True)
    mouths = [psnr(output[k, y0:y1, x0:x1], real[k, y0:y1, x0:x1]) for k, (x0, y0, x1, y1) in boxes]
    return {
        **{name: rows[name] for name in ("lip_r", "fast_r", "fast_r_best")},
        "articulation": articulation(gap, real_gap),
        "mouth_psnr": float(np.mean(mouths)),
    }
