"""The inline world: one worker, in this process, one order at a time.

The same scheduler, executor, runs and journal as with processes, so what works here works there;
but nothing runs beside the caller, so a debugger stops where it should, and the exception of a
job's own code is the cause of the `JobFailed` that the caller sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import monotonic_ns
from typing import Any

from engine.contract import (
    Durable,
    Event,
    Finished,
    Job,
    Link,
    Moved,
    Nanos,
    Received,
    Send,
    Write,
)
from engine.mapreduce import messages, progress
from engine.mapreduce.executor import AttemptFailed, make_executor
from engine.mapreduce.orders import Worker
from engine.mapreduce.publish import OutputDirectory, publish_job
from engine.storage.files import remove_tree, unlink_if_there
from engine.storage.journal import Journal


class InlineWorld:
    """A world of one process. Satisfies `engine.contract.World`."""

    def __init__(
        self,
        journal: Journal,
        output: OutputDirectory,
        scratch: str,
        manifest: Callable[[messages.Publish], dict[str, Any]],
    ) -> None:
        self.journal, self.output = journal, output
        self.scratch, self.manifest = scratch, manifest
        self.error: BaseException | None = None
        """What the job's own code raised, if it did."""
        self.page = memoryview(bytearray(8 * progress.WORDS)).cast("Q")
        self._events: deque[Event] = deque()
        self._orders: deque[tuple[Link, Any]] = deque()
        self._worker: Worker | None = None
        self._link = Link("worker", 0)
        self._ticket = 0

    def now(self) -> Nanos:
        """CLOCK_MONOTONIC."""
        return monotonic_ns()

    def drain(self, frames: int, size: int) -> list[Event]:
        """What is there, else what the next order brings: carrying it out *is* the waiting."""
        if not self._events and self._orders:
            self._link, order = self._orders.popleft()
            self._carry_out(order)
        events = list(self._events)
        self._events.clear()
        return events

    def _carry_out(self, order: Any) -> None:
        if isinstance(order, messages.Configure):
            self._dismiss()
            self._worker = Worker(make_executor(order, self.page), self._report)
        elif isinstance(order, messages.Stop):
            self._dismiss()
        else:
            assert self._worker is not None, "an order before Configure"
            try:
                self._worker.carry_out(order)
            except AttemptFailed as error:
                self.error = error.__cause__
                self._worker.fail(order, error)

    def _dismiss(self) -> None:
        """End the worker there is; what it had not committed is dropped."""
        if self._worker is not None:
            self._worker.executor.abandon()
            self._worker = None

    def _report(self, report: Any) -> None:
        self._events.append(Moved(self._link.node, tuple(self.page)))
        self._events.append(Received(self._link, report))

    def bytes_read(self) -> int:
        """Input bytes read until now."""
        return self.page[progress.BYTES]

    def send(self, sends: Iterable[Send]) -> None:
        """Orders wait until they are drained."""
        self._orders.extend((link, message) for link, message in sends)

    def write(self, group: Sequence[Write]) -> int:
        """Append and sync at once: there is nobody to keep waiting."""
        self.journal.append([write.record for write in group])
        self.journal.sync()
        self._ticket += 1
        self._events.append(Durable(self._ticket))
        return self._ticket

    def start(self, job: Job) -> None:
        """At once."""
        work = job.work
        finished = Finished(job.number)
        if isinstance(work, messages.Discard):
            for path in work.paths:
                unlink_if_there(path)
        elif isinstance(work, messages.Sweep):
            remove_tree(self.scratch)
        elif isinstance(work, messages.Publish):
            finished = publish_job(self.output, self.manifest(work), job, self.point)
        self._events.append(finished)
        if isinstance(work, messages.Spawn):
            self._events.append(Received(Link("worker", work.node), messages.Join(0)))

    def point(self, name: str) -> None:
        """Nothing: crash points are for tests, which replace this method."""

    def wait(self, until: Nanos | None) -> None:
        """Never: `drain` works instead."""

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()
