"""Do lips and sound belong together: the project's expert, and SyncNet v2 for LSE-C and LSE-D.

Both look at 25 frames a second, whatever the video has: its nearest frame to every 1/25 s. An offset is in those
frames, positive where the sound is late. What ends in _chance is the same for a sound that belongs to other lips: the
clip's own, turned round by half.
"""

from collections.abc import Mapping
from typing import Generic, TypeVar

import cv2
import numpy as np
import torch
from scipy.fft import dct

from media.audio import SAMPLE_RATE
from metrics.pairs import nearest_frames
from metrics.scorers import Batch, ClipContext
from models.config import BASE_SIZE, MAX_SHIFT, SYNC_FRAMES
from models.syncnet import SyncExpert, SyncNetV2
from speech.features import sound_features
from speech.offset import clip_vectors, estimate_offset, shift_means
from speech.windows import SYNC_FPS

Judge = TypeVar("Judge", bound=SyncExpert | SyncNetV2)
MFCC_RATE = 100
_MFCC_WINDOW = 20
_BATCH = 16
_INT16 = 32768


class _Faces:
    """The generated faces at 25 fps, 1.2 MB a second at 128 px. pictures (n, size, size, 3) uint8 RGB, black where no
    face was seen."""

    def __init__(self, times: np.ndarray, size: int):
        fps = (len(times) - 1) / max(times[-1] - times[0], 1e-9) if len(times) > 1 else float(SYNC_FPS)
        grid = np.arange(round((times[-1] + 1 / fps) * SYNC_FPS)) / SYNC_FPS
        self._frames = nearest_frames(grid, times, fps)
        self._known = np.zeros(len(grid), bool)
        self.pictures = np.zeros((len(grid), size, size, 3), np.uint8)

    def add(self, batch: Batch) -> None:
        for frame, image in zip(batch.index, batch.generated, strict=True):
            shown = self._frames == frame
            if shown.any():
                self.pictures[shown] = cv2.resize(image, self.pictures.shape[1:3], interpolation=cv2.INTER_AREA)
                self._known |= shown

    def starts(self) -> list[int]:
        """Where five frames in a row are known."""
        return [k for k in range(len(self._known) - SYNC_FRAMES + 1) if self._known[k : k + SYNC_FRAMES].all()]


class _SyncScore(Generic[Judge]):
    """A network's word on whether faces and sound belong together, where there is a sound."""

    size: int
    """px of the faces that it sees."""

    def __init__(self, network: Judge, context: ClipContext):
        self._network, self._context = network, context
        self._faces = _Faces(context.times, self.size)

    def add(self, batch: Batch) -> None:
        if self._context.wave is not None:
            self._faces.add(batch)

    def result(self) -> dict[str, float]:
        wave, starts = self._context.wave, self._faces.starts()
        return {} if wave is None or not starts else self._rows(wave, starts)

    def _rows(self, wave: np.ndarray, starts: list[int]) -> dict[str, float]:
        """Of a sound (samples,) at 16 kHz and the five faces from each of `starts` on, of which there are some."""
        raise NotImplementedError


class ExpertScore(_SyncScore[SyncExpert]):
    """By the project's expert: sync_confidence (best mean cosine less the median over +-15 shifts) and sync_offset."""

    size = BASE_SIZE

    def _rows(self, wave: np.ndarray, starts: list[int]) -> dict[str, float]:
        features = sound_features(wave, self._network.config.audio)
        vectors, sounds = clip_vectors(self._network, self._faces.pictures, features)
        faces = {start: vectors[start] for start in starts}
        own, other = (estimate_offset(faces, heard) for heard in (sounds, turned(sounds, faces)))
        return {
            "sync_confidence": own.confidence,
            "sync_offset": float(own.offset),
            "sync_confidence_chance": other.confidence,
        }


class SyncNetScore(_SyncScore[SyncNetV2]):
    """By SyncNet v2: lse_d (least mean distance over +-15 shifts), lse_c (median less least) and lse_offset.

    Its faces here are the project's stabilised crops at 224 px, not its own detector's boxes: compare only such rows.
    """

    size = 224

    def _rows(self, wave: np.ndarray, starts: list[int]) -> dict[str, float]:
        faces, sounds = self._seen(starts), self._heard(mfcc(wave), max(starts) + MAX_SHIFT)
        rows: dict[str, float] = {}
        for ending, heard in (("", sounds), ("_chance", turned(sounds, faces))):
            distances = shift_means(faces, heard, lambda face, sound: float(np.linalg.norm(face - sound + 1e-6)))
            if not distances:
                return {}
            best = min(distances, key=distances.__getitem__)
            rows[f"lse_d{ending}"] = distances[best]
            rows[f"lse_c{ending}"] = float(np.median(list(distances.values()))) - distances[best]
            rows.setdefault("lse_offset", float(best))
        return rows

    @torch.inference_mode()
    def _seen(self, starts: list[int]) -> dict[int, np.ndarray]:
        """Vectors (1024,) of five faces, blue first, from each start on."""
        pictures = torch.from_numpy(self._faces.pictures).permute(3, 0, 1, 2)
        windows = (torch.stack([pictures[:, k : k + SYNC_FRAMES] for k in part]) for part in _parts(starts))
        vectors = [self._network.embed_lips(window.flip(1).float()).numpy() for window in windows]
        return dict(zip(starts, np.concatenate(vectors), strict=True))

    @torch.inference_mode()
    def _heard(self, coefficients: np.ndarray, last: int) -> dict[int, np.ndarray]:
        """Vectors (1024,) of the sound that belongs to five frames from each start on, 0 to `last`."""
        step = MFCC_RATE // SYNC_FPS
        starts = list(range(min((len(coefficients) - _MFCC_WINDOW) // step, last) + 1))
        cut = (np.stack([coefficients[k * step :][:_MFCC_WINDOW].T for k in part])[:, None] for part in _parts(starts))
        vectors = [self._network.embed_audio(torch.from_numpy(window)).numpy() for window in cut]
        return dict(zip(starts, (vector for part in vectors for vector in part), strict=True))


def _parts(starts: list[int]) -> list[list[int]]:
    return [starts[k : k + _BATCH] for k in range(0, len(starts), _BATCH)]


def turned(sounds: Mapping[int, np.ndarray], faces: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The sounds with those heard while faces are shown turned round by half: they belong to other lips then."""
    inside = [k for k in sorted(sounds) if 0 <= k <= max(faces)]
    half = len(inside) // 2
    return {**sounds, **{k: sounds[other] for k, other in zip(inside, inside[half:] + inside[:half], strict=True)}}


def mfcc(wave: np.ndarray) -> np.ndarray:
    """13 MFCC of a 16 kHz sound (samples,) in -1..1 at 100 Hz: (n, 13) float32, as python_speech_features has them.

    Pre-emphasis 0.97, frames of 25 ms every 10 ms without a window, 512-point power spectrum, 26 triangular HTK mel
    filters 0..8000 Hz, log, orthonormal DCT, lifter 22, the first coefficient replaced by the log energy.
    """
    samples = np.asarray(wave, np.float64) * _INT16
    length, hop, points, bands, lifter = 400, 160, 512, 26, 22
    emphasised = np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])
    count = 1 + max(0, -(-(len(emphasised) - length) // hop))
    padded = np.pad(emphasised, (0, max(0, (count - 1) * hop + length - len(emphasised))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::hop][:count]
    power = np.abs(np.fft.rfft(frames, points)) ** 2 / points
    tiny = np.finfo(float).eps
    energy = np.maximum(power.sum(1), tiny)
    bands_energy = np.maximum(power @ _mel_filters(points, bands).T, tiny)
    coefficients = dct(np.log(bands_energy), type=2, axis=1, norm="ortho")[:, :13]
    coefficients *= 1 + lifter / 2 * np.sin(np.pi * np.arange(13) / lifter)
    coefficients[:, 0] = np.log(energy)
    return coefficients.astype(np.float32)


def _mel_filters(points: int, bands: int) -> np.ndarray:
    """(bands, points // 2 + 1) triangles whose corners are rounded down to whole bins."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.floor((points + 1) * corners / SAMPLE_RATE)
    where = np.arange(points // 2 + 1)
    low, middle, high = bins[:-2, None], bins[1:-1, None], bins[2:, None]
    rising = (where >= low) & (where < middle)
    falling = (where >= middle) & (where < high)
    return rising * (where - low) / np.maximum(middle - low, 1) + falling * (high - where) / np.maximum(
        high - middle, 1
    )
