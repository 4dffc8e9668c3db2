"""A process's title and the death of its parent, as other processes see them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import patience, run
from waiting import eventually

from engine.kernels import process

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere both do nothing")


def python(code: str, *arguments: str) -> list[str]:
    lines = "import os, signal, sys\nfrom engine.kernels.process import *\n" + code
    return [sys.executable, "-c", lines, *arguments]


def test_a_title_replaces_the_arguments_and_leaves_the_environment() -> None:
    ran = run(
        python(
            """
before = dict(os.environ)
for title in ("engine: a long title that is cut short by nothing", "engine: short"):
    set_title(title)
    print(open("/proc/self/cmdline", "rb").read().rstrip(b"\\0").decode())
    print(open("/proc/self/comm").read(), end="")
raw = open("/proc/self/environ", "rb").read()
assert all(f"{k}={v}".encode() in raw for k, v in before.items()), "the environment is damaged"
print(sys.argv[1])
""",
            "argument",
        ),
        cwd=ROOT,
    )
    assert ran.out.splitlines() == [
        "engine: a long title that is cut short by nothing",
        "engine: a long ",
        "engine: short",
        "engine: short",
        "argument",
    ]


def test_a_title_longer_than_its_room_is_cut() -> None:
    ran = run(
        python(
            """
room = len(open("/proc/self/cmdline", "rb").read())
set_title("x" * (room + 1000))
print(open("/proc/self/cmdline", "rb").read() == b"x" * (room - 1) + b"\\0")
set_title("")
print(open("/proc/self/cmdline", "rb").read().strip(b"\\0"))
"""
        ),
        cwd=ROOT,
    )
    assert ran.out.split() == ["True", "b''"], ran


def test_the_short_name_is_never_half_a_character() -> None:
    ran = run(
        python("set_title('é' * 20 + chr(0)); print(ascii(open('/proc/self/comm').read()))"),
        cwd=ROOT,
    )
    assert ran.out.strip() == ascii("é" * 7 + "\n")


def test_a_child_dies_with_its_parent() -> None:
    code = """
pid = os.fork()
if pid == 0:
    parent_death_signal(signal.SIGKILL)
    os.write(1, b"ready\\n")
    signal.pause()
os.write(1, b"%d\\n" % pid)
signal.pause()
"""
    with subprocess.Popen(python(code), cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        (child,) = map(int, said - {"ready"})
        handle = psutil.Process(child)
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([handle], timeout=patience(5))
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def test_what_is_no_signal_is_an_error() -> None:
    from engine.kernels.process import parent_death_signal

    with pytest.raises(OSError, match="PR_SET_PDEATHSIG 1000"):
        parent_death_signal(1000)
    parent_death_signal(signal.Signals.SIGKILL)
    parent_death_signal(0)


def test_a_heart_beats_only_in_its_phases_and_without_the_gil():
    page = memoryview(bytearray(64)).cast("Q")
    process.beat(page, 3, 1, 1 << 2 | 1 << 4, 1)
    page[1] = 4
    eventually(lambda: page[3] > 2)
    page[1] = 0
    eventually(lambda: still(page, 3))
    page[1] = 2
    before = page[3]
    eventually(lambda: page[3] > before)
    with pytest.raises(ValueError, match="of a page of 8"):
        process.beat(page, 8, 0, 1, 1)


def still(page, word):
    """Whether a word stands still for twenty beats."""
    before = page[word]
    until = time.monotonic() + 0.02
    while time.monotonic() < until:
        pass
    return page[word] == before
