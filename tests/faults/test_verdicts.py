"""The books of a run: each history that is broken in one way must be called wrong for that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from engine.faults.verdicts import Changes, Traffic, Violation, judge_text, token_of

# --- texts ---------------------------------------------------------------------------------------


def test_a_text_as_it_should_be() -> None:
    judge_text("t", "", [], ["<a.1>"], ["<a.2>"])
    judge_text("t", "<a.1><b.1><a.3>", ["<b.1>", "<a.1>"], ["<a.3>", "<a.4>"], ["<a.2>"])
    assert token_of("<a.1><b.1>") == "<b.1>"
    assert token_of("<b.1>") == "<b.1>"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<a.1><b.1><a.1>", "<a.1> is there 2 times"),
        ("<a.1><u.1><u.1>", "<u.1> is there 2 times"),
        ("<b.1>", "<a.1> was acknowledged and is lost"),
        ("", "was acknowledged and is lost"),
        ("<a.1><b.1><r.1>", "<r.1> was said not to be done, and is there"),
        ("<a.1><b.1><x.1>", "<x.1> was never written, and is there"),
        ("<a.1><b.1", "<b.1> was acknowledged and is lost"),
    ],
)
def test_broken_texts(text: str, says: str) -> None:
    known = ["<a.1>", "<b.1>"] if "<b" in text or not text else ["<a.1>"]
    with pytest.raises(Violation, match=says):
        judge_text("t", text, known, ["<u.1>"], ["<r.1>"])


# --- changes -------------------------------------------------------------------------------------

Event = tuple[int, str, str | None]
EVENTS: list[Event] = [
    (1, "k/a", "<a.1>"),
    (2, "k/t", "<b.1>"),
    (4, "k/a", "<a.2>"),  # 3 was of another key, which nobody watches
    (4, "k/b", "<a.3>"),
    (5, "k/t", "<b.1><u.1>"),
    (6, "k/a", None),
    (7, "k/t", "<b.1><u.1><b.2>"),
]
ACKNOWLEDGED = [
    (1, "k/a", "<a.1>"),
    (2, "k/t", "<b.1>"),
    (4, "k/a", "<a.2>"),
    (4, "k/b", "<a.3>"),
    (6, "k/a", ""),
    (7, "k/t", "<b.2>"),
]


def play(
    events: list[Event], acknowledged: list[tuple[int, str, str]], seed: int = 0, refused: str = ""
) -> None:
    """In any order of the two, as it comes with threads."""
    rng, changes = random.Random(seed), Changes()
    left, said = list(events), list(acknowledged)
    if refused and rng.random() < 0.5:
        changes.refused(refused)
        refused = ""
    while left or said:
        if left and (not said or rng.random() < 0.5):
            changes.told(*left.pop(0))
        else:
            changes.acknowledged(*said.pop(0))
    if refused:
        changes.refused(refused)
    changes.finish()


@pytest.mark.parametrize("seed", range(50))
def test_changes_as_they_should_be(seed: int) -> None:
    play(EVENTS, ACKNOWLEDGED, seed, refused="<a.9>")


def _skipped(events: list[Event]) -> list[Event]:
    return events[:1] + events[2:]


def _last_skipped(events: list[Event]) -> list[Event]:
    return events[:-1]


def _half_a_revision(events: list[Event]) -> list[Event]:
    return events[:3] + events[4:]


def _twice(events: list[Event]) -> list[Event]:
    return events[:2] + events[1:]


def _out_of_order(events: list[Event]) -> list[Event]:
    return [events[1], events[0], *events[2:]]


def _told_again_later(events: list[Event]) -> list[Event]:
    return [*events, events[2]]


def _done_again(events: list[Event]) -> list[Event]:
    return [*events, (8, "k/a", "<a.1>")]


def _another_value(events: list[Event]) -> list[Event]:
    return [(1, "k/a", "<z.1>"), *events[1:]]


def _not_deleted(events: list[Event]) -> list[Event]:
    return [*events[:5], (6, "k/a", "<z.1>"), *events[6:]]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_skipped, "was not told of k/t at revision 2"),
        (_last_skipped, "was not told of k/t at revision 7"),
        (_half_a_revision, "was not told of k/b at revision 4"),
        (_twice, "twice, or out of order"),
        (_out_of_order, "twice, or out of order|was not told"),
        (_told_again_later, "twice, or out of order"),
        (_done_again, "<a.1> is done at revision 1, and again at 8"),
        (_another_value, "at which <a.1> was acknowledged"),
        (_not_deleted, "at which its deletion was acknowledged"),
    ],
)
def test_broken_changes(change: Callable[[list[Event]], list[Event]], says: str, seed: int) -> None:
    with pytest.raises(Violation, match=says):
        play(change(EVENTS), ACKNOWLEDGED, seed)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_refused_is_done(seed: int) -> None:
    with pytest.raises(Violation, match=r"<u\.1> was said not to be done, and is done"):
        play(EVENTS, ACKNOWLEDGED, seed, refused="<u.1>")


def test_what_is_forgotten_is_not_judged() -> None:
    changes = Changes()
    changes.told(1, "k/a", "<a.1>")
    changes.refused("<a.2>")
    changes.forget(["<a.1>", "<a.2>"])
    changes.told(2, "k/a", "<a.1>")
    changes.told(3, "k/a", "<a.2>")


# --- traffic -------------------------------------------------------------------------------------

ASKED = ("get", "put")
ENOUGH = {"get": 300, "put": 200}
HAPPENED = {"kill": 2, "pause": 1, "split": 1, "quiet": 3}


def test_enough_traffic() -> None:
    assert not Traffic(16, 20).missing(ENOUGH, ASKED, HAPPENED, 3)
    assert not Traffic(16, 20).missing(ENOUGH, ASKED, HAPPENED, None)
    assert not Traffic(2, 1).missing({"get": 40}, ASKED, {"kill": 1}, None)


@pytest.mark.parametrize(
    ("acknowledged", "happened", "cut_reads", "says"),
    [
        ({"get": 200, "put": 100}, HAPPENED, 3, "only 300 operations were acknowledged, of 320"),
        ({"get": 900}, HAPPENED, 3, "never acknowledged: put"),
        (ENOUGH, {"kill": 9}, 3, "only 1 kinds of accidents happened, of 4"),
        (ENOUGH, HAPPENED, 0, "no read was answered while replicas did not reach each other"),
    ],
)
def test_too_little_traffic(
    acknowledged: dict[str, int], happened: dict[str, int], cut_reads: int, says: str
) -> None:
    (found,) = Traffic(16, 20).missing(acknowledged, ASKED, happened, cut_reads)
    assert says in found
