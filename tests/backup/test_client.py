"""The store's client, turn by turn: whom it asks, when it asks for the view, how it ends."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from scripts import Talk

from engine.backup.client import Clerk, Store
from engine.backup.machine import Settings, StoreServer
from engine.backup.messages import (
    APPEND,
    FORGOTTEN,
    GET,
    KEY_CHARACTERS_MAX,
    NO_KEY,
    OK,
    PUT,
    TOO_LARGE,
    VALUE_CHARACTERS_MAX,
    WRONG_SERVER,
    Answer,
    Operation,
)
from engine.contract import SECOND, Link, Received, peer
from engine.errors import ConnectionFailed, OutcomeUnknown, UsageError
from engine.views.messages import NOBODY, View

FIRST = Operation(7, 1, APPEND, "a", "x")
S1 = View(0, 1, "s1", 1, NOBODY, 0)
S2 = View(0, 2, "s2", 1, NOBODY, 0)


def told(status: str, value: str = "", *, sequence: int = 1, client: int = 7) -> Answer:
    return Answer(client, sequence, status, value)


def knowing(primary: str = "s1") -> Clerk:
    """A client that found this primary before."""
    clerk = Clerk(7, "views")
    clerk.primary = primary
    return clerk


def asking(clerk: Clerk | None = None, patience: int | None = None) -> Talk:
    """Its first request, which has been asked once."""
    talk = Talk((clerk or knowing()).call(APPEND, "a", "x", patience))
    talk.turn()
    return talk


def asked(said: list[tuple[str, Any]]) -> list[str]:
    """What was said, without the numbers of questions."""
    return [f"{address} {type(message).__name__}" for address, message in said]


# --- whom it asks --------------------------------------------------------------------------------


def test_at_first_it_asks_who_is_primary() -> None:
    clerk = Clerk(7, "views")
    talk = Talk(clerk.call(APPEND, "a", "x"))
    assert asked(talk.turn()) == ["views Get"]
    assert talk.hears("views", S1._replace(primary=NOBODY)) == []
    assert asked(talk.turn(seconds=0.1)) == ["views Get"]
    assert asked(talk.sees("views", up=True)) == ["views Get"]
    assert talk.hears("views", S1) == [("s1", FIRST)]
    talk.hears("s1", told(OK))
    assert talk.answer == ""
    assert clerk.primary == "s1"


def test_as_long_as_it_is_answered_it_asks_only_the_primary() -> None:
    clerk = knowing()
    for sequence in range(1, 50):
        talk = Talk(clerk.call(APPEND, "a", "x"))
        assert talk.turn() == [("s1", FIRST._replace(sequence=sequence))]
        assert talk.turn(seconds=0.09) == []
        talk.hears("s1", told(OK, sequence=sequence))
        assert talk.answer == ""
        assert talk.silence(9) == []


def test_without_an_answer_it_asks_for_the_view_as_well() -> None:
    talk = asking()
    assert asked(talk.turn(seconds=0.1)) == ["s1 Operation", "views Get"]
    assert talk.hears("views", S1) == []
    assert asked(talk.turn(seconds=0.1)) == ["s1 Operation", "views Get"]
    talk.hears("s1", told(OK))
    assert talk.answer == ""


def test_it_follows_a_new_primary() -> None:
    """With the same number, so that what the old one did is not done again."""
    clerk = knowing()
    talk = asking(clerk)
    talk.turn(seconds=0.1)
    assert talk.hears("views", S2) == [("s2", FIRST)]
    assert talk.turn(seconds=0.1)[0] == ("s2", FIRST)
    talk.hears("s2", told(OK))
    assert talk.answer == ""
    assert Talk(clerk.call(GET, "a")).turn() == [("s2", Operation(7, 2, GET, "a", ""))]


def test_a_view_without_a_primary_is_no_news() -> None:
    clerk = knowing()
    talk = asking(clerk)
    assert talk.hears("views", S1._replace(primary=NOBODY)) == []
    assert clerk.primary == "s1"


def test_the_wrong_server_is_no_answer() -> None:
    """That does not mean that somebody else is primary already: it is asked again in a while."""
    talk = asking()
    assert talk.hears("s1", told(WRONG_SERVER)) == []
    assert talk.call.outcome is None
    assert asked(talk.turn(seconds=0.1)) == ["s1 Operation", "views Get"]


def test_an_answer_of_the_one_asked_before_counts() -> None:
    talk = asking()
    talk.hears("views", S2)
    talk.hears("s1", told(OK))
    assert talk.answer == ""


@pytest.mark.parametrize("answer", [told(OK, sequence=2), told(OK, client=8), FIRST])
def test_what_answers_nothing_is_no_answer(answer: Any) -> None:
    talk = asking()
    talk.hears("s1", answer)
    assert talk.call.outcome is None


def test_whoever_comes_is_asked_at_once() -> None:
    talk = asking()
    assert asked(talk.sees("s1", up=True))[0] == "s1 Operation"
    assert talk.sees("s1", up=False) == []


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "answer", "result"),
    [
        (GET, told(OK, "xx"), "xx"),
        (GET, told(OK, ""), ""),
        (GET, told(NO_KEY), None),
        (PUT, told(OK), ""),
        (APPEND, told(OK), ""),
    ],
)
def test_answers(verb: str, answer: Answer, result: str | None) -> None:
    talk = Talk(knowing().call(verb, "a"))
    talk.turn()
    talk.hears("s1", answer)
    assert talk.answer == result


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (TOO_LARGE, UsageError, "left as it is"),
        (FORGOTTEN, OutcomeUnknown, "forgotten this client"),
    ],
)
def test_refusals(status: str, error: type[Exception], text: str) -> None:
    talk = asking()
    talk.hears("s1", told(status))
    assert type(talk.error) is error
    assert text in str(talk.error)


# --- how it ends otherwise -----------------------------------------------------------------------


def test_time_runs_out_and_there_was_no_primary() -> None:
    """The view service was there: that it was asked changes nothing."""
    talk = asking(Clerk(7, "views"), patience=SECOND)
    talk.sees("views", up=True)
    talk.silence(1)
    assert type(talk.error) is ConnectionFailed
    assert str(talk.error).startswith("No answer from the view service at views")


def test_time_runs_out_and_the_primary_was_not_there() -> None:
    talk = asking(patience=SECOND)
    talk.sees("views", up=True)
    talk.silence(1)
    assert type(talk.error) is ConnectionFailed
    assert "s1, the last primary that views named" in str(talk.error)


def test_time_runs_out_and_it_may_have_been_done() -> None:
    talk = asking(patience=SECOND)
    talk.sees("s1", up=True)
    talk.silence(0.99)
    assert talk.call.outcome is None
    talk.silence(0.01)
    assert type(talk.error) is OutcomeUnknown


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("k" * (KEY_CHARACTERS_MAX + 1), "", "512 characters"),
        ("a", "v" * (VALUE_CHARACTERS_MAX + 1), "1,048,576 characters"),
    ],
)
def test_what_is_too_large_is_not_sent(key: str, value: str, text: str, tmp_path: Path) -> None:
    """Nobody listens there: it would take all the time that it has. And it costs no number."""
    clerk = knowing()
    for verb in (GET, PUT, APPEND):
        with pytest.raises(UsageError, match=text):
            clerk.call(verb, key, value)
    assert Talk(clerk.call(APPEND, "a", "x")).turn() == [("s1", FIRST)]
    with Store(f"ipc://{tmp_path}/v", timeout=None) as store:
        for method in (store.put, store.append):
            with pytest.raises(UsageError, match=text):
                method(key, value)


def test_after_a_request_that_reached_nobody_the_next_one_is_done() -> None:
    """The first ended with "nothing was done": then there is nothing that a server may have
    forgotten."""
    clerk = knowing()
    lost = asking(clerk, patience=SECOND)
    lost.silence(1)
    assert type(lost.error) is ConnectionFailed
    server, client = StoreServer(Settings("s1", "views", 1), random.Random(1)), Link("client", 1)
    server.step(0, [Received(peer("views"), S1)])
    server.step(1, [Received(peer("views"), S1._replace(asked=0))])
    talk = Talk(clerk.call(APPEND, "a", "x"))
    server.ready()
    server.step(2, [Received(client, request) for _, request in talk.turn()])
    for link, message in server.ready().now:
        if link == client:
            talk.hears("s1", message)
    assert talk.answer == ""


def test_after_a_request_of_unknown_outcome_it_goes_on_as_another_client() -> None:
    """Nobody can tell whether a server has done it: the next number of the old client would be new
    to one server and unknown to another. An answer that comes late means nothing."""
    clerk = knowing()
    lost = asking(clerk, patience=SECOND)
    lost.sees("s1", up=True)
    lost.silence(1)
    assert type(lost.error) is OutcomeUnknown
    talk = Talk(clerk.call(GET, "b"))
    [(_, request)] = talk.turn()
    assert request == Operation(request.client, 1, GET, "b", "")
    assert request.client != FIRST.client
    talk.hears("s1", told(OK, "x"))
    assert talk.call.outcome is None
    talk.hears("s1", told(OK, "y", client=request.client))
    assert talk.answer == "y"
    [(_, second)] = Talk(clerk.call(GET, "c")).turn()
    assert (second.client, second.sequence) == (request.client, 2)


@pytest.mark.parametrize("status", [NO_KEY, TOO_LARGE])
def test_a_refusal_is_an_answer(status: str) -> None:
    """The server has counted the request, and the next one follows it."""
    clerk = knowing()
    talk = asking(clerk)
    talk.hears("s1", told(status))
    [(_, second)] = Talk(clerk.call(GET, "c")).turn()
    assert (second.client, second.sequence) == (7, 2)
