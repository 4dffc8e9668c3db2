"""The Raft labs' harness on real processes: `engine raft serve`, in real time.

A crash is SIGKILL, a pause is SIGSTOP; each link runs through the fault proxy, which also counts.
What servers are asked, and what they tell, goes past it. One thread drives a lab, and what the
servers tell is taken in whenever it lets time pass: a `Follow` is always open at each of them, so
what one applies is known, and compared, as soon as it says so (`raft_book`).

Half of the crashes are seen by the others at once, since the connections break, and half are not,
since those are cut before. Nothing that is in a kernel's hands is lost with its process.
"""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import Any, Self

from raft_book import Book
from raft_clerk import Clerk, Submitted
from raft_common import ELECTION, NOT_TAKEN, SNAPSHOT_EVERY, Start, Steps, Tester
from raft_group import RaftGroup
from support import TIME_FACTOR, patience

from engine.contract import SECOND, Linked, Nanos, Received, Send, peer
from engine.raft.requests import Applied, AskStatus, Follow, Started, Status
from engine.raft.requests import Start as Ask
from engine.runtime.world import SocketWorld
from engine.sim.weather import CALM, LABRPC_REORDERING, LABRPC_UNRELIABLE

ANSWER_SECONDS = 5.0
"""A server that runs and says nothing for so long is broken."""
LOOK = 0.002
"""Between two looks at what is waited for, if nothing arrives."""
ENTRY_BYTES = 24
"""What the codec adds to an entry's body: numbers, lengths, and the sum; at most."""


class Over(Exception):
    """The run was ended while the lab was busy."""


class Replica:
    """What is known of one server in its present life."""

    def __init__(self, at: int, name: str, address: str) -> None:
        self.at, self.name, self.address = at, name, address
        self.running = self.linked = self.paused = False
        self.life = 0
        self.reached = 0
        """The last index that it has told to have applied."""
        self.following = 0
        """The number of the open `Follow`; 0 if there is none."""
        self.status: Status | None = None


class ProcessLab(Tester):
    """A group of so many servers; AssertionError for whatever does not hold. A context manager."""

    poll = 0.004
    disk_max, crashed_disk_max = 36 << 10, 48 << 10
    """In blocks of 4 KiB: the log's files, two snapshots, and one that is being written."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        servers: int,
        *,
        unreliable: bool = False,
        snapshots: bool = False,
        delay: Nanos = 0,
        disk: Nanos = 0,
        flags: Sequence[str] = (),
        program: str = "engine_cmd.main",
        over: threading.Event | None = None,
    ) -> None:
        """`delay`: how long a message takes. `disk` is for simulators: ours is a real one.
        `program` runs in place of `engine`, and `flags` are for it. `over` ends the lab early."""
        every = str(SNAPSHOT_EVERY if snapshots else 0)
        segment = str(4096 if snapshots else 1 << 16)
        shape = ("--timing", "labs", "--snapshot-every", every, "--segment-bytes", segment)
        self.rng = random.Random(seed)
        self.servers = servers
        self.connected = [True] * servers
        self.book = Book()
        self.leaders: dict[int, int] = {}
        """By term."""
        self.over = over or threading.Event()
        self._program, self._delay = program, delay
        self._cuts: set[tuple[str, str]] = set()
        self._began = monotonic()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self._answers: dict[int, Any] = {}
        self._asked: dict[int, tuple[Replica, int]] = {}
        """By number: whom, and in which of its lives."""
        self._loads = self._installs = 0
        self.group = RaftGroup(
            folder, servers, seed=seed, flags=(*shape, *flags), factor=TIME_FACTOR
        )
        self.proxy = self.group.proxy
        self.replicas = [
            Replica(at, name, f"{self.group.cluster.address(name)}.a")
            for at, name in enumerate(self.group.names)
        ]
        self._by_address = {replica.address: replica for replica in self.replicas}
        self.world = SocketWorld(role="admin")
        self.clerk = Clerk([self.group.clients(name) for name in self.group.names])
        self._unreliable = unreliable

    def __enter__(self) -> Self:
        try:
            self.set_unreliable(self._unreliable)
            self.restart(*range(self.servers))
            self.world.keep([replica.address for replica in self.replicas])
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for replica in self.replicas:
                if replica.running and not self._lives(replica):
                    said = self.group.cluster.node(replica.name).said()
                    error.add_note(f"{replica.name} ended by itself: {said.strip()}")
            self.close()
            return
        self.clerk.close()
        self.world.close()
        self.group.__exit__(None, None, None)  # raises if a server has crashed by itself

    def close(self) -> None:
        self.clerk.close()
        self.world.close()
        self.group.close()

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        return monotonic() - self._began

    def patience(self, seconds: float) -> float:
        return patience(seconds)

    def run_for(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        self.turn(0)
        while (left := deadline - monotonic()) > 0:
            self.turn(left)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """It is asked whenever something was heard, and every few milliseconds."""
        deadline = monotonic() + patience(seconds)
        self.turn(0)
        while not condition():
            if monotonic() > deadline:
                return False
            self.turn(LOOK)
        return True

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this later, while time passes."""
        self._numbers += 1
        heappush(self._due, (monotonic() + seconds, self._numbers, action))

    def together(self, *all_steps: Steps) -> Callable[[], bool]:
        going = set(range(len(all_steps)))

        def step(at: int, steps: Steps) -> None:
            try:
                self.after(next(steps), lambda: step(at, steps))
            except StopIteration:
                going.discard(at)

        for at, steps in enumerate(all_steps):
            self.after(0, lambda at=at, steps=steps: step(at, steps))  # type: ignore[misc]
        return lambda: not going

    def turn(self, seconds: float) -> None:
        """Take in what has arrived, do what is due; wait for either, but no longer than so."""
        if self.over.is_set():
            raise Over("the run was ended")
        now = monotonic()
        if self._due:
            seconds = max(0.0, min(seconds, self._due[0][0] - now))
        busy = self.clerk.busy()
        if busy:
            seconds = min(seconds, LOOK)
        self.world.wait(monotonic_ns() + int(seconds * SECOND))
        self._hear()
        if busy:
            self.clerk.turn()
        while self._due and self._due[0][0] <= monotonic():
            heappop(self._due)[2]()

    # --- what servers tell -----------------------------------------------------------------------

    def _hear(self) -> None:
        for event in self.world.drain(4096, 1 << 24):
            if type(event) is Linked:
                replica = self._by_address[event.link.principal]
                replica.linked, replica.following = event.up, 0
                if event.up and replica.running:
                    self._follow(replica)
            elif type(event) is Received:
                self._take(event.message)

    def _take(self, message: Any) -> None:
        replica, life = self._asked.pop(message.number, (None, 0))
        if replica is None:
            return
        if type(message) is Applied:
            if replica.life == life:
                self._applied(replica, message)
                self._follow(replica)
            return
        if type(message) is Status and replica.life == life:
            replica.status = message
            if message.role == "leader":
                first = self.leaders.setdefault(message.term, replica.at)
                assert first == replica.at, f"{first} and {replica.at} lead term {message.term}"
        self._answers[message.number] = message

    def _applied(self, replica: Replica, told: Applied) -> None:
        """The next entries, or that they are in a snapshot."""
        name, last = replica.name, replica.reached
        if told.entries:
            assert told.first == last + 1, f"{name} applies {told.first} after {last}"
            for index, entry in enumerate(told.entries, told.first):
                self.book.applied(name, index, entry)
                replica.reached = index
            if self.book.counts[replica.reached] == told.commands:
                self.book.holds(name, replica.reached, told.commands, told.digest)
            return
        assert told.first > last + 1, f"{name} goes from {last} back to {told.first - 1}"
        self._loads += 1
        self._installs += last > 0
        self.book.holds(name, told.first - 1, told.commands, told.digest)
        replica.reached = told.first - 1

    def _follow(self, replica: Replica) -> None:
        replica.following = self._say(replica, Follow, replica.reached, 1000)

    def _say(self, replica: Replica, kind: Any, *about: Any) -> int:
        self._numbers += 1
        self._asked[self._numbers] = replica, replica.life
        self.world.send([Send(peer(replica.address), kind(self._numbers, *about))])
        return self._numbers

    def _statuses(self, servers: Sequence[int]) -> dict[int, Status]:
        """Of these; of whoever is stopped, the last one."""
        asked: dict[int, int] = {}
        there = [self.replicas[at] for at in servers if not self.replicas[at].paused]

        def answered() -> bool:
            for replica in there:
                if replica.at not in asked and replica.linked:
                    asked[replica.at] = self._say(replica, AskStatus)
            return all(asked.get(replica.at) in self._answers for replica in there)

        for replica in there:
            assert replica.running, f"server {replica.at} is dead"
        if not self.until(answered, ANSWER_SECONDS):
            raise AssertionError(f"servers say nothing: {self.picture()}")
        for number in asked.values():
            del self._answers[number]
        found = {at: self.replicas[at].status for at in servers}
        return {at: status for at, status in found.items() if status is not None}

    def status(self, at: int) -> Status:
        return self._statuses([at])[at]

    # --- servers ---------------------------------------------------------------------------------

    def is_up(self, at: int) -> bool:
        return self.replicas[at].running

    def crash(self, *servers: int) -> None:
        """SIGKILL; half of the time the others' connections to it do not break."""
        for at in servers:
            replica = self.replicas[at]
            assert replica.running, f"server {at} is dead"
            seen = self.rng.random() < 0.5
            if not seen:
                self.disconnect(at)
            self.group.kill(replica.name)
            replica.running = replica.paused = False
            replica.status = None
            self.disconnect(at)

    def restart(self, *servers: int) -> None:
        for at in servers:
            replica = self.replicas[at]
            if replica.running:
                self.crash(at)
            replica.life += 1
            replica.reached = replica.following = 0
            self.connect(at)
            self.group.start(replica.name, program=self._program)
            replica.running = True
            if replica.linked:  # the end of its last life is still to be heard of
                self.until(lambda replica=replica: not replica.linked, ANSWER_SECONDS)  # type: ignore[misc]

    def state(self, at: int) -> tuple[int, bool]:
        status = self.status(at)
        return status.term, status.role == "leader"

    def check_terms(self) -> int:
        """As soon as they do: whoever must start, or connect, again is late on a busy machine."""
        self.until(
            lambda: len({s.term for s in self._statuses(self.reachable()).values()}) == 1, ELECTION
        )
        return super().check_terms()

    def role(self, at: int) -> tuple[str, int]:
        """(`follower`, `candidate` or `leader`, term)."""
        status = self.status(at)
        return status.role, status.term

    def pause(self, at: int, seconds: float) -> None:
        """SIGSTOP; SIGCONT comes while the lab lets time pass."""
        replica = self.replicas[at]
        self.status(at)
        replica.paused = True
        self.group.cluster.stop(replica.name)

        def go_on() -> None:
            if replica.paused:
                replica.paused = False
                self.group.cluster.node(replica.name).process.send_signal(signal.SIGCONT)

        self.after(seconds, go_on)

    def picture(self) -> str:
        return "; ".join(map(self._told_of, self.replicas))

    def _told_of(self, replica: Replica) -> str:
        words = [
            word
            for word, on in (
                ("dead", not replica.running),
                ("ended by itself", replica.running and not self._lives(replica)),
                ("stopped", replica.paused),
                ("silent", not replica.linked),
                ("cut off", not self.connected[replica.at]),
            )
            if on
        ]
        if replica.status is not None:
            status = replica.status
            words.append(f"{status.role} of term {status.term}, log {status.base} to {status.last}")
        return f"{replica.name}: {', '.join(words)}, applied {replica.reached}"

    def _lives(self, replica: Replica) -> bool:
        return self.group.cluster.node(replica.name).running

    # --- what only an insider knows --------------------------------------------------------------

    def rejected(self) -> None:
        return None

    def loads(self) -> int:
        return self._loads

    def installs(self) -> int:
        """Of whoever was alive before, as far as we heard it."""
        return self._installs

    def last(self, at: int) -> int:
        return self.status(at).last

    def durable(self, at: int) -> int:
        return self.status(at).durable

    def gave(self, at: int, index: int) -> bool:
        member = self.group.ids[self.replicas[at].name]
        leading = [s for s in self._statuses(self.reachable()).values() if s.role == "leader"]
        newest = max(leading, key=lambda status: status.term, default=None)
        return newest is not None and any(
            seat.id == member and seat.match >= index for seat in newest.seats
        )

    # --- network ---------------------------------------------------------------------------------

    def _cut(self) -> None:
        on = dict(zip(self.group.names, self.connected, strict=True))
        wanted = {(a, b) for a in on for b in on if a != b and not (on[a] and on[b])}
        for pair in wanted - self._cuts:
            self.proxy.cut(*pair)
        for pair in self._cuts - wanted:
            self.proxy.heal(*pair)
        self._cuts = wanted

    def set_unreliable(self, unreliable: bool, *, reordering: bool = False) -> None:
        weather = LABRPC_REORDERING if reordering else LABRPC_UNRELIABLE
        if not unreliable:
            span = (self._delay, self._delay)
            weather = CALM._replace(request_delay=span, reply_delay=span)
        self.proxy.weather("*", "*", weather)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        total = self.proxy.total()
        return total.request_bytes + total.reply_bytes

    def rpcs(self) -> int:
        return self.proxy.total().requests

    def rpc_count(self, at: int) -> int:
        return self.proxy.total(self.replicas[at].name).requests

    # --- commands --------------------------------------------------------------------------------

    def offer(self, at: int, body: bytes) -> int:
        return self._say(self.replicas[at], Ask, body)

    def settled(self, contexts: Iterable[int]) -> Steps:
        """A server that dies, or is stopped, answers nothing."""
        deadline = self.now() + patience(ANSWER_SECONDS)
        waiting = set(contexts)
        while waiting and self.now() < deadline:
            waiting = {number for number in waiting if self._may_come(number)}
            if waiting:
                yield LOOK / 2

    def _may_come(self, number: int) -> bool:
        replica, life = self._asked.get(number, (None, 0))
        if replica is None or number in self._answers:
            return False
        return replica.linked and not replica.paused and replica.life == life

    def placed(self, context: int) -> Start:
        answer = self._answers.pop(context, None)
        if type(answer) is not Started or not answer.place:
            return NOT_TAKEN
        return Start(answer.place, answer.term, True)

    def submit(self, body: bytes, *among: int) -> Submitted:
        """Have a client begin a request: of these servers, or else of the connected."""
        others = [at for at in range(self.servers) if self.connected[at]]
        return self.clerk.submit(body, among or others)

    def n_committed(self, number: int) -> tuple[int, bytes | None]:
        self.turn(0)
        counts = self.book.counts
        there = [r for r in self.replicas if r.running and counts[r.reached] >= number]
        return len(there), self.book.command(number) if there else None

    def log(self, at: int) -> list[bytes]:
        return self.book.log(self.replicas[at].reached)

    # --- sizes -----------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """As large as the codec might write them."""
        statuses = self._statuses([at for at in range(self.servers) if self.is_up(at)])
        return max(s.log_bytes + ENTRY_BYTES * (s.last - s.base + 1) for s in statuses.values())

    def disk_bytes(self) -> int:
        statuses = self._statuses([at for at in range(self.servers) if self.is_up(at)])
        return max(status.disk_bytes for status in statuses.values())

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """And what clients were told is so."""
        super().finish()
        for one in self.clerk.done:
            found = self.book.command(one.place)
            assert found == one.body, f"{one.body!r} was told {one.place}, which is {found!r}"
