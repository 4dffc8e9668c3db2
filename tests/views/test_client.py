"""The view service's client, turn by turn."""

from __future__ import annotations

from typing import Any

import pytest
from scripts import Talk

from engine.contract import SECOND
from engine.errors import ConnectionFailed, OutcomeUnknown
from engine.views.client import ViewCall
from engine.views.messages import NOBODY, Get, Ping, View

VIEW = View(5, 2, "s1", 1, "s2", 1)
GET, PING = Get(5), Ping(5, "s1", 1, 2)


def ask(question: Get | Ping, patience: int | None = None) -> Talk:
    return Talk(ViewCall("views", question, patience, set()))


@pytest.mark.parametrize("question", [GET, PING])
def test_a_question_is_asked_until_it_is_answered(question: Get | Ping) -> None:
    talk = ask(question)
    asked = [("views", question)]
    assert talk.turn() == asked
    assert talk.turn(seconds=0.09) == []
    assert talk.turn(seconds=0.01) == asked
    assert talk.sees("views", up=True) == asked
    assert talk.sees("views", up=False) == []
    assert talk.hears("views", VIEW) == []
    assert talk.answer == VIEW
    assert talk.silence(9) == []


def test_there_may_be_no_view_yet() -> None:
    talk = ask(GET)
    nothing = View(5, 0, NOBODY, 0, NOBODY, 0)
    talk.hears("views", nothing)
    assert talk.answer == nothing


@pytest.mark.parametrize("answer", [VIEW._replace(asked=4), VIEW._replace(asked=6), GET, PING])
def test_what_answers_another_question_is_no_answer(answer: Any) -> None:
    talk = ask(GET)
    talk.hears("views", answer)
    assert talk.call.outcome is None


@pytest.mark.parametrize(
    ("question", "linked", "error"),
    [
        (GET, False, ConnectionFailed),
        (PING, False, ConnectionFailed),
        (GET, True, ConnectionFailed),
        (PING, True, OutcomeUnknown),
    ],
)
def test_time_runs_out(question: Get | Ping, linked: bool, error: type[Exception]) -> None:
    """A ping that was handed over counts, whether or not its answer comes; asking changes
    nothing."""
    talk = ask(question, patience=SECOND)
    talk.turn()
    if linked:
        talk.sees("views", up=True)
    talk.silence(0.99)
    assert talk.call.outcome is None
    talk.silence(0.01)
    assert type(talk.error) is error
    assert "No answer from the view service at views (waited 1 s)" in str(talk.error)
