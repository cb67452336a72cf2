"""Do lips and sound belong together: the project's expert, and SyncNet v2 for LSE-C and LSE-D.

Both look at 25 frames a second, whatever the video has: its nearest frame to every 1/25 s. An offset is in those
frames, positive where the sound is late.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import torch
from scipy.fft import dct

from media.audio import SAMPLE_RATE
from metrics.pairs import nearest_frames
from metrics.scorers import Batch, ClipContext
from models.config import SYNC_FRAMES
from models.syncnet import SyncExpert, SyncNetV2
from speech.offset import MAX_SHIFT, estimate_offset, shift_means, unit_vectors
from speech.windows import SYNC_FPS, face_windows, sound_windows

SYNCNET_SIZE = 224
MFCC_RATE = 100
_MFCC_WINDOW = 20
_BATCH = 16
_INT16 = 32768


class _Windows:
    """Collects faces at 25 fps and embeds every uninterrupted five of them as soon as they are there.

    vectors: by number of the first 25 fps frame.
    """

    def __init__(self, times: np.ndarray, embed: Callable[[np.ndarray], np.ndarray]):
        fps = (len(times) - 1) / max(times[-1] - times[0], 1e-9) if len(times) > 1 else float(SYNC_FPS)
        grid = np.arange(round((times[-1] + 1 / fps) * SYNC_FPS)) / SYNC_FPS
        self._slots: dict[int, list[int]] = {}
        for slot, frame in enumerate(nearest_frames(grid, times, fps)):
            self._slots.setdefault(int(frame), []).append(slot)
        self._faces: dict[int, np.ndarray] = {}
        self._embed = embed
        self._next = 0
        self.vectors: dict[int, np.ndarray] = {}

    def add(self, index: np.ndarray, faces: list[np.ndarray]) -> None:
        for frame, face in zip(index, faces, strict=True):
            for slot in self._slots.get(int(frame), ()):
                self._faces[slot] = face
        last = max(self._faces, default=-1)
        starts = [
            k
            for k in range(self._next, last - SYNC_FRAMES + 2)
            if all(k + j in self._faces for j in range(SYNC_FRAMES))
        ]
        for begin in range(0, len(starts), _BATCH):
            part = starts[begin : begin + _BATCH]
            windows = np.stack([np.stack([self._faces[k + j] for j in range(SYNC_FRAMES)]) for k in part])
            self.vectors.update(zip(part, self._embed(windows), strict=True))
        self._next = max(self._next, last - SYNC_FRAMES + 2)
        self._faces = {slot: face for slot, face in self._faces.items() if slot >= self._next}


class ExpertScorer:
    """By the project's expert: sync_confidence (best mean cosine less the median over +-15 shifts) and sync_offset.

    sync_confidence_chance is the same for a sound that belongs to other lips: the clip's own, turned round by half.
    """

    def __init__(self, expert: SyncExpert):
        self.expert = expert.eval()

    def start(self, context: ClipContext) -> "_ExpertScore":
        return _ExpertScore(self.expert, context)


class _ExpertScore:
    def __init__(self, expert: SyncExpert, context: ClipContext):
        self._expert, self._context = expert, context
        self._windows = _Windows(context.times, self._embed)

    def add(self, batch: Batch) -> None:
        if self._context.wave is not None:
            faces = [cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA) for image in batch.generated]
            self._windows.add(batch.index, faces)

    def result(self) -> dict[str, float]:
        if not self._windows.vectors:
            return {}
        starts = np.arange(-MAX_SHIFT, max(self._windows.vectors) + MAX_SHIFT + 1)
        sounds = dict(zip(starts.tolist(), self._sounds(starts), strict=True))
        own, other = (
            estimate_offset(self._windows.vectors, heard) for heard in (sounds, turned(sounds, self._windows.vectors))
        )
        return {
            "sync_confidence": own.confidence,
            "sync_offset": float(own.offset),
            "sync_confidence_chance": other.confidence,
        }

    @torch.inference_mode()
    def _embed(self, windows: np.ndarray) -> np.ndarray:
        """(n, 5, 128, 128, 3) uint8 to (n, embedding)."""
        faces = torch.from_numpy(windows).permute(0, 1, 4, 2, 3)
        return unit_vectors(self._expert.face, face_windows(faces, self._expert))

    @torch.inference_mode()
    def _sounds(self, starts: np.ndarray) -> np.ndarray:
        """Vectors (n, embedding) of the sound that belongs to five frames from each start."""
        config = self._expert.config
        cut = torch.from_numpy(sound_windows(self._context.features(config.audio), starts, config))
        return np.concatenate([unit_vectors(self._expert.audio, part) for part in cut.split(64)])


class SyncNetScorer:
    """Rows lse_d (least mean distance over +-15 shifts), lse_c (median less least) and lse_offset, by SyncNet v2.

    lse_c_chance and lse_d_chance: for the clip's own sound turned round by half, which belongs to other lips. Its faces
    here are the project's stabilised crops at 224 px, not its own detector's boxes: compare only such rows.
    """

    def __init__(self, network: SyncNetV2):
        self.network = network.eval()

    def start(self, context: ClipContext) -> "_SyncNetScore":
        return _SyncNetScore(self.network, context)


class _SyncNetScore:
    def __init__(self, network: SyncNetV2, context: ClipContext):
        self._network, self._context = network, context
        self._windows = _Windows(context.times, self._embed)

    def add(self, batch: Batch) -> None:
        if self._context.wave is not None:
            self._windows.add(
                batch.index,
                [cv2.resize(image, (SYNCNET_SIZE,) * 2, interpolation=cv2.INTER_AREA) for image in batch.generated],
            )

    def result(self) -> dict[str, float]:
        if not self._windows.vectors:
            return {}
        coefficients = mfcc(self._context.wave)
        step = MFCC_RATE // SYNC_FPS
        last = (len(coefficients) - _MFCC_WINDOW) // step
        starts = list(range(min(last, max(self._windows.vectors) + MAX_SHIFT) + 1))
        if not starts:
            return {}
        sounds = dict(zip(starts, self._sounds(coefficients, starts, step), strict=True))
        rows = {}
        for ending, heard in (("", sounds), ("_chance", turned(sounds, self._windows.vectors))):
            distances = shift_means(
                self._windows.vectors, heard, lambda face, sound: float(np.linalg.norm(face - sound + 1e-6))
            )
            if not distances:
                return {}
            best = min(distances, key=distances.__getitem__)
            rows[f"lse_d{ending}"] = distances[best]
            rows[f"lse_c{ending}"] = float(np.median(list(distances.values()))) - distances[best]
            rows.setdefault("lse_offset", float(best))
        return rows

    @torch.inference_mode()
    def _embed(self, windows: np.ndarray) -> np.ndarray:
        """(n, 5, 224, 224, 3) uint8 RGB to (n, 1024)."""
        pictures = np.ascontiguousarray(windows[..., ::-1].transpose(0, 4, 1, 2, 3))
        return self._network.embed_lips(torch.from_numpy(pictures).float()).numpy()

    @torch.inference_mode()
    def _sounds(self, coefficients: np.ndarray, starts: list[int], step: int) -> np.ndarray:
        cut = np.stack([coefficients[k * step : k * step + _MFCC_WINDOW].T for k in starts])[:, None]
        return np.concatenate(
            [self._network.embed_audio(torch.from_numpy(cut[k : k + 64])).numpy() for k in range(0, len(cut), 64)]
        )


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
