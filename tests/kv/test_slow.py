"""Which requests a leader says took long, of what it was told and when; the front is the shipped
one, and time is what the test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import pytest

from engine.contract import SECOND, Link, ReadAt, Requests
from engine.kernels.checksum import crc32c
from engine.kv import commands, slow
from engine.kv.commands import delete, get, pack_frame, put, request, txn
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.kv.requests import READ, WRITE
from engine.kv.slow import GRAIN, KEPT, KEY_BYTES, Came, SlowRequests, Trip, shown
from engine.raft.messages import Placed, Propose, Read, Refused
from engine.raft.requests import Slow, Status
from engine.storage.entries import COMMAND, Entry

ONE, OTHER = Link("client", 1), Link("client", 2, principal="ann")
MS = SECOND // 1000
SESSION = bytes(8) + b"\1\2\3\4\5\6\7\x08"


class Member:
    me, term, leader, stable = 7, 1, 7, 0


class World:
    time = 0

    def now(self) -> int:
        return self.time


class Leader:
    """Stands for the replica of a front: entries are placed, durable and decided when we say so."""

    group = 1

    def __init__(self) -> None:
        self.raft, self.world = Member(), World()
        self.front: Any = StoreFront(Machine(), lambda why: None)
        self.front.replica = self
        self.said = self.place = 0
        self.bodies: dict[int, bytes] = {}

    def answers(self, kind: int, messages: Sequence[tuple[Link, bytes]]) -> None:
        self.said += len(messages)

    def status(self, number: int, commands: int, digest: int) -> Status:
        told: Any = dict.fromkeys(Status._fields, 0)
        told["counters"] = tuple(self.front.outcomes.items())
        return Status(**told)

    def turn(self, at: int, *asks: tuple[Link, int, bytes], stable: int = 0) -> list[Any]:
        """What the member would hear, at this many ms. Commands are placed at once."""
        self.world.time, self.raft.stable = at * MS, max(self.raft.stable, stable)
        batch = tuple((link, msgpack.packb((how, frame))) for link, how, frame in asks)
        heard = self.front.events([Requests(batch)] if batch else [], self.world.time)
        for one in heard:
            if type(one) is Propose:
                self.place += 1
                self.bodies[self.place] = one.commands[0][1]
                self.front.answered(Placed(one.context, self.place, self.raft.term))
        return list(heard)

    def decided(self, took: int = 0) -> None:
        """The last entry, which takes so many ms to apply."""
        body = self.bodies[self.place]
        self.world.time += took * MS
        self.front.apply(self.place, (Entry(self.raft.term, COMMAND, crc32c(body), body),))

    def end(self) -> None:
        self.front.sends()

    @property
    def slow(self) -> tuple[Slow, ...]:
        found: tuple[Slow, ...] = self.front.status(1).slow
        return found

    @property
    def many(self) -> int:
        return dict(self.front.status(1).counters)["slow_requests"]


def write(number: int, *asked: Any, link: Link = ONE) -> tuple[Link, int, bytes]:
    return link, WRITE, pack_frame(number, *[request(SESSION, number, one) for one in asked])


def read(number: int, *asked: Any, link: Link = ONE) -> tuple[Link, int, bytes]:
    return link, READ, pack_frame(number, *asked)


def test_what_is_quick_is_not_noted() -> None:
    leader = Leader()
    leader.turn(1000, write(1, put(b"k", b"v")), read(1, get(b"k")))
    leader.end()
    leader.turn(1100, stable=1)
    leader.decided()
    assert (leader.said, leader.slow, leader.many) == (1, (), 0)


@pytest.mark.parametrize(
    ("durable", "decided", "applied", "waited"),
    [
        (1180, 1200, 0, slow.DISK),
        (1020, 1200, 0, slow.MAJORITY),
        (0, 1200, 0, slow.MAJORITY),
        (1200, 1200, 0, slow.DISK),
        (1020, 1050, 150, slow.APPLYING),
    ],
    ids=["disk", "others", "others without us", "disk in the last turn", "applying"],
)
def test_what_it_waited_for(durable: int, decided: int, applied: int, waited: str) -> None:
    leader = Leader()
    leader.turn(1000, write(3, put(b"key", b"a secret")))
    leader.end()
    if 0 < durable < decided:
        leader.turn(durable, stable=1)
        leader.end()
    leader.turn(decided, stable=1 if durable else 0)
    leader.decided(applied)
    leader.end()
    leader.world.time += 5000 * MS
    (told,) = leader.slow
    assert told == Slow(
        1, 5000, 200, "put", b"key", False, "client 1", "05060708", waited, "done", 0
    )


def test_who_waits_for_an_earlier_entry() -> None:
    """Its time begins when it comes, and not when it goes."""
    leader = Leader()
    leader.turn(1000, write(1, put(b"a", b"")))
    leader.turn(1010, write(2, delete(b"b"), link=OTHER))
    leader.turn(1080, write(4, put(b"c", b"")))
    leader.turn(1090, stable=1)
    leader.decided()
    leader.end()
    leader.turn(1150)
    leader.end()
    leader.turn(1175, stable=2)
    leader.decided()
    (told,) = leader.slow
    assert (told.took_ms, told.verb, told.key, told.waited) == (165, "delete", b"b", slow.QUEUE)
    assert (told.client, told.session) == ("ann", "05060708")
    assert (told.others, leader.many) == (0, 1), "the one that came at 1080 took 95 ms"


def test_all_that_are_late_count_and_the_first_is_shown() -> None:
    leader = Leader()
    puts = [put(b"%d" % n, b"v") for n in range(20)]
    leader.turn(1000, (ONE, WRITE, b"\x92\1\xc0"), write(2, *puts[:17]))
    leader.turn(1001)
    leader.end()
    leader.turn(1300, stable=1)
    leader.decided()
    (told,) = leader.slow
    assert (told.number, told.others, told.key) == (17, 16, b"0"), "what is malformed is none"
    assert leader.many == 17


def test_an_entry_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much for one entry goes into several, and each is noted."""
    monkeypatch.setattr("engine.kv.front.ENTRY_BYTES_MAX", 64)
    leader = Leader()
    leader.turn(1000, *[write(n, put(b"key %d" % n, bytes(50))) for n in (1, 2, 3)])
    assert leader.place == 3
    leader.world.time = 1200 * MS
    for place in (1, 2, 3):
        leader.place = place
        leader.decided()
    assert [one.key for one in leader.slow] == [b"key 1", b"key 2", b"key 3"]
    assert [one.number for one in leader.slow] == [1, 2, 3]


def test_reads() -> None:
    """A round that is long in coming, one that is refused, and those that waited for it."""
    leader = Leader()
    (ask,) = leader.turn(1000, read(1, get(b"k"), get(b"l")))
    assert type(ask) is Read
    leader.turn(1050, read(2, commands.key_range(b"r", b"s", 0, 0)))
    leader.turn(1150)
    leader.front.confirmed(ReadAt(ask.context, 0))
    (other,) = leader.turn(1160)
    leader.turn(1260)
    leader.front.answered(Refused(other.context, "it does not lead", 0))
    first, second = leader.slow
    assert (first.verb, first.key, first.took_ms, first.others) == ("get", b"k", 150, 1)
    assert (first.client, first.session) == ("client 1", "")
    assert (first.waited, first.ended) == (slow.MAJORITY, "done")
    assert (second.verb, second.key, second.took_ms) == ("range", b"r", 210)
    assert (second.waited, second.ended) == (slow.QUEUE, "not done")
    assert leader.many == 3


def test_what_nobody_can_answer_any_more() -> None:
    """A leader that hears of no majority steps down; that was slow, too."""
    leader = Leader()
    leader.turn(1000, (ONE, WRITE, b"k"), (ONE, WRITE, b"\x90"), write(1, put(b"k", b"v")))
    leader.turn(1010, stable=1)
    leader.end()
    leader.turn(1400)
    leader.raft.leader = 0
    leader.end()
    (told,) = leader.slow
    assert (told.ended, told.waited, told.took_ms) == ("unknown", slow.MAJORITY, 400)
    assert (told.key, told.others, leader.many) == (b"k", 0, 1), "nobody understood the others"


def test_the_last_are_kept() -> None:
    leader = Leader()
    for n in range(KEPT + 3):
        leader.turn(1000 * (n + 1), write(n + 10, put(b"%d" % n, b"")))
        leader.turn(1000 * (n + 1) + 200, stable=n + 1)
        leader.decided()
    told = leader.slow
    assert len(told) == KEPT
    assert (told[0].key, told[-1].key) == (b"3", b"%d" % (KEPT + 2))
    assert told[0].ago_ms == 1000 * (KEPT - 1)
    assert leader.many == KEPT + 3


def test_nothing_is_done_for_each_request() -> None:
    """Of a thousand frames of one turn one time is noted, however many there are, and the clock is
    not asked."""
    leader = Leader()
    leader.turn(1000, write(1, put(b"k", b"")))
    asked = []
    leader.world.now = lambda: asked.append(1) or 1001 * MS  # type: ignore[method-assign, func-returns-value]
    ticks = []
    for many in (1, 1000):
        asked.clear()
        frames = [write(n, put(b"k", b"")) for n in range(many)]
        batch = tuple((link, msgpack.packb((how, frame))) for link, how, frame in frames)
        leader.front.events([Requests(batch)], 1001 * MS)
        ticks.append(len(asked))
    assert ticks[0] == ticks[1]
    assert leader.front.slow.writes.upto == [1001]


def test_times_are_bounded_however_long_it_takes() -> None:
    came = Came()
    for n in range(10_000):
        came.note(n + 1, n * GRAIN // 100)
    assert len(came.times) == 100
    assert came.upto[-1] == 10_000


def test_what_is_out_of_step_breaks_nothing() -> None:
    """A trip that nobody began, or of which more are over than came."""
    notes = SlowRequests()
    notes.now = 5 * SECOND
    asked = [(ONE, pack_frame(1, request(b"", 1, put(b"k", b"v"))))] * 3
    notes.wrote(asked, [b"x"] * 3, 9, 6 * SECOND)
    notes.lost(asked, 9, 7 * SECOND)
    notes.refused(asked, 7 * SECOND)
    trip = Trip(Came(), 3)
    assert (trip.came_at(0), trip.late(SECOND)) == (3, 0)


@pytest.mark.parametrize(
    ("frame", "verb", "key"),
    [
        (pack_frame(1, request(b"", 1, put(b"k", b"v"))), "put", b"k"),
        (pack_frame(1, request(b"", 1, commands.cas_value(b"k", b"a", b"b"))), "cas", b"k"),
        (pack_frame(1, request(b"", 1, txn((), (delete(b"d"),)))), "txn", b"d"),
        (
            pack_frame(1, request(b"", 1, txn((commands.compare(b"c", 1, 0, 0),), ()))),
            "txn",
            b"c",
        ),
        (pack_frame(1, request(b"", 1, txn((), ()))), "txn", b""),
        (pack_frame(1, request(b"", 1, commands.lease_grant(5, 0))), "lease grant", b""),
        (pack_frame(1, request(b"", 1, (commands.END_SESSION,))), "end session", b""),
        (pack_frame(1, (commands.INFO,)), "info", b""),
        (pack_frame(1, get(b"")), "get", b""),
        (pack_frame(1), "?", b""),
        (pack_frame(1, ()), "?", b""),
        (pack_frame(1, (b"",)), "?", b""),
        (pack_frame(1, (b"s", b"k")), "?", b"k"),
        (pack_frame(1, (b"", 1)), "?", b""),
        (pack_frame(1, (b"", 1, 2)), "put", b""),
        (pack_frame(1, ((), 1)), "?", b""),
        (pack_frame(1, (2.0, b"x")), "?", b"x"),
        (pack_frame(1, {}), "?", b""),
        (b"", "?", b""),
        (b"\xc1", "?", b""),
        (b"\x81\1\1", "?", b""),
        (b"\x81\1\x92\1\1", "?", b""),
        (b"\x91" * 5000, "?", b""),
    ],
)
def test_what_a_frame_asks(frame: bytes, verb: str, key: bytes) -> None:
    """Whatever it is. Values are never told."""
    session, _, *said = slow.what(frame)
    assert (said, session) == ([verb, key], b"")


@pytest.mark.parametrize("many", [1, 15, 16, 300])
def test_how_many_a_frame_asks(many: int) -> None:
    frame = pack_frame(1, *[get(b"k")] * many)
    assert slow._requests(frame) == many


@pytest.mark.parametrize("frame", [b"", b"\x90", b"\xdc", b"\xdc\0\0", b"\xdd\0\0\0\1", b"k"])
def test_what_is_no_frame_asks_nothing(frame: bytes) -> None:
    assert slow._requests(frame) == 0


@pytest.mark.parametrize(
    ("key", "cut", "text"),
    [
        (b"plain", False, "plain"),
        ("é\N{SNOWMAN} ".encode(), False, "é\N{SNOWMAN} "),
        (b"<b>&amp;", False, "<b>&amp;"),
        (b"a\0b\n\x1b[31m", False, r"a\x00b\n\x1b[31m"),
        (b"\xff\xfe", False, r"\xff\xfe"),
        ("\u202eabc\u2028".encode(), False, r"\u202eabc\u2028"),
        (b"back\\slash \\x00", False, r"back\\slash \\x00"),
        ("é".encode()[:1], False, r"\xc3"),
        ("aé".encode()[:2], True, "a…"),
        (b"\xff" * 64, True, r"\xff" * 64 + "…"),
        (b"", False, ""),
    ],
)
def test_keys_as_text(key: bytes, cut: bool, text: str) -> None:
    found = shown(key, cut)
    assert found == text
    assert found.isprintable()


def test_who_asked() -> None:
    assert [slow.who(one) for one in (ONE, OTHER, Link("redis"))] == ["client 1", "ann", "redis"]


def test_what_is_said_again_is_told_once() -> None:
    """Clients repeat what takes long; that waits for the entry which has it already."""
    leader = Leader()
    leader.turn(1000, write(1, put(b"k", b"v")))
    leader.turn(1100, write(1, put(b"k", b"v")))
    leader.turn(1101, write(2, put(b"l", b"v")))
    leader.turn(1250, stable=1)
    leader.decided()
    leader.turn(1251)
    leader.turn(1300, stable=2)
    leader.decided()
    leader.turn(1310, write(2, put(b"l", b"v")))
    leader.turn(1450, stable=3)
    leader.decided()
    assert [(one.key, one.took_ms, one.others) for one in leader.slow] == [
        (b"k", 250, 0), (b"l", 199, 1),
    ]  # fmt: skip
    assert leader.many == 4


def test_a_long_key_is_cut() -> None:
    leader = Leader()
    leader.turn(1000, write(1, put(b"k" * 500, b"v")))
    leader.turn(1200, stable=1)
    leader.decided()
    (told,) = leader.slow
    assert (told.key, told.cut) == (b"k" * KEY_BYTES, True)
