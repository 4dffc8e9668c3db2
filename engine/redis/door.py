"""The gateway's sockets: who is connected, what they say, and what they are told.

All of them are in one epoll object, whose descriptor is the only one that the replica's loop waits
for. Of each connection a bounded part is read in a turn; one that does not read its replies, or
asks faster than it can be answered, is not read from until that is over.
"""

from __future__ import annotations

import ipaddress
import select
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, RefusedError, UsageError
from engine.kernels.resp import Batch, Stream
from engine.redis.table import Command, find

if TYPE_CHECKING:
    from engine.redis.users import User

READ_BYTES = 1 << 16
TURN_BYTES = 4 << 20
"""Read from all in one turn, about."""
AHEAD_BYTES = 1 << 16
"""That may wait behind what is being answered, before a connection is not read from any more."""
UNSENT_BYTES = 1 << 18
"""Replies that may wait, before nothing more is done for a connection."""
UNSENT_MAX = 64 << 20
"""And before it is closed."""
HELD_MAX = 512 << 20
"""Of all buffers together: whoever makes it more is closed."""
BULK_MAX = 16 << 20
"""Bytes of an argument. The store has limits of its own, and they are less."""
SEND_BYTES = 1 << 18
BACKLOG = 511
FULL = b"-ERR max number of clients reached\r\n"
SPARE_DESCRIPTORS = 200
"""That are left to the replica itself."""


class Client:
    """A connection."""

    __slots__ = (
        "address", "born", "broken", "busy", "ending", "find", "fresh", "held", "id", "left",
        "library", "mask", "name", "no_evict", "over", "queue", "queued_bytes", "queued_keys",
        "socket", "stream", "user", "watched", "wrongs",
    )  # fmt: skip

    def __init__(self, made: socket.socket, number: int, now: float) -> None:
        self.socket, self.id, self.born = made, number, now
        self.stream = Stream(self, BULK_MAX)
        self.address = made.getpeername()
        self.name, self.library, self.no_evict = b"", {b"lib-name": b"", b"lib-ver": b""}, False
        self.user: User | None = None
        """Who it has proven to be, where there are users."""
        self.find: Callable[[Sequence[bytes]], Command] = find
        """Which command some words are, if it may have that done. Problem."""
        self.wrongs = 0
        """Secrets that were not the user's."""
        self.busy = False
        """A command that is not plain is under way."""
        self.ending = False
        """Nothing more is read; it is closed when all is said."""
        self.left: Batch | None = None
        """Plain commands whose answers were too long for one frame: asked when it has read more."""
        self.over = False
        """And nothing more that it has said is done."""
        self.fresh = True
        """It has said nothing yet."""
        self.queue: list[Any] | None = None
        """Of commands, since MULTI."""
        self.broken = False
        """One of them was refused."""
        self.queued_bytes, self.queued_keys = 0, set[bytes]()
        self.watched: dict[bytes, int] = {}
        self.mask, self.held = select.EPOLLIN, 0

    @property
    def waits(self) -> bool:
        """Nothing more is done for it just now."""
        return self.busy or self.stream.waits > 0 or self.stuffed

    @property
    def stuffed(self) -> bool:
        """It has to read first."""
        return self.stream.unsent > UNSENT_BYTES


class Door:
    """Listens at `address`. Connections `come`, have `heard` said something, and are `gone`."""

    full = FULL

    def __init__(
        self,
        address: tuple[str, int],
        come: Callable[[Client], None],
        heard: Callable[[Client], None],
        gone: Callable[[Client], None],
        *,
        shared: bool = False,
        clients_max: int = 0,
    ) -> None:
        """`shared`: somebody holds the port for us (`reserved`)."""
        self._come, self._heard, self._gone = come, heard, gone
        self.clients_max = clients_max or _clients_max()
        self.clients: dict[int, Client] = {}
        self.counts = {"connections": 0, "refused": 0, "dropped": 0}
        self._number = self._held = 0
        self._dirty: dict[Client, None] = {}
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(address)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise EngineError(
                f"Redis clients cannot be served at {address[0]}:{address[1]}: {error.strerror}."
            ) from None
        self._socket.setblocking(False)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._epoll = select.epoll()
        self._epoll.register(self._socket.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when somebody has something."""
        return self._epoll.fileno()

    def drain(self, now: float) -> None:
        """Whoever is there, and what has arrived."""
        left = TURN_BYTES
        for fd, mask in self._epoll.poll(0, 1024):
            client = self.clients.get(fd)
            if client is None:
                self._other(fd, now)
                continue
            if mask & select.EPOLLOUT:
                self._dirty[client] = None
            if mask & select.EPOLLIN and client.mask & select.EPOLLIN:
                if left > 0:
                    left -= self._read(client)
            elif mask & (select.EPOLLHUP | select.EPOLLERR):
                self.drop(client)

    @property
    def complaint(self) -> str:
        """What whoever runs it should know."""
        return ""

    def refused(self, why: str) -> None:
        """Count a connection that was."""
        self.counts["refused"] += 1
        self.counts[f"refused_{why}"] = self.counts.get(f"refused_{why}", 0) + 1

    @property
    def crowd(self) -> int:
        """Connections, of whatever kind."""
        return len(self.clients)

    def look(self, now: float) -> None:
        """From time to time: who has to go."""

    def _other(self, fd: int, now: float) -> None:
        """Something else than a client has something: the socket at which they come."""
        self._accept(now)

    def _accept(self, now: float) -> None:
        for _ in range(64):
            try:
                made, _ = self._socket.accept()
            except OSError:
                return  # nobody any more, or no descriptors
            made.setblocking(False)
            if self.crowd >= self.clients_max:
                self.counts["refused"] += 1
                _try_to_send(made, self.full)
                made.close()
                continue
            self._let_in(made, now)

    def _let_in(self, made: socket.socket, now: float) -> None:
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._number += 1
            client = Client(made, self._number, now)
        except OSError:  # it has gone already
            made.close()
            return
        self.counts["connections"] += 1
        self.clients[made.fileno()] = client
        self._epoll.register(made.fileno(), select.EPOLLIN)
        self._come(client)

    def _read(self, client: Client) -> int:
        try:
            data = client.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self.drop(client)
            return 0
        if not data:
            client.ending = True  # it says nothing more, and may still listen
        else:
            client.stream.feed(data)
        self._heard(client)
        self._dirty[client] = None
        self._weigh(client)
        return len(data)

    def _weigh(self, client: Client) -> None:
        if client.stream.closed:
            return
        held = client.stream.held
        self._held += held - client.held
        client.held = held
        if self._held > HELD_MAX and held > 2 * READ_BYTES:
            self.drop(client)

    def touched(self, client: Client) -> None:
        """It has replies, or is ready for more."""
        self._dirty[client] = None

    def flush(self) -> None:
        """Send what there is, each connection's in one go."""
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for client in dirty:
                if not client.stream.closed:
                    self._flush(client)

    def _flush(self, client: Client) -> None:
        stream = client.stream
        full = stream.unsent > UNSENT_BYTES
        while stream.unsent:
            try:
                sent = client.socket.send(stream.output(SEND_BYTES))
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self.drop(client)
                return
            stream.sent(sent)
        if stream.unsent > UNSENT_MAX:
            self.drop(client)
            return
        if full and stream.unsent <= UNSENT_BYTES:
            self._heard(client)
            if stream.unsent:
                self._dirty[client] = None
        if client.ending and not client.waits and not stream.unsent:
            self.drop(client, ended=True)
            return
        self._weigh(client)
        if not stream.closed:
            self._listen(client)

    def _listen(self, client: Client) -> None:
        stuffed = client.waits and client.stream.unread >= AHEAD_BYTES
        mask = 0 if client.ending or stuffed else select.EPOLLIN
        if client.stream.unsent:
            mask |= select.EPOLLOUT
        if mask != client.mask:
            client.mask = mask
            self._epoll.modify(client.socket.fileno(), mask)

    def drop(self, client: Client, *, ended: bool = False) -> None:
        """Close it at once."""
        if client.stream.closed:
            return
        client.stream.closed = True
        self.counts["dropped"] += not ended
        self._held -= client.held
        fd = client.socket.fileno()
        self._epoll.unregister(fd)
        del self.clients[fd]
        client.socket.close()
        self._gone(client)

    def close(self) -> None:
        for client in list(self.clients.values()):
            self.drop(client, ended=True)
        self._epoll.close()
        self._socket.close()


def _try_to_send(made: socket.socket, data: bytes) -> None:
    try:
        made.send(data)
    except OSError:
        return  # whoever does not listen need not know


def _clients_max() -> int:
    """As many as this process may have descriptors for."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = min(hard, 1 << 14) if hard != resource.RLIM_INFINITY else 1 << 14
    if soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(16, min(10_000, limit - SPARE_DESCRIPTORS))


def reserved(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """Hold a port, 0 for any, for processes of ours that listen there `shared`; nobody is let in
    meanwhile. So one that is started again finds its port free. RefusedError."""
    with _bound(host, port, shared=False) as probe:
        port = probe.getsockname()[1]
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise RefusedError(
            f"Redis clients cannot be served at {host}:{port}: {error.strerror}."
        ) from None
    return made


def parse_address(text: str) -> tuple[str, int]:
    """PORT of this machine's own address, or HOST:PORT. UsageError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    host = "127.0.0.1" if host == "localhost" else host
    if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(f"{text!a} is no PORT for Redis clients, nor HOST:PORT.")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise UsageError(
            f"{host!a} is no address to serve Redis clients at: give one of this machine's, in "
            "numbers."
        ) from None
    return host, int(port)


def beyond(host: str) -> bool:
    """Whether others than this machine's own users can come there."""
    return not ipaddress.ip_address(host).is_loopback
