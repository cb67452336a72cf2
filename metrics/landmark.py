"""How well lips follow, from landmarks over time. Pure NumPy."""

import numpy as np

FAST_SIGMA = 8
"""Frames at 25 fps: sigma of the Gaussian mean that the fast part of a lip gap leaves out."""
MAX_LAG = 5


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Inner-lip gap (points 13, 14) over eye distance of (frames, 478, 2): (frames,), 0 closed, about 0.4 wide open.

    Eye distance is between the centres of the two eyes' corner pairs (33, 133) and (263, 362).
    """
    gap = np.linalg.norm(landmarks[:, 13] - landmarks[:, 14], axis=1)
    eyes = landmarks[:, [33, 133]].mean(1) - landmarks[:, [263, 362]].mean(1)
    return gap / np.linalg.norm(eyes, axis=1)


def fast_part(gap: np.ndarray) -> np.ndarray:
    """The gap less its Gaussian mean over time (weights renormalised at the ends): what separates this sentence from likely times."""
    radius = 4 * FAST_SIGMA
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / FAST_SIGMA) ** 2)
    weights = np.convolve(np.ones_like(gap), kernel, "full")[radius:radius + len(gap)]
    return gap - np.convolve(gap, kernel, "full")[radius:radius + len(gap)] / weights


def correlation(generated: np.ndarray, real: np.ndarray) -> float:
    """Pearson r; 0 where either does not move."""
    generated, real = generated - generated.mean(), real - real.mean()
    scale = np.sqrt((generated**2).sum() * (real**2).sum())
    return float((generated * real).sum() / scale) if scale > 1e-12 else 0.0


def correlation_at(generated: np.ndarray, real: np.ndarray, lag: int) -> float:
    """r where the generated series is `lag` frames later than the real one."""
    count = len(real) - abs(lag)
    if count < 3:
        return 0.0
    return correlation(generated[max(lag, 0):][:count], real[max(-lag, 0):][:count])


def best_lag(generated: np.ndarray, real: np.ndarray) -> tuple[float, int]:
    """(r, lag) of the best lag within +-MAX_LAG frames; a positive lag means that the generated lips are late."""
    scores = {lag: correlation_at(generated, real, lag) for lag in range(-MAX_LAG, MAX_LAG + 1)}
    lag = max(scores, key=scores.__getitem__)
    return scores[lag], lag


def articulation(generated: np.ndarray, real: np.ndarray) -> float:
    """Standard deviation of the gap, generated over real: 1 is right, below it lips mumble."""
    return float(generated.std() / max(real.std(), 1e-9))
