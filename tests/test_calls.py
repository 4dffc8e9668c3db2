"""A client's request until its outcome is known: when it is asked, and how it may end."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support import dose

from engine.calls import Call, Outcome
from engine.contract import SECOND, Event, Link, Linked, Nanos, Ready, Received, Server, peer
from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown, RefusedError

A, B = "ipc:///a", "ipc:///b"
RETRY = Call.retry


class Question(Call):
    """Asks everybody in `whom`, and is answered by whatever is not "no"."""

    def __init__(
        self,
        patience: Nanos | None = None,
        up: set[str] | None = None,
        whom: tuple[str, ...] = (A,),
        harmless: bool = False,
    ) -> None:
        super().__init__(patience, set() if up is None else up)
        self.whom, self.harmless = whom, harmless
        self.asked: list[Nanos] = []
        self.heard: list[tuple[str, bool]] = []

    def ask(self, now: Nanos) -> None:
        self.asked.append(now)
        for address in self.whom:
            self.say(address, "?", harmless=self.harmless)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, EngineError):
            self.fail(message)
        elif message != "no":
            self.finish(message)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        self.heard.append((link.principal, up))

    def silence(self) -> str:
        return "No answer"


def came(address: str = A) -> Linked:
    return Linked(peer(address), True)


def went(address: str = A) -> Linked:
    return Linked(peer(address), False)


def said(message: Any, address: str = A) -> Received:
    return Received(peer(address), message)


def run(call: Call, *steps: tuple[Nanos, list[Event]]) -> Call:
    for now, events in steps:
        call.step(now, events)
        call.ready()
    return call


# --- asking --------------------------------------------------------------------------------------


def test_it_asks_at_once_and_then_every_retry() -> None:
    call = Question()
    times = [10, 11, 10 + RETRY - 1, 10 + RETRY, 10 + RETRY + 5, 10 + 2 * RETRY, 10 + 9 * RETRY]
    for now in times:
        call.step(now, [])
        ready = call.ready()
        asks = bool(call.asked) and call.asked[-1] == now
        assert [send.link for send in ready.now] == ([peer(A)] if asks else [])
        assert ready.wake_at == call.asked[-1] + RETRY
    assert call.asked == [10, 10 + RETRY, 10 + 2 * RETRY, 10 + 9 * RETRY]


def test_what_was_said_is_handed_out_once() -> None:
    call = Question(whom=(A, B))
    call.step(0, [])
    assert [(s.link, s.message) for s in call.ready().now] == [(peer(A), "?"), (peer(B), "?")]
    assert call.ready().now == ()


def test_a_subclass_says_when_to_ask_next() -> None:
    class Eager(Question):
        def linked(self, now: Nanos, link: Link, up: bool) -> None:
            self.ask_at(now if up else now + 7)

        def ask(self, now: Nanos) -> None:
            super().ask(now)
            if len(self.asked) == 1:
                self.ask_at(now + 3)

    call = Eager(patience=SECOND)
    run(call, (0, []))
    assert call.ready().wake_at == 3, "what `ask` itself says counts"
    run(call, (3, []), (5, [came()]), (6, [went()]))
    assert call.ready().wake_at == 13
    run(call, (12, []), (13, []))
    assert call.asked == [0, 3, 5, 13]


# --- how it ends ---------------------------------------------------------------------------------


def test_an_answer_ends_it_and_nothing_changes_that() -> None:
    call = Question(patience=SECOND, up={A})
    run(call, (0, []), (1, [said("no"), said("yes"), said("yes again"), said(RefusedError("x"))]))
    assert call.outcome == Outcome("yes")
    later: list[Event] = [said("other"), said(RefusedError("x")), went(), came(B)]
    run(call, (2, later), (5 * SECOND, []))
    assert call.outcome == Outcome("yes")
    assert call.asked == [0]
    assert call.ready() == Ready(), "nothing to say, nothing to wait for"
    assert call.heard == [], "what comes after the outcome is not the call's business"
    assert call.up == {B}, "but who is there is the next call's"


def test_none_is_an_answer() -> None:
    call = run(Question(), (0, []), (1, [said(None)]))
    assert call.outcome == Outcome(None, None)


def test_an_error_ends_it_too() -> None:
    error = RefusedError("not here")
    call = run(Question(), (0, []), (1, [said(error), said("yes")]))
    assert call.outcome == Outcome(None, error)


def test_an_answer_in_the_last_moment_counts() -> None:
    call = run(Question(patience=10, up={A}), (0, []), (99, [said("late")]))
    assert call.outcome == Outcome("late")


@pytest.mark.parametrize("now", [0, 1, 10**18])
def test_patience_begins_with_the_first_turn(now: Nanos) -> None:
    call = run(Question(patience=SECOND), (now, []), (now + SECOND - 1, []))
    assert call.outcome is None
    run(call, (now + SECOND, []))
    assert call.outcome is not None
    assert "No answer (waited 1 s): nothing was done." in str(call.outcome.error)


def test_no_patience_at_all_ends_in_the_first_turn() -> None:
    call = run(Question(patience=0, up={A}), (5, []))
    assert call.outcome is not None
    assert isinstance(call.outcome.error, ConnectionFailed)
    assert call.asked == []


def test_endless_patience_waits() -> None:
    call = run(Question(up={A}), *((n * 10**18, []) for n in range(10)))
    assert call.outcome is None
    assert len(call.asked) == 10


HANDED_OVER = [
    # (who is linked before, whom it asks, harmless, events of the second turn, error)
    (set(), (A,), False, [], ConnectionFailed),
    ({A}, (A,), False, [], OutcomeUnknown),
    ({B}, (A,), False, [], ConnectionFailed),
    ({B}, (A, B), False, [], OutcomeUnknown),
    ({A}, (A,), True, [], ConnectionFailed),
    (set(), (A,), False, [came()], OutcomeUnknown),
    ({A}, (A,), False, [went()], OutcomeUnknown),
    (set(), (A,), False, [came(), went()], ConnectionFailed),
    (set(), (A,), False, [came(B)], ConnectionFailed),
]


@pytest.mark.parametrize(("up", "whom", "harmless", "events", "error"), HANDED_OVER)
def test_it_is_unknown_if_it_was_handed_to_somebody(
    up: set[str], whom: tuple[str, ...], harmless: bool, events: list[Event], error: type
) -> None:
    call = Question(SECOND, set(up), whom, harmless)
    run(call, (0, []), (RETRY, events), (SECOND, []))
    assert call.outcome is not None
    assert type(call.outcome.error) is error
    tells = "may have been done" if error is OutcomeUnknown else "nothing was done"
    assert tells in str(call.outcome.error)


def test_who_is_linked_is_known_to_the_next_call() -> None:
    up: set[str] = set()
    first = Question(up=up)
    run(first, (0, []), (1, [came(), came(B), said("yes")]))
    assert up == {A, B}
    second = Question(SECOND, up)
    run(second, (2, []), (3, [went()]), (2 + SECOND, []))
    assert second.outcome is not None
    assert isinstance(second.outcome.error, OutcomeUnknown)
    assert up == {B}
    third = Question(SECOND, up)
    run(third, (2 * SECOND, []), (4 * SECOND, []))
    assert third.outcome is not None
    assert isinstance(third.outcome.error, ConnectionFailed)


def test_the_base_asks_nobody() -> None:
    call = Call(None, set())
    with pytest.raises(NotImplementedError):
        call.step(0, [])
    with pytest.raises(NotImplementedError):
        call.take(0, peer(A), "")
    with pytest.raises(NotImplementedError):
        call.silence()
    call.linked(0, peer(A), True)
    call.check()


# --- whatever happens ----------------------------------------------------------------------------

EVENTS = st.sampled_from(
    [came(), came(B), went(), went(B), said("no"), said("yes"), said("other", B), said(None)]
)
STEPS = st.lists(st.tuples(st.integers(0, 2 * RETRY), st.lists(EVENTS, max_size=3)), max_size=12)


def predicted(
    patience: Nanos | None, up: set[str], whom: tuple[str, ...], steps: list[Any]
) -> tuple[Any, set[str], list[Nanos]]:
    """(outcome, who is linked, when it asked), told as a story and without any state of its own."""
    outcome: Any = None
    linked, asked, handed_over, began = set(up), [], False, steps[0][0] if steps else 0
    for now, events in steps:
        for event in events:
            if isinstance(event, Linked):
                linked = linked - {event.link.principal} | (
                    {event.link.principal} if event.up else set()
                )
            elif outcome is None and event.message != "no":
                outcome = ("answer", event.message)
        if outcome is None and patience is not None and now - began >= patience:
            outcome = ("error", OutcomeUnknown if handed_over else ConnectionFailed)
        if outcome is None and (not asked or now - asked[-1] >= RETRY):
            asked.append(now)
            handed_over = handed_over or bool(linked & set(whom))
    return outcome, linked, asked


@given(
    patience=st.none() | st.integers(0, 6 * RETRY),
    up=st.sets(st.sampled_from([A, B])),
    whom=st.sampled_from([(A,), (B,), (A, B)]),
    gaps=STEPS,
)
@settings(max_examples=dose(500, 20_000), deadline=None)
def test_whatever_happens(
    patience: Nanos | None, up: set[str], whom: tuple[str, ...], gaps: list[Any]
) -> None:
    steps, now = [], 3
    for gap, events in gaps:
        steps.append((now, events))
        now += gap
    call = Question(patience, set(up), whom)
    for index, (when, events) in enumerate(steps):
        call.step(when, events)
        ready = call.ready()
        outcome, linked, asked = predicted(patience, up, whom, steps[: index + 1])
        found = call.outcome
        if found is None:
            assert outcome is None
            assert ready.wake_at is not None
            assert ready.wake_at > when, "it would be busy"
        elif found.error is None:
            assert outcome == ("answer", found.answer)
        else:
            assert outcome == ("error", type(found.error))
        assert (ready.wake_at is None) == (found is not None)
        assert (call.up, call.asked) == (linked, asked)


@given(patience=st.none() | st.integers(1, 9 * RETRY), began=st.integers(0, 10**18))
def test_who_wakes_when_it_says_misses_nothing(patience: Nanos | None, began: Nanos) -> None:
    """Turned only at `wake_at`, every turn asks or ends."""
    call, now = Question(patience), began
    for turn in range(1, 30):
        call.step(now, [])
        if call.outcome is not None:
            assert patience is not None
            assert now == began + patience
            break
        assert len(call.asked) == turn
        wake_at = call.ready().wake_at
        assert wake_at is not None
        now = wake_at
    else:
        assert patience is None
    assert call.asked == [began + n * RETRY for n in range(len(call.asked))]


class Still:
    """A world in which nothing arrives and time stands still."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def now(self) -> Nanos:
        return 5

    def drain(self, frames: int, size: int) -> list[Event]:
        return []

    def send(self, sends: Any) -> None:
        self.sent += sends

    def point(self, name: str) -> None:
        pass


def test_it_runs_in_the_turn_of_every_server() -> None:
    world = Still()
    call = Question(SECOND)
    assert Server(call, world).turn() == 5 + RETRY  # type: ignore[arg-type]
    assert [(send.link, send.message) for send in world.sent] == [(peer(A), "?")]
