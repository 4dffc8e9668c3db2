"""The harness's side of the fault proxy: starts it, steers it, reads its counts.

    with Proxy(seed=7) as proxy:
        address = proxy.link("clerk", "server", listener.address)   # the clerk dials this
        proxy.weather("*", "*", LABRPC_UNRELIABLE)
        proxy.cut("clerk", "server", "reply")
        proxy.heal()

In every command but `link` and `swallow` a name may be `*`, which is everybody, and what is ordered
holds for links made later as well; of rules that contradict each other the last one counts. A
command has taken effect when it returns. The control channel itself is never faulted or counted.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from time import monotonic
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Nanos
from engine.errors import ConnectionFailed, EngineError, UsageError
from engine.faults.links import WAYS, Counts
from engine.record import Record
from engine.sim.weather import Weather
from engine.wire.addresses import check_dial

ANSWER_SECONDS = 30.0
"""A proxy that does not answer for so long is broken."""
END_SECONDS = 5.0
SLICE_SECONDS = 0.02
"""Another thread may take an event while this one waits for it."""
NAME_BYTES_MAX = 80
PACKET_MAX = 1 << 18


class Logged(Record):
    """Something that happened in the proxy at `at` (CLOCK_MONOTONIC).

    `what` is `request`, `reply`, `handshake`, `probe` or `swallowed` for a message, with the
    `delays` of its copies (none: it was lost); `connected`, `refused`, `turned away`,
    `source ended`, `destination ended` or `malformed: …` for a connection; or the name of an order.
    """

    at: Nanos
    source: str
    destination: str
    what: str
    delays: tuple[Nanos, ...]


class Proxy:
    """A fault proxy in a process of its own; at home in the thread that made it and outlives it.

    Equal seeds, names and messages meet equal fates, link by link and way by way. Other threads may
    give orders too. EngineError if the proxy died.
    """

    def __init__(self, seed: int = 0) -> None:
        import subprocess

        self._lock = threading.Lock()
        self._swallowed: list[tuple[str, str]] = []
        self._directory = ""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = [str(theirs.fileno()), str(os.getpid()), str(seed)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "engine.faults.proxy", *arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        try:
            self._directory = self._answer()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def directory(self) -> str:
        """Where its sockets are; removed by `close`."""
        return self._directory

    # --- orders ----------------------------------------------------------------------------------

    def link(self, source: str, destination: str, target: str) -> str:
        """The address that `source` is to dial to reach `destination`, which listens at `target`.

        The same pair gets the same address; another target counts for connections made from now on.
        """
        for name in (source, destination):
            if not 0 < len(name.encode()) <= NAME_BYTES_MAX or name == "*":
                raise UsageError(f"{name!r} names no end of a link: use 1 to 80 bytes, not '*'.")
        check_dial(target, "a token is for the ends")
        address: str = self._order("link", source, destination, target)
        return address

    def weather(self, source: str, destination: str, weather: Weather) -> None:
        """What happens to messages from now on."""
        self._order("weather", source, destination, *weather)

    def cut(self, source: str, destination: str, direction: str = "both") -> None:
        """Drop all messages of the direction (request, reply, both), and let no end be seen.

        Nothing sent during a cut is ever delivered. Only the set-up of connections is held, and
        goes on at the heal. A connection that lost a word of the endpoints' own handshake is closed
        then, because they would never say it again.
        """
        self._order("cut", source, destination, _direction(direction))

    def heal(self, source: str = "*", destination: str = "*") -> None:
        """End cuts, and the silence after a swallowed reply."""
        self._order("heal", source, destination)

    def hold(self, source: str, destination: str, direction: str, seconds: float) -> None:
        """Delay every message of the direction by so much, on top of the weather; 0: no more."""
        self._order("hold", source, destination, _direction(direction), _nanos(seconds))

    def refuse(self, source: str, destination: str) -> None:
        """Reset the connections there are, and close new ones at once."""
        self._order("refuse", source, destination)

    def accept(self, source: str = "*", destination: str = "*") -> None:
        """End `refuse`."""
        self._order("accept", source, destination)

    def swallow(self, source: str, destination: str, hide: float = 2.0) -> None:
        """Deliver the next request whatever the weather, swallow its reply, and fall silent.

        The first reply after the request is taken to be its own, so no other should be outstanding.
        Should the destination end before it replies, the next request counts instead. In the
        silence nothing passes; it ends `hide` seconds after the destination did, which is when the
        source sees that end, or with `heal`.
        """
        self._order("swallow", source, destination, _nanos(hide))

    def swallowed(self, timeout: float) -> tuple[str, str]:
        """Wait until a reply was swallowed, and say of which link (source, destination)."""
        deadline = monotonic() + timeout
        while True:
            with self._lock:
                while not self._swallowed and _readable(self._channel, 0):
                    self._receive()
                if self._swallowed:
                    return self._swallowed.pop(0)
            left = deadline - monotonic()
            if left <= 0:
                raise EngineError(f"No reply was swallowed within {timeout:g} s.")
            _readable(self._channel, min(left, SLICE_SECONDS))

    # --- what happened ---------------------------------------------------------------------------

    def counts(self) -> dict[tuple[str, str], Counts]:
        """Of every link."""
        return {(row[0], row[1]): Counts(*row[2:]) for row in self._rows("counts")}

    def total(self, source: str = "*", destination: str = "*") -> Counts:
        """The sums over the links from `source` to `destination`."""
        found = [
            counts
            for (theirs, others), counts in self.counts().items()
            if source in ("*", theirs) and destination in ("*", others)
        ]
        return Counts(*map(sum, zip(Counts(), *found, strict=True)))

    def log(self) -> list[Logged]:
        """The last 65,536 events, oldest first."""
        return [Logged._make((*row[:4], tuple(row[4]))) for row in self._rows("log")]

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """End the proxy and all connections through it, and remove its folder."""
        import shutil
        import subprocess

        if self._channel.fileno() >= 0:
            # Not only closed: a process forked meanwhile may hold a copy, and the proxy would
            # never see the end.
            try:
                self._channel.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the proxy was gone first
            self._channel.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the channel -----------------------------------------------------------------------------

    def _order(self, *command: Any) -> Any:
        with self._lock:
            try:
                self._channel.send(msgpack.packb(command))
            except OSError:
                raise self._gone() from None
            return self._answer()

    def _rows(self, name: str) -> list[list[Any]]:
        rows: list[list[Any]] = []
        while page := self._order(name, len(rows)):
            rows += page
        return rows

    def _answer(self) -> Any:
        """The answer to the command just sent."""
        deadline = monotonic() + ANSWER_SECONDS
        while _readable(self._channel, max(0, deadline - monotonic())):
            answer = self._receive()
            if answer is not None:
                good, value = answer
                if good:
                    return value
                raise UsageError(value)
        raise ConnectionFailed(f"The fault proxy gave no answer within {ANSWER_SECONDS:g} s.")

    def _receive(self) -> tuple[bool, Any] | None:
        """Take a packet: an answer, or None for an event, which is kept."""
        try:
            packet = self._channel.recv(PACKET_MAX)
        except OSError:
            packet = b""
        if not packet:
            raise self._gone()
        what, *values = msgpack.unpackb(packet)
        if what == "swallowed":
            self._swallowed.append((values[0], values[1]))
            return None
        return what == "done", values[0]

    def _gone(self) -> ConnectionFailed:
        import subprocess

        try:
            told = f"exit code {self._process.wait(END_SECONDS)}"
        except subprocess.TimeoutExpired:
            told = "still running"
        return ConnectionFailed(f"The fault proxy closed its control channel ({told}).")


def _readable(channel: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _direction(name: str) -> str:
    if name not in WAYS:
        raise UsageError(f"There is no direction {name!r}: use request, reply or both.")
    return name


def _nanos(seconds: float) -> Nanos:
    return round(seconds * SECOND)
