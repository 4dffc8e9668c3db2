"""Listener and dialers over real sockets: who is who, who is refused, and what is noticed."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support import patience
from waiting import eventually

from engine.contract import Event, Link, Linked, Received
from engine.errors import ConnectionFailed, RefusedError
from engine.mapreduce.messages import Join, Scanned, Stop
from engine.wire import envelope, keys
from engine.wire.endpoint import Dialer, Listener
from engine.wire.handshake import Hello, Proof, Refused, Welcome, frame_of
from engine.wire.listener import ASSIGNED_NODE_FIRST


class Service:
    """A listener whose loop is a thread, which answers `Scanned(n)` with `Stop("n")`."""

    def __init__(self, address: str = "ipc://*", **options: Any) -> None:
        self.listener = Listener(address, **options)
        self.address = self.listener.address
        self.events: list[Event] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        polled = [(source.socket, zmq.POLLIN) for source in self.listener.pollables()]
        while not self._ended.is_set():
            zmq.zmq_poll(polled, 10)
            for event in self.listener.drain(100, 1 << 20):
                self.events.append(event)
                if isinstance(event, Received) and isinstance(event.message, Scanned):
                    self.listener.send(event.link, Stop(str(event.message.attempt)))

    def links(self) -> list[tuple[int, bool]]:
        return [(e.link.node, e.up) for e in self.events if isinstance(e, Linked)]

    def close(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._thread.join()
            self.listener.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(*arguments: Any, **options: Any) -> Service:
        services.append(Service(*arguments, **options))
        return services[-1]

    yield start
    for service in services:
        service.close()


@pytest.fixture
def token(tmp_path: Path) -> str:
    make = tmp_path / "token"
    keys.make_token(str(make))
    return str(make)


def asked(dialer: Dialer, number: int) -> Any:
    dialer.send(Scanned(number))
    return dialer.receive(patience(10))


class Raw:
    """A peer that says whatever bytes it likes."""

    def __init__(self, address: str) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(patience(10) * 1000))
        self.socket.connect(address)

    def ask(self, frame: bytes) -> tuple[envelope.Envelope, Any]:
        from engine.wire import codec

        self.socket.send(frame)
        answer = envelope.unpack(self.socket.recv())
        return answer, codec.decode(answer.kind, answer.body)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.context.destroy()


# --- who is who ----------------------------------------------------------------------------------


def test_messages_carry_the_link_that_was_proven(serve: Callable[..., Service]) -> None:
    service = serve()
    with Dialer(service.address, role="worker", node=3, incarnation=7) as dialer:
        link = dialer.connect(patience(10))
        assert link == Link("worker", 3, 7)
        assert dialer.cluster == service.listener.cluster != 0
        assert asked(dialer, 5) == Stop("5")
    assert service.events[:2] == [Linked(link, True), Received(link, Scanned(5))]
    eventually(lambda: Linked(link, False) in service.events, what="the link to go down")
    assert service.listener.links == []


def test_nodes_that_ask_get_numbers_of_their_own(serve: Callable[..., Service]) -> None:
    service = serve()
    dialers = [Dialer(service.address, role="worker") for _ in range(3)]
    nodes = [dialer.connect(patience(10)).node for dialer in dialers]
    assert nodes == [ASSIGNED_NODE_FIRST + n for n in range(3)]
    assert [asked(dialer, n) for n, dialer in enumerate(dialers)] == [
        Stop("0"),
        Stop("1"),
        Stop("2"),
    ]
    for dialer in dialers:
        dialer.close()


def test_a_dialer_waits_for_a_listener_that_comes_later(
    serve: Callable[..., Service], tmp_path: Path
) -> None:
    folder = Path(os.environ["TMPDIR"]) / "later"
    folder.mkdir(0o700)
    address = f"ipc://{folder}/s"
    dialer = Dialer(address, role="worker", node=1)
    with pytest.raises(ConnectionFailed, match="Nobody listens"):
        dialer.connect(0.05)
    dialer.close()
    with Dialer(address, role="worker", node=1) as patient:
        starter = threading.Timer(0.1, lambda: serve(address))
        starter.start()
        assert patient.connect(patience(10)).node == 1
        starter.join()
    assert (folder / "s").exists()


def test_over_tcp_both_sides_prove_the_token(serve: Callable[..., Service], token: str) -> None:
    service = serve("tcp://127.0.0.1:*", token=token)
    with Dialer(service.address, role="worker", node=2, token=token) as dialer:
        assert dialer.connect(patience(10)) == Link("worker", 2)
        assert asked(dialer, 1) == Stop("1")


# --- who is refused ------------------------------------------------------------------------------


def test_a_listener_that_does_not_know_the_token_is_not_believed(
    serve: Callable[..., Service], token: str, tmp_path: Path
) -> None:
    other = str(tmp_path / "other")
    keys.make_token(other)
    service = serve("tcp://127.0.0.1:*", token=token)
    with (
        Dialer(service.address, role="worker", token=other) as dialer,
        pytest.raises(ConnectionFailed, match="does not know our token"),
    ):
        dialer.connect(patience(10))
    assert service.events == []


def test_a_dialer_that_does_not_know_the_token_is_refused(
    serve: Callable[..., Service], token: str
) -> None:
    service = serve("tcp://127.0.0.1:*", token=token)
    with Raw(service.address) as stranger:
        _, challenge = stranger.ask(frame_of(Hello("worker", 1, 0, bytes(16)), 0, 0))
        # The listener's own proof, sent back to it, is not a dialer's.
        _, refused = stranger.ask(frame_of(Proof(challenge.proof), 0, 0))
        assert isinstance(refused, Refused)
        assert refused.why == "token"
        # A second guess needs a second hello.
        stranger.socket.send(frame_of(Proof(bytes(32)), 0, 0))
        stranger.socket.send(frame_of(Join(1), 0, 0))
        eventually(lambda: service.listener.counts["malformed"] == 2)
    assert service.listener.counts["refused"] == 1
    assert service.events == []


def test_a_hello_that_is_said_twice_is_proven_once(
    serve: Callable[..., Service], token: str
) -> None:
    """A slow listener hears it again before it hears the proof that answers the first challenge."""
    service = serve("tcp://127.0.0.1:*", token=token)
    hello = Hello("worker", 1, 0, bytes(16))
    with Raw(service.address) as slow:
        _, first = slow.ask(frame_of(hello, 0, 0))
        _, second = slow.ask(frame_of(hello, 0, 0))
        assert first == second
        proof = keys.proof(keys.read_token(token), "dialer", hello.nonce, first.nonce)
        _, welcome = slow.ask(frame_of(Proof(proof), 0, 0))
        assert isinstance(welcome, Welcome)
        _, other = slow.ask(frame_of(hello._replace(nonce=b"x" * 16), 0, 0))
        assert other.nonce != first.nonce


def test_another_cluster_version_role_or_link_is_refused_and_counted(
    serve: Callable[..., Service],
) -> None:
    service = serve(cluster=5)
    hello = frame_of(Hello("worker", 1, 0, bytes(16)), 0, 0)
    newer = hello[:4] + b"\x63" + hello[5:]
    cases = {
        "cluster": frame_of(Hello("worker", 1, 0, bytes(16)), 6, 0),
        "version": newer,
        "role": frame_of(Hello("admin", 1, 0, bytes(16)), 0, 0),
        "link": frame_of(Join(1), 5, 12345),
    }
    with Raw(service.address) as stranger:
        for why, frame in cases.items():
            _, answer = stranger.ask(frame)
            assert isinstance(answer, Refused)
            assert answer.why == why
        for node, incarnation, nonce in ((-2, 0, 16), (1 << 40, 0, 16), (1, -1, 16), (1, 0, 3)):
            _, answer = stranger.ask(
                frame_of(Hello("worker", node, incarnation, bytes(nonce)), 0, 0)
            )
            assert answer.why == "role"
    assert service.listener.counts["refused"] == 8
    assert service.events == []
    with (
        Dialer(service.address, role="worker", cluster=6) as dialer,
        pytest.raises(RefusedError, match="another job"),
    ):
        dialer.connect(patience(10))


def test_a_repeated_hello_is_the_same_link_and_a_later_incarnation_replaces_it(
    serve: Callable[..., Service],
) -> None:
    service = serve()
    with Raw(service.address) as peer:
        first, welcome = peer.ask(frame_of(Hello("worker", 1, 5, b"a" * 16), 0, 0))
        again, _ = peer.ask(frame_of(Hello("worker", 1, 5, b"a" * 16), 0, 0))
        assert welcome == Welcome(1, 5)
        assert first.link == again.link != 0
        _, stale = peer.ask(frame_of(Hello("worker", 1, 4, b"b" * 16), 0, 0))
        assert stale.why == "stale"
        later, _ = peer.ask(frame_of(Hello("worker", 1, 6, b"c" * 16), 0, 0))
        _, refused = peer.ask(frame_of(Join(1), 0, first.link))
        assert refused.why == "link"
        _, stop = peer.ask(frame_of(Scanned(9), 0, later.link))
        assert stop == Stop("9")
    assert service.links()[:3] == [(1, True), (1, False), (1, True)]


def test_noise_is_counted_and_hurts_nobody(serve: Callable[..., Service]) -> None:
    service = serve()
    rng = random.Random(3)
    good = frame_of(Hello("worker", 1, 0, bytes(16)), 0, 0)
    with Raw(service.address) as noisy, Dialer(service.address, role="worker") as dialer:
        dialer.connect(patience(10))
        for round_number in range(2000):
            damaged = bytearray(good)
            damaged[rng.choice((0, 1, 2, 3, 6, 7, 24, 25, 28))] ^= 1 << rng.randrange(8)
            noisy.socket.send(bytes(damaged) if round_number % 2 else rng.randbytes(30))
        noisy.socket.send_multipart([good, b"and more"])
        eventually(lambda: service.listener.counts["malformed"] >= 2001)
        assert asked(dialer, 1) == Stop("1")
    assert [e for e in service.events if isinstance(e, Received)] == [
        Received(Link("worker", ASSIGNED_NODE_FIRST), Scanned(1))
    ]


def test_a_drain_takes_no_more_than_it_is_allowed() -> None:
    with Listener("ipc://*") as listener, Raw(listener.address) as peer:
        for number in range(10):
            peer.socket.send(frame_of(Hello("worker", number, 0, bytes([number]) * 16), 0, 0))
        eventually(lambda: listener.pollables()[0].socket.poll(0))
        found: list[int] = []
        eventually(lambda: found.append(len(listener.drain(3, 1 << 20))) or sum(found) == 10)
        assert max(found) <= 3
        assert listener.drain(3, 1 << 20) == []


# --- what is noticed -----------------------------------------------------------------------------


def test_a_message_that_cannot_be_delivered_is_lost_and_counted(
    serve: Callable[..., Service],
) -> None:
    with Listener("ipc://*") as listener:
        assert not listener.send(Link("worker", 1), Stop(""))
        with Raw(listener.address) as peer:
            peer.socket.send(frame_of(Hello("worker", 1, 0, bytes(16)), 0, 0))
            eventually(lambda: listener.drain(9, 999))
            assert listener.send(Link("worker", 1), Stop(""))
            for _ in range(100_000):
                if not listener.send(Link("worker", 1), Stop("x" * 500)):
                    break
            assert listener.counts["lost"] == 2, "a peer that does not read is never full"
        eventually(lambda: Linked(Link("worker", 1), False) in listener.drain(9, 999))
        assert not listener.send(Link("worker", 1), Stop(""))


def test_a_dialer_notices_that_its_server_is_gone(serve: Callable[..., Service]) -> None:
    service = serve()
    with Dialer(service.address, role="worker", grace=0.2) as dialer:
        dialer.connect(patience(10))
        assert dialer.receive(0.01) is None
        service.close()
        with pytest.raises(ConnectionFailed, match="is gone"):
            dialer.receive(patience(20))
        with pytest.raises(ConnectionFailed, match="is gone"):
            dialer.send(Join(1))


def test_a_server_that_was_replaced_does_not_know_the_link(
    serve: Callable[..., Service], tmp_path: Path
) -> None:
    folder = Path(os.environ["TMPDIR"]) / "replaced"
    folder.mkdir(0o700, exist_ok=True)
    address = f"ipc://{folder}/s"
    first = serve(address, cluster=1)
    with Dialer(address, role="worker") as dialer:
        dialer.connect(patience(10))
        first.close()
        serve(address, cluster=1)
        with pytest.raises(ConnectionFailed, match="does not know this link"):
            dialer.receive(patience(20))


def test_the_end_of_a_watched_pipe_is_the_end(serve: Callable[..., Service]) -> None:
    service = serve()
    read, write = os.pipe()
    with Dialer(service.address, role="worker", watch=(read,)) as dialer:
        dialer.connect(patience(10))
        assert dialer.receive(0.01) is None
        dialer.send(Scanned(6))
        eventually(lambda: service.listener.counts["sent"] == 1)
        os.close(write)
        eventually(lambda: dialer.pollables()[0].socket.poll(0))
        assert dialer.receive() == Stop("6"), "last words come first"
        with pytest.raises(ConnectionFailed, match="ended"):
            dialer.receive(patience(20))
    os.close(read)


def test_patience_without_limit_ends_with_the_servers_process(tmp_path: Path) -> None:
    """Before it ever listened."""
    address = f"ipc://{tmp_path}/s"
    read, write = os.pipe()
    with (
        Dialer(address, role="worker", watch=(read,)) as dialer,
        pytest.raises(ConnectionFailed, match="Nobody listens"),
    ):
        dialer.connect(0.05)
    closing = threading.Timer(0.2, os.close, (write,))
    closing.start()
    with (
        Dialer(address, role="worker", watch=(read,)) as dialer,
        pytest.raises(ConnectionFailed, match="ended"),
    ):
        dialer.connect(None)
    closing.join()
    os.close(read)


def test_who_polls_by_itself_misses_nothing(serve: Callable[..., Service]) -> None:
    service = serve()
    with Dialer(service.address, role="worker", grace=0.1) as dialer:
        dialer.connect(patience(10))
        assert dialer.receive(0) is None
        dialer.send(Scanned(8))
        assert eventually(lambda: dialer.receive(0)) == Stop("8")
        service.close()

        def lost() -> bool:
            try:
                return dialer.receive(0) is not None
            except ConnectionFailed:
                return True

        eventually(lost)


class Wire:
    """A byte-for-byte relay in front of a socket, whose connections can be cut."""

    def __init__(self, path: str, target: str) -> None:
        self._target = target
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._target)
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, to: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                to.sendall(data)
        except OSError:
            pass  # cut

    def cut(self) -> None:
        for end in self._open:
            end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open = []

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()


def test_a_link_survives_its_connection(serve: Callable[..., Service]) -> None:
    service = serve()
    folder = Path(os.environ["TMPDIR"]) / "relay"
    folder.mkdir(0o700)
    wire = Wire(f"{folder}/s", service.address.removeprefix("ipc://"))
    with Dialer(f"ipc://{folder}/s", role="worker", node=4) as dialer:
        link = dialer.connect(patience(10))
        assert asked(dialer, 1) == Stop("1")
        wire.cut()
        # It only listens, and is still found: it said that it is back without being asked.
        assert dialer.receive(0.3) is None
        eventually(lambda: service.links()[-1] == (4, True) and service.listener.links == [link])
        service.listener.send(link, Stop("found"))
        assert dialer.receive(patience(10)) == Stop("found")
        assert asked(dialer, 2) == Stop("2")
    wire.close()
    assert {e.link for e in service.events if isinstance(e, Received)} == {link}
