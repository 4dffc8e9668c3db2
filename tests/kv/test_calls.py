"""What an answer of the store means to whoever asked."""

from __future__ import annotations

import pytest

from engine.errors import NotFoundError
from engine.kv import calls, commands
from engine.kv.calls import CompareFailed, Maybe


def test_a_versioned_put_that_was_repeated_may_be_done() -> None:
    """Its version has gone, or the key with it: by itself, or by what came between."""
    plan = calls.put_version("k", "v", 3)
    with pytest.raises(CompareFailed):
        plan.meaning((commands.COMPARE_FAILED, 9, 8, 4), 1)
    with pytest.raises(NotFoundError):
        plan.meaning((commands.NOT_FOUND, 9), 1)
    for answer in ((commands.COMPARE_FAILED, 9, 8, 4), (commands.NOT_FOUND, 9)):
        with pytest.raises(Maybe):
            plan.meaning(answer, 2)
    assert plan.meaning((commands.OK, 9, 4), 2) == 4
