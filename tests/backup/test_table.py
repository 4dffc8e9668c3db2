"""The table: equal operations give equal tables, and its parts are all of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.backup import table as tables
from engine.backup.messages import (
    APPEND,
    GET,
    KEY_CHARACTERS_MAX,
    NO_KEY,
    OK,
    PUT,
    TOO_LARGE,
    VALUE_CHARACTERS_MAX,
    Answer,
    Operation,
    Part,
)
from engine.backup.table import Table
from engine.relay import PART_BYTES
from engine.sessions import Sessions
from engine.wire import envelope
from engine.wire.codec import decode, encode

ROW = 32
"""What a row weighs beside its characters."""
CLIENTS_MAX = 3

OPERATIONS = st.lists(
    st.builds(
        Operation,
        st.integers(1, 5),
        st.integers(1, 5),
        st.sampled_from([GET, PUT, APPEND, APPEND]),
        st.text("abc", max_size=2),
        st.text("xy€😀", max_size=20),
    ),
    max_size=40,
)


@contextmanager
def small(part_bytes: int) -> Iterator[None]:
    """Parts of this size, and few clients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PART_BYTES", part_bytes)
        patch.setattr(tables, "Sessions", lambda: Sessions(CLIENTS_MAX))
        yield


def made(operations: list[Operation]) -> Table:
    table = Table()
    for operation in operations:
        table.apply(operation)
    return table


def everything(table: Table) -> object:
    """Orders as well: who is forgotten next depends on them."""
    return table.number, list(table.values.items()), table.sessions.rows()


def copied(parts: list[Part]) -> Table:
    """As it arrives at the other end."""
    copy = Table()
    for part in parts:
        copy.take(decode(*encode(part)))
    return copy


@given(before=OPERATIONS, after=OPERATIONS, part_bytes=st.integers(1, 400))
@settings(max_examples=dose(ci=150, full=3000), deadline=None)
def test_parts_are_a_copy(before: list[Operation], after: list[Operation], part_bytes: int) -> None:
    with small(part_bytes):
        table = made(before)
        whole = everything(table)
        parts = list(table.parts(7))
        copy = copied(parts)
        assert everything(table) == whole
        assert everything(copy) == whole
        # And they stay equal.
        assert [copy.apply(o) for o in after] == [table.apply(o) for o in after]
        assert everything(copy) == everything(table)


@given(operations=OPERATIONS, part_bytes=st.integers(1, 400))
@settings(max_examples=dose(ci=100, full=3000), deadline=None)
def test_parts_are_of_their_size(operations: list[Operation], part_bytes: int) -> None:
    with small(part_bytes):
        table = made(operations)
        parts = list(table.parts(7))
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {(part.view, part.number) for part in parts} == {(7, len(operations))}
    assert sum(len(part.rows) for part in parts) == len(table.values)
    assert sum(len(part.sessions) for part in parts) == len(table.sessions.rows())
    for part in parts:
        weights = [ROW + len(key) + len(value) for key, value in part.rows]
        weights += [ROW + len(s.status) + len(s.value) for s in part.sessions]
        if part.last:
            assert sum(weights) < part_bytes
        else:
            assert sum(weights) >= part_bytes > sum(weights[:-1])


@given(operations=OPERATIONS)
@settings(max_examples=dose(ci=100, full=3000), deadline=None)
def test_it_does_what_a_dictionary_does(operations: list[Operation]) -> None:
    table, plain = Table(), dict[str, str]()
    for client, sequence, verb, key, value in operations:
        found = ""
        status = OK
        if verb == PUT:
            plain[key] = value
        elif verb == APPEND:
            plain[key] = plain.get(key, "") + value
        else:
            found, status = plain.get(key, ""), OK if key in plain else NO_KEY
        answer = Answer(client, sequence, status, found)
        assert table.apply(Operation(client, sequence, verb, key, value)) == answer
        assert table.sessions.answer(client) == answer
    assert (table.values, table.number) == (plain, len(operations))


FULL = "v" * VALUE_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("verb", "key", "value", "status", "left"),
    [
        (APPEND, "a", "v", OK, FULL),
        (APPEND, "a", "vv", TOO_LARGE, FULL[1:]),
        (APPEND, "a", FULL, TOO_LARGE, FULL[1:]),
        (APPEND, "a", FULL + "v", TOO_LARGE, FULL[1:]),
        (PUT, "a", FULL, OK, FULL),
        (PUT, "a", FULL + "v", TOO_LARGE, FULL[1:]),
        (APPEND, "k" * (KEY_CHARACTERS_MAX + 1), "", TOO_LARGE, FULL[1:]),
    ],
)
def test_limits(verb: str, key: str, value: str, status: str, left: str) -> None:
    """What is too large changes nothing, but counts as an operation: it was answered."""
    table = made([Operation(1, 1, PUT, "a", FULL[1:])])
    assert table.apply(Operation(1, 2, verb, key, value)) == Answer(1, 2, status, "")
    assert table.values == {"a": left}
    assert table.number == 2


def test_the_largest_part_fits_into_a_frame() -> None:
    """One character of four bytes less than ends a part, and then the largest row."""
    nearly = "😀" * (PART_BYTES - ROW - 2)
    key, value = "😀" * KEY_CHARACTERS_MAX, "😀" * VALUE_CHARACTERS_MAX
    table = made([Operation(1, 1, PUT, "a", nearly), Operation(1, 2, PUT, key, value)])
    part = next(table.parts(1))
    assert [len(row[1]) for row in part.rows] == [len(nearly), len(value)]
    assert len(encode(part)[1]) <= envelope.BODY_MAX


def test_many_rows_are_about_as_many_parts_as_they_should_be() -> None:
    rng = random.Random(1)
    words = [Operation(1, n + 1, PUT, f"{n}", "v" * rng.randrange(2000)) for n in range(5000)]
    table = made(words)
    weight = sum(ROW + len(o.key) + len(o.value) for o in words)
    parts = list(table.parts(1))
    assert weight / PART_BYTES - 1 <= len(parts) <= weight / PART_BYTES + 1
    assert everything(copied(parts)) == everything(table)
