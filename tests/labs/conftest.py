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
    with factory_of(request)(tmp_path, seed_of(request.node.name)) as made:
        yield made


@pytest.fixture
def needs(lab: Any) -> Callable[..., None]:
    """`needs("method", ...)` skips a test that asks for more than the lab's own tests do, if these
    servers do not have it."""

    def check(*names: str) -> None:
        missing = [name for name in names if not hasattr(lab, name)]
        if missing:
            pytest.skip(f"these servers offer no {', '.join(missing)}")

    return check


@pytest.fixture(scope="module")
def lasting_lab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The same for all tests of a module, where each goes on from what the one before left."""
    folder = tmp_path_factory.mktemp("lab")
    with factory_of(request)(folder, seed_of(request.node.name)) as made:
        yield made


def factory_of(request: pytest.FixtureRequest) -> Factory:
    """Whose servers: `--impl`, or ours."""
    name = Path(request.path).stem.removeprefix("test_")
    text = request.config.getoption("--impl") or f"ours_{name}:make"
    module, _, factory = text.partition(":")
    if not factory:
        raise pytest.UsageError(f"--impl {text}: it is MODULE:FACTORY")
    made: Factory = getattr(importlib.import_module(module), factory)
    return made


def seed_of(name: str) -> int:
    """Equal in every run."""
    return zlib.crc32(name.encode())
