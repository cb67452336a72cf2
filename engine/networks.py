"""Both stages' networks, loaded, and how they are fed."""

from collections.abc import Iterable
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from digest import file_digest
from engine.device import pick_device
from engine.memory import keep_freed_memory
from engine.options import InferenceConfig
from engine.precision import Precision, choose_precision, runtimes
from engine.prepared import FaceSettings
from engine.stages import encode_references, paint_base, paint_hr, silent_window, to_network
from errors import InputError, printable
from face.landmark_net import LandmarkNet
from media.file_sound import FileSound
from media.size import parse_size
from media.video import VideoReader
from models.checkpoint import load_network
from models.config import BASE_SIZE, check_references
from models.fold import folded
from models.hr_decoder import HRDecoder
from models.hyperlips import HyperLipsBase
from speech.stream import LiveSound, Sound, WholeSound

SoundSource = str | Path | np.ndarray | Iterable[np.ndarray]
"""A file; a whole sound (samples,) float32 at 16 kHz; or its pieces, as they come."""
Engine = TypeVar("Engine", bound="Networks")
_BESIDE = "face", "audio", "crf", "lossless", "watermark", "max_size"
"""What of a config the loaded networks, and how they run, do not depend on."""


class Networks:
    """Networks and landmark models of an InferenceConfig, and the files that it says how to read."""

    def __init__(self, config: InferenceConfig | None = None):
        """Raises InputError where a checkpoint is missing or holds another network, or the runtime is not there."""
        config = config or InferenceConfig()
        self.device = pick_device(config.device)
        self._runtimes = runtimes(config.runtime, self.device)
        keep_freed_memory()
        self.base = folded(load_network(config.base, self.device, HyperLipsBase))
        self.hr = None if config.hr is None else folded(load_network(config.hr, self.device, HRDecoder))
        self.size = BASE_SIZE * (1 if self.hr is None else self.hr.config.scale)
        # OpenVINO is always faster at these, so there is nothing to measure.
        self.landmarks = LandmarkNet(self.device, "openvino" if "openvino" in self._runtimes else "torch")
        self._take(config)

    def under(self: Engine, config: InferenceConfig) -> Engine:
        """These networks under another config, which asks for the same ones (ValueError), see loaded_by."""
        if loaded_by(config) != loaded_by(self.config):
            raise ValueError(f"{loaded_by(config)} are others than {loaded_by(self.config)}")
        if config == self.config:
            return self
        other = copy(self)
        other._take(config)
        return other

    def _take(self, config: InferenceConfig) -> None:
        """What the config says beside the networks."""
        self.config, face, audio, feed = config, config.face, config.audio, self.base.feed
        self.gain = feed.motion_gain if audio.motion_gain is None else audio.motion_gain
        self.window = audio.window or feed.window
        self.settings = FaceSettings(
            crop=face.crop or feed.crop,
            reference=face.reference or feed.reference,
            index=face.index,
            size=self.size,
            references=self.base.config.references,
            max_size=config.max_size,
        )
        check_references(self.base.config, self.settings.reference)
        if not self.base.config.hears(self.window):
            raise InputError(
                f"audio.window is published, expected centred with weights that hear {self.base.config.audio} features"
            )

    def read(self, face: str | Path) -> VideoReader:
        """The video or picture, no larger than the config allows."""
        return VideoReader(face, parse_size(self.config.max_size))

    def sound(self, source: SoundSource, notes: list[str]) -> Sound:
        """The sound as stage 1 hears it; `notes` takes what the user should be told.

        Raises InputError for an unreadable file or a sound without samples.
        """
        shape = self.base.config.audio, self.base.config.audio_window, self.window
        if isinstance(source, (str, Path)):
            return WholeSound(FileSound(source, self.config.audio.track, notes), *shape)
        if isinstance(source, np.ndarray):
            if not len(source):
                raise InputError("found a sound without samples, expected some; give another sound")
            return WholeSound(source, *shape)
        return LiveSound(source, *shape)

    @cached_property
    def provenance(self) -> str:
        """What a file says of itself: that it is synthetic, by what, and from which weights."""
        weights = [Path(path) for path in (self.config.base, self.config.hr) if path is not None]
        painted = ", ".join(f"{printable(path.name)} sha256 {file_digest(path)}" for path in weights)
        return f"Synthetic video: HyperLips painted the mouth to another sound, with {painted}"

    @cached_property
    def precision(self) -> tuple[Precision, Precision]:
        """Of stage 1 and of stage 2, chosen by measurement at the first use where the config leaves it open."""
        count, kind, layout = self.config.batch, self.config.precision, self.config.layout
        windows = np.repeat(silent_window(self.base)[None], count, 0)
        small, large = (np.zeros((count, size, size, 3), np.uint8) for size in (BASE_SIZE, self.size))
        references = np.zeros((1, self.settings.references, BASE_SIZE, BASE_SIZE, 3), np.uint8)
        shares = np.ones((count, *references.shape[:2]), np.float32)
        landmarks = np.zeros((count, 478, 2))

        def try_base(precision: Precision) -> None:
            encoded = encode_references(self.base, references, precision)
            paint_base(self.base, windows, small, encoded, shares, self.gain, precision)

        alone = self.base.config.gru != "recurrent"
        tried = self._runtimes if alone else ["torch"]
        base = choose_precision(kind, self.base, try_base, f"infer {count}", layout, tried)
        base.cast(self.base)
        self.landmarks.landmarks(small[:1])  # what OpenVINO converts is converted now, not with the first frame
        if (hr := self.hr) is None:
            return base, base

        portraits, shown = to_network(large[:1], hr), np.zeros(count, int)

        def try_hr(precision: Precision) -> None:
            paint_hr(hr, small, landmarks, large, portraits, shown, precision)

        large_one = choose_precision(kind, hr, try_hr, f"infer {count}", layout, self._runtimes)
        large_one.cast(hr)
        return base, large_one


def loaded_by(config: InferenceConfig) -> tuple[Any, ...]:
    """What of a config says which networks are loaded, and how they run."""
    return tuple(value for name, value in vars(config).items() if name not in _BESIDE)
