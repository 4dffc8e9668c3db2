"""A store server by itself: whatever arrives, limits, and whom it believes. Stories are in
`scenarios/`, and the proof that several of them are right is their trial in the simulator."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import Turn, drive
from support import dose

from engine import relay
from engine.backup.machine import PINGS_MAX, Settings, StoreServer
from engine.backup.messages import (
    APPEND,
    GET,
    KEY_CHARACTERS_MAX,
    NO_KEY,
    OK,
    PUT,
    TOO_LARGE,
    VALUE_CHARACTERS_MAX,
    WRONG_SERVER,
    Answer,
    Applied,
    Forward,
    Operation,
    Part,
    Session,
    Taken,
)
from engine.contract import SECOND, Link, Linked, Received, peer
from engine.views.messages import NOBODY, Get, Ping, View
from engine.wire import envelope
from engine.wire.codec import encode

CLIENT, SERVER = Link("client", 1), Link("server", 2, 7)
VIEWS, OTHER = peer("views"), peer("s2")
LIFE = 1
PING = Settings("s1", "views", LIFE).ping


class Player:
    """A server named s1, one event a turn."""

    def __init__(self) -> None:
        self.machine = StoreServer(Settings("s1", "views", LIFE), random.Random(1))
        self.now = 0
        self.pinged = 0
        self.said: list[Any] = []

    def turn(self, *events: Any, later: int = 1) -> list[Any]:
        """What it says to others than the view service."""
        self.now += later
        self.machine.step(self.now, events)
        self.machine.check()
        said = []
        for _, message in self.machine.ready().now:
            if isinstance(message, Ping):
                self.pinged = message.asked
            else:
                said.append(message)
        return said

    def hears(self, message: Any, link: Link = SERVER) -> list[Any]:
        return self.turn(Received(link, message))

    def view(self, number: int, primary: str, backup: str = NOBODY) -> list[Any]:
        """It learns of a view, and the view service takes note of its ping."""
        view = View(0, number, primary, LIFE, backup, LIFE)
        said = self.hears(view, VIEWS)
        return said + self.hears(view._replace(asked=self.pinged), VIEWS)


def primary(backup: str = NOBODY) -> Player:
    """It serves, in view 1, or 2 with a backup that has the copy."""
    player = Player()
    player.turn()
    player.view(1, "s1")
    if backup:
        player.view(2, "s1", backup)
        player.hears(Taken(2, 0), peer(backup))
    return player


def filled() -> Player:
    """It is the backup of view 2, and has the copy of an empty table."""
    player = Player()
    player.turn()
    player.view(2, "s2", "s1")
    assert player.hears(Part(2, 0, True, 0, (), ())) == [Taken(2, 0)]
    return player


# --- whatever arrives ----------------------------------------------------------------------------

FIGURES = st.integers(-1, 4) | st.sampled_from([-(1 << 63), 1 << 62])
KEYS = st.sampled_from(["a", "b", "", "\udc80", "k" * (KEY_CHARACTERS_MAX + 1)])
OPERATIONS = st.builds(
    Operation,
    st.integers(1, 3) | FIGURES,
    st.integers(1, 3) | FIGURES,
    st.sampled_from([GET, PUT, APPEND, "?"]),
    KEYS,
    st.sampled_from(["", "x", "yy"]),
)
SERVERS = st.sampled_from(["s1", "s1", "s2", NOBODY])
VIEW = st.builds(
    View, st.integers(0, 3), st.integers(-1, 6), SERVERS, st.just(1), SERVERS, st.integers(0, 1)
)
NUMBERS = st.integers(0, 6)
SESSIONS = st.builds(Session, FIGURES, FIGURES, st.sampled_from([OK, "?"]), st.text(max_size=2))
PARTS = st.builds(
    Part,
    NUMBERS,
    st.sampled_from([0, 0, 0, 1, 2, -1]),
    st.booleans(),
    FIGURES,
    st.lists(st.tuples(KEYS, st.just("v")), max_size=2).map(tuple),
    st.lists(SESSIONS, max_size=2).map(tuple),
)
FORWARDS = st.builds(Forward, NUMBERS, FIGURES, st.lists(OPERATIONS, max_size=3).map(tuple))
OFTEN = st.one_of(
    st.builds(Received, st.just(CLIENT), OPERATIONS),
    st.builds(Received, st.just(VIEWS), VIEW),
    st.builds(Received, st.just(SERVER), PARTS | FORWARDS),
    st.builds(
        Received,
        st.just(OTHER),
        st.builds(Applied, NUMBERS, FIGURES) | st.builds(Taken, NUMBERS, st.integers(0, 2)),
    ),
)
LINKS = st.sampled_from([CLIENT, SERVER, VIEWS, OTHER])
SELDOM = st.builds(Linked, LINKS, st.booleans()) | st.builds(
    Received,
    LINKS,
    st.one_of(VIEW, OPERATIONS, PARTS, st.builds(Applied, FIGURES, FIGURES), st.just(Get(1))),
)
TURNS = st.lists(
    st.tuples(
        st.sampled_from([1, SECOND // 20, PING, SECOND]),
        st.lists(OFTEN | OFTEN | SELDOM, max_size=4),
    ),
    max_size=dose(ci=20, full=40),
)


def answering(turns: list[Turn], now: int) -> list[Turn]:
    """A view answers the question of that many turns ago: it asks in most turns."""
    times = list(accumulate((later for later, _ in turns), initial=now))[1:]

    def dated(turn: int, event: Any) -> Any:
        if not isinstance(event, Received) or not isinstance(event.message, View):
            return event
        asked = times[max(0, turn - event.message.asked)]
        return event._replace(message=event.message._replace(asked=asked))

    return [(turn[0], [dated(n, event) for event in turn[1]]) for n, turn in enumerate(turns)]


BEGINNINGS = {
    "new": Player,
    "primary": primary,
    "with a backup": lambda: primary("s2"),
    "backup": filled,
}


@given(beginning=st.sampled_from(list(BEGINNINGS)), turns=TURNS)
@settings(max_examples=dose(ci=300, full=3000), deadline=None)
def test_whatever_arrives_it_goes_on(beginning: str, turns: list[Turn]) -> None:
    player, other = BEGINNINGS[beginning](), BEGINNINGS[beginning]()
    turns = answering(turns, player.now)
    wanted = drive(player.machine, turns, player.now)
    assert wanted == drive(other.machine, turns, player.now)
    asked: set[tuple[Link, int, int]] = set()
    acted = 0
    for (_, events), ready in zip(turns, wanted, strict=True):
        asked |= {
            (event.link, event.message.client, event.message.sequence)
            for event in events
            if isinstance(event, Received) and isinstance(event.message, Operation)
        }
        assert ready.wake_at is not None
        for link, message in ready.now:
            if isinstance(message, Ping):
                assert message.number >= acted
                acted = message.number
            elif isinstance(message, Answer):
                assert (link, message.client, message.sequence) in asked


# --- limits --------------------------------------------------------------------------------------

FULL = "v" * VALUE_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (Operation(1, 1, PUT, "k" * KEY_CHARACTERS_MAX, "v"), OK),
        (Operation(1, 1, PUT, "k" * (KEY_CHARACTERS_MAX + 1), "v"), TOO_LARGE),
        (Operation(1, 1, GET, "k" * (KEY_CHARACTERS_MAX + 1), ""), TOO_LARGE),
        (Operation(1, 1, PUT, "a", FULL), OK),
        (Operation(1, 1, PUT, "a", FULL + "v"), TOO_LARGE),
        (Operation(1, 1, APPEND, "a", FULL + "v"), TOO_LARGE),
        (Operation(1, 1, GET, "a", ""), NO_KEY),
        (Operation(1, 1, "?", "a", "b"), NO_KEY),
    ],
)
def test_what_is_no_operation_changes_nothing(operation: Operation, status: str) -> None:
    player = primary()
    assert player.hears(operation, CLIENT) == [Answer(1, 1, status, "")]
    values = player.machine.table.values
    assert values == ({operation.key: operation.value} if status == OK else {})


def test_an_append_over_the_limit_leaves_the_value() -> None:
    player = primary()
    player.hears(Operation(1, 1, PUT, "a", FULL[1:]), CLIENT)
    assert player.hears(Operation(1, 2, APPEND, "a", "xy"), CLIENT) == [Answer(1, 2, TOO_LARGE, "")]
    assert player.hears(Operation(1, 3, GET, "a", ""), CLIENT) == [Answer(1, 3, OK, FULL[1:])]
    assert player.hears(Operation(1, 4, APPEND, "a", "x"), CLIENT) == [Answer(1, 4, OK, "")]
    assert player.machine.table.values == {"a": FULL[1:] + "x"}


def test_much_is_forwarded_in_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "PART_BYTES", 130)
    player = primary("s2")
    asked = [Operation(client, 1, PUT, "a", "v" * client) for client in range(1, 6)]
    forwards = player.turn(*(Received(CLIENT, operation) for operation in asked))
    assert [forward.first for forward in forwards] == [1, 3, 5]
    assert [o for forward in forwards for o in forward.operations] == asked


def test_the_largest_forward_fits_into_a_frame() -> None:
    """One character of four bytes less than begins another message, and then the largest value."""
    player = primary("s2")
    nearly = "😀" * (relay.PART_BYTES - 66)
    asked = [
        Operation(1, 1, PUT, "a", nearly),
        Operation(2, 1, PUT, "b", "😀" * VALUE_CHARACTERS_MAX),
    ]
    [forward] = player.turn(*(Received(CLIENT, operation) for operation in asked))
    assert len(forward.operations) == 2
    assert len(encode(forward)[1]) <= envelope.BODY_MAX


def test_it_remembers_few_of_its_pings() -> None:
    """An answer to one of long ago says nothing any more."""
    player = Player()
    player.turn()
    player.hears(View(0, 1, "s1", LIFE, NOBODY, 0), VIEWS)
    acted = player.pinged
    for _ in range(PINGS_MAX):
        player.turn(later=PING)
    operation = Operation(1, 1, PUT, "a", "1")
    assert player.hears(operation, CLIENT) == []
    assert player.hears(View(acted, 1, "s1", LIFE, NOBODY, 0), VIEWS) == []
    assert player.hears(View(player.pinged, 1, "s1", LIFE, NOBODY, 0), VIEWS) != []


# --- whom it believes ----------------------------------------------------------------------------

APPEND_X = Operation(1, 1, APPEND, "a", "x")
VIEW_2 = View(0, 2, "s2", LIFE, "s1", LIFE)


@pytest.mark.parametrize("link", [CLIENT, SERVER, OTHER])
def test_only_the_view_service_tells_views(link: Link) -> None:
    player = primary()
    assert player.hears(VIEW_2, link) == []
    assert player.machine.view.number == 1
    player.hears(VIEW_2, VIEWS)
    assert player.machine.view.number == 2


def test_an_old_view_changes_nothing() -> None:
    player = primary("s2")
    player.hears(View(0, 1, "s2", LIFE, "s1", LIFE), VIEWS)
    assert player.machine.view.number == 2
    assert player.machine.primary


@pytest.mark.parametrize("link", [CLIENT, OTHER, VIEWS])
@pytest.mark.parametrize("message", [Part(2, 0, True, 0, (), ()), Forward(2, 1, (APPEND_X,))])
def test_only_servers_fill_a_backup(message: Any, link: Link) -> None:
    player = filled()
    assert player.hears(message, link) == []
    assert player.hears(message) != []


@pytest.mark.parametrize("view", [1, 3])
@pytest.mark.parametrize("kind", [Forward, Part])
def test_what_is_said_in_another_view_means_nothing(kind: type, view: int) -> None:
    player = filled()
    message = Part(view, 0, True, 9, (("a", "b"),), ())
    said = player.hears(message if kind is Part else Forward(view, 1, (APPEND_X,)))
    assert said == []
    assert player.machine.table.values == {}
    # Of a later view it wants to hear at once.
    assert (player.pinged == player.now) == (view > 2)


def test_a_forward_before_the_copy_is_refused() -> None:
    player = Player()
    player.turn()
    player.view(2, "s2", "s1")
    assert player.hears(Forward(2, 1, (APPEND_X,))) == []
    assert player.hears(Part(2, 0, False, 0, (), ())) == [Taken(2, 0)]
    assert player.hears(Forward(2, 1, (APPEND_X,))) == []
    assert player.hears(Part(2, 1, True, 0, (), ())) == [Taken(2, 1)]
    assert player.hears(Forward(2, 1, (APPEND_X,))) == [Applied(2, 1)]


def test_a_part_before_its_turn_is_not_taken() -> None:
    player = Player()
    player.turn()
    player.view(2, "s2", "s1")
    first = Part(2, 0, False, 5, (("a", "1"),), ())
    last = Part(2, 1, True, 5, (("b", "2"),), ())
    assert player.hears(last) == []
    assert player.machine.holds == 0
    assert player.hears(first) == [Taken(2, 0)]
    assert player.hears(last) == [Taken(2, 1)]
    assert player.machine.table.values == {"a": "1", "b": "2"}
    # All of it again, when it has gone on: acknowledged, and not taken again.
    player.hears(Forward(2, 6, (Operation(1, 1, PUT, "a", "9"),)))
    assert player.hears(first) == [Taken(2, 0)]
    assert player.hears(last) == [Taken(2, 1)]
    assert player.machine.table.values == {"a": "9", "b": "2"}
    assert player.machine.table.number == 6


@pytest.mark.parametrize("link", [CLIENT, SERVER, VIEWS, peer("s3")])
@pytest.mark.parametrize("message", [Applied(2, 1), Taken(2, 0)])
def test_only_the_backup_speaks_for_it(message: Any, link: Link) -> None:
    if isinstance(message, Applied):
        player = primary("s2")
        assert player.hears(APPEND_X, CLIENT) == [Forward(2, 1, (APPEND_X,))]
    else:
        player = primary()
        assert player.view(2, "s1", "s2") == [Part(2, 0, True, 0, (), ())]
        assert player.hears(APPEND_X, CLIENT) == []
    assert player.hears(message, link) == []
    assert player.hears(message, OTHER) != []


@pytest.mark.parametrize("message", [Applied(1, 1), Applied(3, 1)])
def test_an_acknowledgement_of_another_view_means_nothing(message: Applied) -> None:
    player = primary("s2")
    player.hears(APPEND_X, CLIENT)
    assert player.hears(message, OTHER) == []
    assert player.hears(Applied(2, 1), OTHER) == [Answer(1, 1, OK, "")]


def test_an_acknowledgement_during_the_copy_means_nothing() -> None:
    """It cannot be of anything that was forwarded in this view."""
    player = primary()
    player.view(2, "s1", "s2")
    player.hears(APPEND_X, CLIENT)
    assert player.hears(Applied(2, 1), OTHER) == []


@pytest.mark.parametrize("player", [Player, filled])
def test_who_is_not_primary_sends_clients_away(player: Any) -> None:
    assert Answer(1, 1, WRONG_SERVER, "") in player().hears(APPEND_X, CLIENT)


# --- when it wakes -------------------------------------------------------------------------------


def test_it_pings_every_interval() -> None:
    player = Player()
    for _ in range(5):
        player.turn(later=PING - 1)
        assert player.pinged == player.now or player.turn() == []
        wake_at = player.machine.ready().wake_at
        assert wake_at == player.pinged + PING


def test_a_link_to_the_view_service_is_used_at_once() -> None:
    player = Player()
    player.turn()
    player.turn(Linked(OTHER, True))
    assert player.pinged < player.now
    player.turn(Linked(VIEWS, False))
    assert player.pinged < player.now
    player.turn(Linked(VIEWS, True))
    assert player.pinged == player.now


def test_it_wakes_to_say_again_what_is_not_acknowledged() -> None:
    player = primary("s2")
    player.turn(later=PING)
    player.hears(APPEND_X, CLIENT)
    retry = player.machine.settings.retry
    assert player.machine.ready().wake_at == player.now + retry
    assert player.turn(later=retry - 1) == []
    assert player.turn() == [Forward(2, 1, (APPEND_X,))]


def test_it_waits_for_the_view_service_without_spinning() -> None:
    """It may not serve before its ping is answered, and that may take long: there is nothing to do
    meanwhile but to ping."""
    player = primary()
    copy = View(0, 2, "s1", LIFE, "s2", LIFE)
    assert player.hears(copy, VIEWS) == []
    assert player.machine.ready().wake_at == player.pinged + PING
    player = primary("s2")
    player.hears(APPEND_X, CLIENT)
    player.turn(later=PING // 4)
    assert player.hears(View(0, 3, "s1", LIFE, NOBODY, 0), VIEWS) == []
    player.turn(later=PING - 1)
    assert player.machine.ready().wake_at == player.pinged + PING
