"""Our wire under the lab's tests: every end is a connection through the fault proxy.

An end is a thread with a world of its own, in which a `Switchboard` runs the calls that other
threads hand in, as many at once as there are; all share the end's one connection. To the world
these threads are what dials in (`Inbox` stands where a server has its listener). A call is one
`Try`: it says its request once, and hears the answer, the end of the connection, or nothing.

A disabled end is a cut link: what is said there is dropped by the proxy, and nothing shows it.
"""

from __future__ import annotations

import random
import socket
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import rpc_server
from rpc_server import Answer, Log, Number, Request, Text, Wrong
from support import TIME_FACTOR, patience

from engine.calls import Call
from engine.contract import SECOND, Event, Link, Linked, Nanos, Ready, Received, Send, Server
from engine.errors import ConnectionFailed, EngineError, UsageError
from engine.faults.cluster import Cluster
from engine.faults.control import Proxy
from engine.runtime.caller import Caller
from engine.runtime.world import SocketWorld
from engine.sim.weather import CALM, LABRPC_UNRELIABLE

HERE = Link("thread")
"""Where calls come from, and go when they have an outcome."""
CONNECT: Nanos = int(patience(20) * SECOND)
SHORT, LONG = 0.1, 7.0
"""Seconds, at most, until a call learns that nobody is connected."""


class Connect(Call):
    """Has an outcome once there is a connection."""

    def __init__(self, address: str, patience: Nanos, up: set[str]) -> None:
        super().__init__(patience, up)
        self.address = address

    def ask(self, now: Nanos) -> None:
        self.say(self.address, Log(), harmless=True)  # lost, but the world dials

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        """Nothing was asked."""

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.finish(None)

    def silence(self) -> str:
        return f"No connection to {self.address}"


class AskLog(Connect):
    """The harness's own question, which is no request: for a line that is never disturbed."""

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, Log):
            self.finish(message)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.ask_at(now)


class Try(Call):
    """One request, said once, if there is a connection to say it on.

    It fails at once when the connection goes, and after `missed` if there is none.
    """

    def __init__(
        self, address: str, request: Request, patience: Nanos, missed: Nanos, up: set[str]
    ) -> None:
        super().__init__(patience, up)
        self.address, self.request = address, request
        self._missed = missed
        self._said: bool | None = None

    def ask(self, now: Nanos) -> None:
        if self._said is None:
            self._said = self.address in self.up
            if self._said:
                self.say(self.address, self.request)
            else:
                self.ask_at(now + self._missed)
        elif not self._said:
            self.fail(ConnectionFailed(f"{self.silence()}: there was no connection."))

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, Answer) and message.number == self.request.number:
            self.finish(message.result)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if self._said and not up:
            self.fail(ConnectionFailed(f"{self.silence()}: the connection went."))

    def silence(self) -> str:
        return f"No answer from {self.address}"


class Handed:
    """A call on its way through the switchboard, and back."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.over = threading.Event()


class Switchboard:
    """A machine that runs many calls at once, in one world."""

    def __init__(self, up: set[str]) -> None:
        self._up = up
        self._running: list[Handed] = []

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        peers = []
        for event in events:
            if isinstance(event, Received) and event.link == HERE:
                self._running.append(event.message)
            else:
                peers.append(event)
            if isinstance(event, Linked):  # whether or not a call is there to take note
                (self._up.add if event.up else self._up.discard)(event.link.principal)
        for handed in self._running:
            handed.call.step(now, peers)

    def ready(self) -> Ready:
        parts = [handed.call.ready() for handed in self._running]
        over = [handed for handed in self._running if handed.call.outcome is not None]
        self._running = [handed for handed in self._running if handed.call.outcome is None]
        sends = [send for part in parts for send in part.now]
        wakes = [part.wake_at for part in parts if part.wake_at is not None]
        return Ready(
            now=(*sends, *(Send(HERE, handed) for handed in over)),
            wake_at=min(wakes, default=None),
        )

    def check(self) -> None:
        """The calls check themselves."""


class Inbox:
    """Stands where a world has its listener: threads of this process are who dials in."""

    roles = frozenset((HERE.role,))
    restless = False

    def __init__(self) -> None:
        self._waiting: deque[Handed] = deque()
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)

    def put(self, handed: Handed) -> None:
        self._waiting.append(handed)
        self.ring()

    def ring(self) -> None:
        """Wake the world; for any thread."""
        try:
            self._rope.send(b"\0")
        except BlockingIOError:
            pass  # it is ringing already

    def pollables(self) -> tuple[Any, ...]:
        return (self._bell.fileno(),)

    def drain(self, frames: int, size: int) -> list[Event]:
        try:
            self._bell.recv(1 << 12)
        except BlockingIOError:
            pass  # nobody rang
        return [Received(HERE, self._waiting.popleft()) for _ in range(len(self._waiting))]

    def send(self, link: Link, handed: Handed) -> None:
        handed.over.set()

    def close(self, linger_ms: int = 0) -> None:
        self._bell.close()
        self._rope.close()


class End:
    """One client's connection to one server; any thread may call."""

    def __init__(self, client: str, server: str, door: str) -> None:
        self.client, self.server = client, server
        self._door = door
        self._up: set[str] = set()
        self._numbers = count(1)
        self._inbox = Inbox()
        self._closed = False
        self._world = SocketWorld(self._inbox)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._run, name=f"{client} to {server}")
        self._thread.start()
        try:
            self._outcome(Connect(door, CONNECT, self._up))
        except BaseException:
            self.close()
            raise

    def call(self, handler: str, argument: Any, seconds: float, missed: float) -> Any:
        """The answer; None if there was none."""
        request = Request(next(self._numbers), handler, argument)
        times = int(seconds * SECOND), int(missed * SECOND)
        try:
            return self._outcome(Try(self._door, request, *times, self._up))
        except EngineError:
            return None

    def close(self) -> None:
        self._closed = True
        self._inbox.ring()
        self._thread.join()
        self._world.close()  # and the inbox, which nobody rings any more

    def _outcome(self, call: Call) -> Any:
        handed = Handed(call)
        self._inbox.put(handed)
        while not handed.over.wait(patience(1)):
            assert self._thread.is_alive(), "the end's thread has died"
        assert call.outcome is not None
        if call.outcome.error is not None:
            raise call.outcome.error
        return call.outcome.answer

    def _run(self) -> None:
        server = Server(Switchboard(self._up), self._world)
        while not self._closed:
            self._world.wait(server.turn())


class Network:
    """Satisfies `test_labrpc.Network`."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._ends: list[End] = []
        self._missed = SHORT

    @property
    def proxy(self) -> Proxy:
        return self._cluster.proxy

    def start(self, server: str) -> None:
        self._cluster.start(server, program=rpc_server.__file__)

    def delete(self, server: str) -> None:
        self._cluster.kill(server)

    def end(self, client: str, server: str) -> End:
        door = self.proxy.link(client, server, self._cluster.address(server))
        end = End(client, server, door)
        self._ends.append(end)
        self.enable(end, False)
        return end

    def forget(self, end: End) -> None:
        self._ends.remove(end)
        end.close()

    def enable(self, end: End, enabled: bool) -> None:
        (self.proxy.heal if enabled else self.proxy.cut)(end.client, end.server)

    def call(self, end: End, handler: str, argument: Any, seconds: float) -> Any:
        if isinstance(argument, int | str):
            argument = Number(argument) if isinstance(argument, int) else Text(argument)
        missed = self._chance.uniform(0, self._missed)
        result = end.call(handler, argument, seconds, missed)
        if isinstance(result, Wrong):
            raise UsageError(result.text)
        return result.value if isinstance(result, Number | Text) else result

    def reliable(self, reliable: bool) -> None:
        self.proxy.weather("*", "*", CALM if reliable else LABRPC_UNRELIABLE)

    def long_delays(self, long: bool) -> None:
        self._missed = LONG if long else SHORT

    def long_reordering(self, reordering: bool) -> None:
        self.proxy.weather("*", "*", CALM.reordering() if reordering else CALM)

    def count(self, server: str) -> int:
        return self.proxy.total("*", server).requests_delivered

    def total_bytes(self) -> int:
        total = self.proxy.total()
        return total.request_bytes + total.reply_bytes

    def log(self, server: str) -> Log:
        question = AskLog(self._cluster.address(server), CONNECT, set())
        with closing(Caller(timeout=None)) as caller:
            answer: Log = caller.run(question)
            return answer

    def close(self) -> None:
        for end in self._ends:
            end.close()


@contextmanager
def make(folder: Path, seed: int) -> Iterator[Network]:
    """The factory: see `conftest.lab`."""
    with Cluster(folder, seed=seed, factor=TIME_FACTOR) as cluster:
        network = Network(cluster, seed)
        try:
            yield network
        finally:
            network.close()
