"""Channels to one."""

import numpy as np

from media.source import tell

SILENT = 1e-3
"""Samples that stay below this are no speech: a track that holds nothing else counts as silent."""
_CANCELLED, _SOUND_AGAIN = 0.1, 0.5
"""Power of the channels' mean, as a share of what it is for channels that have nothing in common."""
_LOUDER = 4
"""Another channel is taken when it has so many times the power: else equal ones would take turns."""


class Mix:
    """Channels (channels, samples) of successive pieces to mono: their mean, or the louder one where they cancel."""

    def __init__(self, notes: list[str]):
        self._notes = notes
        self._weights: np.ndarray | None = None
        self._loudest: int | None = None
        """The channel taken, None for the mean."""

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        if len(wave) == 1:
            return wave[0]
        self._choose(wave)
        weights = np.full(len(wave), 1 / len(wave), np.float32)
        if self._loudest is not None:
            weights = np.eye(len(wave), dtype=np.float32)[self._loudest]
        before, self._weights = self._weights, weights
        if before is None or (before == weights).all():
            return weights @ wave
        fade = np.linspace(0, 1, wave.shape[1], dtype=np.float32)  # no click where the choice changes
        return (before @ wave) * (1 - fade) + (weights @ wave) * fade

    def _choose(self, wave: np.ndarray) -> None:
        power = np.square(wave, dtype=np.float64).mean(1)
        if power.max() < SILENT**2:
            return
        share = np.square(wave.mean(0), dtype=np.float64).mean() * len(wave) ** 2 / power.sum()
        if share > (_CANCELLED if self._loudest is None else _SOUND_AGAIN):
            self._loudest = None
        elif self._loudest is None or power.max() > _LOUDER * power[self._loudest]:
            self._loudest = int(power.argmax())
            tell(self._notes, "channels of the sound that cancel each other were not mixed: the louder one was taken")
