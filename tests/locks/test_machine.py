"""The lock server by itself: whatever arrives, limits, and whom it believes. Stories are in
`scenarios/`, and the proof that a pair of them is right is its trial in the simulator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import UNTIL_IT_WAKES, Turn, drive
from support import dose

from engine import relay
from engine.contract import SECOND, Event, Link, Linked, Overslept, Ready, Received, peer
from engine.locks.machine import ALONE, BACKUP, GONE, PRIMARY, LockServer, Settings
from engine.locks.messages import (
    ACQUIRE,
    DONE,
    FORGOTTEN,
    INVALID,
    NAME_CHARACTERS_MAX,
    RELEASE,
    RETIRED,
    Alone,
    Answer,
    Applied,
    Forward,
    Operation,
    Refusal,
)
from engine.views.messages import Get

CLIENT = Link("client", 1)
SERVER = Link("server", 0, 5)
THERE = peer("backup")


def server(role: str, backup: str = "") -> LockServer:
    return LockServer(Settings(role, backup), random.Random(1))


def turn(machine: LockServer, *received: tuple[Link, Any], now: int = 0) -> list[tuple[Link, Any]]:
    machine.step(now, [Received(link, message) for link, message in received])
    machine.check()
    return [tuple(send) for send in machine.ready().now]


# --- whatever arrives ----------------------------------------------------------------------------

FIGURES = st.integers(-1, 4) | st.sampled_from([-(1 << 63), 1 << 62, (1 << 64) - 1])
NAMES = st.sampled_from(["a", "b", "\udc80", "", "x" * (NAME_CHARACTERS_MAX + 1)])
OPERATIONS = st.builds(
    Operation, st.integers(1, 3) | FIGURES, FIGURES, st.sampled_from([ACQUIRE, RELEASE, "?"]), NAMES
)
FORWARDS = st.builds(Forward, FIGURES, st.lists(OPERATIONS, max_size=3).map(tuple))
MESSAGES = st.one_of(
    OPERATIONS,
    FORWARDS,
    st.builds(Applied, FIGURES),
    st.builds(Answer, FIGURES, FIGURES, st.just(DONE), st.booleans()),
    st.sampled_from([Alone(), Refusal(), Get(1)]),
)
LINKS = st.sampled_from(
    [CLIENT, Link("client", 2), SERVER, SERVER._replace(incarnation=6), THERE, peer("elsewhere")]
)
VALID = st.builds(
    Operation,
    st.integers(1, 3),
    st.sampled_from([1, 1, 2, 2, 3]),
    st.sampled_from([ACQUIRE, RELEASE]),
    st.sampled_from("ab"),
)
OFTEN = st.one_of(
    st.builds(Received, st.sampled_from([CLIENT, Link("client", 2)]), VALID),
    st.builds(Received, st.just(THERE), st.builds(Applied, st.integers(0, 4))),
    st.builds(
        Received,
        st.just(SERVER),
        st.builds(Forward, st.integers(1, 3), st.lists(VALID, max_size=3).map(tuple)),
    ),
)
SELDOM = st.builds(Received, LINKS, MESSAGES) | st.builds(Linked, LINKS, st.booleans())
EVENTS = OFTEN | OFTEN | SELDOM
TURNS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, SECOND // 10, 3 * SECOND, UNTIL_IT_WAKES]),
        st.lists(EVENTS, max_size=4),
    ),
    max_size=dose(ci=15, full=40),
)
ROLES = st.sampled_from([(PRIMARY, "backup"), (PRIMARY, ""), (BACKUP, "")])


class Followed(LockServer):
    """Notes the roles that it has had."""

    def __init__(self, role: str, backup: str) -> None:
        super().__init__(Settings(role, backup), random.Random(1))
        self.roles = [self.role]

    def check(self) -> None:
        super().check()
        if self.role != self.roles[-1]:
            self.roles.append(self.role)


@given(role=ROLES, turns=TURNS)
@settings(max_examples=dose(ci=200, full=3000), deadline=None)
def test_whatever_arrives_it_goes_on(role: tuple[str, str], turns: list[Turn]) -> None:
    machine = Followed(*role)
    wanted = drive(machine, turns)
    assert wanted == drive(server(*role), turns)
    assert machine.roles == sorted(machine.roles, key=[*role, ALONE, GONE].index)
    asked: set[tuple[Link, int, int]] = set()
    for (_, events), ready in zip(turns, wanted, strict=True):
        asked |= {
            (e.link, e.message.client, e.message.sequence)
            for e in events
            if isinstance(e, Received) and isinstance(e.message, Operation)
        }
        for link, message in ready.now:
            if isinstance(message, Answer):
                assert (link, message.client, message.sequence) in asked


# --- one copy ------------------------------------------------------------------------------------


class Plain:
    """What a server that is asked alone answers, in the simplest words."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.told: dict[tuple[int, int], bool] = {}
        self.last: dict[int, int] = {}

    def ask(self, client: int, sequence: int, verb: str, name: str) -> list[Answer]:
        last = self.last.get(client, 0)
        if sequence > last + 1:
            return [Answer(client, sequence, FORGOTTEN, False)]
        if sequence < last or sequence < 1:
            return []
        if sequence == last + 1:
            self.last[client] = sequence
            self.told[client, sequence] = (name not in self.held) == (verb == ACQUIRE)
            (self.held.add if verb == ACQUIRE else self.held.discard)(name)
        return [Answer(client, sequence, DONE, self.told[client, sequence])]


@given(
    role=st.sampled_from([PRIMARY, BACKUP]),
    asked=st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from([1, 1, 1, 0, 0, -1, 2]),
            st.sampled_from([ACQUIRE, RELEASE]),
            st.sampled_from("ab"),
        ),
        max_size=40,
    ),
)
@settings(max_examples=dose(ci=100, full=3000), deadline=None)
def test_alone_it_is_one_copy(role: str, asked: list[tuple[int, int, str, str]]) -> None:
    """New requests, repeated ones, late ones, and such of a client that it does not know."""
    machine, plain = server(role), Plain()
    for client, further, verb, name in asked:
        sequence = max(0, plain.last.get(client, 0) + further)
        expected = plain.ask(client, sequence, verb, name)
        said = turn(machine, (CLIENT, Operation(client, sequence, verb, name)))
        assert said == [(CLIENT, answer) for answer in expected]
    assert machine.held == plain.held


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "name", "status"),
    [
        (ACQUIRE, "é" * NAME_CHARACTERS_MAX, DONE),
        (ACQUIRE, "x" * (NAME_CHARACTERS_MAX + 1), INVALID),
        (RELEASE, "", INVALID),
        ("steal", "a", INVALID),
    ],
)
@pytest.mark.parametrize("role", [PRIMARY, BACKUP])
def test_what_is_no_operation_changes_nothing(role: str, verb: str, name: str, status: str) -> None:
    machine = server(role)
    changed = status == DONE
    said = turn(machine, (CLIENT, Operation(1, 1, verb, name)))
    assert said == [(CLIENT, Answer(1, 1, status, changed))]
    assert (machine.applied, len(machine.held)) == (changed, changed)
    if not changed:
        assert machine.role == (ALONE if role == PRIMARY else BACKUP)
        said = turn(machine, (CLIENT, Operation(1, 1, ACQUIRE, "a")))
        assert said == [(CLIENT, Answer(1, 1, DONE, True))]


def test_much_is_forwarded_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PART_BYTES", 130)
    machine = server(PRIMARY, "backup")
    asked = [Operation(client, 1, ACQUIRE, "a" * client) for client in range(1, 6)]
    said = turn(machine, *((CLIENT, operation) for operation in asked))
    assert [link for link, _ in said] == [THERE] * 3
    forwards = [message for _, message in said]
    assert [forward.first for forward in forwards] == [1, 3, 5]
    assert [o for forward in forwards for o in forward.operations] == asked


# --- whom it believes ----------------------------------------------------------------------------

FORWARD = Forward(1, (Operation(1, 1, ACQUIRE, "a"),))


@pytest.mark.parametrize("message", [FORWARD, Alone()])
def test_clients_are_no_primaries(message: Any) -> None:
    backup = server(BACKUP)
    assert turn(backup, (CLIENT, message)) == []
    assert (backup.role, backup.held) == (BACKUP, set())


@pytest.mark.parametrize("message", [Applied(1), Refusal()])
@pytest.mark.parametrize("link", [CLIENT, SERVER, peer("elsewhere")])
def test_only_the_backup_speaks_for_it(message: Any, link: Link) -> None:
    primary = server(PRIMARY, "backup")
    turn(primary, (CLIENT, Operation(1, 1, ACQUIRE, "a")))
    assert turn(primary, (link, message)) == []
    assert (primary.role, primary.applied) == (PRIMARY, 0)
    assert turn(primary, (THERE, message)) != []


@pytest.mark.parametrize("message", [FORWARD, Alone(), Applied(1), Refusal()])
def test_a_primary_has_no_primary(message: Any) -> None:
    primary = server(PRIMARY, "backup")
    assert turn(primary, (SERVER, message)) == []
    assert (primary.role, primary.held) == (PRIMARY, set())


def test_an_answer_goes_where_it_was_asked_for_last() -> None:
    primary, elsewhere = server(PRIMARY, "backup"), Link("client", 9)
    operation = Operation(1, 1, ACQUIRE, "a")
    turn(primary, (CLIENT, operation), (elsewhere, operation))
    assert turn(primary, (THERE, Applied(1))) == [(elsewhere, Answer(1, 1, DONE, True))]


def test_a_retired_server_says_so_to_everybody() -> None:
    backup = server(BACKUP)
    turn(backup, (SERVER, FORWARD))
    turn(backup, (SERVER, Alone()))
    for sequence in (1, 2, 9):
        said = turn(backup, (CLIENT, Operation(1, sequence, ACQUIRE, "a")))
        assert said == [(CLIENT, Answer(1, sequence, RETIRED, False))]


# --- when it wakes -------------------------------------------------------------------------------


def wakes(machine: LockServer, events: Sequence[Event] = (), now: int = 0) -> int | None:
    machine.step(now, events)
    ready: Ready = machine.ready()
    return ready.wake_at


def test_an_idle_server_sleeps() -> None:
    for machine in (server(PRIMARY), server(PRIMARY, "backup"), server(BACKUP)):
        assert wakes(machine) is None
        assert wakes(machine, [Linked(THERE, True)]) is None
    assert wakes(server(BACKUP), [Received(SERVER, FORWARD)]) is None


def test_a_primary_wakes_to_repeat_to_give_up_and_to_warn() -> None:
    machine = server(PRIMARY, "backup")
    what = machine.settings
    ask = [Received(CLIENT, Operation(1, 1, ACQUIRE, "a"))]
    assert wakes(machine, ask, now=0) == what.retry
    last = what.patience - 1
    assert wakes(machine, now=last) == what.patience
    assert machine.role == PRIMARY
    assert wakes(machine, now=what.patience) == 2 * what.patience
    assert machine.role == ALONE
    assert wakes(machine, [Received(THERE, Refusal())], now=what.patience) is None
    assert machine.role == GONE


def test_an_acknowledgement_gives_the_backup_time_again() -> None:
    machine = server(PRIMARY, "backup")
    what = machine.settings
    turn(machine, (CLIENT, Operation(1, 1, ACQUIRE, "a")), (CLIENT, Operation(2, 1, ACQUIRE, "b")))
    turn(machine, (THERE, Applied(1)), now=what.patience - 1)
    turn(machine, now=2 * what.patience - 2)
    assert machine.role == PRIMARY
    turn(machine, now=2 * what.patience - 1)
    assert machine.role == ALONE


@pytest.mark.parametrize(("late", "role"), [(0, ALONE), (1, PRIMARY)])
def test_a_primary_that_slept_asks_before_it_goes_alone(late: int, role: str) -> None:
    machine = server(PRIMARY, "backup")
    what = machine.settings
    turn(machine, (CLIENT, Operation(1, 1, ACQUIRE, "a")))
    now = 9 * SECOND
    machine.step(now, [Overslept(what.grace + late)])
    assert machine.role == role
    said = [message for _, message in machine.ready().now]
    assert (FORWARD in said) == (role == PRIMARY)
    machine.step(now + what.patience - 1, [])
    assert machine.role == role
    machine.step(now + what.patience, [])
    assert machine.role == ALONE
