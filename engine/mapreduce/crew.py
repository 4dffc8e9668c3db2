"""The workers as processes: who is alive, who is late, who is to be blamed for a death.

Three clocks run for a worker, all by what the coordinator has seen itself: until it joins
(`JOIN_WITHIN`); while it owns attempts, since its page last moved (the lease); while it is inside
user code, since the record in hand changed (`record_timeout`). Whoever exceeds one is given up, and
what it had not committed is free again at that moment, whatever becomes of the process.
"""

from __future__ import annotations

from engine.contract import SECOND, Link, Nanos
from engine.mapreduce.attempts import MAP, Attempt, Attempts, Worker
from engine.mapreduce.blame import (
    CRASHES_MAX,
    DEATHS_MAX,
    SPAWN_FAILURES_MAX,
    Blame,
    describe,
    is_crash,
    was_killed,
)
from engine.mapreduce.messages import Kill, Spawn
from engine.mapreduce.outbox import Outbox
from engine.mapreduce.progress import ATTEMPT, RECORD
from engine.mapreduce.settings import Settings

JOIN_WITHIN: Nanos = 30 * SECOND
"""A process that has not joined by then never will: it takes 0.1 s, on a starved machine 5."""


class Crew:
    """All workers ever seen, by node; numbers below `_nodes` are processes that we asked for."""

    def __init__(self, settings: Settings, attempts: Attempts, outbox: Outbox) -> None:
        self.workers: dict[int, Worker] = {}
        self.deaths = 0
        self.blame = Blame(settings.skip_bad)
        self._settings = settings
        self._attempts = attempts
        self._outbox = outbox
        self._spawns: dict[int, int] = {}
        self._nodes = 0
        self._failures = 0

    def usable(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.usable]

    # --- links -----------------------------------------------------------------------------------

    def speaker(self, link: Link) -> Worker | None:
        """The worker at the other end; None if the link is of an earlier life of it."""
        worker = self.workers.get(link.node)
        if worker is None or worker.gone or worker.link != link:
            return None
        worker.lost = False
        return worker

    def join(self, now: Nanos, link: Link) -> Worker | None:
        """A worker introduces itself; None if it is too late for that, or was said before.

        Over a new link it is a new worker: whatever it was given over the old one is forgotten.
        """
        worker = self.workers.get(link.node)
        if worker is None:
            worker = self.workers[link.node] = Worker(link.node, False, now)
        if worker.gone or (worker.link is not None and link.incarnation <= worker.link.incarnation):
            return None
        self._attempts.revoke(worker)
        if worker.supervised:
            self._failures = 0
        worker.link, worker.lost, worker.wish = link, False, -1
        return worker

    def linked(self, link: Link, up: bool) -> None:
        """Of a supervised process `exited` tells better, and its lease if only the link fell."""
        worker = self.workers.get(link.node)
        if worker is not None and not worker.supervised and worker.link == link:
            worker.lost, worker.lost_at = not up, None
            if worker.lost:
                self._attempts.revoke(worker)

    def moved(self, now: Nanos, node: int, position: tuple[int, ...]) -> None:
        worker = self.workers.get(node)
        if worker is not None and not worker.gone:
            # Pages are looked at now and then: one that moved may be that of a worker whose link
            # has fallen since. Only another word over the link makes up for that.
            if worker.lost_at is not None:
                worker.lost, worker.lost_at = False, None
            worker.move(now, position)

    # --- processes -------------------------------------------------------------------------------

    def hire(self, now: Nanos) -> None:
        """Keep as many processes alive as were asked for."""
        alive = sum(w.supervised and not w.gone for w in self.workers.values())
        for _ in range(self._settings.workers - alive):
            node, self._nodes = self._nodes, self._nodes + 1
            self.workers[node] = Worker(node, True, now)
            self._spawns[self._outbox.start(Spawn(node))] = node

    def spawned(self, job: int, error: str) -> None:
        """A `Spawn` ended; not every job that ends is one."""
        node = self._spawns.pop(job, None)
        if node is not None and error and not self.workers[node].gone:
            self.workers[node].gone = True
            self._unborn(error)

    def exited(self, node: int, code: int) -> None:
        worker = self.workers.get(node)
        if worker is None or worker.gone:
            return
        worker.gone = True
        self.deaths += 1
        if worker.link is None:
            if was_killed(code):  # somebody's will, no failure to start; bounded all the same
                self._mourn(None, describe(code))
            else:
                self._unborn(describe(code))
            return
        attempt = self._attempts.in_hand(worker)
        self._attempts.revoke(worker)
        self._mourn(attempt, describe(code))
        if attempt is not None and is_crash(code) and self._names(worker, attempt):
            record = worker.position[RECORD] - 1
            if self.blame.crash(attempt.kind, attempt.item, record):
                self._bad(attempt, record, f"ended {CRASHES_MAX} workers by {describe(code)}")

    def _unborn(self, how: str) -> None:
        self._failures += 1
        if self._failures >= SPAWN_FAILURES_MAX:
            self._outbox.fail(
                f"{self._failures} worker processes in a row ended before they could start "
                f"(the last: {how}); their messages above say why"
            )

    # --- patience --------------------------------------------------------------------------------

    def expire(self, now: Nanos) -> None:
        """Give up whoever is late; try the silent again if there is nobody else."""
        alone = not self.usable()
        for worker in list(self.workers.values()):
            limit = self._limit(worker, alone)
            if limit is None or now < limit:
                continue
            if worker.lost:
                worker.lost = False
            elif worker.link is None:
                worker.gone = True
                self._outbox.start(Kill(worker.node))
                self._unborn(f"it did not join within {JOIN_WITHIN // SECOND} s")
            else:
                self._give_up(now, worker)

    def deadline(self) -> Nanos | None:
        """When to look again."""
        alone = not self.usable()
        limits = [self._limit(worker, alone) for worker in self.workers.values()]
        return min((limit for limit in limits if limit is not None), default=None)

    def overslept(self, by: Nanos) -> None:
        """It was we who were not there: nobody is late for that yet."""
        grace = self._settings.lease // 4
        if by > grace:
            for worker in self.workers.values():
                worker.moved_at += by + grace
                worker.record_at += by + grace
                worker.born_at += by + grace

    def _limit(self, worker: Worker, alone: bool) -> Nanos | None:
        if worker.lost and alone and worker.lost_at is not None:
            return worker.lost_at + self._settings.lease
        if worker.gone or worker.lost:
            return None
        if worker.link is None:
            return worker.born_at + JOIN_WITHIN
        if not worker.busy:
            return None
        limit = worker.moved_at + self._settings.lease
        if self._settings.record_timeout is not None and worker.inside:
            limit = min(limit, worker.record_at + self._settings.record_timeout)
        return limit

    def _give_up(self, now: Nanos, worker: Worker) -> None:
        """Patience with a worker is over: it hangs in a record, or it is stopped."""
        timeout = self._settings.record_timeout
        hung = timeout is not None and worker.inside and now >= worker.record_at + timeout
        attempt = self._attempts.in_hand(worker)
        self._attempts.revoke(worker)
        worker.gone, worker.lost = worker.supervised, not worker.supervised
        worker.lost_at = now
        if worker.supervised:
            self.deaths += 1
        if worker.supervised or hung:
            self._outbox.start(Kill(worker.node))
        if hung and attempt is not None and self._names(worker, attempt):
            why = f"took longer than --record-timeout {(timeout or 0) / SECOND:g}"
            self._bad(attempt, worker.position[RECORD] - 1, why)
        elif worker.supervised:
            self._mourn(attempt, "killed because its progress stood still")

    # --- blame -----------------------------------------------------------------------------------

    def _names(self, worker: Worker, attempt: Attempt) -> bool:
        """True if its page was inside user code, at a record of this attempt."""
        return worker.inside and worker.position[ATTEMPT] == attempt.number

    def _mourn(self, attempt: Attempt | None, how: str) -> None:
        """Count a death against the task in hand, or against having none."""
        kind, item = (attempt.kind, attempt.item) if attempt is not None else ("idle", 0)
        if self.blame.death(kind, item):
            what = self._task_text(attempt) if attempt is not None else "no task"
            self._outbox.fail(
                f"{DEATHS_MAX + 1} workers died with {what} in hand (the last: {how})"
            )

    def _bad(self, attempt: Attempt, record: int, why: str) -> None:
        if self.blame.skip(attempt.kind, attempt.item, record):
            return
        hint = ""
        if attempt.kind == MAP:
            hint = f"; --skip-bad {self.blame.skipped + 1} would pass over it"
        self._outbox.fail(f"record {record} of {self._task_text(attempt)} {why}{hint}")

    def _task_text(self, attempt: Attempt) -> str:
        if attempt.kind == MAP:
            return self._settings.split_text(attempt.item)
        return f"partition {attempt.item} of the output"
