"""Frames by the kernel against pyzmq's own calls, message by message."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support import dose, patience
from waiting import eventually

from engine.kernels.frames import Frames, Poller
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


def test_many_are_answered_at_once(pair: Pair) -> None:
    """As one by one, in envelopes; whose way is not known, or who is gone, is said."""
    ways = {"here": (pair.route, 77), "gone": (b"nobody", 78)}
    told = [(link, os.urandom(n * 40)) for n, link in enumerate(("here", "gone", "?", "here"))]
    assert pair.here.answer(161, 5, ways, told) == [(78, zmq.EHOSTUNREACH), (0, 0)]
    found: list[Any] = []
    eventually(lambda: len(found) == 2 or found.extend(pair.there.receive(9, 1 << 20)[1]))
    assert found == [envelope.pack(161, 5, 77, body) for link, body in told if link == "here"]


def test_who_does_not_read_its_answers_loses_some(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        router = context.socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.SNDHWM, 1)
        router.bind(f"ipc://{tmp_path}/s")
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.RCVHWM, 1)
        dealer.connect(f"ipc://{tmp_path}/s")
        dealer.send(b"hello")
        here = Frames(router, routed=True)
        ways = {"it": (router.recv_multipart()[0], 3)}
        lost = here.answer(1, 1, ways, [("it", bytes(1 << 20))] * 100)
        assert lost
        assert set(lost) == {(3, zmq.EAGAIN)}
    finally:
        context.destroy(linger=0)


# --- waiting -------------------------------------------------------------------------------------


class Polled:
    """A pair, and a pipe, that are polled."""

    def __init__(self, pair: Pair, spin: int) -> None:
        self.pair = pair
        self.read, self.write = os.pipe()
        self.poller = Poller(spin)
        for source in (pair.here, self.read, pair.there):
            self.poller.add(source)

    def ready(self, milliseconds: int = 0) -> set[Any]:
        return {getattr(one, "socket", one) for one in self.poller.poll(milliseconds)}

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(params=[0, 300], ids=["sleeps", "spins"])
def polled(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Polled]:
    found = Polled(pair, request.param)
    yield found
    found.close()


def test_a_poller_says_where_something_is(polled: Polled) -> None:
    """Whatever was sent and taken meanwhile, in parts or all of it, looked for or not. What is
    right is counted: whoever asks ZeroMQ reads the descriptors."""
    rng = random.Random(3)
    pair, pipe = polled.pair, polled.read
    router, dealer = pair.here.socket, pair.there.socket
    there: Counter[Any] = Counter()
    for _ in range(dose(3000, 100_000)):
        many = rng.choice((1, 2, 100))
        match rng.randrange(7):
            case 0 if there[router] < 500:
                assert pair.there.send(None, b"a", bytes(rng.randrange(2000))) == 0
                there[router] += 1
            case 1 if there[dealer] < 500:
                assert pair.here.send(pair.route, b"b", bytes(rng.randrange(2000))) == 0
                there[dealer] += 1
            case 2:
                there[router] -= sum(map(len, pair.here.receive(many, 1 << 20)))
            case 3:
                there[dealer] -= sum(map(len, pair.there.receive(many, 1 << 20)))
            case 4:
                there[pipe] += os.write(polled.write, b"!")
            case 5 if there[pipe]:
                there[pipe] -= len(os.read(pipe, many))
        if rng.random() < 0.5:
            right = {source for source, left in there.items() if left}
            assert polled.ready() <= right
            eventually(lambda right=right: polled.ready() == right)


def test_what_is_left_is_said_again(polled: Polled) -> None:
    """A descriptor tells once; whoever does not take all of it must not wait for more."""
    for _ in range(3):
        polled.pair.there.send(None, b"", b"frame")
    router = polled.pair.here
    for left in (3, 2, 1):
        for _ in range(3):
            assert polled.ready(5000) == {router.socket}
            assert not router.quiet
        requests, others = router.receive(1, 1 << 20)
        assert len(requests) + len(others) == 1, left
    assert polled.ready() == set()
    assert router.quiet


def test_what_came_while_something_was_sent_is_seen(polled: Polled) -> None:
    """Sending reads the descriptor as well."""
    pair = polled.pair
    assert polled.ready() == set()
    pair.there.send(None, b"", b"frame")
    eventually(lambda: pair.here.socket.getsockopt(zmq.FD) in readable(polled.poller))
    for _ in range(200):  # and now nothing is to be read there any more
        pair.here.send(pair.route, b"", b"")
    assert polled.ready(5000) >= {pair.here.socket}


@pytest.mark.parametrize("polled", [300], indirect=True)
@pytest.mark.parametrize(
    ("waits", "spins"), [("+-", 1), ("-", 0), ("-+", 0), ("--", 0), ("!+-", 0)]
)
def test_only_whoever_is_busy_spins(polled: Polled, waits: str, spins: int) -> None:
    """Who waits for what is there (+), or for what is not; and (!) who may not spin."""
    polled.poller.may_spin = not waits.startswith("!")
    for wait in waits.lstrip("!"):
        if wait == "+":
            os.write(polled.write, b"!")
        ready = polled.ready(20)
        assert ready == ({polled.read} if wait == "+" else set())
        if ready:
            os.read(polled.read, 1)
    assert polled.poller.spins == spins


@pytest.mark.parametrize("polled", [1_000_000_000], indirect=True)
@pytest.mark.parametrize("comes", [True, False])
def test_whoever_spins_sees_what_comes_and_stops_in_time(polled: Polled, comes: bool) -> None:
    os.write(polled.write, b"!")
    assert polled.ready(20) == {polled.read}  # it is busy
    os.read(polled.read, 1)
    timer = threading.Timer(0.02, lambda: os.write(polled.write, b"!"))
    if comes:
        timer.start()
    assert polled.ready(30_000 if comes else 20) == ({polled.read} if comes else set())
    timer.cancel()
    assert polled.poller.spins == 1


@pytest.fixture
def crowd() -> Iterator[None]:
    """Somebody else has use for the only processor that we may run on."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        script = "print(flush=True)\nwhile True: pass"
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            yield
            other.kill()
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are bound to a processor")
@pytest.mark.parametrize("polled", [1_000_000], indirect=True)
def test_whoever_spins_in_a_crowd_leaves_it_for_a_while(polled: Polled, crowd: None) -> None:
    def spins(milliseconds: int) -> int:
        """A wait for what is there, and one in vain, which spins if the first one was short."""
        os.write(polled.write, b"!")
        assert polled.ready(20) == {polled.read}
        os.read(polled.read, 1)
        assert polled.ready(milliseconds) == set()
        return polled.poller.spins

    def left() -> bool:
        """None of several waits spins, within a tenth of a second after one that did."""
        began, before = time.monotonic(), polled.poller.spins
        if spins(20) == before:
            return False
        many = [spins(1) for _ in range(5)]
        if time.monotonic() - began > 0.1:
            return False
        assert many == [before + 1] * 5
        return True

    eventually(left, 30)


def readable(poller: Poller) -> set[int]:
    return set(select.select(poller.descriptors(), [], [], 0)[0])


def test_it_waits_as_long_as_it_is_told(polled: Polled) -> None:
    begin = time.monotonic()
    assert polled.ready(60) == set()
    assert 0.058 <= time.monotonic() - begin < patience(10)


def test_it_is_woken_by_what_arrives(polled: Polled) -> None:
    for wake, source in (
        (lambda: os.write(polled.write, b"!"), polled.read),
        (lambda: polled.pair.here.send(polled.pair.route, b"", b""), polled.pair.there.socket),
    ):
        timer = threading.Timer(0.02, wake)
        timer.start()
        assert polled.ready(int(patience(20_000))) == {source}
        timer.join()
        if source == polled.read:
            os.read(polled.read, 1)


def test_who_is_left_out_is_not_looked_at_this_time(polled: Polled) -> None:
    pair, read = polled.pair, polled.read
    os.write(polled.write, b"!")
    pair.here.send(pair.route, b"", b"frame")
    pair.there.send(None, b"", b"frame")
    everything = {pair.here.socket, pair.there.socket, read}
    eventually(lambda: polled.ready() == everything)
    for without in ([pair.here], [read], [pair.there, read], [read, pair.here, pair.there]):
        left = everything - {getattr(one, "socket", one) for one in without}
        assert {getattr(o, "socket", o) for o in polled.poller.poll(20, without)} == left
        assert polled.ready() == everything
    with pytest.raises(ValueError, match="is not in list"):
        polled.poller.poll(0, [polled.write])
    assert polled.ready() == everything
    pair.there.receive(9, 1 << 20)
    os.read(read, 1)
    pair.here.receive(9, 1 << 20)
    assert polled.poller.poll(0, [pair.here]) == []
    pair.there.send(None, b"", b"frame")
    begin = time.monotonic()
    assert polled.poller.poll(30, [pair.here]) == []
    assert time.monotonic() - begin >= 0.028
    assert polled.ready(5000) == {pair.here.socket}


def test_who_was_looked_at_and_had_nothing_is_quiet(polled: Polled) -> None:
    """Until it is used, or a look finds something; and whoever goes by it takes it back."""
    router = polled.pair.here
    for _ in range(2):  # it was used before the first look, and not before the second
        assert polled.ready() == set()
        assert router.quiet
        router.quiet = False
    polled.pair.there.send(None, b"", b"frame")
    assert polled.ready(5000) == {router.socket}
    assert not router.quiet


def test_a_signal_is_heard(polled: Polled) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    timer = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        begin = time.monotonic()
        while not heard and time.monotonic() < begin + patience(10):
            assert polled.ready(int(patience(20_000))) == set()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_who_was_removed_is_not_looked_for(polled: Polled) -> None:
    poller, pair = polled.poller, polled.pair
    assert len(poller) == len(poller.descriptors()) == 3
    os.write(polled.write, b"!")
    pair.here.send(pair.route, b"", b"")
    eventually(lambda: polled.ready() == {polled.read, pair.there.socket})
    poller.remove(pair.here)
    assert polled.ready() == {polled.read, pair.there.socket}
    poller.remove(polled.read)
    assert polled.ready() == {pair.there.socket}
    with pytest.raises(ValueError, match="is not in list"):
        poller.remove(polled.read)
    poller.remove(pair.there)
    assert (polled.ready(), len(poller)) == (set(), 0)


def test_a_closed_socket_is_not_looked_into(polled: Polled) -> None:
    polled.pair.dealer.close(0)
    with pytest.raises(ValueError, match="closed"):
        polled.poller.poll(0)
    with pytest.raises(ValueError, match="closed"):
        Poller().add(polled.pair.there)


def test_named_frames_come_with_what_is_known_of_their_connection(pair: Pair) -> None:
    """Without keys that is its descriptor, and no user."""
    named = Frames(pair.router, routed=True, named=True)
    pair.dealer.send(b"one")
    found = eventually(lambda: named.receive(10, 1000)[1])
    ((route, frame, user, way),) = found
    assert (route, frame, user) == (pair.route, b"one", b"")
    with socket.socket(fileno=os.dup(int(way))) as connection:
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0
