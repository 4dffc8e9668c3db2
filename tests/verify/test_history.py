"""What clients saw, as they note it down."""

from __future__ import annotations

import pytest

from engine.verify.history import History, Operation


def test_it_keeps_operations_by_the_order_of_their_calls() -> None:
    history = History()
    assert history.operations() == []
    history.call(1, 7, "put", "k", "v")
    history.call(2, 8, "get", "k")
    history.finish(3, 8, "old")
    history.call(4, 8, "get", "k")
    history.finish(5, 7, None)
    assert history.operations() == [
        Operation(7, "put", "k", "v", 1, 5, None),
        Operation(8, "get", "k", "", 2, 3, "old"),
        Operation(8, "get", "k", "", 4, None, None),
    ]


def test_what_is_abandoned_stays_unknown_and_the_client_may_go_on() -> None:
    history = History()
    history.call(1, 7, "put", "k", "v")
    history.abandon(7)
    history.call(2, 7, "get", "k")
    history.finish(3, 7, "v")
    first, second = history.operations()
    assert (first.returned, second.returned) == (None, 3)


def test_what_it_gives_out_is_a_copy() -> None:
    history = History()
    history.call(1, 7, "get", "k")
    history.operations().clear()
    assert len(history.operations()) == 1


def test_a_client_has_one_operation_open() -> None:
    history = History()
    history.call(1, 7, "get", "k")
    with pytest.raises(AssertionError, match="client 7 has an operation open"):
        history.call(2, 7, "get", "k")
    with pytest.raises(KeyError):
        history.finish(2, 8, "")
    history.finish(2, 7, "")
    with pytest.raises(KeyError):
        history.finish(3, 7, "")
    with pytest.raises(KeyError):
        history.abandon(7)
    assert len(history.operations()) == 1
