"""One relayed connection: the two sockets of it, and what waits between them.

The near side leads to the dialer, the far side to the destination; what is read from the near one
goes the way `REQUEST`, what is read from the far one the way `REPLY`. Which descriptor is watched
for what is told here and done by the loop in `engine.faults.proxy`.
"""

from __future__ import annotations

import enum
import select
import socket
import struct
from collections import deque
from itertools import islice

from engine.faults.links import REPLY, REQUEST, WAYS, Link
from engine.faults.zmtp import Splitter

CHUNK = 1 << 18
"""Bytes read at a time."""
WAITING_MAX = 32 << 20
"""Bytes of one way that wait, delayed ones included, before its sender is read no further."""
PIECES_MAX = 64

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER, for no time: closing then resets."""


class Stage(enum.Enum):
    """WAITING: for the heal of a cut, or for a pause after a refusal to pass. DIALING: until the
    destination has accepted."""

    WAITING = 0
    DIALING = 1
    OPEN = 2
    CLOSED = 3


class Side:
    """A socket, and what waits to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.splitter = Splitter()
        self.out: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.watched = 0
        """What epoll watches it for."""
        self.ended = False

    def flush(self) -> None:
        """Write as much as it takes."""
        out = self.out
        while out:
            try:
                sent = self.sock.sendmsg([*islice(out, PIECES_MAX)])
            except BlockingIOError:
                return
            except OSError:
                self.discard()  # reading will tell that it ended
                return
            self.queued -= sent
            while sent:
                if sent < len(out[0]):
                    out[0] = memoryview(out[0])[sent:]
                    break
                sent -= len(out.popleft())

    def discard(self) -> None:
        self.out.clear()
        self.queued = 0


class Pair:
    """A connection of a link."""

    def __init__(self, number: int, link: Link, near: socket.socket) -> None:
        self.number, self.link = number, link
        self.sides = [Side(near)]
        self.stage = Stage.WAITING
        self.held: tuple[list[bytes], list[bytes]] = ([], [])
        """Per way: pieces of the connection's set-up that came while nothing passed."""
        self.doomed = [False, False]
        """Per way: the message that is arriving began to do so in a cut."""
        self.tainted = False
        """A message of the endpoints' handshake was dropped."""
        self._delayed = [0, 0]
        self._delayed_bytes = [0, 0]

    def dial(self) -> bool:
        """Begin to connect to the destination; False if it refuses."""
        target = self.link.target
        if target.startswith("ipc://"):
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            address: str | tuple[str, int] = target.removeprefix("ipc://")
        else:
            host, _, port = target.removeprefix("tcp://").rpartition(":")
            far = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            address = host, int(port)
        far.setblocking(False)
        try:
            far.connect(address)
            self.stage = Stage.OPEN
        except BlockingIOError:
            # A Unix socket says so when its queue is full, and will not tell when it is not.
            if far.family == socket.AF_UNIX:
                far.close()
                return False
            self.stage = Stage.DIALING
        except OSError:
            far.close()
            return False
        self.sides.append(Side(far))
        return True

    def dialed(self) -> bool:
        """The destination has answered; False, and back to waiting, if it refuses."""
        far = self.sides[REPLY].sock
        if far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            far.close()
            self.sides.pop()
            self.stage = Stage.WAITING
            return False
        self.stage = Stage.OPEN
        return True

    def put(self, way: int, raw: bytes) -> bool:
        """Queue bytes for the side that the way leads to; False if nobody is there."""
        if self.stage is not Stage.OPEN or self.sides[1 - way].ended:
            return False
        side = self.sides[1 - way]
        side.out.append(raw)
        side.queued += len(raw)
        return True

    def delay(self, way: int, size: int) -> None:
        """A message of so many bytes is delayed; with a negative size, no longer."""
        self._delayed[way] += 1 if size > 0 else -1
        self._delayed_bytes[way] += size

    def end(self, way: int) -> None:
        """The side that this way comes from closed its connection."""
        self.sides[way].ended = True
        self.sides[way].discard()

    def release(self) -> None:
        """Send the set-up that was held, where the link passes it again."""
        for way in WAYS["both"]:
            if not self.link.blocked(way):
                for raw in self.held[way]:
                    self.put(way, raw)
                self.held[way].clear()

    def flush(self) -> None:
        for side in self.sides:
            side.flush()

    def over(self) -> bool:
        """Whether both sides can be closed now."""
        if len(self.sides) < 2:
            return False
        if self.tainted and not self.link.disturbed:
            # Neither end would say that word of the handshake again; over a new connection both
            # begin anew.
            return True
        near, far = self.sides
        if near.ended and far.ended:
            return True
        if near.ended and not self.link.blocked(REQUEST):
            return not (far.out or self._delayed[REQUEST])
        return far.ended and not self.link.blocked(REPLY) and not near.out

    def wanted(self) -> list[int]:
        """What each side is to be watched for."""
        if self.stage is not Stage.OPEN:
            # The dialer's greeting stays where it is, in the kernel, until somebody takes it.
            return [select.EPOLLRDHUP, select.EPOLLOUT]
        wanted = []
        for way, side in enumerate(self.sides):
            waiting = self._delayed_bytes[way] + self.sides[1 - way].queued
            events = select.EPOLLIN if waiting < WAITING_MAX else 0
            wanted.append(0 if side.ended else events | (select.EPOLLOUT if side.out else 0))
        return wanted

    def close(self, *, reset: bool) -> None:
        """Close both sides; closing takes them from epoll as well."""
        self.stage = Stage.CLOSED
        for side in self.sides:
            if reset:
                side.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.sock.close()
            side.discard()
