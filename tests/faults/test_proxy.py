"""The fault proxy between real sockets: what it lets pass, what it does not, and what it counts.

`End`s are plain sockets that speak ZMTP by hand, so a test knows which bytes are on their way.
Where ZeroMQ's own behaviour counts, the ends are ZeroMQ's, and the destination a real process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any

import psutil
import pytest
import zmq
from support import patience
from waiting import eventually

from engine.contract import SECOND, Received
from engine.errors import EngineError, UsageError
from engine.faults.control import Proxy
from engine.faults.links import REPLY, REQUEST, Counts, generator
from engine.faults.pair import WAITING_MAX
from engine.faults.zmtp import Command, Item, Message, Setup, Splitter
from engine.mapreduce.messages import Scanned
from engine.sim.timeline import MILLISECOND
from engine.sim.weather import CALM, LABRPC_REORDERING, Weather
from engine.wire import envelope
from engine.wire.endpoint import Dialer, Listener

SEED = 7
KIND, HELLO = 20, 1
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x06\x05READY"
PING = b"\x04\x07\x04PING\0\x0a"
HEADER = envelope.HEADER.size


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(SEED) as made:
        yield made


# --- ends by hand --------------------------------------------------------------------------------


def wire(*texts: str, kind: int = KIND) -> bytes:
    """Messages of one frame each."""
    frames = (envelope.pack(kind, 1, 1, text.encode()) for text in texts)
    return b"".join(b"\x02" + len(frame).to_bytes(8, "big") + frame for frame in frames)


class End:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.items: list[Item] = []
        self._splitter = Splitter()
        sock.settimeout(patience(10))

    def say(self, *texts: str, kind: int = KIND) -> None:
        self.sock.sendall(wire(*texts, kind=kind))

    def read(self) -> bool:
        """Take what has come, waiting for something; False at the end."""
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self.items += self._splitter.feed(data)
        assert not self._splitter.malformed
        return bool(data)

    def set_up(self) -> None:
        """Read until the other end has said READY."""
        while self._set_up_bytes() < len(GREETING + READY):
            assert self.read()
        self.items = [item for item in self.items if not isinstance(item, Setup)]

    def still(self) -> bool:
        """Whether nothing has come, not even the end."""
        self.sock.settimeout(0)
        try:
            self.read()
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(patience(10))
        return False

    def hear(self, last: str) -> list[str]:
        """All messages up to this one."""
        while last not in (texts := self._texts()):
            assert self.read(), f"ended after {texts}"
        heard = texts[: texts.index(last) + 1]
        messages = [item for item in self.items if isinstance(item, Message)]
        self.items = messages[len(heard) :]
        return heard

    def rest(self) -> list[str]:
        """All messages up to the end."""
        while self.read():
            pass
        return self._texts()

    def _set_up_bytes(self) -> int:
        return sum(len(item.raw) for item in self.items if isinstance(item, Setup))

    def _texts(self) -> list[str]:
        return [
            item.raw[item.begin + HEADER :].decode()
            for item in self.items
            if isinstance(item, Message)
        ]


class Place:
    """A destination: a socket that listens, and the ends of its connections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = f"ipc://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(patience(10))
        self.ends: list[End] = []

    def accept(self) -> End:
        self.ends.append(End(self._listener.accept()[0]))
        return self.ends[-1]

    def idle(self) -> bool:
        """Whether nobody has dialled."""
        self._listener.settimeout(0)
        try:
            self.accept()
        except BlockingIOError:
            return True
        finally:
            self._listener.settimeout(patience(10))
        return False

    def dial(self, address: str) -> End:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address.removeprefix("ipc://"))
        self.ends.append(End(sock))
        return self.ends[-1]

    def meet(self, address: str) -> tuple[End, End]:
        """(near, far) of a connection through this address that has been set up."""
        near = self.dial(address)
        far = self.accept()
        near.sock.sendall(GREETING + READY)
        far.sock.sendall(GREETING + READY)
        near.set_up()
        far.set_up()
        return near, far

    def close(self) -> None:
        for end in self.ends:
            end.sock.close()
        self._listener.close()
        self.path.unlink()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "s")
    yield made
    made.close()


def lost(proxy: Proxy, requests: int, replies: int = 0) -> None:
    """Wait until so many were lost."""
    eventually(lambda: proxy.total()[2:9:5] == (requests, replies), what="losses")


# --- calm ----------------------------------------------------------------------------------------


@pytest.fixture
def zeromq() -> Iterator[Callable[..., zmq.Socket[bytes]]]:
    context = zmq.Context()

    def make(kind: int) -> zmq.Socket[bytes]:
        made = context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.RCVTIMEO, int(patience(10) * 1000))
        return made

    yield make
    context.destroy()


@pytest.mark.parametrize("address", ["ipc://{}/s", "tcp://127.0.0.1:*"], ids=["ipc", "tcp"])
def test_a_calm_link_passes_everything_in_order(
    address: str, proxy: Proxy, zeromq: Callable[..., Any], tmp_path: Path
) -> None:
    router, dealer = zeromq(zmq.ROUTER), zeromq(zmq.DEALER)
    router.bind(address.format(tmp_path))
    dealer.connect(proxy.link("a", "b", router.getsockopt_string(zmq.LAST_ENDPOINT)))
    rng = random.Random(1)
    sizes = [*(rng.randrange(300) for _ in range(2000)), 3 << 20, 70_000, 0, 1 << 20]
    sent = [b"%d " % number + rng.randbytes(size) for number, size in enumerate(sizes)]
    came = []
    for first in range(0, len(sent), 500):
        for body in sent[first : first + 500]:
            dealer.send(body)
        for body in sent[first : first + 500]:
            route, frame = router.recv_multipart()
            assert frame == body
            router.send_multipart([route, frame])
        came += [dealer.recv() for _ in sent[first : first + 500]]
    assert came == sent
    size, number = sum(map(len, sent)), len(sent)
    assert proxy.total() == Counts(
        requests=number,
        requests_delivered=number,
        request_bytes=size,
        replies=number,
        replies_delivered=number,
        reply_bytes=size,
    )


def test_links_are_counted_apart_and_without_envelopes(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    other, _ = place.meet(proxy.link("c", "b", place.address))
    near.say("hello!", kind=HELLO)
    near.say("four", "eleven more")
    near.sock.sendall(b"\0\x05plain" + PING + b"\x01\x03one" + b"\0\x03two")
    eventually(lambda: proxy.total("a").requests_delivered == 4)
    far.say("12345")
    near.hear("12345")
    other.say("x")
    eventually(lambda: proxy.total("c").requests_delivered == 1)
    expected = Counts(
        requests=4,
        requests_delivered=4,
        request_bytes=4 + 11 + 5 + 3,
        replies=1,
        replies_delivered=1,
        reply_bytes=5,
    )
    assert proxy.counts() == {
        ("a", "b"): expected,
        ("c", "b"): Counts(requests=1, requests_delivered=1, request_bytes=1),
    }
    assert proxy.total("a") == proxy.total("a", "b") == expected
    assert proxy.total("*", "b").request_bytes == 24
    assert proxy.total("*", "a") == Counts()


def test_the_same_pair_keeps_its_address_and_may_move(
    proxy: Proxy, place: Place, tmp_path: Path
) -> None:
    address = proxy.link("a", "b", place.address)
    near, far = place.meet(address)
    elsewhere = Place(tmp_path / "t")
    assert proxy.link("a", "b", elsewhere.address) == address
    moved, arrived = elsewhere.meet(address)
    moved.say("to the new")
    assert arrived.hear("to the new")
    near.say("to the old")
    assert far.hear("to the old")
    elsewhere.close()


# --- weather -------------------------------------------------------------------------------------

ROUGH = Weather(0.2, 0.3, 0.25, 0.15, (0, 20 * MILLISECOND), (0, 10 * MILLISECOND))


def exchange(seed: int, weather: Weather, place: Place, number: int) -> tuple[list[str], list[str]]:
    """What arrives of so many requests and replies, in order of arrival."""
    with Proxy(seed) as proxy:
        proxy.weather("a", "*", weather)  # before the link is there
        near, far = place.meet(proxy.link("a", "b", place.address))
        texts = [str(n) for n in range(number)]
        near.say(*texts)
        far.say(*texts)

        def all_came() -> bool:
            c = proxy.total()
            came = c.requests_delivered + c.replies_delivered
            return c.requests == c.replies == number and came + c.lost - c.duplicated == 2 * number

        eventually(all_came)
        for way, fates in (("request", weather.request_fates), ("reply", weather.reply_fates)):
            rng = generator(seed, "a", "b", REQUEST if way == "request" else REPLY)
            logged = [event.delays for event in proxy.log() if event.what == way]
            assert logged == [fates(rng) for _ in texts]
        proxy.weather("*", "*", CALM)
        near.say("end")
        far.say("end")
        return far.hear("end")[:-1], near.hear("end")[:-1]


def test_fates_are_the_weathers_own(place: Place) -> None:
    weather = ROUGH._replace(request_delay=(0, 0), reply_delay=(0, 0))
    came = exchange(SEED, weather, place, 2000)
    for way, fates in ((REQUEST, weather.request_fates), (REPLY, weather.reply_fates)):
        rng = generator(SEED, "a", "b", way)
        assert came[way] == [str(n) for n in range(2000) for _ in fates(rng)]
    assert 1700 < len(came[REQUEST]) < 2300, "0.8 of them, a quarter twice"
    assert came == exchange(SEED, weather, place, 2000)
    assert came != exchange(SEED + 1, weather, place, 2000)


def test_chance_is_of_one_way_of_one_link() -> None:
    who = [(1, "a", "b", REQUEST), (1, "a", "b", REPLY), (1, "b", "a", REQUEST), (2, "a", "b", 0)]
    assert len({generator(*one).random() for one in [*who, *who]}) == len(who)


def test_delayed_messages_overtake_each_other(place: Place) -> None:
    came = exchange(SEED, ROUGH, place, 300)
    for way, fates in ((REQUEST, ROUGH.request_fates), (REPLY, ROUGH.reply_fates)):
        rng = generator(SEED, "a", "b", way)
        expected = [str(n) for n in range(300) for _ in fates(rng)]
        assert came[way] != expected
        assert sorted(came[way]) == sorted(expected)


def test_no_message_is_early(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    weather = Weather(request_delay=(20 * MILLISECOND, 60 * MILLISECOND))
    proxy.weather("*", "*", weather)
    rng = generator(SEED, "a", "b", REQUEST)
    for text in map(str, range(10)):
        sent = monotonic_ns()
        near.say(text)
        far.hear(text)
        took = monotonic_ns() - sent
        (delay,) = weather.request_fates(rng)
        assert delay <= took < delay + patience(1) * SECOND


def test_long_reordering_holds_replies(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    weather = LABRPC_REORDERING._replace(reply_loss=0)
    proxy.weather("*", "*", weather)
    texts = [str(n) for n in range(12)]
    far.say(*texts)
    rng = generator(SEED, "a", "b", REPLY)
    fates = {text: weather.reply_fates(rng)[0] for text in texts}
    first = max((text for text in texts if not fates[text]), key=int)
    assert near.hear(first) == [text for text in texts if not fates[text]]
    last = max(texts, key=lambda text: fates[text])
    assert near.hear(last) == sorted((text for text in texts if fates[text]), key=fates.__getitem__)


def test_a_handshake_is_outside_the_weather(proxy: Proxy) -> None:
    """Hello and Welcome arrive where everything else is lost."""
    with Listener("ipc://*") as listener:
        address = proxy.link("a", "b", listener.address)
        proxy.weather("*", "*", Weather(request_loss=1, reply_loss=1))
        with Dialer(address, role="worker") as dialer:
            join(dialer, listener)
            dialer.send(Scanned(1))
            lost(proxy, 1)
            assert proxy.total() == Counts(requests=1, requests_lost=1, request_bytes=2)


def join(dialer: Dialer, listener: Listener) -> None:
    """Connect while the listener is served."""
    joining = threading.Thread(target=dialer.connect, args=(patience(10),))
    joining.start()
    while joining.is_alive():
        for event in listener.drain(100, 1 << 20):
            assert not isinstance(event, Received)
        joining.join(0.001)
    assert dialer.link is not None


# --- cuts ----------------------------------------------------------------------------------------


def test_a_cut_is_of_one_direction_or_both(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    proxy.cut("a", "b", "request")
    near.say("lost 1")
    near.sock.sendall(PING)
    far.say("passes 1")
    assert near.hear("passes 1") == ["passes 1"]
    lost(proxy, 1)
    proxy.heal("a", "b")
    proxy.cut("a", "b", "reply")
    near.say("passes 2")
    far.say("lost 2")
    assert far.hear("passes 2") == ["passes 2"]
    lost(proxy, 1, 1)
    proxy.cut("a", "*")
    near.say("lost 3")
    far.say("lost 4")
    lost(proxy, 2, 2)
    proxy.heal()
    near.say("passes 3")
    near.sock.sendall(PING)
    near.say("passes 4")
    far.say("passes 5")
    assert far.hear("passes 3") == ["passes 3"]
    assert far.hear("passes 4") == ["passes 4"]
    assert near.hear("passes 5") == ["passes 5"]
    c = proxy.total()
    assert (c.requests, c.requests_delivered) == (5, 3)
    assert (c.replies, c.replies_delivered) == (4, 2)


def test_pings_pass_but_not_through_a_cut(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    near.sock.sendall(PING + wire("x"))
    while not any(isinstance(item, Message) for item in far.items):
        far.read()
    assert far.items.pop(0) == Command(PING, b"PING")
    far.items.clear()
    proxy.cut("*", "b")
    near.sock.sendall(PING + wire("y"))
    lost(proxy, 1)
    proxy.heal()
    near.say("z")
    far.read()
    assert [type(item) for item in far.items] == [Message]


def test_what_was_sent_in_a_cut_is_not_delivered_after_it(proxy: Proxy, place: Place) -> None:
    """Neither if it lies unread in the proxy's socket, nor if it arrived only in part."""
    near, far = place.meet(proxy.link("a", "b", place.address))
    for turn in range(50):
        proxy.cut("a", "b")
        near.say(f"unread {turn}")
        part = wire(f"in part {turn}")
        near.sock.sendall(part[: turn % len(part) + 1])
        far.say(f"unread {turn}")
        proxy.heal()
        near.sock.sendall(part[turn % len(part) + 1 :])
        near.say(f"new {turn}")
        far.say(f"new {turn}")
        assert far.hear(f"new {turn}") == [f"new {turn}"]
        assert near.hear(f"new {turn}") == [f"new {turn}"]


def test_delayed_messages_do_not_cross_a_cut(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    proxy.hold("a", "b", "request", 0.05)
    near.say("due in the cut")
    eventually(lambda: proxy.total().requests == 1)
    proxy.cut("a", "b")
    lost(proxy, 1)
    proxy.heal()
    near.say("after")
    assert far.hear("after") == ["after"]


def test_new_connections_wait_for_the_heal(proxy: Proxy, place: Place) -> None:
    address = proxy.link("a", "b", place.address)
    proxy.cut("a", "b", "reply")
    near = place.dial(address)
    near.sock.sendall(GREETING[:10])
    impatient = place.dial(address)
    proxy.counts()
    assert place.idle()
    impatient.sock.close()
    proxy.heal()
    far = place.accept()
    near.sock.sendall(GREETING[10:] + READY)
    far.set_up()
    near.say("x")
    assert far.hear("x")
    assert place.idle(), "one that was given up in the cut"


def test_set_up_bytes_are_held_in_a_cut_and_go_on(proxy: Proxy, place: Place) -> None:
    near = place.dial(proxy.link("a", "b", place.address))
    far = place.accept()
    near.sock.sendall(GREETING[:10])
    far.read()
    proxy.cut("a", "b")
    near.sock.sendall(GREETING[10:] + READY + PING + wire("x"))
    lost(proxy, 1)
    assert far.still()
    proxy.heal()
    near.say("y")
    far.set_up()
    assert far.hear("y") == ["y"]


def test_a_lost_word_of_the_handshake_costs_the_connection(proxy: Proxy) -> None:
    """Nobody would repeat it: the dialer gets another connection, and says all of it again."""
    with Listener("ipc://*") as listener:
        address = proxy.link("a", "b", listener.address)
        with Dialer(address, role="worker") as dialer:
            join(dialer, listener)
        proxy.cut("a", "b", "reply")
        proxy.heal("a", "b")
        with Dialer(address, role="worker") as dialer:
            join_through_a_cut(proxy, dialer, listener)
            dialer.send(Scanned(5))
            eventually(lambda: [e for e in listener.drain(9, 9999) if isinstance(e, Received)])


def join_through_a_cut(proxy: Proxy, dialer: Dialer, listener: Listener) -> None:
    """Cut the link once Hello has passed and before Welcome does; heal when that is lost."""

    def words() -> list[tuple[str, int]]:
        return [(e.what, len(e.delays)) for e in proxy.log() if e.what == "handshake"]

    before = len(words())
    joining = threading.Thread(target=dialer.connect, args=(patience(10),))
    joining.start()
    eventually(lambda: len(words()) > before)
    proxy.cut("a", "b", "reply")
    eventually(lambda: listener.drain(100, 1 << 20))
    eventually(lambda: ("handshake", 0) in words())
    proxy.heal()
    while joining.is_alive():
        listener.drain(100, 1 << 20)
        joining.join(0.001)
    assert dialer.link is not None


def test_ends_travel_as_data_would(proxy: Proxy, place: Place) -> None:
    address = proxy.link("a", "b", place.address)
    near, far = place.meet(address)
    proxy.hold("a", "b", "request", 0.05)
    near.say("last words")
    near.sock.close()
    assert far.rest() == ["last words"]
    proxy.hold("a", "b", "request", 0)
    near, far = place.meet(address)
    proxy.cut("a", "b", "reply")
    far.sock.close()
    eventually(lambda: proxy.log()[-1].what == "destination ended")
    assert near.still()
    proxy.heal()
    assert near.rest() == []


# --- orders --------------------------------------------------------------------------------------


def test_hold_delays_and_does_not_drop(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    proxy.hold("*", "b", "request", 0.15)
    sent = monotonic()
    near.say("0", "1", "2")
    far.say("reply")
    near.hear("reply")
    assert far.hear("2") == ["0", "1", "2"]
    assert 0.15 <= monotonic() - sent < 0.15 + patience(2)
    near.say("held")
    eventually(lambda: proxy.total().requests == 4)
    proxy.hold("*", "b", "request", 0)
    near.say("overtakes")
    assert far.hear("held") == ["overtakes", "held"]
    assert proxy.total().lost == 0


def test_refuse_and_accept(proxy: Proxy, place: Place) -> None:
    address = proxy.link("a", "b", place.address)
    near, far = place.meet(address)
    proxy.refuse("a", "*")
    assert near.rest() == far.rest() == []
    assert place.dial(address).rest() == []
    assert place.idle()
    proxy.accept()
    near, far = place.meet(address)
    near.say("x")
    assert far.hear("x")


def test_rules_hold_for_later_links_and_the_last_one_wins(proxy: Proxy, place: Place) -> None:
    proxy.weather("*", "*", Weather(request_loss=1))
    proxy.weather("a", "*", CALM)
    proxy.cut("*", "b", "reply")
    proxy.heal("c", "b")
    passes, _ = place.meet(proxy.link("c", "d", place.address))
    passes.say("lost by the weather")
    lost(proxy, 1)
    proxy.link("a", "b", place.address)
    proxy.heal("a", "b")
    near, far = place.meet(proxy.link("a", "b", place.address))
    near.say("x")
    assert far.hear("x")
    proxy.weather("*", "*", Weather(request_loss=1))
    near.say("lost too")
    lost(proxy, 2)
    proxy.cut("*", "b", "reply")
    place.dial(proxy.link("e", "b", place.address))
    proxy.counts()
    assert place.idle(), "a link made later is cut as well"
    near, _ = place.meet(proxy.link("a", "d", place.address))
    near.say("lost, for calm was ordered before")
    lost(proxy, 3)


def test_wrong_orders_are_told(proxy: Proxy) -> None:
    with pytest.raises(UsageError, match="no link from a to b"):
        proxy.swallow("a", "b")
    with pytest.raises(UsageError, match="no direction 'up'"):
        proxy.cut("a", "b", "up")
    with pytest.raises(UsageError, match="names no end"):
        proxy.link("*", "b", "ipc:///s")
    with pytest.raises(EngineError, match="not on this machine"):
        proxy.link("a", "b", "udp://x")
    assert proxy.counts() == {}


def test_garbage_ends_its_connection_only(proxy: Proxy, place: Place) -> None:
    address = proxy.link("a", "b", place.address)
    near, far = place.meet(address)
    stranger = place.dial(address)
    far_of_stranger = place.accept()
    stranger.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert stranger.rest() == far_of_stranger.rest() == []
    bad, other = place.meet(address)
    bad.say("good")
    bad.sock.sendall(b"\xf8 reserved flags")
    assert other.rest() == ["good"]
    answered, liar = place.meet(address)
    liar.sock.sendall(b"\x02" + b"\xff" * 8)
    assert answered.rest() == []
    near.say("x")
    assert far.hear("x")
    assert len([e for e in proxy.log() if e.what.startswith("malformed")]) == 3


def test_buffers_are_bounded(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    near.sock.settimeout(0)
    block = wire("x" * 60_000) * 16
    sent, left, vain = 0, memoryview(b""), 0
    while vain < 20 and sent < 4 * WAITING_MAX:
        proxy.counts()  # by when it has been round its loop, and has read if it ever will
        try:
            left = left or memoryview(block)
            size = near.sock.send(left)
            sent, left, vain = sent + size, left[size:], 0
        except BlockingIOError:
            vain += 1
    assert WAITING_MAX < sent < WAITING_MAX + (4 << 20)
    assert psutil.Process(proxy.pid).memory_info().rss < 3 * WAITING_MAX
    near.sock.settimeout(patience(10))
    writer = threading.Thread(target=near.sock.sendall, args=(bytes(left) + wire("end"),))
    writer.start()
    assert len(far.hear("end")) == 16 * ((sent + len(left)) // len(block)) + 1
    writer.join()


# --- destinations that die -----------------------------------------------------------------------

DESTINATION = """
import os, signal, sys, zmq
from engine.kernels.process import parent_death_signal
parent_death_signal(signal.SIGKILL)
if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
router = zmq.Context().socket(zmq.ROUTER)
router.bind("ipc://" + sys.argv[1])
print("listens", flush=True)
while True:
    frames = router.recv_multipart()
    with open(sys.argv[1] + ".done", "ab") as done:
        done.write(frames[1] + b";")
    router.send_multipart(frames)
"""


class Destination:
    """A process that answers each message with the same, once it has written it down."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.address = f"ipc://{path}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-c", DESTINATION, str(self.path)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"listens\n"

    def done(self) -> bytes:
        return Path(f"{self.path}.done").read_bytes()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Destination]:
    made = Destination(tmp_path / "s")
    yield made
    made.kill()


class Caller:
    """A dealer that knows when its connection went."""

    def __init__(self, dealer: zmq.Socket[bytes], address: str) -> None:
        self.dealer = dealer
        dealer.setsockopt(zmq.RECONNECT_IVL, 4)
        dealer.setsockopt(zmq.IMMEDIATE, 1)
        self.monitor = dealer.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self.monitor.setsockopt(zmq.RCVTIMEO, int(patience(10) * 1000))
        dealer.connect(address)
        self.news(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def news(self, wanted: int) -> None:
        """Wait for this event of the connection."""
        while int.from_bytes(self.monitor.recv_multipart()[0][:2], sys.byteorder) != wanted:
            pass

    def ask(self, text: bytes) -> bytes:
        self.dealer.send(text)
        return self.dealer.recv()


def test_a_killed_destination_is_noticed_at_once_and_a_new_one_found(
    proxy: Proxy, destination: Destination, zeromq: Callable[..., Any]
) -> None:
    caller = Caller(zeromq(zmq.DEALER), proxy.link("a", "b", destination.address))
    assert caller.ask(b"x") == b"x"
    began = monotonic()
    destination.kill()
    caller.news(zmq.EVENT_DISCONNECTED)
    assert monotonic() - began < patience(0.1)
    eventually(lambda: sum(event.what == "refused" for event in proxy.log()) > 2)
    destination.start()
    caller.news(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert caller.ask(b"y") == b"y"


def test_a_refused_tcp_destination_is_an_end(proxy: Proxy) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        address = proxy.link("a", "b", f"tcp://127.0.0.1:{nobody.getsockname()[1]}")
        with socket.socket(socket.AF_UNIX) as near:
            near.connect(address.removeprefix("ipc://"))
            assert End(near).rest() == []
    assert [event.what for event in proxy.log()] == ["connected", "refused"]


def test_a_reply_is_swallowed_and_the_death_hidden(
    proxy: Proxy, destination: Destination, zeromq: Callable[..., Any]
) -> None:
    caller = Caller(zeromq(zmq.DEALER), proxy.link("a", "b", destination.address))
    proxy.link("other", "b", destination.address)
    assert caller.ask(b"before") == b"before"
    proxy.weather("*", "*", Weather(request_loss=1))  # which does not touch that request
    with pytest.raises(EngineError, match="No reply was swallowed"):
        proxy.swallowed(0)
    proxy.swallow("a", "b", hide=0.2)
    caller.dealer.send(b"executed")
    assert proxy.swallowed(patience(10)) == ("a", "b")
    assert destination.done() == b"before;executed;"
    proxy.weather("*", "*", CALM)
    caller.dealer.send(b"into the silence")
    lost(proxy, 1)
    began = monotonic()
    destination.kill()
    caller.news(zmq.EVENT_DISCONNECTED)
    assert 0.2 <= monotonic() - began < 0.2 + patience(1)
    assert not caller.dealer.poll(0)
    assert destination.done() == b"before;executed;"
    c = proxy.total()
    assert (c.swallowed, c.requests_delivered, c.replies_delivered) == (1, 2, 1)
    destination.start()
    caller.news(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    assert caller.ask(b"after") == b"after"


def test_a_swallow_waits_for_a_request_that_is_answered(proxy: Proxy, place: Place) -> None:
    address = proxy.link("a", "b", place.address)
    near, far = place.meet(address)
    proxy.swallow("a", "b")
    far.say("not asked for")
    assert near.hear("not asked for")
    near.say("not answered")
    assert far.hear("not answered")
    far.sock.close()
    assert near.rest() == []
    near, far = place.meet(address)
    near.say("answered")
    assert far.hear("answered")
    far.say("swallowed")
    assert proxy.swallowed(patience(10)) == ("a", "b")
    near.say("into the silence")
    far.say("into the silence")
    lost(proxy, 1, 1)
    proxy.heal("a")
    far.say("heard")
    assert near.hear("heard") == ["heard"]
    assert proxy.total().swallowed == 1


# --- the process ---------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_nothing_is_left_after_close(place: Place) -> None:
    proxy = Proxy()
    near, far = place.meet(proxy.link("a", "b", place.address))
    assert os.stat(proxy.directory).st_mode & 0o777 == 0o700
    assert os.path.basename(proxy.directory).startswith("engine-")
    proxy.close()
    assert not psutil.pid_exists(proxy.pid)
    assert not os.path.exists(proxy.directory)
    assert near.rest() == far.rest() == []
    proxy.close()
    with pytest.raises(EngineError, match="The fault proxy"):
        proxy.counts()


def test_a_dead_proxy_is_told_in_a_sentence(place: Place) -> None:
    with Proxy() as proxy:
        proxy.link("a", "b", place.address)
        os.kill(proxy.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"The fault proxy .* \(exit code -9\)\."):
            eventually(proxy.counts)
        with pytest.raises(EngineError, match="The fault proxy"):
            proxy.swallowed(patience(10))
    assert not os.path.exists(proxy.directory)


HARNESS = """
import json, os, sys
from engine.faults.control import Proxy
proxy = Proxy()
proxy.link("a", "b", "ipc:///nowhere")
copy = os.fork() if sys.argv[1] == "copied" else 1
if copy:
    print(json.dumps([os.getpid(), proxy.pid, proxy.directory]), flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.mark.parametrize("channel", ["alone", "copied"])
def test_nothing_is_left_when_the_harness_is_killed(channel: str) -> None:
    """Not even if somebody else holds a copy of the channel, so that it does not end."""
    command = [sys.executable, "-c", HARNESS, channel]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as harness:
        assert harness.stdout is not None
        pid, proxy, directory = json.loads(harness.stdout.readline())
        assert os.path.exists(directory)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: gone(proxy))
        eventually(lambda: not os.path.exists(directory))


def test_several_threads_may_give_orders(proxy: Proxy, place: Place) -> None:
    near, far = place.meet(proxy.link("a", "b", place.address))
    proxy.swallow("a", "b")
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(proxy.swallowed(patience(10))))
    waiting.start()
    near.say("x")
    far.hear("x")
    for _ in range(100):
        proxy.counts()
    far.say("y")
    while waiting.is_alive():
        proxy.counts()
        waiting.join(0.001)
    assert found == [("a", "b")]
