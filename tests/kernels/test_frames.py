"""Frames by the kernel against pyzmq's own calls, message by message."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from waiting import eventually

from engine.kernels.frames import Frames
from engine.wire import envelope
from engine.wire.envelope import PREFIX_BYTES


class Pair:
    """A ROUTER and a DEALER that know each other."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.router, self.dealer = self.context.socket(zmq.ROUTER), self.context.socket(zmq.DEALER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(f"ipc://{folder}/s")
        self.dealer.connect(f"ipc://{folder}/s")
        self.dealer.send(b"hello")
        self.route = self.router.recv_multipart()[0]
        self.here, self.there = Frames(self.router, routed=True), Frames(self.dealer, routed=False)

    def arrived(self, frames: int, proven: dict[Any, Any] | None = None) -> tuple[list[Any], ...]:
        """So many at the router, as soon as they are there."""
        requests: list[Any] = []
        others: list[Any] = []

        def taken() -> bool:
            more = self.here.receive(100, 1 << 20, proven)
            requests.extend(more[0])
            others.extend(more[1])
            return len(requests) + len(others) + self.here.malformed >= frames

        eventually(taken)
        return requests, others


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    found = Pair(tmp_path)
    yield found
    found.context.destroy(linger=0)


def test_nothing_is_there(pair: Pair) -> None:
    assert pair.here.receive(10, 1000) == ([], [])
    assert pair.there.receive(10, 1000) == ([], [])


def test_what_arrives_is_what_was_sent(pair: Pair) -> None:
    rng = random.Random(1)
    sent = [rng.randbytes(rng.choice((0, 1, 29, 64, 5000, 100_000))) for _ in range(60)]
    for body in sent:
        pair.dealer.send(body)
    assert pair.arrived(60) == ([], [(pair.route, body) for body in sent])
    for body in sent:
        assert pair.here.send(pair.route, body[:7], body[7:]) == 0
    assert [pair.dealer.recv() for _ in sent] == sent
    for body in sent:
        assert pair.there.send(None, b"", body) == 0
    assert [pair.router.recv_multipart() for _ in sent] == [[pair.route, body] for body in sent]


def test_no_more_than_was_asked_for(pair: Pair) -> None:
    for number in range(9):
        pair.dealer.send(b"%d" % number)
    eventually(lambda: pair.router.poll(0))
    eventually(lambda: pair.here.receive(1, 100)[1])
    second = eventually(lambda: pair.here.receive(100, 1)[1])
    assert second == [(pair.route, b"1")], "its size was enough"
    _, rest = pair.arrived(7)
    assert [body for _, body in rest] == [b"%d" % number for number in range(2, 9)]


def test_messages_of_other_than_one_frame_are_dropped_and_counted(pair: Pair) -> None:
    pair.dealer.send(b"before")
    pair.dealer.send_multipart([b"two", b"parts"])
    pair.dealer.send_multipart([b"", b"", b"three"])
    pair.dealer.send(b"after")
    _, others = pair.arrived(4)
    assert [body for _, body in others] == [b"before", b"after"]
    assert pair.here.malformed == 2


def _request(link: int, body: bytes) -> bytes:
    return envelope.pack(99, 7, link, body)


def test_requests_are_told_from_others(pair: Pair) -> None:
    prefix = _request(5, b"")[:PREFIX_BYTES]
    proven = {prefix: (pair.route, "five")}
    frames = [
        _request(5, b"abc"),
        _request(5, b""),
        _request(6, b"abc"),  # another link
        _request(5, b"abc") + b"x",  # longer than it says
        _request(5, b"abc")[:-1],
        prefix,
        b"",
        _request(5, bytes(70_000)),
    ]
    for frame in frames:
        pair.dealer.send(frame)
    requests, others = pair.arrived(len(frames), proven)
    assert requests == [("five", b"abc"), ("five", b""), ("five", bytes(70_000))]
    assert [body for _, body in others] == frames[2:7]


def test_by_another_route_it_is_no_request(pair: Pair) -> None:
    proven = {_request(5, b"")[:PREFIX_BYTES]: (b"somebody else's", "five")}
    pair.dealer.send(_request(5, b"abc"))
    assert pair.arrived(1, proven) == ([], [(pair.route, _request(5, b"abc"))])


def test_who_is_not_there_cannot_be_told(pair: Pair) -> None:
    assert pair.here.send(b"nobody", b"", b"x") == zmq.EHOSTUNREACH
    assert pair.here.send(pair.route, b"", b"x") == 0


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)  # of nobody
    frames = Frames(dealer, routed=False)
    assert frames.send(None, b"", b"x") == zmq.EAGAIN
    context.destroy(linger=0)


def test_a_closed_socket_is_refused(pair: Pair) -> None:
    pair.router.close()
    with pytest.raises(ValueError, match="closed"):
        pair.here.receive(1, 1)
    with pytest.raises(ValueError, match="closed"):
        pair.here.send(b"", b"", b"")
