"""The look for leftovers at the end of a test run (`conftest.py`) finds what it should."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from support import run
from tidy import ROOT

CLEAN = """
def test_clean(tmp_path):
    (tmp_path / "engine").touch()
    subprocess.run([sys.executable, "-c", "print()"], check=True)
"""
FORKED = """
def test_forked():
    if os.fork() == 0:
        signal.pause()
        os._exit(0)
"""
ORPHANED = """
def test_orphaned():
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0)"
    read, write = os.pipe()
    os.set_inheritable(write, True)
    subprocess.run([sys.executable, "-c", code], stdin=read, pass_fds=[write], check=True)
"""
LITTERED = """
def test_littered():
    tempfile.mkdtemp(prefix="engine-")
"""


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        (CLEAN, ""),
        (FORKED, "processes were left behind"),
        (ORPHANED, "processes were left behind"),
        (LITTERED, "temporary files were left behind"),
    ],
    ids=["clean", "forked", "orphaned", "littered"],
)
def test_leftovers_fail_the_run(planted: str, told: str, tmp_path: Path) -> None:
    for name in ("conftest.py", "support.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path)
    header = "import os, signal, subprocess, sys, tempfile\n"
    (tmp_path / "test_planted.py").write_text(header + planted)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "."]
    ran = run(command, cwd=tmp_path, env={**os.environ, "ENGINE_TIME_FACTOR": "0.2"})
    assert ran.code == (1 if told else 0), ran.out
    assert told in ran.out
    pids = [int(pid) for pid in re.findall(r"^E +(\d+) \(", ran.out, re.MULTILINE)]
    assert bool(pids) == ("processes" in told)
    assert not any(map(alive, pids)), "found, but left alive"


def alive(pid: int) -> bool:
    """Not a zombie either: an orphan is init's to reap, whenever it gets to it."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
