"""Validation of a stage-1 network by the lips it paints: what the loss alone does not tell."""

from fractions import Fraction

import cv2
import numpy as np
import torch
from torch import nn

from datasets.base import lip_boxes
from datasets.clips import FPS, Clip, load_clips
from datasets.frames import FrameStore
from datasets.references import bank_shares, reference_bank, spanning_references
from engine.pictures import from_network, to_network
from engine.runlog import Film
from face.landmark_net import LandmarkNet
from media.audio import SAMPLE_RATE, audio_windows, read_audio
from metrics.landmark import articulation, best_lag, correlation, fast_part, lip_gap
from models.hyperlips import BaseConfig, face_input
from models.reference_encoder import mix_references

BATCH = 16
FILM_FRAMES = 75


class LipValidator:
    """Generates every frame of up to `count` clips (0: all) of a split, spread over its persons, from references of its
    own.
    """

    def __init__(self, data: str, split: str, model: BaseConfig, count: int):
        clips = load_clips(data, split)
        chosen = [clips[round(k)] for k in np.linspace(0, len(clips) - 1, min(count or len(clips), len(clips)))]
        self.store, self.model = FrameStore(chosen, "memory"), model
        self.audio = [
            audio_windows(clip.features(model.audio), clip.info.frames, Fraction(FPS), model.audio, model.audio_window)
            for clip in chosen
        ]
        self.landmarks = LandmarkNet()

    def __call__(self, network: nn.Module, device: torch.device) -> tuple[dict[str, float], np.ndarray, Film]:
        """Means over the clips of lip_r, fast_r, fast_best (best lag), articulation and mouth_psnr (dB); a strip and a
        film.

        The strip (rows: masked input, reference, output, real) shows one frame of each of the first six clips, the film
        output and real of the first clip side by side.
        """
        rows, columns = [], []
        for number, clip in enumerate(self.store.clips):
            real = self.store.get(number, np.arange(clip.info.frames))
            reference, shares = clip_references(clip, self.model)
            output = generate(network, self.audio[number], real, real[reference], device, shares)
            points = self.landmarks.landmarks(output)[0]
            rows.append(_scores(points, clip, output, real))
            if number == 0:
                sound = read_audio(clip.path("audio.flac"))[: FILM_FRAMES * SAMPLE_RATE // FPS]
                film = Film(np.concatenate([output, real], 2)[:FILM_FRAMES], sound, FPS)
            if len(columns) < 6:
                frame = int(np.nanargmax(clip.openness))
                masked = real[frame].copy()
                masked[len(masked) // 2 :] = 0
                columns.append(np.concatenate([masked, real[reference.flat[0]], output[frame], real[frame]]))
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}, np.concatenate(columns, 1), film


def clip_references(clip: Clip, model: BaseConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of a clip's reference frames: (R,), or key frames (K, S) and their shares (n, K, S) in each frame."""
    if not model.apart:
        return spanning_references(clip.openness, model.references), None
    bank = reference_bank(clip.pose, clip.openness, model.references)
    return bank.frames, bank_shares(bank, clip.pose)


@torch.inference_mode()
def generate(
    network: nn.Module,
    audio: np.ndarray,
    faces: np.ndarray,
    references: np.ndarray,
    device: torch.device,
    shares: np.ndarray | None = None,
) -> np.ndarray:
    """Stage-1 faces (n, 128, 128, 3) uint8 for audio windows (n, ...), source faces and references (R, 128, 128, 3)
    uint8; or, with shares (n, K, S), key frames (K, S, 128, 128, 3).
    """
    network.eval()
    pictures = to_network(references.reshape(-1, *references.shape[-3:]), network)
    if shares is not None:
        maps = network.encode_references(pictures.unflatten(0, references.shape[:2])[None].float() / 255)
    outputs = []
    for start in range(0, len(faces), BATCH):
        batch = to_network(faces[start : start + BATCH], network)
        sound = torch.from_numpy(np.asarray(audio[start : start + BATCH], np.float32)).to(device)
        if shares is None:
            shown = face_input(batch, pictures[None].expand(len(batch), *pictures.shape))
            output = network.follow(sound, shown)
        else:
            mixed = mix_references(maps, torch.from_numpy(shares[None, start : start + BATCH]).to(device))
            output = network.follow(sound, face_input(batch), mixed)
        outputs.append(from_network(output, network))
    return np.concatenate(outputs)


def _scores(points: np.ndarray, clip: Clip, output: np.ndarray, real: np.ndarray) -> dict[str, float]:
    gap, real_gap = lip_gap(points), clip.openness
    fast, real_fast = fast_part(gap), fast_part(real_gap)
    errors = []
    seen = clip.visible
    for box, generated, wanted in zip(
        lip_boxes(clip.landmarks[seen]).round().astype(int), output[seen], real[seen], strict=True
    ):
        x0, y0, x1, y1 = box.clip(0, 127)
        errors.append(
            cv2.norm(generated[y0:y1, x0:x1], wanted[y0:y1, x0:x1], cv2.NORM_L2SQR) / (3 * (y1 - y0) * (x1 - x0))
        )
    return {
        "lip_r": correlation(gap, real_gap),
        "fast_r": correlation(fast, real_fast),
        "fast_best": best_lag(fast, real_fast)[0],
        "articulation": articulation(gap, real_gap),
        "mouth_psnr": float(10 * np.log10(255**2 / max(np.mean(errors), 1e-3))),
    }
