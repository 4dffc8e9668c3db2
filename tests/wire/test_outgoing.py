"""A connection that is kept for as long as it is wanted, whatever becomes of the other end.

Everything here runs in one thread: a condition is waited for by turning both ends until it holds.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest
import zmq
from waiting import eventually

from engine.contract import Event, Link, Linked, Received, peer
from engine.errors import ConnectionFailed, RefusedError, UsageError
from engine.mapreduce.messages import Join, Scanned, Stop
from engine.wire import codec, envelope, keys, listener
from engine.wire import outgoing as outgoing_module
from engine.wire.connection import Connection
from engine.wire.endpoint import ASSIGNED_NODE_FIRST, Listener, Outgoing
from engine.wire.handshake import Again, Challenge, Hello, Proof, Refused, Welcome, frame_of
from engine.wire.outgoing import HELLO_AGAIN


class Scene:
    """Both ends of every connection of a test, and what they told."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/s"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.listeners: list[Listener] = []
        self.outgoings: list[Outgoing] = []
        self.heard: list[Event] = []
        """By listeners."""
        self.events: list[Event] = []
        """By those who dialed."""

    def listen(self, address: str = "", **options: Any) -> Listener:
        options = {"roles": ("client", "server")} | options
        self.listeners.append(Listener(address or self.address, **options))
        return self.listeners[-1]

    def dial(self, address: str = "", **options: Any) -> Outgoing:
        options = {"role": "client", "context": self.context} | options
        self.outgoings.append(Outgoing(address or self.address, **options))
        return self.outgoings[-1]

    def end(self, it: Listener) -> None:
        self.listeners.remove(it)
        it.close()

    def turn(self) -> None:
        for it in self.listeners:
            self.heard += it.drain(100, 1 << 20)
        for outgoing in self.outgoings:
            self.events += outgoing.drain()

    def until(self, true: Callable[[], Any], what: str = "") -> None:
        def turned() -> Any:
            self.turn()
            return true()

        eventually(turned, what=what)

    def linked(self, outgoing: Outgoing) -> None:
        self.until(lambda: outgoing.link is not None, "a link")

    def asks(self, outgoing: Outgoing, number: int) -> None:
        """There and back."""
        assert outgoing.send(Scanned(number))
        self.until(lambda: self.received(self.heard, Scanned(number)), f"question {number}")
        link = next(e.link for e in self.heard if _is(e, Scanned(number)))
        assert self.listeners[-1].send(link, Stop(str(number)))
        answer = Received(outgoing.peer, Stop(str(number)))
        self.until(lambda: answer in self.events, f"answer {number}")

    @staticmethod
    def received(events: list[Event], message: Any) -> bool:
        return any(_is(event, message) for event in events)

    def close(self) -> None:
        for end in (*self.outgoings, *self.listeners):
            end.close()
        self.context.destroy()


def _is(event: Event, message: Any) -> bool:
    return isinstance(event, Received) and event.message == message


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("o")


@pytest.fixture
def scene(folder: Path) -> Iterator[Scene]:
    made = Scene(folder)
    yield made
    made.close()


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = str(tmp_path / "token")
    keys.make_token(path)
    return path


def recorded(outgoing: Outgoing) -> list[Any]:
    """What it says from now on."""
    said: list[Any] = []

    def say(value: Any) -> bool:
        said.append(value)
        return Connection._say(outgoing, value)

    outgoing._say = say  # type: ignore[method-assign]
    return said


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Fake:
    """A listener that says what a test wants it to, and when."""

    def __init__(self, address: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(address)
        self.route = b""
        self.heard: list[tuple[envelope.Envelope, Any]] = []

    def take(self) -> None:
        while self.socket.poll(0):
            self.route, frame = self.socket.recv_multipart()
            got = envelope.unpack(frame)
            self.heard.append((got, codec.decode(got.kind, got.body)))

    def count(self, kind: type) -> int:
        self.take()
        return sum(isinstance(value, kind) for _, value in self.heard)

    def say(self, value: Any, cluster: int = 5, link: int = 0) -> None:
        self.socket.send_multipart([self.route, frame_of(value, cluster, link)])

    def say_bytes(self, *frames: bytes) -> None:
        self.socket.send_multipart([self.route, *frames])


@pytest.fixture
def fake(scene: Scene) -> Iterator[Fake]:
    made = Fake(scene.address)
    yield made
    made.context.destroy()


def welcomed(scene: Scene, fake: Fake, link: int = 77) -> Outgoing:
    """One that the fake has welcomed."""
    outgoing = scene.dial()
    scene.until(lambda: fake.count(Hello) >= 1)
    fake.say(Welcome(3, 0), link=link)
    scene.linked(outgoing)
    return outgoing


# --- links ---------------------------------------------------------------------------------------


def test_it_waits_for_a_listener_that_comes_later(scene: Scene) -> None:
    outgoing = scene.dial(name="ipc:///called/so")
    scene.turn()
    assert outgoing.link is None
    assert outgoing.wake_at is None, "it is the connection that wakes it"
    assert not outgoing.send(Scanned(1)), "nobody is linked, so it is lost"
    scene.listen()
    scene.linked(outgoing)
    assert scene.events == [Linked(peer("ipc:///called/so"), True)]
    assert outgoing.link == Link("client", ASSIGNED_NODE_FIRST)
    scene.until(lambda: scene.heard)
    assert scene.heard == [Linked(outgoing.link, True)]
    scene.asks(outgoing, 2)
    assert not scene.received(scene.heard, Scanned(1))


def test_the_name_is_the_address_unless_there_is_another(scene: Scene) -> None:
    assert scene.dial().peer == peer(scene.address)
    assert scene.dial(name="ipc:///n").peer == peer("ipc:///n")


def test_who_it_is_crosses(scene: Scene) -> None:
    scene.listen()
    outgoing = scene.dial(role="server", node=4, incarnation=9)
    scene.linked(outgoing)
    scene.asks(outgoing, 1)
    assert {event.link for event in scene.heard} == {Link("server", 4, 9)}


@pytest.fixture
def no_second_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hello that is not said at once is not said within the time of a test."""
    monkeypatch.setattr(outgoing_module, "HELLO_AGAIN", monotonic_ns() // 2)


@pytest.mark.usefixtures("no_second_hello")
@pytest.mark.parametrize("cluster", [5, 0], ids=["the same cluster", "a number of its own"])
def test_it_survives_a_restart_of_the_listener(scene: Scene, cluster: int) -> None:
    first = scene.listen(cluster=cluster)
    outgoing = scene.dial()
    scene.linked(outgoing)
    scene.asks(outgoing, 1)
    for number in range(2, 5):
        scene.end(first)
        scene.until(lambda: outgoing.link is None, "the end to be noticed")
        assert not outgoing.send(Scanned(99))
        first = scene.listen(cluster=cluster)
        scene.linked(outgoing)
        scene.asks(outgoing, number)
    up = [event.up for event in scene.events if isinstance(event, Linked)]
    assert up == [True, False] * 3 + [True]
    assert not scene.received(scene.heard, Scanned(99)), "what was lost stays lost"
    assert outgoing.refusal is None


@pytest.mark.usefixtures("no_second_hello")
def test_one_that_forgot_it_is_greeted_anew(scene: Scene, fake: Fake) -> None:
    outgoing = welcomed(scene, fake, link=77)
    assert outgoing.send(Scanned(1))
    scene.until(lambda: fake.count(Scanned) == 1)
    assert fake.heard[-1][0].link == 77
    for _ in range(3):  # for each message that was under way
        fake.say(Refused("link", "The server does not know this link (any more)."))
    scene.until(lambda: fake.count(Hello) >= 2, "a second hello")
    scene.turn()
    assert outgoing.link is None
    assert outgoing.refusal is None, "that is no reason to give up"
    fake.say(Welcome(4, 0), link=78)
    scene.linked(outgoing)
    assert [e.up for e in scene.events if isinstance(e, Linked)] == [True, False, True]
    assert outgoing.link == Link("client", 4)
    assert outgoing.send(Scanned(2))
    scene.until(lambda: fake.count(Scanned) == 2)
    assert fake.heard[-1][0].link == 78


def test_a_lost_hello_is_repeated_until_it_is_answered(scene: Scene, fake: Fake) -> None:
    outgoing = scene.dial()
    scene.until(lambda: fake.count(Hello) >= 1)
    said_at = outgoing.wake_at
    assert said_at is not None
    scene.until(lambda: fake.count(Hello) >= 3, "hello, thrice")
    assert outgoing.wake_at is not None
    assert outgoing.wake_at - said_at >= 2 * HELLO_AGAIN, "not sooner than it says"
    nonces = {value.nonce for _, value in fake.heard}
    assert len(nonces) == 1, "by which a listener knows them for one"
    fake.say(Welcome(3, 0), link=77)
    scene.linked(outgoing)
    assert outgoing.wake_at is None
    fake.say(Welcome(9, 0), link=99)  # the answer to the second, which means nothing now
    fake.say(Stop("x"), link=77)
    scene.until(lambda: Received(outgoing.peer, Stop("x")) in scene.events)
    assert outgoing.link == Link("client", 3)


def test_a_repeated_hello_is_one_link_to_a_listener(scene: Scene) -> None:
    """Also if the first one arrived, and its answer did not."""
    it, outgoing = scene.listen(), scene.dial()
    said: list[Hello] = []

    def say_twice(value: Any) -> bool:
        if isinstance(value, Hello):
            said.append(value)
            Connection._say(outgoing, value)
        return Connection._say(outgoing, value)

    outgoing._say = say_twice  # type: ignore[method-assign]
    scene.linked(outgoing)
    scene.asks(outgoing, 1)
    assert len(said) == 1
    assert it.links == [outgoing.link]
    assert sum(isinstance(event, Linked) for event in scene.heard) == 1
    assert sum(isinstance(event, Linked) for event in scene.events) == 1


def test_frames_of_an_old_link_are_not_taken(scene: Scene, fake: Fake) -> None:
    outgoing = welcomed(scene, fake, link=77)
    strays = ((5, 76), (6, 77), (0, 0), (5, 0))
    for cluster, link in strays:
        fake.say(Stop("stray"), cluster=cluster, link=link)
    fake.say(Stop("mine"), link=77)
    scene.until(lambda: scene.received(scene.events, Stop("mine")))
    fake.say(Refused("link", ""))
    scene.until(lambda: fake.count(Hello) >= 2)
    fake.say(Stop("of the old link"), link=77)
    fake.say(Welcome(3, 0), link=78)
    fake.say(Stop("of the old link"), link=77)
    fake.say(Stop("of the new link"), link=78)
    scene.until(lambda: scene.received(scene.events, Stop("of the new link")))
    taken = [event.message for event in scene.events if isinstance(event, Received)]
    assert taken == [Stop("mine"), Stop("of the new link")]
    assert outgoing.link == Link("client", 3)


def test_words_of_the_handshake_are_never_messages(scene: Scene, fake: Fake) -> None:
    outgoing = welcomed(scene, fake, link=77)
    for word in (Welcome(9, 9), Challenge(bytes(16), bytes(32)), Again(), Proof(b"")):
        fake.say(word, link=77)
    fake.say(Stop("x"), link=77)
    scene.until(lambda: scene.received(scene.events, Stop("x")))
    assert scene.events == [Linked(outgoing.peer, True), Received(outgoing.peer, Stop("x"))]


def test_a_drain_takes_no_more_than_it_is_allowed(scene: Scene, fake: Fake) -> None:
    outgoing = welcomed(scene, fake, link=77)
    for number in range(10):
        fake.say(Stop(str(number)), link=77)
    taken: list[Event] = []

    def took() -> bool:
        some = outgoing.drain(3)
        assert len(some) <= 3
        taken.extend(some)
        return len(taken) == 10

    eventually(took, what="all ten")
    assert taken == [Received(outgoing.peer, Stop(str(n))) for n in range(10)]


# --- refusals ------------------------------------------------------------------------------------


def test_a_refused_role_is_told_and_forgotten_when_it_is_welcome(scene: Scene) -> None:
    first = scene.listen(cluster=5, roles=("worker",))
    outgoing = scene.dial()
    scene.until(lambda: outgoing.refusal is not None, "a refusal")
    assert isinstance(outgoing.refusal, RefusedError)
    assert scene.address in str(outgoing.refusal)
    assert "No 'client' numbered -1 belongs here." in str(outgoing.refusal)
    assert outgoing.link is None
    assert outgoing.wake_at is not None, "it asks again: the listener may think otherwise later"
    assert first.counts["refused"] == 1
    scene.until(lambda: first.counts["refused"] == 2, "the second hello")
    scene.end(first)
    scene.listen(cluster=5)
    scene.linked(outgoing)
    assert outgoing.refusal is None
    scene.asks(outgoing, 1)
    assert [e for e in scene.events if isinstance(e, Linked)] == [Linked(outgoing.peer, True)]


def test_another_cluster_is_refused_by_either_side(scene: Scene, fake: Fake) -> None:
    outgoing = scene.dial(cluster=6)
    scene.until(lambda: fake.count(Hello) >= 1)
    assert fake.heard[0][0].cluster == 6
    fake.say(Welcome(1, 0), cluster=5, link=77)
    scene.until(lambda: outgoing.refusal is not None)
    assert "belongs to another job or cluster" in str(outgoing.refusal)
    assert outgoing.link is None
    fake.say(Refused("cluster", "This server belongs to another job."), link=0)
    scene.until(lambda: "refused: This server" in str(outgoing.refusal))
    fake.say(Welcome(1, 0), cluster=6, link=78)
    scene.linked(outgoing)
    assert outgoing.refusal is None


def test_a_link_may_be_refused_later(scene: Scene, fake: Fake) -> None:
    outgoing = welcomed(scene, fake)
    fake.say(Refused("stale", "A later client 3 is here already."))
    scene.until(lambda: outgoing.refusal is not None)
    assert "refused: A later client 3 is here already." in str(outgoing.refusal)
    assert scene.events[-1] == Linked(outgoing.peer, False)
    assert not outgoing.send(Scanned(1))


def test_over_tcp_both_sides_prove_the_token(scene: Scene, token: str) -> None:
    it = scene.listen("tcp://127.0.0.1:*", token=token)
    outgoing = scene.dial(it.address, token=token)
    scene.linked(outgoing)
    scene.asks(outgoing, 1)
    assert outgoing.refusal is None


def test_a_listener_that_does_not_know_the_token_is_not_believed(
    scene: Scene, token: str, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    keys.make_token(other)
    it = scene.listen("tcp://127.0.0.1:*", token=token)
    outgoing = scene.dial(it.address, token=other)
    said = recorded(outgoing)
    scene.until(lambda: len(said) == 3, "three attempts")
    assert {type(value) for value in said} == {Hello}, "who does not know it learns nothing from us"
    assert outgoing.link is None
    assert scene.heard == []


def test_whoever_does_not_prove_the_token_is_told_of_and_not_asked_at_once(
    scene: Scene, token: str, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    keys.make_token(other)
    it = scene.listen("tcp://127.0.0.1:*", token=token)
    outgoing = scene.dial(it.address, token=other)
    said = recorded(outgoing)
    scene.until(lambda: said, "the first hello")
    began = monotonic_ns()
    scene.until(lambda: len(said) == 3, "three attempts")
    assert monotonic_ns() - began >= HELLO_AGAIN, "it is busy with being refused"
    assert "does not know our token" in str(outgoing.refusal)


def test_whoever_speaks_otherwise_is_told_of_and_not_asked_at_once(
    scene: Scene, fake: Fake
) -> None:
    """An engine of another version, for one, answers every hello in its own way."""
    outgoing = scene.dial()
    hellos = 0

    def answered() -> bool:
        nonlocal hellos
        for _ in range(fake.count(Hello) - hellos):
            fake.say_bytes(b"HTTP/1.1 400 Bad Request")
            hellos += 1
        return hellos == 3

    scene.until(lambda: answered() or hellos == 1)
    began = monotonic_ns()
    scene.until(answered, "three attempts")
    assert monotonic_ns() - began >= HELLO_AGAIN, "it is busy with being refused"
    scene.until(lambda: "no message of ours" in str(outgoing.refusal), "the reason")


def test_one_that_does_not_know_the_token_is_told(
    scene: Scene, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that would answer any challenge still cannot prove anything."""
    other = str(tmp_path / "other")
    keys.make_token(other)
    it = scene.listen("tcp://127.0.0.1:*", token=token)
    outgoing = scene.dial(it.address, token=other)
    believe = keys.proves
    guesses: list[bytes] = []

    def gullible(given: bytes, expected: bytes) -> bool:
        guesses.append(given)
        return len(guesses) == 1 or believe(given, expected)

    monkeypatch.setattr("engine.wire.connection.keys.proves", gullible)
    scene.until(lambda: outgoing.refusal is not None, "a refusal")
    assert "refused: The token is not the server's." in str(outgoing.refusal)
    assert scene.heard == []


@pytest.mark.parametrize("trusting", [Welcome(1, 0), Stop("x")])
def test_over_tcp_nothing_is_believed_before_the_proof(
    folder: Path, token: str, trusting: Any
) -> None:
    scene = Scene(folder)
    fake = Fake("tcp://127.0.0.1:*")
    try:
        outgoing = scene.dial(fake.socket.getsockopt_string(zmq.LAST_ENDPOINT), token=token)
        scene.until(lambda: fake.count(Hello) >= 1)
        fake.say(trusting, link=77)
        scene.until(lambda: fake.count(Hello) >= 2, "the second hello")
        assert outgoing.link is None
        assert scene.events == []
    finally:
        scene.close()
        fake.context.destroy()


@pytest.mark.parametrize(
    ("address", "error"),
    [("tcp://192.0.2.1:1", RefusedError), ("nowhere", RefusedError), ("ipc://", UsageError)],
)
def test_an_address_elsewhere_is_not_dialed(scene: Scene, address: str, error: type) -> None:
    with pytest.raises(error):
        scene.dial(address)


# --- noise ---------------------------------------------------------------------------------------


def test_garbage_from_the_listener_harms_nothing(scene: Scene, fake: Fake) -> None:
    """Whatever it says that is no message, it is greeted again and may behave next time."""
    outgoing = welcomed(scene, fake)
    rng = random.Random(4)
    good = frame_of(Stop("x"), 5, 77)
    single: list[list[tuple[bytes, ...]]] = [
        [(b"",)],
        [(good, b"and more")],
        [(good[:-1],)],
        [(good[:4] + b"\x63" + good[5:],)],
        [(good[:28] + b"\xc1" * (len(good) - 28),)],
    ]
    noises = [*single, [(rng.randbytes(rng.randrange(60)),) for _ in range(200)]]
    for number, noise in enumerate(noises, 1):
        for frames in noise:
            fake.say_bytes(*frames)
        scene.until(lambda: outgoing.link is None, f"{noise[0]!r} to be noticed")
        hellos = fake.count(Hello)
        scene.until(lambda n=hellos: fake.count(Hello) > n, f"a new hello after {noise[0]!r}")
        fake.say(Welcome(3, 0), link=77 + number)
        scene.linked(outgoing)
        assert outgoing.refusal is None
    fake.say(Stop("sense"), link=77 + len(noises))
    scene.until(lambda: scene.received(scene.events, Stop("sense")))
    assert [e for e in scene.events if isinstance(e, Received)] == [
        Received(outgoing.peer, Stop("sense"))
    ]


# --- many, and none ------------------------------------------------------------------------------


def test_many_peers_live_in_one_context(scene: Scene, folder: Path) -> None:
    for number in range(12):
        scene.listen(f"ipc://{folder}/{number}")
    peers = [scene.dial(f"ipc://{folder}/{number}") for number in range(12)]
    twice = [scene.dial(f"ipc://{folder}/{number}") for number in range(12)]
    scene.until(lambda: all(outgoing.link for outgoing in scene.outgoings))
    for number, outgoing in enumerate((*peers, *twice)):
        assert outgoing.send(Scanned(number))
    scene.until(lambda: sum(isinstance(e, Received) for e in scene.heard) == 24)
    # One that leaves takes nothing from the others.
    for outgoing in twice:
        scene.outgoings.remove(outgoing)
        outgoing.close()
    scene.until(lambda: sum(len(it.links) for it in scene.listeners) == 12, "twelve to be gone")
    for number, it in enumerate(scene.listeners):
        assert it.send(it.links[0], Stop(str(number)))
    said = [Received(outgoing.peer, Stop(str(n))) for n, outgoing in enumerate(peers)]
    scene.until(lambda: all(event in scene.events for event in said))


@pytest.mark.parametrize("context", ["shared", "own"])
def test_a_close_leaves_nothing(scene: Scene, context: str) -> None:
    it = scene.listen()
    warm = scene.dial()
    scene.linked(warm)
    before = descriptors()
    for _ in range(5):
        outgoing = scene.dial(context=scene.context if context == "shared" else None)
        scene.linked(outgoing)
        assert descriptors() > before
        scene.outgoings.remove(outgoing)
        outgoing.close()
        outgoing.close()
    scene.until(lambda: it.links == [warm.link], "the listener to notice")
    scene.until(lambda: descriptors() <= before, "the sockets to be closed")
    scene.asks(warm, 1)


def test_last_words_leave_if_they_may_linger(scene: Scene) -> None:
    scene.listen()
    outgoing = scene.dial()
    scene.linked(outgoing)
    assert outgoing.send(Scanned(5))
    scene.outgoings.remove(outgoing)
    outgoing.close(linger_ms=10_000)
    scene.until(lambda: scene.received(scene.heard, Scanned(5)))


# --- what a listener forgets ---------------------------------------------------------------------


class Raw:
    """A dialer that says what a test wants it to."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.socket = scene, scene.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(scene.address)

    def ask(self, value: Any, link: int = 0) -> tuple[int, Any]:
        """(link of the envelope, the answer)."""
        self.socket.send(frame_of(value, 0, link))
        self.scene.until(lambda: self.socket.poll(0), f"an answer to {value}")
        answer = envelope.unpack(self.socket.recv())
        return answer.link, codec.decode(answer.kind, answer.body)

    def leave(self) -> None:
        self.socket.close()


def hello(nonce: bytes, node: int = -1, incarnation: int = 0, role: str = "client") -> Hello:
    return Hello(role, node, incarnation, nonce * 16)


def sizes(it: Listener) -> list[int]:
    return [len(it._peers), len(it._seats), len(it._nonces), len(it._down)]


def test_who_is_gone_for_long_is_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    it = scene.listen()
    stays = scene.dial(role="server", node=1)
    scene.linked(stays)
    raw = Raw(scene)
    links = [raw.ask(hello(bytes([n])))[0] for n in range(20)]
    assert sizes(it) == [21, 21, 21, 0]
    raw.leave()
    scene.until(lambda: it.links == [stays.link], "all but one to be gone")
    assert sizes(it) == [21, 21, 21, 20], "but not forgotten: they may come back"
    monkeypatch.setattr(listener, "FORGET_SECONDS", 0.0)
    scene.until(lambda: sizes(it) == [1, 1, 1, 0], "twenty to be forgotten")
    told = [(e.link.node, e.up) for e in scene.heard if isinstance(e, Linked)][1:]
    nodes = [ASSIGNED_NODE_FIRST + n for n in range(20)]
    assert told == [(n, True) for n in nodes] + [(n, False) for n in nodes], "and that is all"
    assert not it.send(Link("client", nodes[0]), Stop(""))
    scene.asks(stays, 1)
    # One of them speaks again: it is refused, and greets anew.
    again = Raw(scene)
    _, refused = again.ask(Join(1), links[3])
    assert isinstance(refused, Refused)
    assert refused.why == "link"
    link, welcome = again.ask(hello(bytes([3])))
    assert link not in (0, *links)
    assert welcome == Welcome(nodes[-1] + 1, 0), "it is a stranger now"
    again.leave()


def test_who_is_back_in_time_is_not_forgotten(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(listener, "monotonic", lambda: now[0])
    it = scene.listen()
    raw = Raw(scene)
    link, _ = raw.ask(hello(b"a", node=1))
    raw.leave()
    scene.until(lambda: not it.links)
    now[0] += listener.FORGET_SECONDS - 1
    # By a message over another connection…
    raw = Raw(scene)
    raw.socket.send(frame_of(Again(), 0, link))
    scene.until(lambda: it.links)
    now[0] += 5
    scene.turn()
    assert sizes(it) == [1, 1, 1, 0]
    raw.leave()
    scene.until(lambda: not it.links)
    now[0] += listener.FORGET_SECONDS - 1
    # … or by the same hello again.
    raw = Raw(scene)
    again, _ = raw.ask(hello(b"a", node=1))
    assert again == link
    assert it.links == [Link("client", 1)]
    now[0] += 5
    scene.turn()
    assert sizes(it) == [1, 1, 1, 0]
    raw.leave()
    scene.until(lambda: not it.links)
    now[0] += listener.FORGET_SECONDS
    scene.turn()
    assert sizes(it) == [0, 0, 0, 0]
    assert [e.up for e in scene.heard if isinstance(e, Linked)] == [True, False] * 3


def test_the_longest_gone_is_forgotten_first(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(listener, "monotonic", lambda: now[0])
    it = scene.listen()
    raws = [Raw(scene) for _ in range(3)]
    for node, raw in enumerate(raws):
        raw.ask(hello(bytes([node]), node=node))
    for gone in (1, 0, 2):
        raws[gone].leave()
        scene.until(lambda g=gone: Linked(Link("client", g), False) in scene.heard)
        now[0] += 10
    left = []
    for _ in range(4):
        left.append(sorted(p.link.node for p in it._peers.values()))
        now[0] = max(it._down.values(), default=0) and min(it._down.values())
        now[0] += listener.FORGET_SECONDS
        scene.turn()
    assert left == [[0, 1, 2], [0, 2], [2], []]


def test_a_forgotten_one_that_keeps_its_connection_greets_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its listener took it for gone, wrongly; it does not even notice before it speaks."""
    it = scene.listen()
    outgoing = scene.dial()
    scene.linked(outgoing)
    (number,) = it._peers
    it._gone(number)
    monkeypatch.setattr(listener, "FORGET_SECONDS", 0.0)
    scene.until(lambda: sizes(it) == [0, 0, 0, 0])
    assert outgoing.link is not None
    outgoing.send(Scanned(1))
    scene.until(lambda: outgoing.link is None, "the refusal")
    scene.linked(outgoing)
    assert outgoing.refusal is None
    scene.asks(outgoing, 2)
    assert [e.up for e in scene.events if isinstance(e, Linked)] == [True, False, True]
    assert not scene.received(scene.heard, Scanned(1))


def test_a_later_incarnation_takes_every_trace_of_the_earlier(scene: Scene) -> None:
    it = scene.listen()
    raw = Raw(scene)
    first, _ = raw.ask(hello(b"a", node=1, incarnation=5))
    _, stale = raw.ask(hello(b"b", node=1, incarnation=4))
    assert stale.why == "stale"
    other_role, _ = raw.ask(hello(b"a", node=1, incarnation=1, role="server"))
    later, _ = raw.ask(hello(b"c", node=1, incarnation=6))
    assert len({first, other_role, later}) == 3
    assert sizes(it) == [2, 2, 2, 0]
    # The hello of the first once more, late: it is of an earlier life.
    _, stale = raw.ask(hello(b"a", node=1, incarnation=5))
    assert stale.why == "stale"
    assert it.links == [Link("server", 1, 1), Link("client", 1, 6)]
    assert not it.send(Link("client", 1, 5), Stop(""))
    assert it.send(Link("client", 1, 6), Stop(""))
    raw.leave()


def test_hellos_are_not_looked_for_among_all(scene: Scene) -> None:
    """A listener of many clients does no more for each: nothing is gone through."""

    class Counted(dict):  # type: ignore[type-arg]
        walks = 0

        def items(self) -> Any:
            Counted.walks += 1
            return super().items()

        def values(self) -> Any:
            Counted.walks += 1
            return super().values()

        def __iter__(self) -> Any:
            Counted.walks += 1
            return super().__iter__()

    it = scene.listen()
    it._peers = Counted()
    raw = Raw(scene)
    for number in range(12):
        raw.ask(hello(bytes([number])))
        raw.ask(hello(bytes([number])))
    assert len(it._peers) == 12
    assert Counted.walks == 0
    raw.leave()


def test_the_dialer_learns_that_it_was_forgotten(scene: Scene) -> None:
    """What a `Connection` that is no `Outgoing` makes of it: an error that says to come again."""
    from engine.wire.connection import _refusal

    error = _refusal(Refused("link", "The server does not know this link."), "ipc:///s")
    assert isinstance(error, ConnectionFailed)
    assert isinstance(_refusal(Refused("role", "No."), "ipc:///s"), RefusedError)
