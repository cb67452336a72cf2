"""What all visitors of the page share: networks, one at a time, and the faces that were prepared last."""

import secrets
import shutil
import tempfile
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from engine.config import load_config
from engine.networks import loaded_by
from engine.options import SYNC_EXPERT, InferenceConfig
from engine.pipeline import LipSync
from engine.prepared import PreparedFace
from face.detect import make_detector
from metrics.scorers import Scorer
from metrics.sync import ExpertScore
from models.checkpoint import load_network
from models.config import BASE_SIZE
from models.syncnet import SyncExpert
from page.limits import Limits

Value = TypeVar("Value")
_ENGINES = 4
_FACES = 8
_POLL_S = 0.2


class Kept(Generic[Value]):
    """The values that were used last, `size` of them at most."""

    def __init__(self, size: int):
        self._size, self._values = size, OrderedDict[Hashable, Value]()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of that key, made where it is not kept."""
        value = self._values.pop(key) if key in self._values else make()
        self._values[key] = value
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return value


class Turns:
    """One at a time, in the order of asking."""

    def __init__(self) -> None:
        self._tickets: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, waiting: Callable[[int], None]) -> Iterator[None]:
        """Wait for one's turn and keep it. waiting: told again and again how many come before; it may raise."""
        ticket = object()
        with self._changed:
            self._tickets.append(ticket)
        try:
            while before := self._before(ticket):
                waiting(before)
            yield
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()

    def _before(self, ticket: object) -> int:
        """How many come before, after a while in which that may have changed."""
        with self._changed:
            if self._tickets[0] is not ticket:
                self._changed.wait(_POLL_S)
            return self._tickets.index(ticket)


class Uploads:
    """Files below a folder that visitors gave, where equal ones lie at one place: each goes with its last holder."""

    def __init__(self, folder: Path):
        self._folder, self._holders, self._lock = folder, Counter[Path](), threading.Lock()

    def hold(self, path: Path) -> None:
        with self._lock:
            self._holders[path] += 1

    def release(self, path: Path) -> None:
        with self._lock:
            self._holders[path] -= 1
            if not self._holders[path] and path.is_relative_to(self._folder):
                path.unlink(missing_ok=True)


class Studio:
    """Everything that outlives a visit, with a folder for temporary files that goes when it is closed.

    Engines and faces are used by whoever has the turn.
    """

    def __init__(self, config: str | None = None, changes: Sequence[str] = (), limits: Limits | None = None):
        """config, changes: as --config and --set of inference.py. Raises InputError where they are wrong, or weights do
        not load."""
        self.config, self.changes, self.limits = config, tuple(changes), limits or Limits()
        self.turns = Turns()
        self.faces: Kept[PreparedFace] = Kept(_FACES)
        self._engines: Kept[LipSync] = Kept(_ENGINES)
        self.default = self.engine(())
        self.folder = Path(tempfile.mkdtemp(prefix="hyperlips_page_"))
        self.uploads = Uploads(self.folder)

    def engine(self, changes: Sequence[str]) -> LipSync:
        """Networks under the page's own config with some changes, each KEY=VALUE."""
        config = load_config(InferenceConfig, self.config, [*self.changes, *changes])
        return self._engines.get(loaded_by(config), lambda: LipSync(config)).under(config)

    def warm_up(self) -> None:
        """Load and measure now what the first visitor would wait for."""
        detector = make_detector(self.default.config.face.backend, device=str(self.default.device))
        detector.search(np.zeros((BASE_SIZE, BASE_SIZE, 3), np.uint8))
        detector.reset()
        _ = self.default.precision, self.sync

    @cached_property
    def sync(self) -> Scorer:
        return partial(ExpertScore, load_network(SYNC_EXPERT, kind=SyncExpert))

    def new_folder(self) -> Path:
        """A visitor's own, under a name that nobody guesses."""
        folder = self.folder / secrets.token_hex(16)
        folder.mkdir()
        return folder

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
