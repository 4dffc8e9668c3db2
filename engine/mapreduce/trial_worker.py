"""A simulated worker: the worker's side of the protocol, with words instead of kernels.

It keeps the promises a real one keeps (one order at a time, one table, a run names every split
since the last commit, private files) and none that it does not: it may be stopped in the middle of
anything, die with a file half reported, and go on after it was given up.

Files: a run is the counts of each partition with a checksum, an output is sorted lines.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Protocol
from zlib import crc32

from engine.contract import Link, Nanos
from engine.mapreduce.messages import (
    Committed,
    Configure,
    Failed,
    Flush,
    Join,
    Map,
    Reduce,
    Reduced,
    Scanned,
    Stop,
)
from engine.mapreduce.progress import COMMITTING, IDLE, MAPPING, REDUCING, WORDS
from engine.sim.disk import Disk
from engine.sim.timeline import MILLISECOND, Timeline

SEGFAULT = -11


class Home(Protocol):
    """What a worker needs of its cluster."""

    timeline: Timeline
    disk: Disk
    texts: list[list[str]]
    partitions: int

    def report(self, worker: SimulatedWorker, message: Any) -> None: ...
    def page_moved(self, worker: SimulatedWorker) -> None: ...
    def died(self, worker: SimulatedWorker, code: int) -> None: ...
    def stopped_for_good(self, worker: SimulatedWorker, order: Stop) -> None: ...
    def work_time(self, worker: SimulatedWorker) -> Nanos: ...
    def wants_commit(self) -> bool: ...
    def is_poison(self, task: int, record: int) -> bool: ...


def partition_of(word: str, partitions: int) -> int:
    """Any pure function will do here."""
    return crc32(word.encode()) % partitions


def write_counts(counts: Counter[str]) -> bytes:
    """Sorted "word count" lines."""
    return "".join(f"{word} {counts[word]}\n" for word in sorted(counts)).encode()


class SimulatedWorker:
    """One process. `alive` until it exits; `stopped` between SIGSTOP and SIGCONT."""

    def __init__(self, home: Home, node: int, link: Link, supervised: bool) -> None:
        self.home, self.node, self.link, self.supervised = home, node, link, supervised
        self.alive = True
        self.stopped = False
        self.position: tuple[int, ...] = (0,) * WORDS
        self._inbox: deque[Any] = deque()
        self._table: list[tuple[int, int, tuple[int, ...]]] = []
        self._skipped = 0
        self._busy = False
        self._parked: list[Callable[[], None]] = []

    # --- a process -------------------------------------------------------------------------------

    def begin(self) -> None:
        if self.alive:
            self.home.report(self, Join(self.node))

    def reconnect(self, link: Link) -> None:
        """The connection broke; it finds a new one and joins again, with its table as it was."""
        self.link = link
        self._inbox.clear()
        self.begin()

    def deliver(self, message: Any) -> None:
        self._inbox.append(message)
        self._next()

    def exit(self, code: int) -> None:
        if self.alive:
            self.alive = False
            self.home.died(self, code)

    def stop(self) -> None:
        self.stopped = True

    def go_on(self) -> None:
        self.stopped = False
        parked, self._parked = self._parked, []
        for then in parked:
            self._resume(then)
        self._next()

    def _next(self) -> None:
        if self._inbox and self.alive and not self.stopped and not self._busy:
            self._handle(self._inbox.popleft())

    def _spend(self, duration: Nanos, then: Callable[[], None]) -> None:
        self._busy = True
        self.home.timeline.after(duration, self._resume, then)

    def _resume(self, then: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.stopped:
            self._parked.append(then)
            return
        self._busy = False
        then()
        self._next()

    def _show(self, attempt: int, phase: int, task: int, record: int) -> None:
        beat = self.position[0] + 1
        since = self.home.timeline.now
        self.position = (beat, attempt, phase, task, record, 0, 0, 0, since) + (0,) * (WORDS - 9)
        self.home.page_moved(self)

    # --- a worker --------------------------------------------------------------------------------

    def _handle(self, order: Any) -> None:
        if isinstance(order, Configure):
            self._table, self._skipped = [], 0
        elif isinstance(order, Map):
            self._read(order, 0)
        elif isinstance(order, Flush):
            self._commit()
        elif isinstance(order, Reduce):
            self._show(order.attempt, REDUCING, order.partition, 1)
            self._spend(self.home.work_time(self), lambda: self._reduce(order))
        elif isinstance(order, Stop):
            self.home.stopped_for_good(self, order)
            self.exit(0)

    def _read(self, order: Map, record: int) -> None:
        """Record by record: each is a moment at which the process may be stopped or killed."""
        if record < len(self.home.texts[order.task]):
            self._show(order.attempt, MAPPING, order.task, record + 1)
            time = self.home.work_time(self)
            self._spend(time, lambda: self._read_on(order, record))
            return
        self._table.append((order.attempt, order.task, order.skip))
        self._skipped += len(order.skip)
        self._show(order.attempt, IDLE, order.task, 0)
        self.home.report(self, Scanned(order.attempt))
        if self.home.wants_commit():
            self._commit()

    def _read_on(self, order: Map, record: int) -> None:
        if record not in order.skip and self.home.is_poison(order.task, record):
            self.exit(SEGFAULT)
        else:
            self._read(order, record + 1)

    def _commit(self) -> None:
        if self._table:
            self._show(self._table[-1][0], COMMITTING, self._table[-1][1], 0)
            self._spend(MILLISECOND, self._write_run)
        else:
            self._next()

    def _write_run(self) -> None:
        home, table = self.home, self._table
        counts: list[Counter[str]] = [Counter() for _ in range(home.partitions)]
        for _, task, skip in table:
            for record, word in enumerate(home.texts[task]):
                if record not in skip:
                    counts[partition_of(word, home.partitions)][word] += 1
        data = b"\0".join(write_counts(count) for count in counts)
        attempts = tuple(attempt for attempt, _, _ in table)
        path = f"scratch/run-{attempts[0]}"
        counters = (len(data), sum(map(len, (home.texts[task] for _, task, _ in table))))
        done = Committed(attempts, path, len(data), crc32(data), (*counters, self._skipped), ())
        self._table, self._skipped = [], 0
        self._deliver_file(path, data, done)

    def _reduce(self, order: Reduce) -> None:
        counts: Counter[str] = Counter()
        for number, path, size, digest in order.runs:
            try:
                data = self.home.disk.read(path)
            except FileNotFoundError:
                data = b""
            if len(data) != size or crc32(data) != digest:
                self._show(order.attempt, IDLE, order.partition, 0)
                text = f"{path}: damaged"
                self.home.report(self, Failed(order.attempt, "run", text, number, ""))
                return
            for line in data.split(b"\0")[order.partition].decode().splitlines():
                word, count = line.split()
                counts[word] += int(count)
        data = write_counts(counts)
        path = f"parts/part-{order.partition}-{order.attempt}"
        sizes = (len(data), crc32(data), len(counts), counts.total())
        self._deliver_file(path, data, Reduced(order.attempt, path, *sizes))

    def _deliver_file(self, path: str, data: bytes, report: Any) -> None:
        try:
            self.home.disk.append(path, data)
        except FileNotFoundError:
            return  # the job is over, and its folder swept
        self._show(self.position[1], IDLE, self.position[3], 0)
        self.home.report(self, report)
