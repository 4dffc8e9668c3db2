"""The labs' tests can be held to anybody's servers: `pytest -m viewservice --impl module:factory`.

A lab's module describes, as a Protocol, what its tests need: a context manager, made by
`factory(folder, seed)`, that starts and attacks servers. Ours, in `ours_LAB.py`, is the default.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Factory = Callable[[Path, int], AbstractContextManager[Any]]


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The servers of the test's lab, in a world of their own with a seed of the test's own."""
    name = Path(request.path).stem.removeprefix("test_")
    text = request.config.getoption("--impl") or f"ours_{name}:make"
    module, _, factory = text.partition(":")
    if not factory:
        raise pytest.UsageError(f"--impl {text}: it is MODULE:FACTORY")
    make: Factory = getattr(importlib.import_module(module), factory)
    seed = zlib.crc32(request.node.name.encode())
    with make(tmp_path, seed) as made:
        yield made
