"""A run folder that explains itself: config.yaml, metrics.jsonl, TensorBoard events, samples."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch.utils.tensorboard import SummaryWriter

from engine.config import to_yaml
from errors import InputError


class RunLog:
    """Writes to `runs/<name>/`. The resolved config is saved at the start; a resumed run appends."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder
        try:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        except OSError as error:
            raise InputError(f"run folder {folder} cannot be written: {error.strerror}") from error
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder))

    def scalars(self, step: int, values: dict[str, float], prefix: str = "train") -> None:
        """One line of metrics.jsonl and one TensorBoard point a value."""
        line = {"step": step, "time": round(time.time(), 1), **{f"{prefix}/{name}": value for name, value in values.items()}}
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        for name, value in values.items():
            self._board.add_scalar(f"{prefix}/{name}", value, step)

    def images(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB, to TensorBoard and as samples/<name>_<step>.png."""
        self._board.add_image(name, image, step, dataformats="HWC")
        cv2.imwrite(str(self.folder / "samples" / f"{name}_{step:08d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        self._metrics.close()
        self._board.close()
