"""What holds for every run of the tests: no process and no file is left behind.

Temporary files of the engine go to a folder of this run's own, which must be empty at the end.
Every process started from here inherits a variable that names this run, so that one that outlived
its parent is found as well. Both are checked when all tests are done, and an offence is an error in
pytest's closing line.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import SCORES, patience
from support import dose as support_dose

MARK = "ENGINE_TEST_RUN"
PURE = (
    "faults/test_power_oracle.py",
    "fuzz/",
    "kernels/",
    "kv/test_",
    "labs/test_labgob.py",
    "labs/test_raft.py",
    "raft/",
    "redis/",
    "simulation/",
    "storage/",
    "test_packaging.py",
    "test_tidy.py",
    "verify/",
    "web/",
    "wire/test_codec.py",
    "wire/test_curve.py",
)
KEPT_BY_PYTHON = ("multiprocessing.resource_tracker",)
"""Started once by the standard library and ended with the interpreter."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the labs, which must be known before their folder is looked at."""
    parser.addoption("--impl", metavar="MODULE:FACTORY", help="whose servers a lab's tests attack")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Figures that tests want to be seen."""
    for line in config.stash.get(SCORES, []):
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of xdist hands its figures to whoever reports."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["scores"] = session.config.stash.get(SCORES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of xdist has ended."""
    scores = getattr(node, "workeroutput", {}).get("scores", [])
    node.config.stash.setdefault(SCORES, []).extend(scores)


def pytest_itemcollected(item: pytest.Item) -> None:
    """What starts no process, and waits for nothing, is `pure`."""
    if str(item.path).removeprefix(f"{Path(__file__).parent}/").startswith(PURE):
        item.add_marker("pure")


def pytest_configure(config: pytest.Config) -> None:
    """Give this run a temporary folder; short, for the paths of sockets end at 107 bytes."""
    os.environ[MARK] = uuid.uuid4().hex
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that starts us in the background has us ignore ctrl-C, and so would all that we
        # start; a handler is not inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays readable
    folder = tempfile.mkdtemp(prefix="et-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the run for processes and temporary files that outlive their tests."""
    yield
    left = left_processes()
    _, alive = psutil.wait_procs(left, timeout=patience(3))
    told = [told_of(process) for process in alive]
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=patience(3))  # which also reaps our own
    assert not told, "processes were left behind:\n" + "\n".join(told)
    files = [name for name in os.listdir(tempfile.gettempdir()) if "engine" in name]
    assert not files, f"temporary files were left behind: {', '.join(files)}"


def left_processes() -> list[psutil.Process]:
    """Children of this process, and whatever else carries its mark; not this process."""
    mine = psutil.Process()
    found = {process.pid: process for process in mine.children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.pid != mine.pid and process.environ().get(MARK) == os.environ[MARK]:
                found[process.pid] = process
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue  # somebody else's, or gone
    return [p for p in found.values() if not any(name in told_of(p) for name in KEPT_BY_PYTHON)]


def told_of(process: psutil.Process) -> str:
    """A process in words: pid, state and command line, as far as it can still be read."""
    try:
        return f"{process.pid} ({process.status()}): {' '.join(process.cmdline()) or '?'}"
    except psutil.Error:
        return f"{process.pid} (gone)"


@pytest.fixture
def dose() -> object:
    """`dose(ci, full)` as a fixture; `from support import dose` does the same at import time."""
    return support_dose
