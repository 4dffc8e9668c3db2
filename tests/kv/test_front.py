"""What a front says to its clients: never more than a message carries, and where not to wait."""

from __future__ import annotations

from typing import Any

import msgpack

from engine.contract import Link
from engine.kv.front import ALONE, REST, STRAY, StoreFront
from engine.kv.machine import Machine
from engine.kv.requests import ANSWERED, Watch
from engine.raft.front import Waiting
from engine.raft.requests import Rejected
from engine.wire.envelope import BODY_MAX

ONE, OTHER = Link("client", 1), Link("client", 2)


class Member:
    me, term, leader = 7, 1, 7


class World:
    time = 0

    def now(self) -> int:
        return self.time


class Replica:
    """Takes what a front says."""

    def __init__(self) -> None:
        self.raft, self.world = Member(), World()
        self.said: list[tuple[Link, bytes]] = []

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        assert kind == ANSWERED
        assert all(len(body) <= BODY_MAX for _, body in messages)
        self.said += messages

    def frames(self, link: Link) -> list[bytes]:
        found: list[bytes] = []
        for to, body in self.said:
            if to == link:
                found += msgpack.unpackb(body)[1]
        return found


def _front() -> tuple[Any, Replica]:
    front: Any = StoreFront(Machine(), lambda why: None)
    front.replica = replica = Replica()
    return front, replica


def _frame(number: int) -> bytes:
    return bytes(msgpack.packb((number,)))


def test_all_for_one_link_is_one_message() -> None:
    front, replica = _front()
    part = [(ONE, _frame(1)), (OTHER, _frame(2)), (ONE, _frame(3))]
    front._answer("write_requests", part, [_frame(4), b"", _frame(6)])
    assert (front.malformed, front.outcomes["write_requests"]) == (1, 0)
    front._answer("write_requests", part, [b"a", b"b", b"c"])
    assert len(replica.said) == 3
    assert replica.frames(ONE) == [_frame(4), _frame(6), b"a", b"c"]
    assert replica.frames(OTHER) == [b"b"]


def test_what_is_too_much_for_one_message_is_several() -> None:
    """Seventeen reads of a mebibyte in a turn, which is more than the wire takes at once."""
    front, replica = _front()
    answers = [bytes([n]) * (1 << 20) for n in range(17)]
    assert sum(map(len, answers)) > BODY_MAX
    front._answer("read_requests", [(ONE, _frame(n)) for n in range(17)], answers)
    assert replica.frames(ONE) == answers


def test_watchers_do_not_wait_where_nothing_is_heard() -> None:
    """A replica that has known no leader for a while, or is no member, sends them away."""
    front, replica = _front()
    watch = Watch(3, b"k", None, 0, 16)

    def turn(at: int, leader: int, *asks: Watch) -> list[Any]:
        replica.world.time, replica.raft.leader = at * STRAY // 10, leader
        for ask in asks:
            front.request(ONE, ask)
        return [(send.link, send.message) for send in front.sends()]

    away = [(ONE, Rejected(7, (3,), ALONE, 0, False))]
    assert turn(100, 0, watch) == []
    assert turn(109, 0) == []
    assert turn(111, 0) == away
    assert front.watchers.many == 0
    assert turn(112, 0, watch) == away
    assert turn(113, 0, watch._replace(credit=0)) == []
    assert turn(114, 5) == []
    assert turn(115, 5, watch) == []
    assert turn(120, 0) == []
    assert front.watchers.many == 1
    assert turn(126, 0) == away


def test_who_has_much_to_tell_rests_while_others_are_needed() -> None:
    """The other replicas need a processor for what is under way; nobody does for telling."""
    front, replica = _front()
    replica.world.time = 5
    assert front.until is None
    front.request(ONE, Watch(3, b"k", None, 0, 16))
    assert front.watchers.busy
    assert front.until == 0
    front._waiting.append(Waiting(1, 1, []))
    assert front.until == 5 + REST
    front._waiting.clear()
    front._reading = True
    assert front.until == 5 + REST
