"""The view service by itself: whatever arrives, the two rules, limits, and whom it believes.
Stories are in `scenarios/`, and the proof with servers that act on it is its trial."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import UNTIL_IT_WAKES, Turn, drive
from support import dose

from engine.contract import Event, Link, Linked, Overslept, Received, peer
from engine.locks.messages import Alone
from engine.views import machine as views
from engine.views.machine import NAME_CHARACTERS_MAX, Settings, ViewService
from engine.views.messages import NOBODY, PING_INTERVAL, Get, Ping, View

DEAD = Settings().dead
CLIENT, SERVER = Link("client", 1), Link("server", 2)


def service() -> ViewService:
    return ViewService(Settings(), random.Random(1))


class Pinger:
    """Asks a service, with questions whose numbers grow."""

    def __init__(self, machine: ViewService) -> None:
        self.machine = machine
        self.asked = 0

    def hears(self, message: Any, link: Link = SERVER, now: int = 0) -> View:
        self.machine.step(now, [Received(link, message)])
        self.machine.check()
        [(there, view)] = self.machine.ready().now
        assert there == link
        assert view.asked == message.asked
        return view

    def ping(self, name: str, number: int = 0, life: int = 1, now: int = 0) -> View:
        self.asked += 1
        return self.hears(Ping(self.asked, name, life, number), now=now)


# --- whatever arrives ----------------------------------------------------------------------------

FIGURES = st.integers(0, 4) | st.sampled_from([-1, -(1 << 63), (1 << 64) - 1])
NAMES = st.sampled_from(["s1", "s2", "s3"]) | st.sampled_from(["", "\udc80", "x" * 513])
PINGS = st.builds(Ping, st.integers(0, 40) | FIGURES, NAMES, st.integers(1, 2) | FIGURES, FIGURES)
MESSAGES = st.one_of(
    PINGS,
    PINGS,
    st.builds(Get, FIGURES),
    st.sampled_from([View(0, 9, "s1", 1, "s2", 1), Alone()]),
)
LINKS = st.sampled_from([SERVER, SERVER, CLIENT, peer("s1")])
EVENTS = st.builds(Received, LINKS, MESSAGES) | st.builds(Linked, LINKS, st.booleans())
TURNS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, PING_INTERVAL, DEAD, UNTIL_IT_WAKES]), st.lists(EVENTS, max_size=4)
    ),
    max_size=dose(ci=15, full=40),
)


@given(turns=TURNS)
@settings(max_examples=dose(ci=200, full=3000), deadline=None)
def test_whatever_arrives_it_answers(turns: list[Turn]) -> None:
    wanted = drive(service(), turns)
    assert wanted == drive(service(), turns)
    for (_, events), ready in zip(turns, wanted, strict=True):
        asked = [
            (event.link, event.message.asked)
            for event in events
            if isinstance(event, Received) and isinstance(event.message, Ping | Get)
        ]
        assert [(link, view.asked) for link, view in ready.now] == asked


ROUNDS = st.lists(
    st.tuples(
        st.sampled_from([1, PING_INTERVAL, PING_INTERVAL, 2 * PING_INTERVAL, DEAD]),
        st.sampled_from(["s1", "s2", "s3", "s4"]),
        st.sampled_from(["all", "all", "all", "nothing", "less", "restart"]),
    ),
    max_size=dose(ci=60, full=300),
)


@given(rounds=ROUNDS)
@settings(max_examples=dose(ci=150, full=3000), deadline=None)
def test_views_follow_the_two_rules(rounds: list[tuple[int, str, str]]) -> None:
    """Servers that know what they were told, or less, or start again; judged from outside."""
    machine = service()
    pinger, now = Pinger(machine), 0
    lives: dict[str, int] = {}
    known: dict[str, int] = {}
    said: set[tuple[str, int, int]] = set()
    before = View(0, 0, NOBODY, 0, NOBODY, 0)
    for later, name, how in rounds:
        now += later
        if how == "restart":
            lives[name], known[name] = lives.get(name, 1) + 1, 0
        number = {"all": known.get(name, 0), "less": max(0, known.get(name, 0) - 1)}.get(how, 0)
        life = lives.setdefault(name, 1)
        said.add((name, life, number))
        view = pinger.ping(name, number, life, now)
        known[name] = view.number
        assert view.number in (before.number, before.number + 1)
        if view.number == before.number:
            assert view[2::2] == before[2::2]
        elif before.number:
            acknowledged = (before.primary, before.primary_life, before.number)
            ready = (before.backup, before.backup_life, before.number)
            assert acknowledged in said
            assert view.primary == before.primary or ready in said
            assert view.primary in (before.primary, before.backup)
            assert view.backup != view.primary
        before = view


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x" * (NAME_CHARACTERS_MAX + 1)])
def test_who_has_no_name_is_answered_and_is_nobody(name: str) -> None:
    pinger = Pinger(service())
    assert pinger.ping(name).number == 0
    assert pinger.ping("é" * NAME_CHARACTERS_MAX).primary == "é" * NAME_CHARACTERS_MAX


def test_there_may_be_more_servers_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "SERVERS_MAX", 2)
    machine = service()
    pinger = Pinger(machine)
    pinger.ping("s1")
    pinger.ping("s1", 1)
    assert pinger.ping("s2").backup == "s2"
    assert pinger.ping("s3").number == 2
    pinger.ping("s1", 2, now=DEAD - 1)
    # The second is silent, and as long as it is remembered there is no room for the third.
    assert pinger.ping("s3", now=DEAD - 1).backup == "s2"
    assert pinger.ping("s1", 2, now=DEAD).backup == NOBODY
    pinger.ping("s1", 3, now=DEAD)
    assert pinger.ping("s3", now=DEAD).backup == "s3"


# --- whom it believes ----------------------------------------------------------------------------


@pytest.mark.parametrize("link", [CLIENT, peer("s1")])
def test_only_servers_are_counted(link: Link) -> None:
    machine = service()
    pinger = Pinger(machine)
    assert pinger.hears(Ping(1, "s1", 1, 0), link=link) == View(1, 0, NOBODY, 0, NOBODY, 0)
    assert pinger.hears(Ping(1, "s1", 1, 0)) == View(1, 1, "s1", 1, NOBODY, 0)


def test_the_answer_says_which_lives_are_meant() -> None:
    pinger = Pinger(service())
    pinger.ping("s1", life=7)
    pinger.ping("s1", 1, life=7)
    assert pinger.ping("s2", life=9)[1:] == (2, "s1", 7, "s2", 9)


# --- silence -------------------------------------------------------------------------------------


def test_a_server_is_dead_after_five_intervals_and_not_before() -> None:
    machine = service()
    pinger = Pinger(machine)
    for number in (0, 1):
        pinger.ping("s1", number)
    for number in (0, 2):
        pinger.ping("s2", number)
    pinger.ping("s1", 2)
    assert machine.ready_backup
    assert pinger.ping("s2", 2, now=DEAD - 1).primary == "s1"
    assert pinger.ping("s2", 2, now=DEAD).primary == "s2"


def test_it_wakes_when_a_silence_becomes_too_long() -> None:
    machine = service()
    machine.step(0, [])
    assert machine.ready().wake_at is None
    events: list[Event] = [Received(SERVER, Ping(1, "s1", 1, 0))]
    machine.step(10, events)
    assert machine.ready().wake_at == 10 + DEAD
    machine.step(20, [Received(SERVER, Ping(1, "s2", 1, 0))])
    assert machine.ready().wake_at == 10 + DEAD
    machine.step(30, [Received(SERVER, Ping(2, "s1", 1, 0))])
    assert machine.ready().wake_at == 20 + DEAD
    machine.step(30 + DEAD, [])
    assert machine.ready().wake_at is None


@pytest.mark.parametrize(("late", "dead"), [(DEAD // 2, True), (DEAD // 2 + 1, False)])
def test_silence_counts_unless_the_service_slept(late: int, dead: bool) -> None:
    """It is late in every turn, by a little; only much more than that says that it was stopped."""
    machine = service()
    pinger = Pinger(machine)
    for number in (0, 1):
        pinger.ping("s1", number)
    for number in (0, 2):
        pinger.ping("s2", number)
    pinger.ping("s1", 2)
    now = DEAD + late
    machine.step(now, [Overslept(late), Received(SERVER, Ping(9, "s1", 1, 2))])
    machine.ready()
    assert (machine.backup == NOBODY) == dead
    machine.step(now + DEAD - 1, [])
    assert (machine.backup == NOBODY) == dead
    machine.step(now + DEAD - 1, [Received(SERVER, Ping(10, "s1", 1, 2))])
    machine.step(now + DEAD, [])
    assert machine.backup == NOBODY
