"""The server's end of the wire; the handshake and the rules are in `engine.wire.endpoint`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import zmq

from engine.contract import Event, Link, Linked, Received, Requests
from engine.errors import EngineError, RefusedError
from engine.kernels.frames import Frames
from engine.record import Record
from engine.wire import addresses, codec, envelope, keys
from engine.wire.codec import WireError
from engine.wire.envelope import PREFIX_BYTES
from engine.wire.handshake import (
    HANDSHAKE_MS,
    Again,
    Challenge,
    Hello,
    MonitoredSocket,
    Probe,
    Proof,
    Refused,
    Welcome,
    frame_of,
)

if TYPE_CHECKING:
    from engine.wire.zap import Guard

ASSIGNED_NODE_FIRST = 1_000_000
"""Nodes that ask for a number get one from here up; those below are the server's to give."""
CHALLENGES_MAX = 256
PROBES_MAX = 8
FORGET_SECONDS = 60.0
"""A peer that was down for so long is taken to be gone for good. Most connections that break are
back within a second, and whoever comes back later is refused with "link" and greets anew."""

PART, OTHERS_MAX = 256, 128
"""Of one `drain`, whatever else it may take: it ends with the part in which there are so many
messages that do not come in bulk. Each of those takes about as long as twenty that do."""

_NODE_MAX = 1 << 32
_INCARNATION_MAX = 1 << 62


class _Peer(Record):
    link: Link
    route: bytes
    nonce: bytes
    up: bool


class Listener:
    """The server's end. Sole owner of `address`; ties each proven dialer to a `Link`.

    `ipc://*` makes a private directory, removed by `close`; `address` is then the real address.
    `token` is the path of a token file or of keys, for TCP. `cluster` 0 draws a number.
    Roles not listed are refused. Messages of the kind `bulk` are not decoded: all of one `drain`
    come as one `Requests`. RefusedError, UsageError.

    `counts`: received, sent, lost (no such link, or its queue is full), refused (dialers, and by
    reason as `refused_why`), malformed (frames); with keys, dismissed (links of keys that were
    revoked).
    """

    def __init__(
        self,
        address: str,
        *,
        cluster: int = 0,
        token: str | None = None,
        roles: Sequence[str] = ("worker",),
        bulk: int | None = None,
    ) -> None:
        self._directory = self._path = ""
        if address == "ipc://*":
            address = addresses.private_address()
            self._directory = os.path.dirname(address.removeprefix("ipc://"))
        addresses.check_listen(address, token)
        self.cluster = cluster or _random_number()
        self.counts = dict.fromkeys(("received", "sent", "lost", "refused", "malformed"), 0)
        self._token: str | None = None
        self._guard: Guard | None = None
        self.roles = frozenset(roles)
        if token is not None and address.startswith("tcp://"):
            self._protect(token)
        self._bulk = bulk
        self._requests: list[tuple[Link, bytes]] = []
        self._proven: dict[bytes, tuple[bytes, Link]] = {}
        """The header of a bulk message, but for its length: (route, link) of whom it is from."""
        self._ways: dict[Link, tuple[bytes, int]] = {}
        """And back: (route, number of the link)."""
        self._peers: dict[int, _Peer] = {}
        self._seats: dict[tuple[str, int], int] = {}
        self._nonces: dict[tuple[str, bytes], int] = {}
        self._down: dict[int, float] = {}  # since when, the longest first
        self._challenges: dict[bytes, tuple[Hello, bytes]] = {}
        self._next_node = ASSIGNED_NODE_FIRST
        self._pending: list[Event] = []
        self._probes = 0
        self._ends = self._made(address)
        self._socket, self._frames = self._ends.socket, self._ends.frames
        self._pollables: tuple[Frames | int, ...] = self._ends.pollables
        try:
            if self._guard is not None:
                self._guard.stand(self._socket)
                self._pollables = *self._pollables, self._guard.pollable
            self._socket.bind(address)
        except EngineError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            why = error.strerror
            if error.errno == zmq.EADDRINUSE:
                why = f"{addresses.holder_of(address)} does so already"
            raise RefusedError(f"Cannot listen at {address}: {why}.") from None
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        if address.startswith("ipc://"):
            self._path = address.removeprefix("ipc://")
        if self._guard is not None:
            self._guard.listens(self.address)

    def _protect(self, token: str) -> None:
        """By keys, if that is what it is."""
        if keys.is_keys(token):
            from engine.wire.zap import Guard  # 4 ms, and only who has keys needs it

            self._guard = Guard(token, self.roles, self.counts)
        else:
            self._token = keys.read_token(token)

    def _made(self, address: str) -> MonitoredSocket:
        options = [(zmq.ROUTER_MANDATORY, 1)]
        if address.startswith("tcp://"):
            options.append((zmq.HANDSHAKE_IVL, HANDSHAKE_MS))
        if address.startswith("tcp://["):
            options.append((zmq.IPV6, 1))
        if self._guard is None:
            return MonitoredSocket(zmq.ROUTER, options)
        from engine.wire.zap import WATCHED

        ends = MonitoredSocket(zmq.ROUTER, options, events=WATCHED, named=True)
        ends.hear = self._guard.hear
        return ends

    def pollables(self) -> tuple[Frames | int, ...]:
        """What to wait on for reading before the next `drain`."""
        return self._pollables

    @property
    def restless(self) -> bool:
        """To be drained even if nothing arrives."""
        return self._probes > 0 or (self._guard is not None and self._guard.due)

    @property
    def complaint(self) -> str:
        """Why nobody new is let in; "" while all is well."""
        return "" if self._guard is None else self._guard.complaint

    @property
    def links(self) -> list[Link]:
        """Who is linked and not known to be gone."""
        return [peer.link for peer in self._peers.values() if peer.up]

    def drain(self, frames: int, size: int) -> list[Event]:
        """What has arrived, up to so many frames and about so many bytes; never blocks."""
        if zmq.EVENT_DISCONNECTED in self._ends.news():
            self._probes = PROBES_MAX
        if self._probes:
            self._probe()
        while self._down and next(iter(self._down.values())) <= monotonic() - FORGET_SECONDS:
            self._forget(next(iter(self._down)))
        if self._guard is not None:
            self._dismiss(self._guard)
        others: Iterable[tuple[bytes, bytes]]
        self._requests, others = self._received(frames, size)
        self.counts["malformed"] += self._frames.malformed
        self._frames.malformed = 0
        if self._guard is not None:
            others = self._guard.heard(others)  # it knows what else is said of each
        for route, frame in others:
            self._take(route, frame)
        events, self._pending = self._pending, []
        if self._requests:
            self.counts["received"] += len(self._requests)
            events.append(Requests(tuple(self._requests)))
            self._requests = []
        return events

    def _received(self, frames: int, size: int) -> tuple[list[Any], list[Any]]:
        """Those that are decoded one by one are looked at after each part, and may be enough."""
        requests, others = self._frames.receive(min(frames, PART), size, self._proven)
        got = len(requests) + len(others)
        while got >= PART and frames > got and len(others) < OTHERS_MAX:
            size -= sum([len(body) for _, body in requests[-PART:]])
            some, more = self._frames.receive(min(frames - got, PART), size, self._proven)
            requests += some
            others += more
            if len(some) + len(more) < PART:
                break
            got += PART
        return requests, others

    def send(self, link: Link, value: Any) -> bool:
        """Hand a message to ZeroMQ; never blocks. False: it is lost, and counted."""
        number = self._seats.get((link.role, link.node), 0)
        peer = self._peers.get(number)
        if peer is None or peer.link != link or not self._send(peer.route, number, value):
            self.counts["lost"] += 1
            return False
        self.counts["sent"] += 1
        return True

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        """Messages that are encoded already, to those who asked in bulk: the short way back. Bodies
        are at most `envelope.BODY_MAX` bytes."""
        lost = self._frames.answer(kind, self.cluster, self._ways, messages)
        for number, error in lost:
            if number:
                self._sent(number, error)
        self.counts["lost"] += len(lost)
        self.counts["sent"] += len(messages) - len(lost)

    def close(self, linger_ms: int = 0) -> None:
        """Stop listening; messages already sent get `linger_ms` to leave."""
        if self._path:  # while we still have it: afterwards it may be another server's
            addresses.remove(self._path)
            self._path = ""
        if not self._ends.context.closed:
            self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._ends.close()
        if self._directory:
            import shutil

            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- frames ----------------------------------------------------------------------------------

    def _take(self, route: bytes, frame: bytes) -> None:
        try:
            kind, cluster, number, body = envelope.unpack(frame)
            if cluster not in (0, self.cluster):
                self._refuse(route, "cluster", "This server belongs to another job.")
                return
            value = bytes(body) if number and kind == self._bulk else codec.decode(kind, body)
        except envelope.VersionError as error:
            self._refuse(route, "version", f"The server does not speak {error}.")
            return
        except WireError:
            self.counts["malformed"] += 1
            return
        if number:
            self._from_link(route, number, value)
        else:
            self._from_stranger(route, value)

    def _from_link(self, route: bytes, number: int, value: Any) -> None:
        peer = self._peers.get(number)
        if peer is None:
            self._refuse(route, "link", "The server does not know this link (any more).")
            return
        if self._guard is not None:
            if not self._guard.has(number):
                self._refuse(route, "key", "This link was given to another key.")
                return
            if self._guard.forged(value):
                self._refuse(route, "sender", "This key belongs to another member.")
                return
        self._here(route, number, peer)
        if isinstance(value, bytes):
            self._requests.append((peer.link, value))
        elif not isinstance(value, Again):
            self.counts["received"] += 1
            self._pending.append(Received(peer.link, value))

    def _from_stranger(self, route: bytes, value: Any) -> None:
        if isinstance(value, Hello):
            self._hello(route, value)
        elif isinstance(value, Proof) and self._token and route in self._challenges:
            hello, nonce = self._challenges.pop(route)
            expected = keys.proof(self._token, "dialer", hello.nonce, nonce)
            if keys.proves(value.proof, expected):
                self._welcome(route, hello)
            else:
                self._refuse(route, "token", "The token is not the server's.")
        else:
            self.counts["malformed"] += 1

    def _hello(self, route: bytes, hello: Hello) -> None:
        if (
            hello.role not in self.roles
            or not -1 <= hello.node < _NODE_MAX
            or not 0 <= hello.incarnation < _INCARNATION_MAX
            or len(hello.nonce) != keys.NONCE_BYTES
        ):
            self._refuse(route, "role", f"No {hello.role!r} numbered {hello.node} belongs here.")
        elif self._guard is not None:
            self._hello_by_key(self._guard, route, hello)
        elif self._token is None:
            self._welcome(route, hello)
        else:
            before = self._challenges.get(route)
            if before is not None and before[0] == hello:
                nonce = before[1]  # it only says it again: the answer to the first one will do
            else:
                nonce = os.urandom(keys.NONCE_BYTES)
            if len(self._challenges) >= CHALLENGES_MAX:
                self._challenges.pop(next(iter(self._challenges)))
            self._challenges[route] = hello, nonce
            proof = keys.proof(self._token, "listener", hello.nonce, nonce)
            self._send(route, 0, Challenge(nonce, proof))

    def _hello_by_key(self, guard: Guard, route: bytes, hello: Hello) -> None:
        name, why = guard.claim(hello.role)
        if why == "claim":
            self._refuse(route, why, f"The key {name} is not allowed to speak as {hello.role}.")
        elif why:
            self._refuse(route, why, "This key is not allowed here.")
        else:
            self._welcome(route, hello, name)

    def _dismiss(self, guard: Guard) -> None:
        """Whoever is not allowed any more goes; and those who knock get their answer."""
        guard.answer()
        if guard.due:
            for number in guard.dismissed():
                peer = self._peers[number]
                self._forget(number)
                if peer.up:
                    self._pending.append(Linked(peer.link, False))

    def _welcome(self, route: bytes, hello: Hello, principal: str = "") -> None:
        number = self._nonces.get((hello.role, hello.nonce))
        if number is not None and self._guard is not None and not self._guard.has(number):
            self._refuse(route, "key", "This hello is another key's.")
            return
        if number is None:
            node = hello.node
            if node == -1:
                node, self._next_node = self._next_node, self._next_node + 1
            link = Link(hello.role, node, hello.incarnation, principal)
            if not self._unseat(link):
                self._refuse(route, "stale", f"A later {link.role} {node} is here already.")
                return
            number = _random_number()
            self._peers[number] = _Peer(link, route, hello.nonce, True)
            self._seats[link.role, node] = self._nonces[link.role, hello.nonce] = number
            if self._guard is not None:
                self._guard.seat(number, link.role)
            self._pending.append(Linked(link, True))
        self._here(route, number, peer := self._peers[number])
        self._send(route, number, Welcome(peer.link.node, peer.link.incarnation))

    def _unseat(self, newcomer: Link) -> bool:
        """Forget an earlier incarnation of this node; False if a later one is here."""
        number = self._seats.get((newcomer.role, newcomer.node))
        if number is not None:
            peer = self._peers[number]
            if peer.link.incarnation > newcomer.incarnation:
                return False
            if self._guard is not None and not self._guard.has(number):
                return False  # a node is not taken over by another key
            self._forget(number)
            if peer.up:
                self._pending.append(Linked(peer.link, False))
        return True

    def _forget(self, number: int) -> None:
        peer = self._peers.pop(number)
        del self._seats[peer.link.role, peer.link.node]
        del self._nonces[peer.link.role, peer.nonce]
        self._down.pop(number, None)
        self._proven.pop(self._prefix(number), None)
        self._ways.pop(peer.link, None)
        if self._guard is not None:
            self._guard.leave(number)

    def _refuse(self, route: bytes, why: str, text: str) -> None:
        self.counts["refused"] += 1
        self.counts[f"refused_{why}"] = self.counts.get(f"refused_{why}", 0) + 1
        self._send(route, 0, Refused(why, text))

    def _send(self, route: bytes, number: int, value: Any) -> bool:
        frame = frame_of(value, self.cluster, number)
        return self._sent(number, self._frames.send(route, frame, b""))

    def _sent(self, number: int, error: int) -> bool:
        """Whether it was: a full queue, or a connection that went, loses a message."""
        if error == zmq.EHOSTUNREACH:
            self._gone(number)
        elif error not in (0, zmq.EAGAIN):
            raise zmq.ZMQError(error)
        return not error

    def _here(self, route: bytes, number: int, peer: _Peer) -> None:
        """It speaks, over a new connection or again."""
        if self._bulk is not None:
            self._proven[self._prefix(number)] = route, peer.link
            self._ways[peer.link] = route, number
        if peer.route != route or not peer.up:
            self._peers[number] = peer._replace(route=route, up=True)
            if not peer.up:
                del self._down[number]
                self._pending.append(Linked(peer.link, True))

    def _gone(self, number: int) -> None:
        peer = self._peers.get(number)
        if peer is not None and peer.up:
            self._peers[number] = peer._replace(up=False)
            self._down[number] = monotonic()
            self._proven.pop(self._prefix(number), None)
            self._ways.pop(peer.link, None)
            self._pending.append(Linked(peer.link, False))

    def _prefix(self, number: int) -> bytes:
        """What a bulk message on this link begins with."""
        return envelope.pack(self._bulk or 0, self.cluster, number, b"")[:PREFIX_BYTES]

    def _probe(self) -> None:
        # The monitor says that a connection went, not whose. It may say so before the socket
        # itself knows, hence several probes in a row.
        self._probes -= 1
        for number, peer in list(self._peers.items()):
            if peer.up:
                self._send(peer.route, number, Probe())


def _random_number() -> int:
    # Never 0, which means "none yet".
    return int.from_bytes(os.urandom(8), "little") | 1
