"""What stands between a listener and those who are not allowed in.

A listener with keys is a CURVE server whose ZAP handler (ZeroMQ RFC 27) is polled by the listener's
own loop: it has no thread that could die unnoticed, and while nobody polls it, nobody gets in. The
handler knows keys and no addresses. Since ZAP_ENFORCE_DOMAIN is set, libzmq refuses whoever it
cannot ask about; without that option it would let everybody in. Both are tried, on the very socket,
before it listens anywhere: see `Guard.stand`.

From then on libzmq notes with each message which key the handler found at the other end. That, and
never what a hello says, is who speaks.
"""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any

import zmq

from engine.errors import RefusedError
from engine.record import Record
from engine.wire import addresses
from engine.wire.curve import SPEAKS, Keyring, check_curve, new_pair

HANDLER = "inproc://zeromq.zap.01"
DOMAIN = b"engine"
LOOK_SECONDS = 0.25
"""From one look at the list of those who are allowed to the next."""
CONNECTIONS_MAX = 4096
TEST_SECONDS = 5.0

FAILED = frozenset(
    {
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    }
)
ALL_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
WATCHED = ALL_FAILED | zmq.EVENT_ACCEPTED

Socket = Any


class Speaker(Record):
    """Who sent a message: its key, and the descriptor of the connection, -1 if unknown."""

    key: str
    way: int


NOBODY = Speaker("", -1)


class Guard:
    """Of one listener: whom it lets in, who is in by which key, and who must go.

    `counts` are the listener's; what is refused is counted there by reason.
    """

    def __init__(self, path: str, roles: frozenset[str], counts: dict[str, int]) -> None:
        """`path` of the keys. EngineError if they are not fit, or cannot be used here."""
        check_curve()
        self.ring = Keyring(path)
        own = self.ring.allowed.find(self.ring.public)
        if own is None or own.role not in ("replica", "coordinator"):
            raise RefusedError(
                f"{self.ring.allowed.path} does not have our own key {self.ring.name} as a replica "
                "or coordinator: `engine keys allow` it there, and everywhere else."
            )
        self.speaker = NOBODY
        """Of the message that is looked at just now."""
        self._roles, self._counts = roles, counts
        self._in: dict[int, tuple[str, str, int]] = {}
        """By link: (key, role, descriptor of its connection)."""
        self._guest = ""
        self._quiet = ""
        self._open: set[int] = set()
        self._spoke: set[int] = set()
        """Descriptors of connections; so are the next."""
        self._ended: list[int] = []
        self._failed = False
        self._port = 0
        self._next_look = 0.0
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._connections_max = min(CONNECTIONS_MAX, max(16, soft // 2))

    @property
    def complaint(self) -> str:
        allowed = self.ring.allowed
        if not allowed.broken:
            return ""
        return f"Nobody new is let in by {allowed.path}: {allowed.broken.rstrip('.')}."

    # --- the socket ------------------------------------------------------------------------------

    def stand(self, socket: Socket) -> None:
        """Arm a socket, which is bound to nothing yet, and try it. RefusedError if it does not keep
        strangers out, or us."""
        self.zap = socket.context.socket(zmq.REP)
        self.zap.setsockopt(zmq.LINGER, 0)
        self.zap.bind(HANDLER)
        public, secret = self.ring.pair
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._test(socket)

    def listens(self, address: str) -> None:
        """Where it does, now."""
        self._port = int(address.rpartition(":")[2])

    @property
    def pollable(self) -> int:
        """Becomes readable when somebody knocks."""
        return int(self.zap.getsockopt(zmq.FD))

    def _test(self, socket: Socket) -> None:
        """Somebody allowed gets in; a stranger's key and no key do not."""
        address = addresses.private_address()
        stranger = tuple(bytes.fromhex(half) for half in new_pair())
        tried = (
            ("our own key is not let in", self.ring.pair, True),
            ("a stranger's key is let in", stranger, False),
            ("whoever has no key is let in", None, False),
        )
        self._quiet, self._guest = address, self.ring.public
        try:
            socket.bind(address)
            for what, pair, wanted in tried:
                if self._gets_in(socket.context, address, pair) is not wanted:
                    raise RefusedError(
                        f"The guard of this endpoint does not work ({what}), so it does not "
                        "listen: is this pyzmq built with libsodium, and its libzmq its own?"
                    )
            socket.unbind(address)
        finally:
            self._guest = ""
            shutil.rmtree(os.path.dirname(address.removeprefix("ipc://")), ignore_errors=True)

    def _gets_in(self, context: Any, address: str, pair: tuple[bytes, ...] | None) -> bool:
        with context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            if pair is not None:
                arm(dealer, pair, self.ring.public)
            monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | ALL_FAILED)
            dealer.connect(address)
            deadline = monotonic() + TEST_SECONDS
            try:
                while (left := deadline - monotonic()) > 0:
                    polled = [(monitor, zmq.POLLIN), (self.zap, zmq.POLLIN)]
                    ready = dict(zmq.zmq_poll(polled, int(left * 1000) + 1))
                    self.answer()
                    if monitor in ready:
                        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
                        return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            finally:
                dealer.disable_monitor()
        return False

    # --- who knocks ------------------------------------------------------------------------------

    def answer(self) -> None:
        """Say of everybody who knocks whether to let them in; never waits."""
        if self._ended:
            self._settle()
        while self.zap.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            frames = self.zap.recv_multipart(zmq.NOBLOCK)
            key, refusal = self._judged(frames)
            code, text = (b"400", b"not allowed") if refusal else (b"200", b"")
            if refusal:
                self.count(refusal)
            asked = frames[1] if len(frames) > 1 else b""
            self.zap.send_multipart([b"1.0", asked, code, text, key.encode(), b""])

    def _judged(self, frames: list[bytes]) -> tuple[str, str]:
        """(key, why it is refused or "")."""
        if len(frames) != 7 or frames[2] != DOMAIN or frames[5] != b"CURVE":
            return "", "stranger"
        key = frames[6].hex()
        if self._guest:  # nobody but ourselves knows the address yet
            return key, "" if key == self._guest else "tested"
        self.ring.allowed.fresh()
        return key, self.refusal(key)

    def refusal(self, key: str) -> str:
        """Why somebody new with this key is not let in; "" for those who are."""
        if self.ring.allowed.broken:
            return "list"
        entry = self.ring.allowed.find(key)
        if entry is None:
            return "stranger"
        if not SPEAKS[entry.role]:
            return "revoked"
        return "" if SPEAKS[entry.role] & self._roles else "elsewhere"

    def count(self, why: str) -> None:
        if why != "tested":
            self._counts["refused"] += 1
            self._counts[f"refused_{why}"] = self._counts.get(f"refused_{why}", 0) + 1

    def hear(self, event: int, value: int, address: str) -> None:
        """News of the socket's monitor: connections are counted, and those that never prove
        themselves."""
        if address == self._quiet:
            return
        if event == zmq.EVENT_ACCEPTED:
            if len(self._open) >= self._connections_max:
                self.count("crowd")
                self.cut(value)
            else:
                self._open.add(value)
        elif event in FAILED:
            self._failed = True  # its end comes next
            if event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self.count("unproven")
        elif event == zmq.EVENT_DISCONNECTED:
            self._open.discard(value)
            if not self._failed:
                self._ended.append(value)
            self._failed = False

    def _settle(self) -> None:
        """Whoever went and never said a thing had not proven itself: for some, as those who speak
        ZeroMQ of fifteen years ago, or HTTP, libzmq says no more than that."""
        for way in self._ended:
            if way in self._spoke:
                self._spoke.discard(way)
            else:
                self.count("unproven")
        self._ended.clear()

    def heard(self, messages: Iterable[Any]) -> Iterator[tuple[bytes, bytes]]:
        """(route, frame) of each; while it is looked at, `speaker` says whose it is."""
        for route, frame, user, way in messages:
            self.speaker = Speaker(user.decode(), int(way or b"-1"))
            self._spoke.add(self.speaker.way)
            yield route, frame
        self.speaker = NOBODY

    # --- who is in -------------------------------------------------------------------------------

    def claim(self, role: str) -> tuple[str, str]:
        """Whoever speaks says hello as `role`: (name, why not or "")."""
        key = self.speaker.key
        why = self.refusal(key)
        entry = self.ring.allowed.find(key)
        if why or entry is None:
            return "", why or "stranger"
        return entry.name, "" if role in SPEAKS[entry.role] else "claim"

    def seat(self, number: int, role: str) -> None:
        """Whoever speaks has this link."""
        self._in[number] = self.speaker.key, role, self.speaker.way

    def leave(self, number: int) -> None:
        self._in.pop(number, None)

    def has(self, number: int) -> bool:
        """Whether it is whoever speaks now that has this link; over which connection, is noted."""
        key, role, _ = self._in.get(number, ("", "", -1))
        if key != self.speaker.key:
            return False
        self._in[number] = key, role, self.speaker.way
        return True

    def forged(self, value: Any) -> bool:
        """Whether whoever speaks says it in the name of another member."""
        entry = self.ring.allowed.find(self.speaker.key)
        member = entry.member if entry is not None else 0
        return bool(member) and getattr(value, "sender", member) != member

    # --- who must go -----------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether it is time to look at the list."""
        return monotonic() >= self._next_look

    def dismissed(self) -> list[int]:
        """Links of those who are not allowed any more; their connections are cut."""
        self._next_look = monotonic() + LOOK_SECONDS
        allowed = self.ring.allowed
        allowed.fresh()
        if allowed.broken:
            return []
        gone = []
        for number, (key, role, way) in self._in.items():
            entry = allowed.find(key)
            if entry is None or role not in SPEAKS[entry.role]:
                gone.append(number)
                self.cut(way)
        self._counts["dismissed"] = self._counts.get("dismissed", 0) + len(gone)
        return gone

    def cut(self, way: int) -> None:
        """End a connection. Should its descriptor be another one's by now, that one is looked at
        first, and the worst is that an innocent peer of ours dials again."""
        import socket

        try:
            copy = socket.socket(fileno=os.dup(way))
        except OSError:
            return  # it has gone
        with copy:
            try:
                listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if not listens and copy.getsockname()[1] == self._port:
                    copy.shutdown(socket.SHUT_RDWR)
            except (OSError, IndexError):
                return  # it is no connection of ours, or has ended


def arm(socket: Socket, pair: tuple[bytes, ...], server: str) -> None:
    """Make a socket dial as the owner of this pair, and nobody but this server."""
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair[0])
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair[1])
    socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(server))
