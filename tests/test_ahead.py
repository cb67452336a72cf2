"""Stages in threads: the same items in the same order, and nothing left running."""

import itertools
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from ahead import ahead
from engine.options import InferenceConfig
from engine.pipeline import LipSync


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_items_come_in_order_and_only_a_few_are_made_ahead():
    made = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    stage, before, used = ahead(items()), threads(), []
    for number in stage:
        used.append(number)
        deadline = time.monotonic() + 10
        while len(made) < min(number + 4, 50) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(made) == min(number + 4, 50)  # those used, two waiting, one in hand
    assert used == list(range(50)) and threads() <= before


def test_an_error_arrives_where_its_item_would_have():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second item")

    stage = ahead(ahead(items()))
    assert next(stage) == 1
    with pytest.raises(ValueError, match="no second item"):
        next(stage)


def test_who_stops_asking_stops_all_stages():
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    before = threads()
    stage = ahead(number + 1 for number in ahead(items()))
    assert next(stage) == 1
    stage.close()
    deadline = time.monotonic() + 10
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert closed == [True] and threads() <= before


def test_frames_equal_those_of_stages_one_after_another(talking_clip, monkeypatch):
    engine = LipSync(InferenceConfig(precision="float32"))
    face, outputs, before = engine.prepare(talking_clip), [], threads()
    for beside in (ahead, lambda items: (item for item in items)):
        monkeypatch.setattr("engine.drive.ahead", beside)
        outputs.append(np.stack([frame.planes[0] for frame, _ in engine.drive(face, talking_clip)]))
    np.testing.assert_array_equal(*outputs)
    drive = iter(engine.drive(face, talking_clip))
    next(drive)
    drive.close()
    assert threads() <= before
