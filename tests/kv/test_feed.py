"""A watch on the client's side: every revision handed out once, whoever tells it."""

from __future__ import annotations

import random

import pytest

from engine.contract import SECOND, Linked, Received, peer
from engine.kv.desk import LOOK_AGAIN, Desk
from engine.kv.feed import CREDIT, Feed
from engine.kv.history import Compacted
from engine.kv.requests import AskHeld, Held, Watch, Watched, held_mark
from engine.kv.tellers import SILENCE
from engine.raft.requests import Rejected

SERVERS = ("ipc:///a", "ipc:///b")


class Watcher:
    """A feed and its desk, on replicas whose words the test makes up."""

    def __init__(self, after: int = 0) -> None:
        self.desk = Desk(SERVERS, random.Random(1))
        self.now = SECOND
        self.feed = Feed(self.desk, b"k", None, after)
        self.asked: list[tuple[str, Watch]] = []
        self.linked(*SERVERS)

    def linked(self, *addresses: str, up: bool = True) -> None:
        self.now += LOOK_AGAIN
        self.desk.step(self.now, [Linked(peer(address), up) for address in addresses])
        self.look()

    def look(self) -> bool:
        there = self.feed.tend(self.desk)
        said = [(send.link.principal, send.message) for send in self.desk.ready().now]
        self.asked = [(address, one) for address, one in said if type(one) is Watch]
        self.questions = [(address, one) for address, one in said if type(one) is AskHeld]
        return there

    def silence(self, time: int) -> None:
        self.now += time
        self.desk.step(self.now, [])
        self.look()

    def told(
        self, after: int, *revisions: int, compacted: int = 0, since: int | None = None
    ) -> bool:
        events = tuple((revision, b"k", False, b"v", 1, 1) for revision in revisions)
        number = self.feed.ask.number
        since = self.feed.ask.after if since is None else since
        one = Watched(0, number, since, after, compacted, events)
        server = self.desk.tellers.of(number) or SERVERS[0]
        return self.heard(server, one)

    def heard(self, server: str, message: object) -> bool:
        self.desk.step(self.now, [Received(peer(server), message)])
        return self.look()

    def taken(self) -> list[int]:
        found = []
        while self.look():
            found.append(self.feed.take().revision)
        return found


def test_events_in_order_and_how_far_it_is() -> None:
    watcher = Watcher(4)
    assert watcher.asked == [(SERVERS[0], Watch(1, b"k", None, 4, CREDIT))]
    assert watcher.told(7, 5, 5, 7)
    handed = []
    for _ in range(3):
        watcher.feed.take()
        handed.append(watcher.feed.handed)
    assert handed == [4, 5, 7], "a revision is handed out when all of it is"
    assert not watcher.look()
    assert watcher.asked == [], "it was asked already"


def test_nothing_up_to_a_revision_is_something_to_know() -> None:
    watcher = Watcher()
    assert not watcher.told(9)
    watcher.linked(SERVERS[0], up=False)
    assert watcher.asked == [(SERVERS[1], Watch(1, b"k", None, 9, CREDIT))]


def test_another_goes_on_where_the_last_one_stopped() -> None:
    watcher = Watcher()
    watcher.told(2, 1, 2)
    watcher.linked(SERVERS[0], up=False)
    assert watcher.taken() == [1, 2]
    assert watcher.feed.ask.after == 2
    watcher.told(4, 3, 4)
    assert watcher.taken() == [3, 4]


@pytest.mark.parametrize(("after", "again"), [(2, (1, 2)), (1, (1,)), (3, (2, 3)), (4, (4,))])
def test_what_is_told_again_is_handed_out_once(after: int, again: tuple[int, ...]) -> None:
    """By one that was behind, or that is late."""
    watcher = Watcher()
    watcher.told(2, 1, 2)
    watcher.told(after, *again)
    found = watcher.taken()
    assert found == [1, 2, *[revision for revision in again if revision > 2]]
    watcher.told(2, 1, 2)
    assert watcher.taken() == [], "what was late did not take it back"


def test_credit_is_given_again_when_it_is_spent() -> None:
    watcher = Watcher()
    for revision in range(1, CREDIT + 1):
        watcher.told(revision, revision)
        assert watcher.asked == []
        watcher.feed.take()
    watcher.look()
    assert watcher.asked == [(SERVERS[0], Watch(1, b"k", None, CREDIT, CREDIT))]


def test_away_for_too_long() -> None:
    watcher = Watcher()
    with pytest.raises(Compacted, match="up to revision 8 ") as gone:
        watcher.told(8, compacted=8)
    assert gone.value.revision == 8


def test_nobody_is_there() -> None:
    watcher = Watcher()
    watcher.linked(*SERVERS, up=False)
    assert watcher.asked == []
    watcher.linked(SERVERS[1])
    assert watcher.asked == [(SERVERS[1], Watch(1, b"k", None, 0, CREDIT))]


def test_one_that_is_ended_is_not_kept_in_mind() -> None:
    watcher = Watcher()
    watcher.told(1, 1)
    watcher.feed.end(watcher.desk)
    said = [send.message for send in watcher.desk.ready().now]
    assert said == [Watch(1, b"k", None, 1, 0)]
    watcher.desk.watched[1] = []
    watcher.feed.end(watcher.desk)
    assert (watcher.desk.watched, watcher.desk.ready().now) == ({}, ())


def test_what_was_lost_on_the_way_is_asked_for_again() -> None:
    watcher = Watcher(4)
    assert watcher.told(6, 5, 6)
    assert watcher.taken() == [5, 6]
    assert not watcher.told(9, 9, since=8), "somebody told 7 and 8, and we did not hear it"
    assert watcher.asked == [(SERVERS[0], Watch(1, b"k", None, 6, CREDIT))]
    assert watcher.told(9, 7, 8, 9)
    assert watcher.taken() == [7, 8, 9]


def test_once_a_second_it_is_made_sure_that_it_is_known() -> None:
    """What was lost may have been the last, so that no later one tells."""
    watcher = Watcher(4)
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    assert (server, watcher.asked) == (SERVERS[0], [])
    mark = held_mark(watcher.feed.ask.number, 4, CREDIT)
    watcher.heard(server, Held(1, question.number, 1, mark))
    assert watcher.asked == [], "it has it in mind as we have"
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    told = held_mark(watcher.feed.ask.number, 7, CREDIT - 1)
    watcher.heard(server, Held(1, question.number, 1, told))
    assert watcher.asked == [(SERVERS[0], Watch(1, b"k", None, 4, CREDIT))], "7 was lost"
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    watcher.heard(server, Held(1, question.number, 0, 0))
    assert watcher.asked == [(SERVERS[0], Watch(1, b"k", None, 4, CREDIT))], "we were lost"


def test_what_was_told_before_the_answer_counts() -> None:
    watcher = Watcher(4)
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    assert watcher.told(6, 5, 6)
    mark = held_mark(watcher.feed.ask.number, 6, CREDIT - 1)
    watcher.taken()
    watcher.heard(server, Held(1, question.number, 1, mark))
    assert watcher.asked == []


def test_what_was_asked_since_is_not_in_an_answer() -> None:
    """Nobody can compare that; the next one counts again."""
    watcher = Watcher(4)
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    other = Feed(watcher.desk, b"l", None, 0)
    other.tend(watcher.desk)
    watcher.look()
    watcher.heard(server, Held(1, question.number, 0, 0))
    assert watcher.asked == []
    watcher.silence(SILENCE)
    ((server, question),) = watcher.questions
    watcher.heard(server, Held(1, question.number, 0, 0))
    assert [one.number for _, one in watcher.asked] == [1]


def test_many_watches_are_one_question() -> None:
    watcher = Watcher(4)
    feeds = [Feed(watcher.desk, b"%d" % n, None, 0) for n in range(100)]
    for feed in feeds:
        feed.tend(watcher.desk)
    watcher.look()
    assert len(watcher.asked) == 100
    watcher.silence(SILENCE)
    assert (len(watcher.asked), len(watcher.questions)) == (0, 1)


def test_whoever_does_not_answer_is_not_counted_on() -> None:
    watcher = Watcher(4)
    watcher.silence(SILENCE)
    assert [server for server, _ in watcher.questions] == [SERVERS[0]]
    watcher.silence(SILENCE)
    watcher.look()
    assert (SERVERS[1], Watch(1, b"k", None, 4, CREDIT)) in watcher.asked


def test_whoever_runs_it_is_woken_for_that() -> None:
    watcher = Watcher(4)
    wake_at = watcher.desk.ready().wake_at
    assert wake_at is not None
    assert wake_at <= watcher.now + SILENCE


def test_one_that_is_not_asked_any_more_need_not_go_on() -> None:
    watcher = Watcher(4)
    watcher.desk.known.turn_to(0)
    watcher.silence(SILENCE)
    watcher.look()
    assert watcher.asked == [
        (SERVERS[1], Watch(1, b"k", None, 4, CREDIT)),
        (SERVERS[0], Watch(1, b"k", None, 4, 0)),
    ]


def test_feeds_of_a_desk_are_told_apart() -> None:
    watcher = Watcher()
    other = Feed(watcher.desk, b"l", None, 0)
    assert other.ask.number != watcher.feed.ask.number
    number = watcher.feed.ask.number
    watcher.desk.watched[number] = [Watched(0, number, 0, 1, 0, ((1, b"k", False, b"v", 1, 1),))]
    assert not other.tend(watcher.desk)
    assert watcher.look()


def test_whoever_hears_of_nothing_is_not_asked_again() -> None:
    """After a moment another one is, from where we are."""
    watcher = Watcher(4)
    said = Rejected(1, (watcher.feed.ask.number,), "alone", 0, False)
    watcher.desk.step(watcher.now, [Received(peer(SERVERS[0]), said)])
    watcher.look()
    assert watcher.asked == []
    wake_at = watcher.desk.ready().wake_at
    assert wake_at == watcher.now + LOOK_AGAIN
    watcher.silence(LOOK_AGAIN)
    assert watcher.asked == [(SERVERS[1], Watch(1, b"k", None, 4, CREDIT))]
    watcher.silence(SILENCE)
    assert [server for server, _ in watcher.questions] == [SERVERS[1]]


def test_only_whoever_has_it_in_mind_can_send_it_away() -> None:
    watcher = Watcher(4)
    said = Rejected(2, (watcher.feed.ask.number,), "alone", 0, False)
    watcher.desk.step(watcher.now, [Received(peer(SERVERS[1]), said)])
    watcher.silence(SILENCE)
    assert watcher.asked == []
    assert [server for server, _ in watcher.questions] == [SERVERS[0]]
