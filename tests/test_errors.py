"""How scripts end on what the machine refuses, and on what nobody wants to read."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        ("MemoryError()", "error: found too little memory; ask for smaller"),
        (
            "type('OutOfMemoryError', (RuntimeError,), {})('of a GPU')",
            "error: found too little memory; ask for smaller",
        ),
        (
            "RuntimeError('[enforce fail] DefaultCPUAllocator: cannot')",
            "error: found too little memory; ask for smaller",
        ),
        ("PermissionError(13, 'Permission denied', 'a.mp4')", "error: a.mp4: Permission denied; see to its rights"),
        ("OSError(30, 'Read-only file system', 'b')", "error: b: Read-only file system; see to its rights"),
    ],
)
def test_what_the_machine_refuses_is_one_line(raised, told):
    script = f"from errors import run_cli\ndef main():\n    raise {raised}\nrun_cli(main)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and run.stderr.startswith(told) and len(run.stderr.splitlines()) == 1


def test_a_mistake_of_the_program_is_none_of_the_machine_s():
    script = "from errors import run_cli\ndef main():\n    open('no such file')\nrun_cli(main)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "Traceback" in run.stderr


@pytest.mark.parametrize("how", ["print('line', flush=True) for _ in range(100000)", "print('line') for _ in range(3)"])
def test_output_that_nobody_reads_any_more_ends_a_script_quietly(how):
    script = f"from errors import run_cli; run_cli(lambda: [input(), [{how}]])"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    run = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, **pipes)
    run.stdout.close()
    run.stdin.write(b"\n")
    run.stdin.close()
    assert run.stderr.read() == b"" and run.wait(60) == 141
