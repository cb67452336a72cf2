"""The folder that adapt.py makes of one person: what inference needs of it, and how far it is. Imports no torch."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aside import aside
from engine.options import PREPARED
from errors import InputError

_RECORD = "adapt.json"
_FOLDERS = "data", "stage1", "stage2"
"""That an adaptation makes, goes on with, and may remove."""


@dataclass(frozen=True)
class Person:
    """Files of an adapted person: weights of both stages, and the face prepared for them."""

    folder: Path

    @property
    def base(self) -> Path:
        return self.folder / "base.safetensors"

    @property
    def hr(self) -> Path:
        return self.folder / "hr.safetensors"

    @property
    def face(self) -> Path:
        return self.folder / f"person{PREPARED}"

    def check(self) -> None:
        """Raises InputError where one of them is missing."""
        missing = [path.name for path in (self.base, self.hr, self.face) if not path.is_file()]
        if missing:
            raise InputError(
                f"{self.folder} has no {', '.join(missing)}; expected a folder that adapt.py made: "
                f"python adapt.py --video ME.mp4 --output {self.folder}"
            )

    def export(self, base: Path, hr: Path) -> None:
        """Take over these weights."""
        for source, target in ((base, self.base), (hr, self.hr)):
            with aside(target) as part:
                shutil.copyfile(source, part)


@dataclass
class Adaptation:
    """How far an adaptation is, kept in its folder: the same command goes on where it stopped."""

    folder: Path
    begun: dict[str, Any]
    """What it is made from: digests of videos and weights by name."""
    done: list[str] = field(default_factory=list)
    """Steps that are finished."""
    seconds: float = 0.0
    """That it took so far, but for what was killed."""
    minutes: dict[str, float] = field(default_factory=dict)
    """That stages were given."""

    @classmethod
    def of(cls, folder: Path, begun: dict[str, Any]) -> "Adaptation":
        """Of a folder: as it was left, or at the beginning. Raises InputError where it is made from something else, its
        record is damaged, or what lies in it has none.
        """
        path = folder / _RECORD
        if not path.is_file():
            if others := [name for name in _FOLDERS if (folder / name).exists()]:
                raise InputError(
                    f"{folder} holds {' and '.join(others)}, which no adaptation made; choose another --output"
                )
            return cls(folder, begun)
        try:
            known = cls(folder, **json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} cannot be read ({error}); remove {folder} to begin anew") from error
        if differs := [name for name in begun if known.begun.get(name) != begun[name]]:
            raise InputError(
                f"{folder} was begun with other {' and '.join(differs)}; give those again, or choose another --output"
            )
        return known

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Do a step, unless it is done."""
        if name in self.done:
            return
        started = time.monotonic()
        self.save()  # whose folder it is, should the first step be killed
        try:
            work()
            self.done.append(name)
        finally:
            self.seconds += time.monotonic() - started
            self.save()

    def give(self, stage: str, minutes: float) -> float:
        """Minutes of a stage: these, or those that it was given when it first began."""
        if stage not in self.minutes:
            self.minutes[stage] = minutes
            self.save()
        return self.minutes[stage]

    def save(self) -> None:
        path = self.folder / _RECORD
        record = asdict(self)
        del record["folder"]
        try:
            with aside(path) as part:
                part.write_text(json.dumps(record, indent=1), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}); see to that, then run it again") from error

    def forget(self) -> None:
        """Begin anew next time."""
        (self.folder / _RECORD).unlink(missing_ok=True)
