"""How well lips follow, from landmarks over time. Pure NumPy.

Series over time may hold NaN where no face was seen: such frames take no part.
"""

import numpy as np

from face.crop import TEMPLATE, similarity
from face.topology import LIPS, RIGID

FAST_SIGMA = 8
"""Frames at 25 fps: sigma of the Gaussian mean that the fast part of a lip gap leaves out."""
MAX_LAG = 5
REST_PERCENTILE = 40
"""The mouth rests in frames whose real gap is below this percentile."""
JITTER_POINTS = (61, 291, 13, 14, 17, 0, 78, 308, 152, 148, 377, 176, 400)
_LEAST_PAIRS = 3


def fast_part(gap: np.ndarray, fps: float = 25) -> np.ndarray:
    """The gap (frames,) less its Gaussian mean over time (weights renormalised at ends and gaps): what separates this
    sentence from likely times. The mean is equally long in seconds at every rate."""
    sigma = FAST_SIGMA * fps / 25
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    known = np.isfinite(gap)
    weights, sums = (
        np.convolve(values, kernel, "full")[radius : radius + len(gap)]
        for values in (known.astype(float), np.where(known, gap, 0))
    )
    return gap - sums / np.maximum(weights, 1e-12)


def correlation(generated: np.ndarray, real: np.ndarray) -> float:
    """Pearson r; 0 where either does not move or too few frames are known."""
    known = np.isfinite(generated) & np.isfinite(real)
    if known.sum() < _LEAST_PAIRS:
        return 0.0
    generated, real = generated[known] - generated[known].mean(), real[known] - real[known].mean()
    scale = np.sqrt((generated**2).sum() * (real**2).sum())
    return float((generated * real).sum() / scale) if scale > 1e-12 else 0.0


def correlation_at(generated: np.ndarray, real: np.ndarray, lag: int) -> float:
    """r where the generated series is `lag` frames later than the real one."""
    count = min(len(generated) - max(lag, 0), len(real) - max(-lag, 0))
    if count < _LEAST_PAIRS:
        return 0.0
    return correlation(generated[max(lag, 0) :][:count], real[max(-lag, 0) :][:count])


def best_lag(generated: np.ndarray, real: np.ndarray) -> tuple[float, int]:
    """(r, lag) of the best lag within +-MAX_LAG frames; a positive lag means that the generated lips are late."""
    scores = {lag: correlation_at(generated, real, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)}
    lag = max(scores, key=scores.__getitem__)
    return scores[lag], lag


def lip_rows(generated: np.ndarray, real: np.ndarray, fps: float) -> dict[str, float]:
    """lip_r (lag 0), lip_r_best and lip_lag (frames) of two gaps (frames,), and the same of their fast parts: fast_r,
    fast_r_best, fast_lag."""
    rows: dict[str, float] = {}
    pairs = {"lip": (generated, real), "fast": (fast_part(generated, fps), fast_part(real, fps))}
    for name, (made, wanted) in pairs.items():
        rows[f"{name}_r"] = correlation_at(made, wanted, 0)
        rows[f"{name}_r_best"], rows[f"{name}_lag"] = best_lag(made, wanted)
    return rows


def chance_series(real: np.ndarray, fps: float, count: int = 8) -> list[np.ndarray]:
    """Stand-ins for other lips where there is one clip alone: the real series (frames,), from its first known frame on,
    turned round by 2 s and more.

    Shorter clips are turned by a third at least.
    """
    first = int(np.isfinite(real).argmax())
    before, scored = real[:first], real[first:]
    least = min(round(2 * fps), len(scored) // 3)
    shifts = np.linspace(least, len(scored) - least, count)
    return [np.concatenate([before, np.roll(scored, round(shift))]) for shift in shifts]


def articulation(generated: np.ndarray, real: np.ndarray) -> float:
    """Standard deviation of the gap where both are known, generated over real: 1 is right, below it lips mumble."""
    known = np.isfinite(generated) & np.isfinite(real)
    if not known.any():
        return 0.0
    return float(generated[known].std() / max(real[known].std(), 1e-9))


def landmark_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """LMD: mean distance of the 40 lip points of (frames, 478, 2), in px, after the shift between the rigid points of
    each frame is taken off."""
    rigid = list(RIGID)
    shift = (generated[:, rigid] - real[:, rigid]).mean(1, keepdims=True)
    difference = (generated - real - shift)[:, list(LIPS)]
    return float(np.nanmean(np.linalg.norm(difference, axis=2)))


def resting(real_gap: np.ndarray) -> np.ndarray:
    """(frames,) bool: where the real mouth rests."""
    known = real_gap[np.isfinite(real_gap)]
    if not len(known):
        return np.zeros(len(real_gap), bool)
    return real_gap <= np.percentile(known, REST_PERCENTILE)


def align_rigid(landmarks: np.ndarray) -> np.ndarray:
    """(frames, 478, 2) moved by the least-squares similarities that take each frame's rigid points to the template."""
    points, target = landmarks @ [1, 1j], TEMPLATE @ [1, 1j]
    with np.errstate(invalid="ignore"):  # NaN where no face is known
        turn, centre = similarity(points[:, list(RIGID)], target)
    moved = (points - centre[:, None]) * turn[:, None] + target.mean()
    return np.stack([moved.real, moved.imag], -1)


def second_difference(landmarks: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute second difference (px) of the rigid-aligned jitter points of (frames, 478, 2), over frames `where`.

    Frames whose neighbours are unknown are left out; NaN where none is left.
    """
    points = align_rigid(landmarks)[:, list(JITTER_POINTS)]
    bends = np.abs(points[:-2] - 2 * points[1:-1] + points[2:]).mean((1, 2))[where[1:-1]]
    bends = bends[np.isfinite(bends)]
    return float(bends.mean()) if len(bends) else float("nan")


def jitter(generated: np.ndarray, real: np.ndarray, where: np.ndarray) -> float:
    """`second_difference` of generated over real landmarks (frames, 478, 2), over frames `where`."""
    return second_difference(generated, where) / max(second_difference(real, where), 1e-9)
