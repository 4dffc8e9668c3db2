"""The KV labs' harness on real processes: `engine kv serve`, in real time, with clients.

A crash is SIGKILL, and what a replica has afterwards is what its disk has. Each link runs through
the fault proxy: those between replicas, and those of every client. What operators ask goes past it.
One thread drives a lab; clients (`Clerk`) are shipped `Store`s, each in a thread of its own if it
is one of a `Crowd`.

All that clerks do is noted, and `finish` judges it: the history of each key must be explained by
one copy, with every operation of unknown outcome tried as done and as not done. There is no limit
to the search, so there is no verdict of "perhaps"; what a clerk was told not to be done must not be
there.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, monotonic_ns
from types import MethodType
from typing import Any, Self

import psutil
from raft_group import RaftGroup
from support import TIME_FACTOR, patience

from engine.contract import Nanos
from engine.errors import ConnectionFailed, NotFoundError, OutcomeUnknown
from engine.kv import calls, commands
from engine.kv.client import CompareFailed, Maybe, Store
from engine.kv.limits import Limits
from engine.raft.requests import Status
from engine.sim.planting import Patch
from engine.sim.weather import CALM, LABRPC_UNRELIABLE
from engine.storage.snapshots import HEADER
from engine.verify.history import Operation
from engine.verify.linearizable import RIGHT, UNLIMITED, check
from engine.verify.models import MODELS

CLERK_SECONDS = 40.0
"""Longer than anything that is planned lasts: the labs' clerks ask for ever."""
END_SECONDS = 20.0
LOOK = 0.01
ENTRY_BYTES = 24
"""What the codec adds to an entry's body: numbers, lengths, and the sum; at most."""
TEST_SECONDS_MAX = 120.0


class Over(Exception):
    """The run was ended while the lab was busy."""


class KvGroup(RaftGroup):
    """Replicas of the store in place of those of the labs' log."""

    def __init__(self, folder: Path, members: int, **how: Any) -> None:
        super().__init__(folder, members, verb="kv", **how)


class Clerk:
    """A client that answers as the labs' clerks do, and notes down what it does.

    Errors are those of `Store`, after they were noted: an operation of unknown outcome as one, and
    one that was not done in `refused`. For one thread; `hurry` is for any other.
    """

    def __init__(self, lab: KvLab, name: str, seconds: float, bug: Sequence[Patch]) -> None:
        self.lab, self.name = lab, name
        self.store = Store(lab.endpoints(), timeout=seconds, via=lab.via(name))
        self._closed = False
        self.refused: list[tuple[str, str]] = []
        """(key, value) of writes that are certainly not done."""
        self.unknown: list[tuple[str, str]] = []
        desk: Any = self.store._desk
        for patch in bug:
            make = patch.make(getattr(type(desk), patch.name))
            setattr(desk, patch.name, MethodType(make, desk))

    # --- the labs' first store -------------------------------------------------------------------

    def get(self, key: str) -> str:
        """ "" if there is none."""

        def ask() -> str:
            found = self.store.get(key)
            return "" if found is None else found.value.decode()

        return str(self._do("append", "get", key, (), ask))

    def put(self, key: str, value: str) -> None:
        self._do("append", "put", key, value, lambda: self.store.put(key, value))

    def append(self, key: str, value: str) -> None:
        self._do("append", "append", key, value, lambda: self.store.append(key, value))

    def append_old(self, key: str, value: str) -> str:
        """Append, and what was there before; in one transaction."""
        name, text = key.encode(), value.encode()
        both = [commands.get(name), commands.append(name, text)]

        def ask() -> str:
            found = self.store.txn([], both).answers[0]
            return found[2].decode() if found[0] == commands.OK else ""

        return str(self._do("append", "append", key, value, ask))

    # --- with versions ---------------------------------------------------------------------------

    def get_version(self, key: str) -> tuple[str, int]:
        """("", 0) if there is none."""

        def ask() -> tuple[str, int] | None:
            found = self.store.get(key)
            return None if found is None else (found.value.decode(), found.version)

        return self._do("versioned", "get", key, (), ask) or ("", 0)

    def put_version(self, key: str, value: str, version: int) -> str:
        """ "ok", "version", "nokey", or "maybe"."""

        def ask() -> str:
            try:
                self.store.put_version(key, value, version)
            except CompareFailed:
                return "version"
            except NotFoundError:
                return "nokey"
            except Maybe:
                return "maybe"
            return "ok"

        return str(self._do("versioned", "put", key, (value, version), ask))

    # --- whatever it is --------------------------------------------------------------------------

    def _do(self, model: str, kind: str, key: str, what: Any, ask: Callable[[], Any]) -> Any:
        began = monotonic_ns()
        note = Operation(self.name, kind, key, what, began)
        text = what[0] if model == "versioned" and what else what
        try:
            result = ask()
        except OutcomeUnknown:
            self.unknown.append((key, text))
            self.lab.note(model, note)
            raise
        except ConnectionFailed:
            if kind != "get":
                self.refused.append((key, text))
            raise
        self.lab.note(model, note._replace(returned=monotonic_ns(), result=result))
        return result

    def hurry(self) -> None:
        """The patience of whatever is asked now is over."""
        ticket = self.store._desk.awaited
        if ticket is not None and not ticket.over:
            ticket.deadline = 1

    def close(self) -> None:
        """Once is enough."""
        if not self._closed:
            self._closed = True
            self.store.close()


class Crowd:
    """Clerks at work, a thread each, until they are told to `stop`. `work(clerk, me, over)`."""

    def __init__(
        self,
        clerks: Sequence[Clerk],
        work: Callable[[Clerk, int, threading.Event], Any],
    ) -> None:
        self.clerks, self.over = list(clerks), threading.Event()
        self.failed: list[BaseException] = []
        self.results: dict[int, Any] = {}
        self._work = work
        self._threads = [
            threading.Thread(target=self._run, args=(me,), daemon=True) for me in range(len(clerks))
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, me: int) -> None:
        try:
            self.results[me] = self._work(self.clerks[me], me, self.over)
        except BaseException as error:
            self.failed.append(error)

    @property
    def ended(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self, seconds: float = END_SECONDS) -> dict[int, Any]:
        """What each of them returned, once all have come to an end; raises what went wrong."""
        self.over.set()
        deadline = monotonic() + patience(seconds)
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))
        if self.failed:
            raise self.failed[0]
        assert self.ended, f"clients have no answer after {seconds} s of a healed network"
        return self.results

    def leave(self) -> None:
        """After `stop`: they are not needed any more, and neither are their sockets."""
        for clerk in self.clerks:
            clerk.close()

    def abort(self) -> None:
        """Whatever they wait for."""
        self.over.set()
        while not self.ended:
            for clerk in self.clerks:
                clerk.hurry()
            for thread in self._threads:
                thread.join(LOOK)


class KvLab:
    """A store of so many replicas; AssertionError for whatever does not hold. A context manager."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        servers: int,
        *,
        unreliable: bool = False,
        snapshot_bytes: int = 0,
        flags: Sequence[str] = (),
        program: str = "engine_cmd.main",
        clerk_bug: Sequence[Patch] = (),
        over: threading.Event | None = None,
    ) -> None:
        """`snapshot_bytes`: the labs' maxraftstate, 0 for no snapshots. `program` runs in place of
        `engine`, with more `flags`; `clerk_bug` is planted in every clerk. `over` ends it early."""
        segment = 4096 if snapshot_bytes else 1 << 20
        shape = ("--timing", "labs", "--snapshot-bytes", str(snapshot_bytes))
        shape = (*shape, "--segment-bytes", str(segment))
        self.rng = random.Random(seed)
        self.servers, self.snapshot_bytes = servers, snapshot_bytes
        self.over = over or threading.Event()
        self.group = KvGroup(
            folder, servers, seed=seed, flags=(*shape, *flags), factor=TIME_FACTOR, program=program
        )
        self.names, self.proxy = self.group.names, self.group.proxy
        self._clerk_bug = tuple(clerk_bug)
        self._began = monotonic()
        self._unreliable = unreliable
        self._sides: dict[str, int] = {}
        """Of replicas, and of clerks that do not reach all; whoever is on none reaches all."""
        self._cuts: set[tuple[str, str]] = set()
        self._clerks: list[Clerk] = []
        self._crowds: list[Crowd] = []
        self._history: dict[str, list[Operation]] = {model: [] for model in MODELS}
        self.scores: list[str] = []
        """Figures that are to be seen though nothing failed."""

    def __enter__(self) -> Self:
        try:
            self.set_unreliable(self._unreliable)
            self.restart(*range(self.servers))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            for name in self.names:
                node = self.group.cluster._nodes.get(name)
                if node is not None and node.crashed:
                    error.add_note(f"{name} ended by itself: {node.said().strip()}")
            self.close()
            return
        self._end_clerks()
        self.group.__exit__(None, None, None)  # raises if a replica has crashed by itself

    def close(self) -> None:
        """Replicas first: some clients wait for as long as there is somebody to wait for."""
        self.group.close()
        self._end_clerks()

    def _end_clerks(self) -> None:
        for crowd in self._crowds:
            crowd.abort()
        for clerk in self._clerks:
            clerk.close()
        self._crowds, self._clerks = [], []

    # --- time ------------------------------------------------------------------------------------

    def now(self) -> float:
        return monotonic() - self._began

    def run_for(self, seconds: float) -> None:
        """Let the time pass."""
        if self.over.wait(seconds):
            raise Over("the run was ended")

    def until(self, condition: Callable[[], Any], seconds: float) -> bool:
        deadline = monotonic() + patience(seconds)
        while not condition():
            if monotonic() > deadline:
                return False
            self.run_for(LOOK)
        return True

    # --- replicas --------------------------------------------------------------------------------

    def kill(self, *servers: int) -> None:
        """SIGKILL, all at once."""
        self.group.kill(*[self.names[at] for at in servers])

    def restart(self, *servers: int) -> None:
        """With what their disks have; who runs is killed first."""
        running = self.group.running()
        self.kill(*[at for at in servers if self.names[at] in running])
        for at in servers:
            if self.over.is_set():
                raise Over("the run was ended")
            self.group.start(self.names[at])

    def statuses(self) -> dict[int, Status]:
        """Of those that run."""
        told = self.group.statuses()
        return {self.names.index(name): status for name, status in told.items()}

    def leader(self, among: Sequence[int] = (), seconds: float = 10) -> int:
        """Who leads the latest term of all, or of these, as soon as somebody does."""
        found = [-1]

        def leads() -> bool:
            told = {at: s for at, s in self.statuses().items() if not among or at in among}
            term = max((s.term for s in told.values()), default=0)
            found[0] = max((at for at, s in told.items() if _leads(s, term)), default=-1)
            return found[0] >= 0

        assert self.until(leads, seconds), f"nobody leads: {self.picture()}"
        return found[0]

    def agree(self, *servers: int, seconds: float = 10) -> None:
        """These replicas, or all, soon have the same: by the sum over all that they applied, and
        over what they answered to it."""

        def same() -> bool:
            told = [s for at, s in self.statuses().items() if not servers or at in servers]
            states = {(s.applied, s.commands, s.digest) for s in told}
            return len(told) == (len(servers) or self.servers) and len(states) == 1

        assert self.until(same, seconds), f"replicas differ: {self.picture()}"

    def picture(self) -> str:
        return "; ".join(
            f"{self.names[at]}: {s.role} of term {s.term}, log {s.base} to {s.last}, applied "
            f"{s.applied}, revision {s.commands}, digest {s.digest:08x}"
            for at, s in self.statuses().items()
        )

    def rss(self, at: int) -> int:
        """Bytes that a replica has in memory."""
        return int(
            psutil.Process(self.group.cluster.node(self.names[at]).process.pid).memory_info().rss
        )

    # --- network ---------------------------------------------------------------------------------

    def split(self, *sides: Sequence[int]) -> None:
        """Replicas reach those of their own side alone; clerks reach all, if not `confined`."""
        of = {self.names[at]: side for side, those in enumerate(sides) for at in those}
        clerks = {name: side for name, side in self._sides.items() if name not in self.names}
        self._sides = of | clerks
        self._cut()

    def split_at_random(self) -> None:
        sides: tuple[list[int], list[int]] = ([], [])
        for at in range(self.servers):
            sides[self.rng.randrange(2)].append(at)
        self.split(*sides)

    def confine(self, clerk: Clerk, side: int | None) -> None:
        """To the replicas of one side of a `split`; None: it reaches all."""
        self._sides.pop(clerk.name, None)
        if side is not None:
            self._sides[clerk.name] = side
        self._cut()

    def connect_all(self) -> None:
        self._sides = {}
        self._cut()

    def _cut(self) -> None:
        wanted = {
            (source, name)
            for source in self._sides
            for name in self.names
            if source != name and self._sides[source] != self._sides.get(name, self._sides[source])
        }
        for pair in wanted - self._cuts:
            self.proxy.cut(*pair)
        for pair in self._cuts - wanted:
            self.proxy.heal(*pair)
        self._cuts = wanted

    def set_unreliable(self, unreliable: bool) -> None:
        """labrpc's: a tenth of the requests and of the answers is lost, requests are late."""
        self.proxy.weather("*", "*", LABRPC_UNRELIABLE if unreliable else CALM)

    # --- clients ---------------------------------------------------------------------------------

    def endpoints(self) -> list[str]:
        return [self.group.clients(name) for name in self.names]

    def via(self, source: str) -> dict[str, str]:
        """How a client of this name reaches all: through the proxy."""
        link, clients = self.proxy.link, self.group.clients
        return {clients(name): link(source, name, clients(name)) for name in self.names}

    def clerk(self, seconds: float = CLERK_SECONDS) -> Clerk:
        """A new one; it waits so long for each answer."""
        clerk = Clerk(self, f"c{len(self._clerks)}", patience(seconds), self._clerk_bug)
        self._clerks.append(clerk)
        return clerk

    def crowd(
        self, many: int, work: Callable[[Clerk, int, threading.Event], Any], **how: Any
    ) -> Crowd:
        """So many new clerks at work."""
        return self.together([self.clerk(**how) for _ in range(many)], work)

    def together(
        self, clerks: Sequence[Clerk], work: Callable[[Clerk, int, threading.Event], Any]
    ) -> Crowd:
        crowd = Crowd(clerks, work)
        self._crowds.append(crowd)
        return crowd

    def configure(self, **limits: int) -> None:
        """Change limits of the store, by their names."""
        values = [limits.get(name) for name in Limits._fields]
        with Store(self.endpoints(), timeout=patience(10)) as store:
            store.run(calls.configure(values))

    # --- sizes -----------------------------------------------------------------------------------

    def log_bytes(self) -> int:
        """Of the longest live log, as large as the codec might write it."""
        sizes = (s.log_bytes + ENTRY_BYTES * (s.last - s.base) for s in self.statuses().values())
        return max(sizes)

    def snapshots(self) -> list[int]:
        """The size of the newest snapshot of each replica that has one, without the list of the
        members and their addresses, which the labs' has not."""
        found = []
        for name in self.names:
            files = [p for p in self.group.home(name).rglob("snapshot-*") if not p.suffix]
            newest = max(files, default=None, key=lambda path: path.name)
            if newest is not None:
                begin = newest.read_bytes()
                found.append(len(begin) - HEADER.unpack_from(begin)[-2])
        return found

    def disk_bytes(self) -> int:
        """Of all files on the fullest disk."""
        return max(status.disk_bytes for status in self.statuses().values())

    # --- the end ---------------------------------------------------------------------------------

    def note(self, model: str, operation: Operation) -> None:
        """For any thread."""
        self._history[model].append(operation)

    def operations(self, model: str) -> list[Operation]:
        return list(self._history[model])

    def finish(self) -> None:
        """All that clients saw is explained by one copy, all replicas have the same; and the labs'
        limit of a test."""
        self.connect_all()
        self.set_unreliable(False)
        self.agree()
        for model, operations in self._history.items():
            for judged in check(operations, MODELS[model], UNLIMITED):
                many = len(judged.operations)
                what = f"{judged.key}: {many} operations are {judged.verdict} for {model}"
                assert judged.verdict == RIGHT, what
        self._see_refused()
        seconds = patience(TEST_SECONDS_MAX)
        assert self.now() < seconds, f"the test took {self.now():.0f} s"

    def _see_refused(self) -> None:
        """What was said not to be done was not. Values are used once, so it is seen in any read."""
        refused = {one for clerk in self._clerks for one in clerk.refused}
        for operation in (o for one in self._history.values() for o in one if o.kind == "get"):
            result = operation.result or ""
            for key, value in refused if operation.returned else ():
                there = value in result if isinstance(result, str) else value == result[0]
                what = f"{value!r} of {key} was said not to be done, and is there: {operation}"
                assert not (there and value and key == operation.key), what


def _leads(status: Status, term: Nanos) -> bool:
    return status.role == "leader" and status.term == term
