"""Waiting for what another process or thread does, as long as `ENGINE_TIME_FACTOR` allows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from support import patience

T = TypeVar("T")


def eventually(true: Callable[[], T], seconds: float = 10.0, what: str = "") -> T:
    """The first true value of `true()`; the test fails after `patience(seconds)`."""
    deadline = time.monotonic() + patience(seconds)
    while not (found := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience(seconds):.0f} s in vain for {what or true}")
        time.sleep(0.005)
    return found
