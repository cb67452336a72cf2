"""What a visitor may bring. Imports no torch, so that a mistake is told at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """s of video and of sound, MB of a file, letters of a text."""

    seconds: float = 120.0
    megabytes: int = 200
    letters: int = 1500
