"""A `Record` is what a NamedTuple of the same fields is."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import pytest

from engine.record import Record


class Ours(Record):
    """A record."""

    a: int
    b: str = "b"
    c: tuple[int, ...] = ()

    @property
    def double(self) -> int:
        return 2 * self.a


class Theirs(NamedTuple):
    a: int
    b: str = "b"
    c: tuple[int, ...] = ()


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "x", (2,)), {}),
    ((), {"a": 1}),
    ((1,), {"c": (3,)}),
    ((), {"c": (), "b": "y", "a": 0}),
    ((), {}),
    ((1, "x", (), 4), {}),
    ((1,), {"a": 2}),
    ((1,), {"d": 2}),
]


@pytest.mark.parametrize(("values", "named"), CALLS)
def test_calls_agree(values, named):
    try:
        theirs = Theirs(*values, **named)
    except TypeError:
        with pytest.raises(TypeError):
            Ours(*values, **named)
        return
    ours = Ours(*values, **named)
    assert ours == theirs
    assert (ours.a, ours.b, ours.c) == theirs
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert hash(ours) == hash(theirs)
    assert ours._replace(b="z") == theirs._replace(b="z")
    assert ours._asdict() == theirs._asdict()
    assert type(ours._make([1, 2, 3])) is Ours
    assert pickle.loads(pickle.dumps(ours)) == ours
    assert ours.double == 2 * ours.a


def test_matching_and_immutability():
    match Ours(1, "x"):
        case Ours(a, b=b):
            assert (a, b) == (1, "x")
    with pytest.raises(AttributeError):
        Ours(1).a = 2
    assert Ours._fields == Theirs._fields
    with pytest.raises(TypeError):
        Ours(1)._replace(d=1)
