"""The fault proxy's process: one epoll loop through which all links between real processes run.

For every link it listens at a socket of its own, dials the destination for each connection that it
accepts there, and relays both ways. What becomes of each message `engine.faults.links` decides, as
ordered over the control channel, a SOCK_SEQPACKET socket of msgpack arrays. Every command is
answered::

    harness   [command, argument, ...]
    proxy     ["done", value] | ["wrong", sentence]         the answer to the oldest command
              ["swallowed", source, destination]            at any time

An *end* (a side closed its connection) travels as data would: it is held where nothing passes.
The dialer's end comes after its delayed requests. The destination's is shown at once, and replies
that are still delayed are lost, because who watches a process die wants to know it now.

It ends, and removes its folder, when the channel ends and when the harness does.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Any, NoReturn

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Nanos
from engine.faults.links import REPLY, REQUEST, RULES, UNCOUNTED, Link, Links
from engine.faults.pair import CHUNK, Pair, Stage
from engine.faults.zmtp import Command, Item, Message, Setup
from engine.wire.addresses import fits_socket, private_address

PACKET_MAX = 1 << 17
"""Of the control channel; under half of the least that a socket takes in one piece."""
PAGE = 500
"""Rows of one answer."""
LOG_MAX = 1 << 16
"""Events that are remembered."""
DRAIN_READS_MAX = 1024
BACKLOG = 128
REFUSED_PAUSE: Nanos = SECOND // 50
"""From a destination's refusal to the end that its dialer sees. Dialers of a dead server would
otherwise come back 250 times a second each, for ZeroMQ slows down only if nobody accepts."""

Log = tuple[Nanos, str, str, str, tuple[Nanos, ...]]


class Exchange:
    """The loop, its links and its connections."""

    def __init__(self, control: socket.socket, directory: str, seed: int) -> None:
        self._control, self._directory = control, directory
        self._links = Links(seed)
        self._pairs: dict[int, set[Pair]] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._data: dict[int, tuple[Pair, int]] = {}
        """Who owns a descriptor of a connection: (pair, which side)."""
        self._makers: dict[int, Callable[[], None]] = {}
        """Descriptors whose events may make new ones, so they come last in a batch."""
        self._heap: list[tuple[Nanos, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = self._connections = 0
        self._log: deque[Log] = deque(maxlen=LOG_MAX)
        self._snapshot: list[list[Any]] = []
        self._into = memoryview(bytearray(CHUNK))
        self._make(control.fileno(), self._ordered)

    def run(self) -> None:
        """Relay until the control channel ends."""
        while self._makers:
            later = []
            for fd, events in self._epoll.poll(self._patience()):
                if fd in self._makers:
                    later.append(fd)
                elif fd in self._data:
                    self._happened(*self._data[fd], events)
            for fd in later:
                if fd in self._makers:  # none is left once the channel has ended
                    self._makers[fd]()
            now = monotonic_ns()
            while self._heap and self._heap[0][0] <= now:
                _, _, action, arguments = heappop(self._heap)
                action(*arguments)

    def _patience(self) -> float | None:
        if not self._heap:
            return None
        return max(0, self._heap[0][0] - monotonic_ns()) / 1e9

    def _after(self, delay: Nanos, action: Callable[..., None], *arguments: Any) -> None:
        self._scheduled += 1
        heappush(self._heap, (monotonic_ns() + delay, self._scheduled, action, arguments))

    def _make(self, fd: int, maker: Callable[[], None]) -> None:
        self._makers[fd] = maker
        self._epoll.register(fd, select.EPOLLIN)

    def _note(self, link: Link, what: str, delays: tuple[Nanos, ...] = ()) -> None:
        self._log.append((monotonic_ns(), link.source, link.destination, what, delays))

    # --- connections -----------------------------------------------------------------------------

    def _accept(self, link: Link) -> None:
        while True:
            try:
                near, _ = self._listeners[link.number].accept()
            except BlockingIOError:
                return
            near.setblocking(False)
            if link.refused:
                self._note(link, "turned away")
                near.close()
                continue
            self._connections += 1
            pair = Pair(self._connections, link, near)
            self._pairs[link.number].add(pair)
            self._data[near.fileno()] = pair, REQUEST
            if link.disturbed:
                self._watch(pair)
            else:
                self._dial(pair)

    def _dial(self, pair: Pair) -> None:
        if pair.dial():
            self._data[pair.sides[REPLY].sock.fileno()] = pair, REPLY
            self._note(pair.link, "connected")
            self._watch(pair)
        else:
            self._refused(pair)

    def _refused(self, pair: Pair) -> None:
        self._note(pair.link, "refused")
        self._watch(pair)
        self._after(REFUSED_PAUSE, self._give_up, pair)

    def _give_up(self, pair: Pair) -> None:
        if pair.stage is Stage.WAITING:
            self._close(pair)

    def _happened(self, pair: Pair, side: int, events: int) -> None:
        if pair.stage is Stage.WAITING:
            self._close(pair)  # watched only for the dialer's end
            return
        if pair.stage is Stage.DIALING:
            if side == REQUEST:
                self._close(pair)
                return
            far = pair.sides[REPLY].sock.fileno()
            if not pair.dialed():
                del self._data[far]
                self._refused(pair)
                return
        if events & ~select.EPOLLOUT and not pair.sides[side].ended:
            self._read(pair, side)
        self._settle(pair)

    def _read(self, pair: Pair, way: int) -> bool:
        """Take what has arrived from one side; False if nothing had."""
        side = pair.sides[way]
        try:
            size = side.sock.recv_into(self._into)
        except BlockingIOError:
            return False
        except OSError:
            size = 0  # a reset is an end as well
        if not size:
            self._ended(pair, way)
            return False
        for item in side.splitter.feed(self._into[:size]):
            self._take(pair, way, item)
        if side.splitter.malformed:
            self._note(pair.link, f"malformed: {side.splitter.malformed}")
            pair.flush()
            self._close(pair)
            return False
        return True

    def _ended(self, pair: Pair, way: int) -> None:
        link = pair.link
        self._note(link, f"{'source' if way == REQUEST else 'destination'} ended")
        pair.end(way)
        if way == REQUEST:
            return
        link.closed(pair.number)
        if link.silent:
            self._after(link.hide, self._speak, link, link.swallowed)

    def _settle(self, pair: Pair) -> None:
        """Send what waits, show ends whose time has come, watch for what can happen next."""
        if pair.stage is Stage.CLOSED:
            return
        pair.flush()
        if pair.over():
            self._close(pair)
        else:
            self._watch(pair)

    def _watch(self, pair: Pair) -> None:
        for side, wanted in zip(pair.sides, pair.wanted(), strict=False):
            if wanted == side.watched:
                continue
            if not side.watched:
                self._epoll.register(side.sock, wanted)
            elif wanted:
                self._epoll.modify(side.sock, wanted)
            else:
                # An ended side that is registered for nothing would still report its end for ever.
                self._epoll.unregister(side.sock)
            side.watched = wanted

    def _close(self, pair: Pair, *, reset: bool = False) -> None:
        if pair.stage is Stage.CLOSED:
            return
        for side in pair.sides:
            del self._data[side.sock.fileno()]
        pair.close(reset=reset)
        pair.link.closed(pair.number)
        self._pairs[pair.link.number].discard(pair)

    # --- messages --------------------------------------------------------------------------------

    def _take(self, pair: Pair, way: int, item: Item) -> None:
        link = pair.link
        if isinstance(item, Setup):
            if link.blocked(way):
                pair.held[way].append(item.raw)
            else:
                pair.put(way, item.raw)
        elif isinstance(item, Command):
            if not link.blocked(way):
                pair.put(way, item.raw)
        else:
            self._decide(pair, way, item)

    def _decide(self, pair: Pair, way: int, message: Message) -> None:
        link = pair.link
        doomed, pair.doomed[way] = pair.doomed[way], False
        what, delays, size = link.take(way, message, pair.number, doomed=doomed)
        self._note(link, what, delays)
        if what == "swallowed":
            self._say("swallowed", link.source, link.destination)
        elif what == "handshake" and not delays:
            pair.tainted = True
        for delay in delays:
            if delay:
                pair.delay(way, len(message.raw))
                self._after(delay, self._arrive, pair, way, message.raw, size)
            else:
                self._deliver(pair, way, message.raw, size)

    def _arrive(self, pair: Pair, way: int, raw: bytes, size: int) -> None:
        pair.delay(way, -len(raw))
        if pair.link.blocked(way):
            pair.link.ways[way].failed(size)
            pair.tainted |= size == UNCOUNTED
        else:
            self._deliver(pair, way, raw, size)
        self._settle(pair)

    def _deliver(self, pair: Pair, way: int, raw: bytes, size: int) -> None:
        state = pair.link.ways[way]
        (state.arrived if pair.put(way, raw) else state.failed)(size)

    # --- cuts and heals --------------------------------------------------------------------------

    def _drain(self, link: Link) -> None:
        """Read, and so lose, all that was sent through a cut before the cut is healed."""
        for pair in list(self._pairs[link.number]):
            for way in (REQUEST, REPLY):
                if pair.stage is not Stage.OPEN or not link.blocked(way):
                    continue
                side = pair.sides[way]
                for _ in range(DRAIN_READS_MAX):
                    if side.ended or not self._read(pair, way):
                        break
                pair.doomed[way] |= side.splitter.amid_message

    def _release(self, link: Link) -> None:
        """Let go what was held, as far as the link is not blocked still."""
        for pair in list(self._pairs[link.number]):
            if pair.stage is Stage.WAITING and not link.disturbed:
                self._dial(pair)
            pair.release()
            self._settle(pair)

    def _speak(self, link: Link, swallowed: int) -> None:
        """The end of a silence, unless it is another one by now."""
        if link.silent and link.swallowed == swallowed:
            self._drain(link)
            link.silent = False
            self._release(link)

    # --- orders ----------------------------------------------------------------------------------

    def _ordered(self) -> None:
        try:
            packet = self._control.recv(PACKET_MAX)
        except ConnectionResetError:
            packet = b""
        if not packet:
            self._makers.clear()
            return
        name, *arguments = msgpack.unpackb(packet)
        if name in RULES:
            self._rule(name, *arguments)
            self._say("done", None)
        elif name == "link":
            self._link(*arguments)
        elif name == "swallow":
            self._swallow(*arguments)
        elif name == "counts":
            rows = [[link.source, link.destination, *link.counts()] for link in self._links]
            self._say("done", rows[arguments[0] : arguments[0] + PAGE])
        elif name == "log":
            if arguments[0] == 0:
                self._snapshot = [list(row) for row in self._log]
            self._say("done", self._snapshot[arguments[0] : arguments[0] + PAGE])
        else:
            self._say("wrong", f"The fault proxy knows no command {name!r}.")

    def _rule(self, name: str, source: str, destination: str, *arguments: Any) -> None:
        self._log.append((monotonic_ns(), source, destination, name, ()))
        links = self._links.matching(source, destination)
        if name == "heal":
            for link in links:
                self._drain(link)
        self._links.rule(name, source, destination, arguments)
        for link in links:
            if name == "heal":
                self._release(link)
            elif name == "refuse":
                for pair in list(self._pairs[link.number]):
                    self._close(pair, reset=True)

    def _link(self, source: str, destination: str, target: str) -> None:
        link = self._links.get(source, destination) or self._links.make(source, destination)
        link.target = target
        path = os.path.join(self._directory, str(link.number))
        if not fits_socket(path):
            self._say("wrong", f"{path} is too long for a socket: set TMPDIR to a shorter path.")
            return
        if link.number not in self._listeners:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.setblocking(False)
            listener.bind(path)
            listener.listen(BACKLOG)
            self._listeners[link.number] = listener
            self._pairs[link.number] = set()
            self._make(listener.fileno(), lambda: self._accept(link))
        self._say("done", f"ipc://{path}")

    def _swallow(self, source: str, destination: str, hide: Nanos) -> None:
        link = self._links.get(source, destination)
        if link is None:
            self._say("wrong", f"There is no link from {source} to {destination}: make it first.")
            return
        link.swallow(hide)
        self._say("done", None)

    def _say(self, *packet: Any) -> None:
        try:
            self._control.send(msgpack.packb(packet))
        except (BrokenPipeError, ConnectionResetError):
            self._makers.clear()


def main() -> None:
    """`python -m engine.faults.proxy CHANNEL HARNESS SEED`: descriptor, process, number."""
    import resource
    import shutil

    from engine.kernels.process import parent_death_signal
    from engine.runtime.child import settle

    channel, harness, seed = map(int, sys.argv[1:])
    settle("engine: fault proxy", None, None)
    # A connection takes two descriptors here, and a cluster has many.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    directory = os.path.dirname(private_address().removeprefix("ipc://"))

    def end(number: int, frame: object) -> NoReturn:
        """The harness is gone. Its end may have been seen already, and this amid the removal."""
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    try:
        # Not SIGKILL, which would leave the folder behind.
        parent_death_signal(signal.SIGTERM)
        if os.getppid() != harness:  # it ended before the line above
            return
        control = socket.socket(fileno=channel)
        control.send(msgpack.packb(["done", directory]))
        Exchange(control, directory, seed).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
