"""What a front says to its clients is never more than a message carries."""

from __future__ import annotations

from typing import Any

import msgpack

from engine.contract import Link
from engine.kv.front import StoreFront
from engine.kv.machine import Machine
from engine.kv.requests import ANSWERED
from engine.wire.envelope import BODY_MAX

ONE, OTHER = Link("client", 1), Link("client", 2)


class Member:
    me = 7


class Replica:
    """Takes what a front says."""

    raft = Member()

    def __init__(self) -> None:
        self.said: list[tuple[Link, bytes]] = []

    def answer(self, link: Link, kind: int, body: bytes) -> None:
        assert kind == ANSWERED
        assert len(body) <= BODY_MAX
        self.said.append((link, body))

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
    front._answer(part, [b"a", b"b", b"c"])
    assert len(replica.said) == 2
    assert (replica.frames(ONE), replica.frames(OTHER)) == ([b"a", b"c"], [b"b"])


def test_what_is_too_much_for_one_message_is_several() -> None:
    """Seventeen reads of a mebibyte in a turn, which is more than the wire takes at once."""
    front, replica = _front()
    answers = [bytes([n]) * (1 << 20) for n in range(17)]
    assert sum(map(len, answers)) > BODY_MAX
    front._answer([(ONE, _frame(n)) for n in range(17)], answers)
    assert replica.frames(ONE) == answers
