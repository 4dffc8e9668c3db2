"""The scheduler: which worker reads which split, whose result counts, and when the job is over.

A pure machine (see `engine.contract`). It knows the splits and the partitions; it hears from
workers, from the journal's disk and from the supervisor of processes; it answers with messages,
journal records and jobs (start or kill a process, publish, unlink). Its parts: `ledger` (what the
journal says), `attempts` (who is doing what), `regions` (which split next), `crew` (processes,
leases), `blame` (deaths), `outbox`.

The life of a job

1. *Map.* Workers are given splits, two in flight each, and fold them into one table. When they
   choose, they commit: one run file for all splits since the last commit. The first report of a
   split is journalled and from then on *is* its output; any other report of it is garbage.
2. *Reduce*, when every split is in a run whose journal record is durable. One output a partition.
   A reducer that finds a run damaged sends its splits back to 1; outputs that exist stay.
3. *Publish.* `Publishing` is journalled in the same group as the last output, so it can only be
   found behind all of them; when durable, the world renames and writes the manifest.
4. *Over.* `Published` is durable: workers are told to stop, and only now, so that nobody leaves
   before the output is final; the scratch folder is swept.

What may go wrong, and what then

* A process dies (`Exited`) or a joined worker's link falls: everything it had not committed is
  free again at once; a supervised process is replaced at once.
* A worker's page stops moving for a `lease` while it owns something: the same; if supervised it is
  killed. A joined one (it may be stopped, and wake up) owns nothing from then on, so whatever it
  reports later is refused; when it moves again (or nobody else is left) it is told to flush, and
  gets new work behind that.
* The same record crashes workers, or holds one longer than `record_timeout`: see `blame`.
* This process dies: another one reads the journal (`Recovered`), numbers its attempts higher than
  any of ours, and goes on. Files it has no record of are garbage that the last sweep takes.

For the world: `Spawn` numbers are never used twice and name the process in `Exited`, `Moved` and
`Link.node`; other nodes are workers that joined by themselves. Before `Exited`, say `Moved` with
the last words of the page, which name the record in hand. `page` and `slot` of a `Configure` are
filled in by the world. A `Discard` names only files that workers reported.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heappop
from typing import Any

from engine.contract import (
    Durable,
    Event,
    Exited,
    Finished,
    Link,
    Linked,
    Moved,
    Nanos,
    Overslept,
    Ready,
    Received,
)
from engine.mapreduce.attempts import MAP, REDUCE, Attempts, Worker
from engine.mapreduce.blame import DROPS_MAX
from engine.mapreduce.crew import Crew
from engine.mapreduce.ledger import Ledger
from engine.mapreduce.messages import (
    NO_RUN,
    Committed,
    Counters,
    Failed,
    Flush,
    Join,
    Map,
    OutputAccepted,
    OutputDropped,
    Publish,
    Published,
    Publishing,
    Reduce,
    Reduced,
    Resumed,
    RunAccepted,
    RunDropped,
    Scanned,
    Stop,
    Sweep,
)
from engine.mapreduce.outbox import Outbox
from engine.mapreduce.settings import Outcome, Recovered, Settings, Status

__all__ = ["Outcome", "Recovered", "Scheduler", "Settings", "Status"]

WINDOW = 2
"""Splits in flight a worker: the next one is there when one is done. More would only be more to
lose, and to wait for at the end."""
WINDOW_TAIL = 2
"""With at most this many free splits a worker left, one in flight each: nobody queues what another
could begin at once."""
SAMPLES_MAX = 10
"""Skipped records kept as examples for the report."""


class Scheduler:
    """See the module.

    Invariants (`check`) are those of its parts: `Ledger`, `Attempts`, `Regions`. In `trial` stand
    those that only a whole cluster can break.
    """

    def __init__(self, recovered: Recovered, settings: Settings, rng: random.Random) -> None:
        # Nothing here needs chance: `rng` is there because the contract promises it.
        self.settings = settings
        self.outcome: Outcome | None = None
        self.ledger = Ledger(len(settings.tasks), settings.partitions)
        for record in recovered.records:
            self.ledger.apply(record)
        self._outbox = Outbox()
        # What another process wrote may not be durable yet: our first group makes it so.
        self._resume_ticket = 0
        if recovered.resumed or recovered.records:
            self._resume_ticket = self._record(Resumed(self.ledger.epoch + 1))
        self.attempts = Attempts(self.ledger)
        self.crew = Crew(settings, self.attempts, self._outbox)
        self._now: Nanos = 0
        self._samples: list[str] = []
        self._durable = 0
        self._run_ticket = self._publish_ticket = self._resume_ticket
        self._dropped: list[tuple[int, str]] = []
        self._publish_job = 0

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        """Take in what happened, then decide. Does nothing once there is an outcome."""
        self._now = now
        for event in events:
            if self.outcome is None:
                self._take(event)
        if self.outcome is not None:
            return
        self.crew.expire(now)
        self._advance()
        if self.ledger.reduced:
            return  # Workers have done their part; what becomes of them cannot fail the job.
        if self._outbox.failure is not None:
            self._fail(*self._outbox.failure)
            return
        self.crew.hire(now)
        self._assign()

    def ready(self) -> Ready:
        """What must now happen; see `engine.contract.Ready`."""
        return self._outbox.drain(None if self.outcome else self.crew.deadline())

    def check(self) -> None:
        """Assert the invariants."""
        self.ledger.check()
        self.attempts.check(self.crew.workers.values())

    def status(self) -> Status:
        """Cheap enough for every turn."""
        ledger = self.ledger
        phase = "publish" if ledger.publishing else "reduce" if ledger.mapped else "map"
        if self.outcome is not None:
            phase = "done" if self.outcome.ok else "failed"
        return Status(
            phase,
            len(ledger.run_of),
            ledger.done,
            ledger.partitions,
            len(ledger.outputs),
            len(self.crew.usable()),
            len(self.attempts.current),
            self.crew.deaths,
            len(ledger.runs),
        )

    # --- events ----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        match event:
            case Received(link, message):
                self._receive(link, message)
            case Moved(node, position):
                self.crew.moved(self._now, node, position)
            case Durable(ticket):
                self._durable = max(self._durable, ticket)
            case Exited(node, code):
                self.crew.exited(node, code)
            case Linked(link, up):
                self.crew.linked(link, up)
            case Overslept(by):
                self.crew.overslept(by)
            case Finished(job, result, error):
                self.crew.spawned(job, error)
                if job == self._publish_job:
                    self._publish_job = 0
                    self._published(tuple(result or ()), error)

    def _receive(self, link: Link, message: Any) -> None:
        if isinstance(message, Join):
            worker = self.crew.join(self._now, link)
            if worker is not None:
                self._outbox.send(worker, self.settings.configure._replace(slot=worker.node))
            return
        worker = self.crew.speaker(link)
        if isinstance(message, Committed):
            self._committed(worker, message)
        elif isinstance(message, Reduced):
            self._reduced(worker, message)
        elif worker is not None and isinstance(message, Scanned):
            self._scanned(worker, message)
        elif worker is not None and isinstance(message, Failed):
            self._failed(worker, message)

    def _scanned(self, worker: Worker, message: Scanned) -> None:
        number = message.attempt
        if number in worker.window and self.attempts.owned(worker, number, MAP):
            worker.window.remove(number)
            worker.held.append(number)

    def _committed(self, worker: Worker | None, message: Committed) -> None:
        if worker is None or not self._acceptable(worker, message):
            self._refuse(worker, message.attempts, MAP, message.path)
            return
        tasks = tuple(self.attempts.accept(worker, number) for number in message.attempts)
        counters = Counters(*message.counters[: len(Counters._fields)])
        run = self.ledger.runs_ever + 1
        file = (message.path, message.size, message.digest)
        self._run_ticket = self._record(RunAccepted(run, tasks, *file, tuple(counters)))
        if counters.skipped:
            self._skipped(message.samples)

    def _acceptable(self, worker: Worker, message: Committed) -> bool:
        """True if this run is the first word on all of its splits, by the one they belong to."""
        numbers = message.attempts
        if not numbers or len(set(numbers)) < len(numbers) or message.path in self.ledger.paths:
            return False
        return all(self._fresh(worker, number) for number in numbers)

    def _fresh(self, worker: Worker, number: int) -> bool:
        attempt = self.attempts.owned(worker, number, MAP)
        return attempt is not None and not self.ledger.run_of[attempt.item]

    def _skipped(self, samples: tuple[str, ...]) -> None:
        self._samples += samples[: SAMPLES_MAX - len(self._samples)]
        skipped, allowed = self.ledger.counters().skipped, self.settings.skip_bad
        if skipped > allowed:
            self._outbox.fail(
                f"{skipped} bad records, more than the {allowed} that --skip-bad allows",
                "\n".join(self._samples),
            )

    def _reduced(self, worker: Worker | None, message: Reduced) -> None:
        attempt = self.attempts.owned(worker, message.attempt, REDUCE)
        if worker is None or attempt is None or message.path in self.ledger.paths:
            self._refuse(worker, (message.attempt,), REDUCE, message.path)
            return
        partition = self.attempts.accept(worker, message.attempt)
        self._record(OutputAccepted(partition, *message[1:]))

    def _refuse(
        self, worker: Worker | None, numbers: tuple[int, ...], kind: str, path: str
    ) -> None:
        """A report that does not count: its file is garbage, unless the report is a repetition.

        A worker's table is empty once it has committed, so what it still owned of this is lost.
        """
        for number in numbers:
            if worker is not None and self.attempts.owned(worker, number, kind):
                self.attempts.give_back(worker, number, "lost")
            else:
                self.attempts.tally["stale"] += 1
        if path not in self.ledger.paths and all(path != name for _, name in self._dropped):
            self._outbox.discard(path)

    def _failed(self, worker: Worker, message: Failed) -> None:
        """Attempt 0 is the worker's own failure, such as an application it cannot import."""
        attempt = self.attempts.current.get(message.attempt)
        if attempt is not None and attempt.node == worker.node:
            self.attempts.give_back(worker, attempt.number, "failed")
        elif message.attempt != 0:
            return
        if message.reason == "run" and message.where == NO_RUN and attempt is not None:
            # Its own file between two passes went bad: it is done again, but not for ever.
            if self.crew.blame.drop(attempt.kind, attempt.item):
                self._outbox.fail(f"{message.text}; check the disk of --scratch")
        elif message.reason != "run" or not 0 < message.where <= self.ledger.runs_ever:
            self._outbox.fail(message.text, message.detail)
        elif message.where in self.ledger.runs:
            self._drop_run(message.where, message.text)

    def _drop_run(self, number: int, text: str) -> None:
        """A run is missing or damaged: its splits are to be read again."""
        run = self.ledger.runs[number]
        self._dropped.append((self._record(RunDropped(number)), run.path))
        for task in run.tasks:
            self.attempts.release(MAP, task)
            if self.crew.blame.drop(MAP, task):
                self._outbox.fail(
                    f"the run of {self.settings.split_text(task)} was lost or damaged "
                    f"{DROPS_MAX + 1} times (the last: {text}); check the disk of --scratch"
                )

    # --- decisions -------------------------------------------------------------------------------

    def _is_durable(self, ticket: int) -> bool:
        return ticket <= self._durable

    def _advance(self) -> None:
        """Carry the job over its borders: unlink what is dropped, publish, be done."""
        while self._dropped and self._is_durable(self._dropped[0][0]):
            self._outbox.discard(self._dropped.pop(0)[1])
        ledger = self.ledger
        if ledger.reduced and not ledger.publishing:
            self._publish_ticket = self._record(Publishing(ledger.partitions))
        elif not ledger.publishing or not self._is_durable(self._publish_ticket):
            return
        elif ledger.published:
            self._outbox.start(Sweep())
            self._end(Outcome(True))
        elif not self._publish_job:
            parts = tuple(ledger.outputs[p] for p in range(ledger.partitions))
            self._publish_job = self._outbox.start(Publish(parts, ledger.totals()))

    def _published(self, missing: tuple[int, ...], error: str) -> None:
        """Publishing ended: well, with parts missing, or not at all."""
        if error:
            self._fail(error)
        elif not missing:
            self._publish_ticket = self._record(Published(self.ledger.partitions))
        for partition in missing:
            self._record(OutputDropped(partition))
            self.attempts.release(REDUCE, partition)
            if self.crew.blame.drop(REDUCE, partition):
                self._outbox.fail(
                    f"part {partition} of the output was lost or damaged {DROPS_MAX + 1} times "
                    f"before it could be published; check the disk of --out"
                )

    def _assign(self) -> None:
        """Give work to whoever has room, first to those with least in flight."""
        if not self._is_durable(self._resume_ticket):
            return  # see `Resumed`
        usable = self.crew.usable()
        tail = WINDOW_TAIL * max(len(usable), self.settings.workers)
        for depth in range(WINDOW):
            for worker in usable:
                if len(worker.window) > depth:
                    continue
                if self.attempts.splits.free > (tail if depth else 0):
                    self._give_split(worker, {w.wish for w in usable if w is not worker})
                elif depth == 0 and self.attempts.partitions and self._reducible():
                    self._give_partition(worker)
        for worker in usable:
            if worker.held and not worker.window and not worker.flushed:
                worker.flushed = True
                self._outbox.send(worker, Flush(worker.sent))

    def _reducible(self) -> bool:
        """Every split is in a run, and the journal says so even after a power cut."""
        return self.ledger.mapped and self._is_durable(self._run_ticket)

    def _give_split(self, worker: Worker, wishes: set[int]) -> None:
        task = self.attempts.splits.take(worker.wish, wishes)
        assert task is not None, "no split is free"
        number = self._issue(worker, MAP, task)
        worker.wish = task + 1
        skip = self.crew.blame.skips(task)
        self._outbox.send(worker, Map(number, task, *self.settings.tasks[task], skip))

    def _give_partition(self, worker: Worker) -> None:
        partition = heappop(self.attempts.partitions)
        number = self._issue(worker, REDUCE, partition)
        runs = sorted(self.ledger.runs.values(), key=lambda run: run.tasks)
        files = tuple((run.run, run.path, run.size, run.digest) for run in runs)
        self._outbox.send(worker, Reduce(number, partition, files))

    def _issue(self, worker: Worker, kind: str, item: int) -> int:
        if worker.stale:
            worker.stale = False
            self._outbox.send(worker, Flush(worker.sent))
        if not worker.busy:
            worker.moved_at = worker.record_at = self._now
        return self.attempts.issue(worker, kind, item)

    def _fail(self, text: str, detail: str = "") -> None:
        """Accepted files stay: the job can be resumed when its cause is mended."""
        self._end(Outcome(False, text, detail, code=1))

    def _end(self, outcome: Outcome) -> None:
        counters = (
            *self.ledger.totals(),
            ("runs", len(self.ledger.runs)),
            ("deaths", self.crew.deaths),
            *self.attempts.tally.items(),
        )
        self.outcome = outcome._replace(counters=counters, samples=tuple(self._samples))
        for worker in self.crew.workers.values():
            if worker.link is not None and not worker.gone:
                self._outbox.send(worker, Stop("done" if outcome.ok else "failed"))

    def _record(self, record: Any) -> int:
        """Journal a record; the ticket of its group."""
        self.ledger.apply(record)
        self._outbox.write(record)
        return self._outbox.ticket
