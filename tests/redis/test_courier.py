"""Frames on their way, with leaders that come and go; and the door, with connections of its own."""

from __future__ import annotations

import random
import socket
from types import SimpleNamespace
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
from support import patience
from waiting import eventually

from engine.contract import SECOND
from engine.kernels.resp import Intake, Stream
from engine.kv.commands import pack_entry
from engine.kv.machine import Machine
from engine.kv.requests import READ, WRITE, Answered
from engine.raft.machine import NOBODY
from engine.raft.requests import Rejected
from engine.redis.courier import LOOK_AGAIN, PATIENCE, REPEAT, Courier
from engine.redis.door import FULL, Client, Door
from engine.redis.replies import DOWN, UNKNOWN, explain

ME = 1


class Post:
    """A courier whose replica leads or does not, and one connection."""

    def __init__(self) -> None:
        self.now = SECOND
        self.raft = SimpleNamespace(leader=ME, term=1, me=ME)
        chance = random.Random(1)
        self.intake = Intake(explain, chance.randbytes, 100, 1 << 19, 600.0)
        self.courier = Courier(self.intake, dict, None)
        replica: Any = SimpleNamespace(raft=self.raft)
        self.courier.replica = replica
        self.stream = Stream("me", 1 << 20)

    def ask(self, *words: bytes) -> None:
        self.stream.feed(b"*%d\r\n" % len(words))
        self.stream.feed(b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))
        self.stream.next(self.intake)

    def go(self, after: int = 0) -> list[tuple[int, bytes]]:
        """What our own front is told, that much later."""
        self.now += after
        self.courier.expire(self.now, self._over)
        return [tuple(msgpack.unpackb(body)) for body in self.courier.go(self.now)]

    def say(self, message: Any) -> None:
        self.courier.take(message, self.now, self._over)

    def _over(self, clients: list[Any], calls: Any, left: Any, reply: bytes) -> None:
        for _ in clients:
            self.stream.next(self.intake)

    def heard(self) -> bytes:
        out = self.stream.output(1 << 20)
        self.stream.sent(len(out))
        return out


def number(frame: bytes) -> int:
    return int(msgpack.unpackb(frame)[0])


def rejected(frame: bytes, *, unknown: bool) -> Rejected:
    return Rejected(ME, (number(frame),), "why", NOBODY, unknown)


@pytest.fixture
def post() -> Any:
    made = Post()
    yield made
    made.courier.close()


def test_what_is_said_again_is_the_same_and_is_done_once(post: Post) -> None:
    """Leaders change, frames are lost, refused, and answered late."""
    machine = Machine()
    post.ask(b"append", b"k", b"x")
    ((how, frame),) = post.go()
    assert how == WRITE
    machine.apply(pack_entry(1, 0, [(0, frame)]))  # and the answer is lost
    said = [frame]
    post.raft.term = 2
    said += [one for _, one in post.go()]
    post.say(rejected(frame, unknown=True))
    assert post.go() == []
    said += [one for _, one in post.go(LOOK_AGAIN)]
    said += [one for _, one in post.go(REPEAT)]
    assert said == [frame] * 4
    for again in said:
        (answer,) = machine.apply(pack_entry(1, 0, [(0, again)]))
    post.say(Answered(ME, (answer,)))
    assert post.heard() == b":1\r\n"
    assert machine.store.value(b"k") == b"x"
    post.say(Answered(ME, (answer,)))
    assert post.heard() == b""


def test_what_nobody_was_told_was_not_done(post: Post) -> None:
    post.raft.leader = NOBODY
    post.ask(b"set", b"k", b"v")
    assert post.go() == []
    assert post.go(PATIENCE - 1) == []
    assert post.heard() == b""
    assert post.go(1) == []
    assert post.heard() == DOWN


def test_what_a_leader_was_told_may_be_done(post: Post) -> None:
    post.ask(b"set", b"k", b"v")
    assert len(post.go()) == 1
    post.raft.leader = NOBODY
    post.go(PATIENCE)
    assert post.heard() == UNKNOWN


def test_what_was_refused_was_not_done(post: Post) -> None:
    post.ask(b"set", b"k", b"v")
    ((_, frame),) = post.go()
    post.say(rejected(frame, unknown=False))
    post.raft.leader = NOBODY
    post.go(PATIENCE)
    assert post.heard() == DOWN


def test_reads_change_nothing_whoever_was_told(post: Post) -> None:
    post.ask(b"get", b"k")
    ((how, _),) = post.go()
    assert how == READ
    post.raft.leader = NOBODY
    post.go(PATIENCE)
    assert post.heard() == DOWN


def test_one_flight_of_writes_at_a_time_has_all_that_came_meanwhile(post: Post) -> None:
    machine = Machine()
    post.ask(b"set", b"k", b"1")
    ((_, first),) = post.go()
    other = Stream("other", 99)
    for _ in range(3):
        other.feed(b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$1\r\n2\r\n")
    other.next(post.intake)
    assert post.go(1) == []
    (answer,) = machine.apply(pack_entry(1, 0, [(0, first)]))
    post.say(Answered(ME, (answer,)))
    frames = post.go() or post.go(SECOND // 100)
    assert [len(msgpack.unpackb(frame)) - 1 for _, frame in frames] == [3]


def test_it_sleeps_while_there_is_nothing_to_do(post: Post) -> None:
    assert post.courier.until is None
    post.ask(b"set", b"k", b"v")
    assert not post.courier.idle(post.now)
    ((_, frame),) = post.go()
    assert post.courier.idle(post.now)
    assert post.courier.until == post.now + REPEAT
    post.say(rejected(frame, unknown=True))
    assert post.courier.idle(post.now)
    assert post.courier.until == post.now + LOOK_AGAIN


# --- the door ------------------------------------------------------------------------------------


def test_no_more_connections_than_are_allowed() -> None:
    came: list[Client] = []
    gone: list[Client] = []
    door = Door(("127.0.0.1", 0), came.append, lambda _: None, gone.append, clients_max=2)
    ends = [socket.create_connection(door.address) for _ in range(3)]
    try:
        for end in ends:
            end.settimeout(patience(10))
        eventually(lambda: door.drain(0.0) or door.counts["refused"] == 1, 10)
        assert len(came) == 2
        assert ends[2].recv(100) == FULL
        assert ends[2].recv(100) == b""
        ends[0].close()
        eventually(lambda: (door.drain(0.0), door.flush(), gone)[-1], 10)
        assert len(door.clients) == 1
    finally:
        for end in ends:
            end.close()
        door.close()
