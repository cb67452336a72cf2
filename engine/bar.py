"""Progress on the terminal."""

from collections.abc import Iterable, Mapping

from tqdm import tqdm


def bar(items: Iterable, what: str, count: int) -> Iterable:
    """A progress bar with frames/s and the time that is left; quiet where nobody looks."""
    return tqdm(items, desc=what, total=count or None, unit="frame", disable=None, leave=False)


SHOWN = {"fast_r": "fast lip r {:.3f}", "mouth_psnr": "mouth PSNR {:.2f} dB", "mouth_stlpips": "ST-LPIPS {:.4f}"}
"""Scores that people watch, and how they are written."""


def told(scores: Mapping[str, float], before: Mapping[str, float] | None = None) -> str:
    """Those of the scores that are SHOWN, with the ones before in brackets."""
    texts = {name: text for name, text in SHOWN.items() if name in scores}
    return ", ".join(
        text.format(scores[name]) + ("" if before is None else f" ({before[name]:.4g})") for name, text in texts.items()
    )


class ScoreBar:
    """A bar of one stage with the held-out scores, and those it began with in brackets; a line for each validation."""

    def __init__(self, stage: str):
        self.stage, self._told, self._begun = stage, -1, False
        shape = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(total=100, desc=stage, bar_format=shape, disable=None)

    def __call__(self, done: int, share: float, validated: Mapping[int, Mapping[str, float]]) -> None:
        """See engine.task.Show."""
        newest = next(reversed(list(validated)), -1)
        if newest > self._told:
            self._told = newest
            text = told(validated[newest], next(iter(validated.values())))
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.write(f"{self.stage}, step {newest}, held out: {text}")
        if not self._begun:  # tqdm would take what was done before for done just now
            self._begun, self._bar.initial = True, round(100 * share)
        self._bar.n = round(100 * share)
        self._bar.refresh()
