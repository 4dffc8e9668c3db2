"""What tests of all areas share: doses, patience, and commands in processes of their own.

`ENGINE_DOSE=full` (`make soak`) gives property tests, seeds and repetitions their long dose;
`ENGINE_TIME_FACTOR=3` makes every wait for another process three times as patient, for a slow or
busy machine. No test passes because of a wait: it only decides when to give up.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import pytest

T = TypeVar("T")

TIME_FACTOR = float(os.environ.get("ENGINE_TIME_FACTOR", "1"))
SCORES = pytest.StashKey[list[str]]()
"""Lines for the end of a run's report, in its configuration's stash: figures that are to be seen
though nothing failed."""
IN_CI = bool(os.environ.get("CI"))


def dose(ci: T, full: T) -> T:
    """`ci` in a run that someone waits for, `full` in a soak."""
    name = os.environ.get("ENGINE_DOSE", "ci")
    if name not in ("ci", "full"):
        raise pytest.UsageError(f"ENGINE_DOSE={name}: it is ci or full")
    return full if name == "full" else ci


def patience(seconds: float) -> float:
    """How long to wait for something that takes a fraction of `seconds` on an idle machine."""
    return seconds * TIME_FACTOR


def need(module: str, extra: str) -> Any:
    """An optional tool: on a laptop its absence skips the test by name, in CI it fails it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        advice = f"{module} is missing: pip install -e '.[{extra}]'"
        if IN_CI:
            pytest.fail(advice)
        pytest.skip(advice)


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(command: Sequence[str], seconds: float = 60.0, **options: Any) -> Ran:
    """Run a command to its end; it is killed, and the test fails, after `patience(seconds)`."""
    ended = subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        timeout=patience(seconds),
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def engine(*arguments: str, seconds: float = 60.0, **options: Any) -> Ran:
    """Run `engine …` as a user would, in a process of its own."""
    command = [sys.executable, "-m", "engine_cmd.main", *arguments]
    return run(command, seconds, **options)
