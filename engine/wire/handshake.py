"""The handshake's messages, and sockets with the options that every endpoint needs.

How they are used is in `engine.wire.endpoint`.
"""

# Annotations stay types here, not text: the codec reads them, and text would have to be compiled.
import struct
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from engine.kernels.frames import Frames
from engine.record import Record
from engine.wire import codec, envelope
from engine.wire.codec import message

HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 15_000
"""Generous: a stopped debugger or a suspended terminal job is not dead."""
HANDSHAKE_MS = 5_000
"""A connection whose handshake takes longer is ended."""
NEWS_MAX = 1 << 16
QUEUE_MESSAGES = 4096
"""High-water mark of each direction of each connection."""


@message(1)
class Hello(Record):
    """`node` -1 asks for a number. `nonce` also tells a repeated hello from a second one."""

    role: str
    node: int
    incarnation: int
    nonce: bytes


@message(2)
class Challenge(Record):
    """The listener's nonce, and its own proof that it knows the token."""

    nonce: bytes
    proof: bytes


@message(3)
class Proof(Record):
    """The dialer's proof."""

    proof: bytes


@message(4)
class Welcome(Record):
    """Accepted, as this node."""

    node: int
    incarnation: int


@message(5)
class Refused(Record):
    """`why` is `token`, `cluster`, `version`, `role`, `stale`, `link`, or with keys `claim`, `key`
    or `sender`; `text` is a sentence."""

    why: str
    text: str


@message(6)
class Again(Record):
    """From a dialer: this link has a new connection."""


@message(7)
class Probe(Record):
    """From a listener: ignored. That it can be sent says the dialer is still connected."""


class MonitoredSocket:
    """A socket with its monitor; of a context of its own, unless it is given one."""

    def __init__(
        self,
        kind: int,
        options: Sequence[tuple[int, int]],
        context: "zmq.Context[zmq.Socket[bytes]] | None" = None,
        *,
        events: int = 0,
        named: bool = False,
    ) -> None:
        """`events` besides those two; `named` as `Frames` has it."""
        self._own = context is None
        # Blocking is right: shutting down means waiting for LINGER and not a moment more.
        self.context = context or zmq.Context()
        self.socket = self.context.socket(kind)
        common = (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, QUEUE_MESSAGES),
            (zmq.RCVHWM, QUEUE_MESSAGES),
            (zmq.MAXMSGSIZE, envelope.FRAME_MAX),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
            (zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS),
        )
        for option, value in (*common, *options):
            self.socket.setsockopt(option, value)
        self.frames = Frames(self.socket, routed=kind == zmq.ROUTER, named=named)
        """The socket's, without what pyzmq's own way costs."""
        self.monitor = self.socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | events
        )
        self.hear: Callable[[int, int, str], None] | None = None
        """Is told all news: event, value, address."""
        self._news = Frames(self.monitor, routed=True)  # an event has two parts as well
        self.pollables = self.frames, self._news
        """What to wait on for reading."""

    def news(self) -> list[int]:
        """Monitor events since the last call."""
        if self._news.quiet:
            self._news.quiet = False  # as of now; whoever asks again has to look
            return []
        _, events = self._news.receive(NEWS_MAX, 1 << 20)
        if self.hear is not None:
            for event, address in events:
                what, value = struct.unpack_from("=HI", event)
                self.hear(what, value, address.decode())
        return [struct.unpack_from("=H", event)[0] for event, _ in events]

    def close(self) -> None:
        if self.socket.closed:
            return
        # Where connections came and went while nobody asked, the library waits to tell of it, and
        # ends no monitor meanwhile.
        while self._news.receive(NEWS_MAX, 1 << 20)[1]:
            pass
        self.socket.disable_monitor()
        if self._own:
            self.context.destroy()
        else:
            self.monitor.close()
            self.socket.close()


def frame_of(value: Any, cluster: int, link: int) -> bytes:
    """The envelope of a registered message."""
    kind, body = codec.encode(value)
    return envelope.pack(kind, cluster, link, body)
