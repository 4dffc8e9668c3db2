"""Tests that mostly wait, several at a time.

    from scenes import scene, scenes

    @scene
    def test_something(folder: Path) -> None: ...

All of a module's that were selected run in a few threads, each in a folder of its own, and each
test reports what became of its own. A scene's processes live in its thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

AT_A_TIME = 5
Scene = Callable[[Path], None]
Scenes = dict[Scene, "Future[None]"]


def scene(body: Scene) -> Callable[[Scenes], None]:
    """The test that reports this scene, which is a function of its folder."""

    def test(scenes: Scenes) -> None:
        scenes[body].result()

    functools.update_wrapper(test, body, updated=())
    del test.__wrapped__  # type: ignore[attr-defined]  # pytest would take its argument for ours
    test.scene = body  # type: ignore[attr-defined]
    return test


@pytest.fixture(scope="module")
def scenes(request: pytest.FixtureRequest) -> Iterator[Scenes]:
    """All scenes of this module that are to be reported, running."""
    module: Any = request.module
    items = [item for item in request.session.items if getattr(item, "module", None) is module]
    bodies = [getattr(getattr(item, "function", None), "scene", None) for item in items]
    base = request.config._tmp_path_factory.mktemp("s")  # type: ignore[attr-defined]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        started: Scenes = {}
        for number, body in enumerate(bodies):
            if body is not None:
                folder = base / str(number)
                folder.mkdir()
                started[body] = pool.submit(body, folder)
        yield started
        for one in started.values():
            one.cancel()
