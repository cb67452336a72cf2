"""Processes that work for others: none outlives its parent, and one that dies takes one item with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FORKED, LINUX, wait_until

from errors import InputError
from workers import Done, spread

ROOT = Path(__file__).resolve().parent.parent
SLEEP = "import os, time; os.write(1, b'ready\\n'); time.sleep(60)"
SPREAD = f"""
from workers import spread
list(spread(lambda item: exec({SLEEP!r}), [1, 2, 3], 2))
"""
LOADER = f"""
from datasets.loader import batches
class Slow:
    def __getitem__(self, index):
        exec({SLEEP!r})
next(batches(Slow(), 1, 0, 9, 2))
"""
FRESH = f"""
from benchmarks.fresh import fresh
from errors import run_cli
run_cli(lambda: fresh(exec, {SLEEP!r}))
"""
ABLATIONS = f"""
import sys
from benchmarks.ablations import run_to_its_end
sys.exit(run_to_its_end([sys.executable, "-c", {SLEEP!r}]))
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ENDINGS = {
    "spread": (SPREAD, 2, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
    "loader": (LOADER, 2, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
    "fresh": (FRESH, 1, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
    "ablations": (ABLATIONS, 1, [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
}


@LINUX
@pytest.mark.parametrize(
    ("script", "count", "number"),
    [
        pytest.param(script, count, number, id=f"{name}-{number.name}")
        for name, (script, count, numbers) in ENDINGS.items()
        for number in numbers
    ],
)
def test_no_process_outlives_its_parent(script, count, number):
    # Whoever runs the tests in the background may have told all processes to ignore Ctrl-C.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    parent = subprocess.Popen([sys.executable, "-c", heard + script], cwd=ROOT, text=True, **pipes)
    assert [parent.stdout.readline() for _ in range(count)] == ["ready\n"] * count
    started = children(parent.pid)
    assert len(started) >= count
    parent.send_signal(number)
    assert parent.wait(30) != 0
    wait_until(lambda: not any(map(alive, started)), 10)


@FORKED
def test_a_worker_that_dies_takes_one_item_with_it():
    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 4:
            os._exit(3)
        return item * item

    done = sorted(spread(work, range(6), 2), key=lambda one: one.item)
    assert done == [
        Done(0, 0),
        Done(1, 1),
        Done(2, death="SIGKILL"),
        Done(3, 9),
        Done(4, death="exit code 3"),
        Done(5, 25),
    ]


@FORKED
def test_what_work_raises_is_raised_and_every_worker_is_set_up():
    ready = []

    def work(item: int) -> int:
        if item == 3:
            raise InputError(f"{item} is wrong")
        return len(ready)

    assert [done.result for done in spread(work, [1, 2], 1, lambda: ready.append(1))] == [1, 1]
    assert ready == [] and list(spread(work, [], 2)) == []
    with pytest.raises(InputError, match="3 is wrong"):
        list(spread(work, [3, 4], 2))
