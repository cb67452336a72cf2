"""The handful of inference.py's settings that the page shows, and how its command line spells them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import meaning
from engine.options import InferenceConfig
from engine.pipeline import LipSync


@dataclass(frozen=True)
class Setting:
    """A key of InferenceConfig: a number within `span` (least, most, step), one of `choices`, or else yes or no."""

    key: str
    label: str
    span: tuple[float, float, float] | None = None
    choices: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        return meaning(InferenceConfig, self.key)


SETTINGS = (
    Setting("audio.motion_gain", "Motion of the lips", span=(0, 3, 0.1)),
    Setting("hr", "Sharp face (stage 2)"),
    Setting("crf", "Compression", span=(0, 51, 1)),
    Setting("max_size", "Largest picture", choices=("1280x720", "1920x1080", "4096x2304", "none")),
    Setting("watermark", "Visible mark"),
    Setting("lossless", "Lossless"),
)


def initial(engine: LipSync) -> dict[str, Any]:
    """What each setting is by itself, by key; without `hr` where the weights of stage 2 are left out anyway."""
    config = engine.config
    values: dict[str, Any] = {setting.key: getattr(config, setting.key, None) for setting in SETTINGS}
    values["audio.motion_gain"] = engine.gain
    if values.pop("hr") is not None:
        values["hr"] = True
    return values


def overrides(values: Mapping[str, Any], start: Mapping[str, Any]) -> list[str]:
    """KEY=VALUE of every value that is another than at the start, as `--set` takes them."""
    return [f"{key}={_spelled(key, value)}" for key, value in values.items() if value != start[key]]


def _spelled(key: str, value: Any) -> str:
    if key == "hr":
        return "null"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def command(face: str, audio: str, config: str | None, changes: Sequence[str]) -> str:
    """The line that makes the same video of these files."""
    words = ["python", "inference.py", "--face", face, "--audio", audio, "--output", "out.mp4"]
    words += ["--config", config] if config else []
    return shlex.join([*words, "--set", *changes] if changes else words)
