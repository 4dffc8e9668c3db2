"""The lock service's client, turn by turn: whom it asks, when it asks another, how it ends."""

from __future__ import annotations

import random
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from scripts import Talk

from engine.contract import SECOND, Link, Received
from engine.errors import ConnectionFailed, OutcomeUnknown, UsageError
from engine.locks.client import ARRIVAL, GRACE, PATIENCE, Clerk, Locks
from engine.locks.machine import PRIMARY, LockServer, Settings
from engine.locks.messages import (
    ACQUIRE,
    DONE,
    FORGOTTEN,
    INVALID,
    NAME_CHARACTERS_MAX,
    RELEASE,
    RETIRED,
    Answer,
    Operation,
)

FIRST = Operation(7, 1, ACQUIRE, "a")
DOWN_FOR_GOOD = GRACE / SECOND
NOT_THERE = ARRIVAL / SECOND
SILENT_FOR_GOOD = PATIENCE / SECOND
NEVER_THERE = ARRIVAL / SECOND
JUST_BEFORE = 0.999


def clerk(*servers: str) -> Clerk:
    return Clerk(7, servers or ("primary", "backup"))


def told(status: str, *, changed: bool = False, sequence: int = 1, client: int = 7) -> Answer:
    return Answer(client, sequence, status, changed)


def whom(said: list[tuple[str, Any]]) -> list[str]:
    return sorted({address for address, _ in said})


# --- one server that answers ---------------------------------------------------------------------


@pytest.mark.parametrize("changed", [True, False])
def test_the_primary_is_asked_and_answers(changed: bool) -> None:
    it = clerk()
    talk = Talk(it.acquire("a"))
    assert talk.turn() == [("primary", FIRST)]
    assert talk.hears("primary", told(DONE, changed=changed)) == []
    assert talk.answer is changed
    assert talk.silence(100) == []
    second = Talk(it.release("b"))
    assert second.turn() == [("primary", Operation(7, 2, RELEASE, "b"))]


def test_it_asks_again_until_it_is_answered() -> None:
    talk = Talk(clerk().acquire("a"))
    assert talk.turn() == [("primary", FIRST)]
    assert talk.turn(seconds=0.09) == []
    assert talk.turn(seconds=0.01) == [("primary", FIRST)]
    assert talk.sees("primary", up=True) == [("primary", FIRST)]


@pytest.mark.parametrize(
    ("address", "answer"),
    [
        ("primary", told(DONE, sequence=2)),
        ("primary", told(DONE, sequence=0)),
        ("primary", told(DONE, client=8)),
        ("somewhere else", told(DONE)),
        ("primary", FIRST),
    ],
)
def test_what_answers_nothing_is_no_answer(address: str, answer: Any) -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.hears(address, answer)
    assert talk.call.outcome is None


# --- from one server to the other ----------------------------------------------------------------


def test_a_primary_that_went_is_replaced_after_the_grace() -> None:
    it = clerk()
    talk = Talk(it.acquire("a"))
    talk.turn()
    talk.sees("primary", up=True)
    assert talk.sees("primary", up=False) == []
    assert talk.silence(JUST_BEFORE * DOWN_FOR_GOOD) == []
    said = talk.silence(DOWN_FOR_GOOD)
    assert whom(said) == ["backup"]
    assert said[0] == ("backup", FIRST)
    talk.hears("backup", told(DONE, changed=True))
    assert talk.answer is True
    # It stays with the backup.
    assert whom(Talk(it.acquire("b")).turn()) == ["backup"]


def test_a_primary_that_comes_back_within_the_grace_is_asked_at_once() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.sees("primary", up=True)
    talk.sees("primary", up=False)
    talk.silence(JUST_BEFORE * DOWN_FOR_GOOD)
    assert talk.sees("primary", up=True) == [("primary", FIRST)]
    assert whom(talk.silence(JUST_BEFORE * SILENT_FOR_GOOD)) == ["primary"]


def test_a_primary_that_is_there_and_silent_is_replaced_after_the_patience() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.sees("primary", up=True)
    assert whom(talk.silence(JUST_BEFORE * SILENT_FOR_GOOD)) == ["primary"]
    said = talk.silence(0.2)
    assert whom(said) == ["backup"]
    assert said[0] == ("backup", FIRST)


def test_a_primary_that_never_comes_is_replaced_sooner() -> None:
    it = clerk()
    talk = Talk(it.acquire("a"))
    assert whom(talk.silence(JUST_BEFORE * NOT_THERE)) == ["primary"]
    assert talk.silence(0.2)[-1] == ("backup", FIRST)


def test_so_is_one_that_is_gone_when_a_call_begins() -> None:
    it = clerk()
    it.up.add("backup")
    talk = Talk(it.acquire("a"))
    assert whom(talk.silence(JUST_BEFORE * NOT_THERE)) == ["primary"]
    assert talk.silence(0.2)[-1] == ("backup", FIRST)


def test_it_goes_back_to_a_primary_if_the_backup_was_never_there() -> None:
    talk = Talk(clerk().acquire("a"))
    said = talk.silence(4.5 * NOT_THERE)
    asked = [address for address, _ in groupby(said, lambda one: one[0])]
    assert asked[:4] == ["primary", "backup", "primary", "backup"]
    assert {message for _, message in said} == {FIRST}


def asking_the_backup() -> Talk:
    """The primary never came."""
    talk = Talk(clerk().acquire("a"))
    assert talk.silence(NOT_THERE + 0.2)[-1] == ("backup", FIRST)
    return talk


def test_it_goes_back_to_the_primary_if_the_backup_is_silent() -> None:
    talk = asking_the_backup()
    assert talk.sees("backup", up=True) == [("backup", FIRST)]
    assert whom(talk.silence(JUST_BEFORE * SILENT_FOR_GOOD)) == ["backup"]
    assert whom(talk.silence(0.2)) == ["primary"]
    talk.hears("primary", told(DONE))
    assert talk.answer is False


def test_an_answer_of_the_one_asked_before_counts() -> None:
    talk = asking_the_backup()
    talk.hears("primary", told(DONE, changed=True))
    assert talk.answer is True


def test_a_lone_server_is_asked_for_ever() -> None:
    talk = Talk(clerk("only").acquire("a"))
    assert whom(talk.silence(3 * SILENT_FOR_GOOD)) == ["only"]
    assert talk.call.outcome is None


# --- servers that have retired -------------------------------------------------------------------


def test_a_retired_primary_sends_it_to_the_backup_for_good() -> None:
    it = clerk()
    talk = Talk(it.acquire("a"))
    talk.turn()
    assert talk.hears("primary", told(RETIRED)) == [("backup", FIRST)]
    # A repeated answer moves nothing.
    assert talk.hears("primary", told(RETIRED)) == []
    assert whom(talk.silence(3 * SILENT_FOR_GOOD)) == ["backup"]
    talk.hears("backup", told(DONE, changed=True))
    assert talk.answer is True
    assert whom(Talk(it.acquire("b")).silence(3 * SILENT_FOR_GOOD)) == ["backup"]


def test_a_backup_that_has_retired_sends_it_back() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    assert talk.silence(NEVER_THERE + 0.05)[-1] == ("backup", FIRST)
    assert talk.hears("backup", told(RETIRED)) == [("primary", FIRST)]
    assert whom(talk.silence(3 * SILENT_FOR_GOOD)) == ["primary"]


def test_both_have_retired() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.hears("primary", told(RETIRED))
    assert talk.hears("backup", told(RETIRED)) == []
    assert isinstance(talk.error, OutcomeUnknown)
    assert "start both again" in str(talk.error)


def test_the_only_one_has_retired() -> None:
    talk = Talk(clerk("only").acquire("a"))
    talk.turn()
    talk.hears("only", told(RETIRED))
    assert isinstance(talk.error, OutcomeUnknown)


# --- how it ends otherwise -----------------------------------------------------------------------


def test_a_forgotten_client_does_not_know() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.hears("primary", told(FORGOTTEN))
    assert isinstance(talk.error, OutcomeUnknown)
    assert "primary has forgotten this client" in str(talk.error)


def test_a_name_that_only_the_server_refuses() -> None:
    talk = Talk(clerk().acquire("a"))
    talk.turn()
    talk.hears("primary", told(INVALID))
    assert isinstance(talk.error, UsageError)


def test_time_runs_out_and_nobody_was_there() -> None:
    talk = Talk(clerk().acquire("a", patience=SECOND))
    assert talk.silence(0.9)
    assert talk.silence(0.2) == []
    assert isinstance(talk.error, ConnectionFailed)
    assert "primary or backup (waited 1 s): nothing was done" in str(talk.error)


def test_time_runs_out_and_it_may_have_been_done() -> None:
    talk = Talk(clerk().acquire("a", patience=SECOND))
    talk.turn()
    talk.sees("primary", up=True)
    talk.silence(1)
    assert isinstance(talk.error, OutcomeUnknown)


@pytest.mark.parametrize("name", ["", "x" * (NAME_CHARACTERS_MAX + 1)])
def test_a_name_that_is_none_is_not_sent(name: str, tmp_path: Path) -> None:
    """Nobody listens there: it would take all the time that it has. And it costs no number."""
    it = clerk()
    with pytest.raises(UsageError, match="512 characters"):
        it.acquire(name)
    assert Talk(it.acquire("a")).turn() == [("primary", FIRST)]
    with Locks([f"ipc://{tmp_path}/s"], timeout=None) as locks:
        for verb in (locks.acquire, locks.release):
            with pytest.raises(UsageError, match="512 characters"):
                verb(name)


@pytest.mark.parametrize("count", [0, 3])
def test_there_are_one_or_two_servers(count: int) -> None:
    with pytest.raises(UsageError, match="primary and perhaps a backup"):
        Locks(["ipc:///nowhere"] * count)


def test_after_a_request_that_reached_nobody_the_next_one_is_done() -> None:
    """The first ended with "nothing was done": then there is nothing that a server may have
    forgotten."""
    it = clerk("only")
    lost = Talk(it.acquire("a", patience=SECOND))
    lost.silence(1)
    assert isinstance(lost.error, ConnectionFailed)
    server, client = LockServer(Settings(PRIMARY), random.Random(1)), Link("client", 1)
    talk = Talk(it.acquire("a"))
    for _, request in talk.turn():
        server.step(0, [Received(client, request)])
    for send in server.ready().now:
        talk.hears("only", send.message)
    assert talk.answer is True


def test_after_a_request_of_unknown_outcome_it_goes_on_as_another_client() -> None:
    """Nobody can tell whether the server has done it: the next number of the old client would be
    new to one server and unknown to another. An answer that comes late means nothing."""
    it = clerk("only")
    lost = Talk(it.acquire("a", patience=SECOND))
    lost.turn()
    lost.sees("only", up=True)
    lost.silence(1)
    assert isinstance(lost.error, OutcomeUnknown)
    talk = Talk(it.acquire("b"))
    [(_, request)] = talk.turn()
    assert request == Operation(request.client, 1, ACQUIRE, "b")
    assert request.client != FIRST.client
    talk.hears("only", told(DONE, changed=True))
    assert talk.call.outcome is None
    talk.hears("only", told(DONE, changed=True, client=request.client))
    assert talk.answer is True
    [(_, second)] = Talk(it.acquire("c")).turn()
    assert (second.client, second.sequence) == (request.client, 2)


@pytest.mark.parametrize("name", ["", "a" * 513, "\ud800"], ids=["none", "too long", "no text"])
def test_a_name_that_no_lock_can_have_is_never_sent(name: str) -> None:
    it = clerk()
    with pytest.raises(UsageError):
        it.acquire(name)
    assert it.numbers.next() == (7, 1)
