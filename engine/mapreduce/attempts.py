"""Who is doing what: workers, and the attempts that are theirs.

A task may be tried many times but is accepted once. What makes that safe is small: an *attempt* is
current from the moment it is sent until it is accepted, failed or revoked; its number is never used
again, not even by a later coordinator; and only a report of current attempts, over the link they
were sent to, counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush

from engine.contract import Link, Nanos
from engine.mapreduce.ledger import Ledger
from engine.mapreduce.messages import EPOCH_BITS
from engine.mapreduce.progress import (
    ATTEMPT,
    BEAT,
    IDLE,
    MAPPING,
    PHASE,
    RECORD,
    RECORD_SINCE,
    REDUCING,
    WORDS,
)
from engine.mapreduce.regions import Regions
from engine.record import Record

MAP, REDUCE = "map", "reduce"

PAGE_UNSEEN = (0,) * WORDS


class Attempt(Record):
    """One try of one split or partition by one worker."""

    number: int
    node: int
    kind: str
    item: int


class Worker:
    """A worker process as the scheduler sees it.

    `window` holds attempts that were sent and not yet reported; `held` the splits in its table,
    which are lost if it dies. `gone`: dead, or killed; its number is never used again. `lost`: a
    joined worker that fell silent; it owns nothing until it speaks or moves again.
    """

    __slots__ = (
        "born_at",
        "flushed",
        "gone",
        "held",
        "link",
        "lost",
        "lost_at",
        "moved_at",
        "node",
        "position",
        "record",
        "record_at",
        "sent",
        "stale",
        "supervised",
        "window",
        "wish",
    )

    def __init__(self, node: int, supervised: bool, now: Nanos) -> None:
        self.node = node
        self.supervised = supervised
        self.link: Link | None = None
        self.gone = False
        self.lost = False
        self.lost_at: Nanos | None = None
        """When it fell silent; None if its link fell."""
        self.window: list[int] = []
        self.held: list[int] = []
        self.wish = -1
        """The split after the last one it was given."""
        self.sent = 0
        """The last attempt it was given."""
        self.flushed = False
        """It was told to commit what it holds, and has been given nothing since."""
        self.stale = False
        """Its table may hold splits that were revoked: to be flushed out before new ones come."""
        self.born_at = self.moved_at = self.record_at = now
        self.position = PAGE_UNSEEN
        self.record: tuple[int, int, int] = (0, 0, 0)

    @property
    def usable(self) -> bool:
        return self.link is not None and not self.gone and not self.lost

    @property
    def busy(self) -> bool:
        return bool(self.window or self.held)

    @property
    def inside(self) -> bool:
        """Its page was last seen inside user code, at a record."""
        return self.position[PHASE] in (MAPPING, REDUCING) and self.position[RECORD] > 0

    def move(self, now: Nanos, position: tuple[int, ...]) -> None:
        """Its page changed. An idle worker that merely beats has lost what it was sent."""
        beats = position[PHASE] == IDLE and position[BEAT + 1 :] == self.position[BEAT + 1 :]
        if not beats:
            self.moved_at = now
        record = (position[ATTEMPT], position[RECORD], position[RECORD_SINCE])
        if record != self.record:
            self.record, self.record_at = record, now
        self.position = position


class Attempts:
    """The current attempts, what is free to be tried, and how past attempts ended.

    Invariants (`check`): an attempt is in exactly one worker's `window` or `held`, its own; a
    worker that is away owns none; a split or partition is done, current or free, and only one.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.current: dict[int, Attempt] = {}
        self.tally = {"committed": 0, "failed": 0, "lost": 0, "stale": 0}
        """Attempts by how they ended; "stale" counts those that were reported when not current."""
        self.splits = Regions(len(ledger.run_of))
        for task, run in enumerate(ledger.run_of):
            if run:
                self.splits.remove(task)
        self.partitions = [p for p in range(ledger.partitions) if p not in ledger.outputs]
        """A heap."""
        self._next = ledger.epoch << EPOCH_BITS

    def issue(self, worker: Worker, kind: str, item: int) -> int:
        """Make a new attempt current; its number."""
        self._next += 1
        self.current[self._next] = Attempt(self._next, worker.node, kind, item)
        worker.window.append(self._next)
        worker.sent = self._next
        worker.flushed = False
        return self._next

    def owned(self, worker: Worker | None, number: int, kind: str) -> Attempt | None:
        """The attempt if it is current, of this kind, and this worker's."""
        attempt = self.current.get(number)
        if attempt is None or worker is None or attempt.node != worker.node:
            return None
        return attempt if attempt.kind == kind else None

    def in_hand(self, worker: Worker) -> Attempt | None:
        """The attempt that its page names, or else the first that it had not reported."""
        number = worker.position[ATTEMPT]
        owned = worker.window + worker.held
        if number not in owned:
            number = owned[0] if owned else 0
        return self.current.get(number)

    def accept(self, worker: Worker, number: int) -> int:
        """End a current attempt well; its split or partition."""
        return self._close(worker, number, "committed").item

    def give_back(self, worker: Worker, number: int, how: str) -> None:
        """End a current attempt badly: its split or partition is free again."""
        attempt = self._close(worker, number, how)
        self.release(attempt.kind, attempt.item)

    def release(self, kind: str, item: int) -> None:
        """Make a split or partition free. Requires: it was done or current until now."""
        if kind == REDUCE:
            heappush(self.partitions, item)
        else:
            self.splits.add(item)

    def revoke(self, worker: Worker) -> None:
        """Whatever a worker has not committed is free again."""
        worker.stale = worker.stale or worker.busy
        for number in worker.window + worker.held:
            self.give_back(worker, number, "lost")

    def _close(self, worker: Worker, number: int, how: str) -> Attempt:
        attempt = self.current.pop(number)
        (worker.window if number in worker.window else worker.held).remove(number)
        self.tally[how] += 1
        return attempt

    def check(self, workers: Iterable[Worker]) -> None:
        """Assert the invariants."""
        self.splits.check()
        owners = [(n, w.node) for w in workers for n in w.window + w.held if w.usable]
        expected = [(attempt.number, attempt.node) for attempt in self.current.values()]
        assert sorted(owners) == sorted(expected), "an attempt without its owner"
        current = [(attempt.kind, attempt.item) for attempt in self.current.values()]
        assert len(set(current)) == len(current), "two current attempts of one task"
        assert len(set(self.partitions)) == len(self.partitions), "a partition is free twice"
        for task, run in enumerate(self.ledger.run_of):
            states = (bool(run), (MAP, task) in current, task in self.splits)
            assert sum(states) == 1, f"split {task}: done, current, free: {states}"
        for item in range(self.ledger.partitions):
            done = item in self.ledger.outputs
            states = (done, (REDUCE, item) in current, item in self.partitions)
            assert sum(states) == 1, f"partition {item}: done, current, free: {states}"
