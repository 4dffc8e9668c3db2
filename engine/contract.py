"""The contract every service copies: a pure machine, a thin server, one world.

A *machine* is the protocol. Events go in through `step`, and `ready` hands out, as plain data, what
must now happen. It owns no clock, socket, file, thread or global random, so it can be driven
through millions of orderings. A *server* owns a machine and a *world*; one `turn` drains all that
has arrived, steps once and carries out. The world is real (`engine.runtime`) or simulated
(`engine.sim`); both run the same turn, and only the waiting between turns differs::

    while machine.outcome is None:
        world.wait(server.turn())

Rules

* `step` never raises for anything a peer can send; an exception is a bug and the process exits.
* Equal (recovered, settings, seed, events) give equal `Ready`, under any PYTHONHASHSEED.
* Groups of writes are numbered 1, 2, 3 …: the n-th `Ready` with writes is ticket n, for the machine
  as for the world. `Durable(n)` says that every group up to n survives power loss.
* What is said to others about a write waits in `Ready.after` until that write, and every one before
  it, is durable; what is *done* about it (a `Job`) is asked for only after its `Durable` came back.
* Work over 5 ms is a `Job`, and comes back as `Finished`.
* A client is the same thing: a machine (`engine.calls.Call`) that runs until it has an outcome, in
  the same turn, on the same worlds.

The types are tuples with names (`engine.record`): making one takes 0.4 µs against 0.2 for a slots
dataclass, but a program of sixty of them starts 27 ms sooner, which is much for a small job.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from engine.record import Record

Nanos = int
"""Monotonic nanoseconds; never wall time, never float."""

SECOND: Nanos = 1_000_000_000

DRAIN_FRAMES_MAX = 4096
"""Frames taken in one turn: enough to batch, few enough that a turn stays under 10 ms."""
DRAIN_BYTES_MAX = 16 << 20
OVERSLEPT_MIN: Nanos = SECOND // 100
"""A turn that comes less late is on time: timers have a grain, and other processes need a core."""


class Link(Record):
    """Who is at the other end: known by the endpoint, never by the bytes of a message.

    Whoever dialed in is (role, node, incarnation), as proven in the handshake. Whom we dialed is
    `peer(address)`: the machine names it, the world finds the way.
    """

    role: str
    node: int = 0
    incarnation: int = 0
    principal: str = ""


PEER = "peer"


def peer(address: str) -> Link:
    """The server at this address, dialed when it is first spoken to and for as long as it is."""
    return Link(PEER, 0, 0, address)


# --- events in -----------------------------------------------------------------------------------


class Received(Record):
    """One message from a peer."""

    link: Link
    message: Any


class Requests(Record):
    """All that clients asked in this turn by messages of a kind that a listener takes in bulk: from
    whom, and the bytes of the message's body, which nobody has looked at."""

    batch: tuple[tuple[Link, bytes], ...]


class Durable(Record):
    """Every write group up to `ticket` survives power loss."""

    ticket: int


class Finished(Record):
    """A `Job` ended; `error` is "" when it ended well."""

    job: int
    result: Any = None
    error: str = ""


class Linked(Record):
    """A peer came or went. A hint: it may be late, wrong or missing. What was said to a peer before
    it came is lost, so this is the moment to say it again."""

    link: Link
    up: bool


class Exited(Record):
    """A process ended: exit code, or minus the signal that ended it."""

    process: int
    code: int


class Moved(Record):
    """The progress page of a process changed since it was last looked at.

    `position` is the page's words as `engine.runtime.pages` lists them.
    """

    process: int
    position: tuple[int, ...]


class Overslept(Record):
    """This turn comes `by` later than the machine asked for: the process was stopped or starved.

    The first event of its turn. Whoever seems to have been silent meanwhile may only not have been
    heard, so nobody's patience is over because of it.
    """

    by: Nanos


Event = Received | Requests | Durable | Finished | Linked | Exited | Moved | Overslept


# --- what must now happen ------------------------------------------------------------------------


class Send(Record):
    """A message for the peer at the other end of `link`."""

    link: Link
    message: Any


class Write(Record):
    """A record to append to the service's journal or log."""

    record: Any


class Job(Record):
    """Long work for the world: `work` is plain data that the service's world understands."""

    number: int
    work: Any


class Span(Record):
    """The committed entries `after` + 1 … `last` are for the state machine. With `load` it begins
    anew from the snapshot that ends with entry `after`."""

    after: int
    last: int
    load: bool = False


class ReadAt(Record):
    """A read that was confirmed: it may be run once all up to entry `last` is applied."""

    context: int
    last: int


class Ready(Record):
    """What a turn must carry out, in this order. What is `after` all writes so far leaves when they
    are durable."""

    writes: tuple[Write, ...] = ()
    now: tuple[Send, ...] = ()
    after: tuple[Send, ...] = ()
    jobs: tuple[Job, ...] = ()
    wake_at: Nanos | None = None
    applies: tuple[Span, ...] = ()
    reads: tuple[ReadAt, ...] = ()
    answers: tuple[Any, ...] = ()
    """What became of what the server itself asked of its machine."""


class Machine(Protocol):
    """A protocol as a pure object; `ready` drains what was decided, `check` asserts invariants."""

    def step(self, now: Nanos, events: Sequence[Event]) -> None: ...
    def ready(self) -> Ready: ...
    def check(self) -> None: ...


class World(Protocol):
    """Everything that is not the protocol."""

    def now(self) -> Nanos: ...

    def drain(self, frames: int, size: int) -> list[Event]:
        """All events that have arrived, up to these limits; never blocks."""

    def send(self, sends: Iterable[Send]) -> None:
        """Never blocks: a message that a full pipe refuses is lost."""

    def write(self, group: Sequence[Write]) -> int:
        """Start writing one group; its ticket. `Durable` follows, in order."""

    def start(self, job: Job) -> None:
        """Start a job; `Finished` follows, unless the job's own documentation says otherwise."""

    def point(self, name: str) -> None:
        """A named crash point; nothing in production.

        `Server.turn` names `drained`, `stepped`, `written`, `sent` and `turned`, in this order."""


class Server:
    """One machine and its world. Subclasses add what their service needs; the turn stays."""

    def __init__(self, machine: Machine, world: World) -> None:
        self.machine = machine
        self.world = world
        self._written = self._durable = 0
        self._wake_at: Nanos | None = None
        self._held: list[tuple[int, tuple[Send, ...]]] = []

    def turn(self) -> Nanos | None:
        """Drain, step, carry out; the time at which to turn again if nothing arrives before."""
        world = self.world
        events = self.sift(world.drain(DRAIN_FRAMES_MAX, DRAIN_BYTES_MAX))
        world.point("drained")
        now = world.now()
        if self._wake_at is not None and now - self._wake_at > OVERSLEPT_MIN:
            events = [Overslept(now - self._wake_at), *events]
        self.machine.step(now, events)
        world.point("stepped")
        ready = self.machine.ready()
        if ready.writes:
            self._written = world.write(ready.writes)
            world.point("written")
        world.send(self.complete(ready.now))
        world.point("sent")
        if ready.after:
            self._held.append((self._written, ready.after))
        for event in events:
            if type(event) is Durable:
                self._durable = max(self._durable, event.ticket)
        while self._held and self._held[0][0] <= self._durable:
            world.send(self._held.pop(0)[1])
        for job in ready.jobs:
            world.start(job)
        self.carry(ready)
        world.point("turned")
        self._wake_at = ready.wake_at
        return ready.wake_at

    # What a service does besides, if it does.

    def sift(self, events: list[Event]) -> list[Event]:
        """What the machine is to hear of all that came."""
        return events

    def complete(self, sends: Iterable[Send]) -> Iterable[Send]:
        """Messages as they go out, with the bytes that the machine only names."""
        return sends

    def carry(self, ready: Ready) -> None:
        """Apply, read, answer."""
