"""A run folder that explains itself: config.yaml, ran.yaml, metrics.jsonl, TensorBoard events, samples."""

import io
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from aside import aside
from engine.config import to_yaml
from errors import InputError, warn
from media.audio import SAMPLE_RATE
from media.video import VideoWriter

_GIF_HEIGHT = 128


@dataclass
class Film:
    """A short video: frames (n, H, W, 3) uint8 RGB at `fps`, sound (samples,) float32 at 16 kHz."""

    frames: np.ndarray
    sound: np.ndarray
    fps: int

    def write(self, path: Path) -> None:
        """As a video file with its sound."""
        height, width = self.frames.shape[1:3]
        sound = (self.sound, SAMPLE_RATE)
        with VideoWriter(path, (width, height), Fraction(self.fps), audio=sound) as writer:
            for frame in self.frames:
                writer.write(frame)


class RunLog:
    """Writes to `runs/<name>/`. A run resumed from step `first` goes on there; what one that begins `anew` finds of an
    earlier one stays under another name.

    config.yaml is the resolved config; another one that the run had up to step N stays as config_N.yaml. ran.yaml gets
    an entry at every start: when, from which step, with what code, and what it `ran` with.
    """

    def __init__(
        self, folder: Path, config: Any, first: int = 0, ran: Mapping[str, Any] | None = None, anew: bool = False
    ):
        self.folder, self.version = folder, code_version()
        metrics = folder / "metrics.jsonl"
        try:
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            _keep_config(folder, to_yaml(config), first)
            start = {"started": time.strftime("%Y-%m-%d %H:%M:%S"), "from_step": first, "code": self.version}
            with (folder / "ran.yaml").open("a", encoding="utf-8") as file:
                file.write(yaml.safe_dump([start | dict(ran or {})], sort_keys=False))
            if anew and metrics.is_file():
                _rename(metrics, (f"metrics_{number}" for number in itertools.count(1)))
            kept = _up_to(metrics, first)
            with aside(metrics) as part:
                part.write_text("".join(kept), encoding="utf-8")
        except OSError as error:
            raise InputError(f"run folder {folder} cannot be written: {error.strerror}") from error
        self.validated = dict(_scores(json.loads(line)) for line in kept if '"val/' in line)
        """Scores of the validations so far, by step."""
        self._metrics = metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=first + 1 if first else None)

    def scalars(self, step: int, values: dict[str, float], prefix: str = "train") -> None:
        """One line of metrics.jsonl and one TensorBoard point a value."""
        line = {
            "step": step,
            "time": round(time.time(), 1),
            **{f"{prefix}/{name}": value for name, value in values.items()},
        }
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()
        if prefix == "val":
            self.validated[step] = values
        for name, value in values.items():
            self._board.add_scalar(f"{prefix}/{name}", value, step)

    def images(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8 RGB, to TensorBoard and as samples/<name>_<step>.png."""
        self._board.add_image(name, image, step, dataformats="HWC")
        with aside(self._sample(step, name, "png")) as part:
            Image.fromarray(image).save(part)

    def film(self, step: int, name: str, film: Film) -> None:
        """samples/<name>_<step>.mp4 with its sound; TensorBoard shows it small and silent, and plays the sound beside
        it.
        """
        film.write(self._sample(step, name, "mp4"))
        height, width = film.frames.shape[1:3]
        small = (round(width * _GIF_HEIGHT / height), _GIF_HEIGHT)
        first, *others = [
            Image.fromarray(cv2.resize(frame, small, interpolation=cv2.INTER_AREA)) for frame in film.frames
        ]
        data = io.BytesIO()
        first.save(data, "GIF", save_all=True, append_images=others, duration=1000 // film.fps, loop=0)
        # add_video would do the same with moviepy.
        image = Summary.Image(width=small[0], height=small[1], colorspace=3, encoded_image_string=data.getvalue())
        board = self._board.file_writer
        assert board is not None
        board.add_summary(Summary(value=[Summary.Value(tag=f"{name}_film", image=image)]), step)
        self._board.add_audio(name, film.sound[:, None].T, step, SAMPLE_RATE)

    def close(self) -> None:
        self._metrics.close()
        self._board.close()

    def _sample(self, step: int, name: str, suffix: str) -> Path:
        return self.folder / "samples" / f"{name}_{step:08d}.{suffix}"


def _keep_config(folder: Path, text: str, first: int) -> None:
    """Make `text` the run's config.yaml; another one that it had up to step `first` gets a name of its own."""
    newest = folder / "config.yaml"
    with aside(newest) as part:
        part.write_text(text, encoding="utf-8")
        if newest.is_file() and newest.read_text(encoding="utf-8") != text:
            _rename(newest, (f"config_{first:08d}{f'_{number}' if number else ''}" for number in itertools.count()))


def _rename(path: Path, stems: Iterator[str]) -> None:
    """Give a file the first of these stems that no other has."""
    os.rename(path, next(other for stem in stems if not (other := path.with_stem(stem)).exists()))


def code_version() -> str:
    """The commit of this code, and whether files differ from it; `unknown` outside a git checkout."""
    root = Path(__file__).resolve().parent.parent
    try:
        ask = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=, changed"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"commit {answer.stdout.strip()}"


def _scores(line: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Step and scores of a validation's line."""
    return line["step"], {name.removeprefix("val/"): value for name, value in line.items() if name.startswith("val/")}


def _up_to(metrics: Path, step: int) -> list[str]:
    """Lines up to a step: what a killed run wrote after its last checkpoint is written again. Damaged ones are left
    out, with a warning.
    """
    if not metrics.is_file():
        return []
    kept, damaged = [], 0
    for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if not line.endswith("\n"):  # the run was killed as it wrote it
            continue
        try:
            done = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            damaged += 1
            continue
        if done or '"audio_pretrain/' in line:
            kept.append(line)
    if damaged:
        warn(f"{metrics}: {damaged} damaged line{'s' if damaged > 1 else ''} left out")
    return kept
