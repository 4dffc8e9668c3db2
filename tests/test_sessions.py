"""The client table beside a list that is gone through from the beginning every time."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import dose

from engine.sessions import CLIENTS_MAX, FORGOTTEN, LATE, NEW, REPEATED, Numbers, Sessions

Row = tuple[int, int, str]

CLIENTS = st.integers(0, 5)
MAX = 3


def remembered(history: list[Row], clients_max: int) -> list[Row]:
    """What a table holds after this history, the longest silent first."""
    rows: list[Row] = []
    for row in history:
        rows = [*(other for other in rows if other[0] != row[0]), row][-clients_max:]
    return rows


def verdict(rows: list[Row], client: int, sequence: int) -> str:
    """In words: one after the last is new, the last is repeated, less is late, more is a gap."""
    last = next((s for c, s, _ in rows if c == client), 0)
    if sequence < 1 or sequence < last:
        return LATE
    if sequence == last:
        return REPEATED
    return NEW if sequence - last == 1 else FORGOTTEN


class Tables(RuleBasedStateMachine):
    """A table with room for three of six clients, its oracle, and copies that replace it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Sessions(MAX)
        self.history: list[Row] = []
        self.counts = dict.fromkeys(range(6), 0)

    @rule(client=CLIENTS, sequence=st.integers(-1, 6))
    def asks(self, client: int, sequence: int) -> None:
        found = self.table.judge(client, sequence)
        rows = remembered(self.history, MAX)
        assert found == verdict(rows, client, sequence)
        if found == REPEATED:
            assert self.table.answer(client) == next(a for c, _, a in rows if c == client)

    @rule(client=CLIENTS, answer=st.text(max_size=2))
    def goes_on(self, client: int, answer: str) -> None:
        """A client that behaves: its next request is carried out, unless it was forgotten."""
        sequence = self.counts[client] + 1
        if self.table.judge(client, sequence) == NEW:
            self.table.keep(client, sequence, answer)
            self.history.append((client, sequence, answer))
            self.counts[client] = sequence
        else:
            assert all(c != client for c, _, _ in remembered(self.history, MAX))

    @precondition(lambda self: self.history)
    @rule()
    def moves(self) -> None:
        """To a copy, as a new backup has it: it must go on just like the original."""
        copy = Sessions(MAX)
        copy.add(self.table.rows())
        self.table = copy

    @precondition(lambda self: self.history)
    @rule(cut=st.integers(0, MAX))
    def moves_in_parts(self, cut: int) -> None:
        copy, rows = Sessions(MAX), self.table.rows()
        copy.add(iter(rows[:cut]))
        copy.add(rows[cut:])
        self.table = copy

    @invariant()
    def is_the_list(self) -> None:
        assert self.table.rows() == remembered(self.history, MAX)


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=dose(200, 5000), stateful_step_count=40, deadline=None)


def test_an_empty_table_knows_nobody() -> None:
    table = Sessions()
    assert table.rows() == []
    assert [table.judge(7, n) for n in (-1, 0, 1, 2)] == [LATE, LATE, NEW, FORGOTTEN]
    with pytest.raises(KeyError):
        table.answer(7)


def test_a_request_is_new_once() -> None:
    table = Sessions()
    table.keep(7, 1, "one")
    assert table.judge(7, 1) == REPEATED
    assert table.answer(7) == "one"
    table.keep(7, 2, "two")
    assert [table.judge(7, n) for n in (1, 2, 3, 4)] == [LATE, REPEATED, NEW, FORGOTTEN]
    assert table.judge(8, 1) == NEW, "another client's numbers are its own"


def test_the_longest_silent_is_forgotten_and_nobody_else() -> None:
    table = Sessions()
    for client in range(CLIENTS_MAX):
        table.keep(client, 1, client)
    table.keep(0, 2, "spoke again")
    assert len(table.rows()) == CLIENTS_MAX
    table.keep(CLIENTS_MAX, 1, "one too many")
    assert len(table.rows()) == CLIENTS_MAX
    assert table.judge(1, 2) == FORGOTTEN
    assert table.judge(0, 2) == REPEATED
    assert table.rows()[0] == (2, 1, 2)
    assert table.rows()[-1] == (CLIENTS_MAX, 1, "one too many")


def test_a_forgotten_client_is_told_so_and_nothing_is_done() -> None:
    table = Sessions(1)
    table.keep(1, 1, "")
    table.keep(1, 2, "")
    table.keep(2, 1, "")
    assert table.judge(1, 3) == FORGOTTEN
    assert table.judge(1, 2) == FORGOTTEN


# --- the client's side ---------------------------------------------------------------------------


def test_numbers_go_on_while_requests_are_answered() -> None:
    numbers = Numbers(7)
    given = []
    for _ in range(3):
        given.append(numbers.next())
        numbers.answered()
    assert given == [(7, 1), (7, 2), (7, 3)]


def test_who_gave_a_request_up_goes_on_as_another() -> None:
    """So that no server ever takes its next request for the one that nobody knows about."""
    numbers, table = Numbers(7), Sessions()
    numbers.next()
    numbers.answered()
    given_up = numbers.next()
    assert given_up == (7, 2)
    assert numbers.next() == (8, 1)
    assert numbers.next() == (9, 1)
    numbers.answered()
    following = numbers.next()
    assert following == (9, 2)
    table.keep(9, 1, "")
    assert [table.judge(*request) for request in (following, (8, 1))] == [NEW, NEW]
    table.keep(*given_up[:1], 1, "")
    assert table.judge(*given_up) == NEW, "it may yet be carried out, under its own number"
