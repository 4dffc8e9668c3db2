"""Planted bugs: the classic mistakes of MapReduce schedulers, each as a small patch."""

from __future__ import annotations

from typing import Any

from engine.mapreduce.attempts import MAP, REDUCE, Attempts, Worker
from engine.mapreduce.crew import Crew
from engine.mapreduce.ledger import Ledger
from engine.mapreduce.machine import Scheduler
from engine.mapreduce.messages import Committed, RunAccepted, RunDropped
from engine.mapreduce.settings import Outcome
from engine.sim.planting import Patch


def _remember(original: Any) -> Any:
    """Attempts are never forgotten, so any report finds its split."""

    def issue(self: Any, worker: Worker, kind: str, item: int) -> int:
        number: int = original(self, worker, kind, item)
        self.__dict__.setdefault("ever", {})[number] = (kind, item)
        return number

    return issue


def _accept_ended(original: Any) -> Any:
    """An attempt that is not current can still be accepted."""

    def accept(self: Any, worker: Worker, number: int) -> int:
        attempt = self.current.get(number)
        if attempt is not None and attempt.node == worker.node:
            return int(original(self, worker, number))
        kind, item = self.ever[number]
        if kind == MAP and item in self.splits:
            self.splits.remove(item)
        return int(item)

    return accept


def _known(scheduler: Any, message: Committed) -> list[int]:
    """Splits of a report's attempts that this scheduler issued at any time."""
    ever = scheduler.attempts.__dict__.get("ever", {})
    return [ever[number][1] for number in message.attempts if number in ever]


def _any_run(_: Any) -> Any:
    """A run counts whether or not its splits are in a run already."""

    def acceptable(self: Any, worker: Worker, message: Committed) -> bool:
        known = _known(self, message)
        return bool(known) and len(known) == len(message.attempts)

    return acceptable


def _not_yet_done(_: Any) -> Any:
    """A run counts if one of its splits is not done, whoever has it in hand now."""

    def acceptable(self: Any, worker: Worker, message: Committed) -> bool:
        known = _known(self, message)
        todo = [task for task in known if not self.ledger.run_of[task]]
        return bool(todo) and len(known) == len(message.attempts)

    return acceptable


def _count_twice(_: Any) -> Any:
    def accept_run(self: Ledger, record: RunAccepted) -> None:
        self.done += sum(not self.run_of[task] for task in record.tasks)
        for task in record.tasks:
            self.run_of[task] = record.run
        self.runs[record.run] = record
        self.runs_ever = max(self.runs_ever, record.run)
        self.paths.add(record.path)

    return accept_run


def _discard_always(original: Any) -> Any:
    def refuse(self: Any, worker: Any, numbers: tuple[int, ...], kind: str, path: str) -> None:
        original(self, worker, numbers, kind, path)
        self._outbox.discard(path)

    return refuse


def _forget_held(_: Any) -> Any:
    """What was read is taken for done: only splits in flight are given to somebody else."""

    def revoke(self: Attempts, worker: Worker) -> None:
        for number in list(worker.window):
            self.give_back(worker, number, "lost")
        for number in list(worker.held):
            self._close(worker, number, "lost")

    return revoke


def _wait_for_ever(original: Any) -> Any:
    def limit(self: Any, worker: Worker, alone: bool) -> Any:
        return original(self, worker, alone) if worker.link is None else None

    return limit


def _all_given_out(_: Any) -> Any:
    """Reduce as soon as no split is left to give."""

    def reducible(self: Scheduler) -> bool:
        return not self.attempts.splits.free

    return reducible


def _stop_when_reduced(original: Any) -> Any:
    def advance(self: Any) -> None:
        original(self)
        if self.ledger.reduced and self.outcome is None:
            self._end(Outcome(True))

    return advance


def _at_once(_: Any) -> Any:
    return lambda self, ticket: True


def _same_numbers(original: Any) -> Any:
    """Every coordinator numbers its attempts from the same number."""

    def init(self: Any, ledger: Ledger) -> None:
        original(self, ledger)
        self._next = 0

    return init


def _leave_dropped(original: Any) -> Any:
    """A damaged run is dropped, its splits are not read again."""

    def drop_run(self: Any, number: int, text: str) -> None:
        self._record(RunDropped(number))

    return drop_run


def _keep_partition(original: Any) -> Any:
    """Only maps are given to somebody else when a worker is lost."""

    def release(self: Any, kind: str, item: int) -> None:
        if kind != REDUCE:
            original(self, kind, item)

    return release


_LENIENT = (
    Patch(Attempts, "issue", _remember),
    Patch(Attempts, "accept", _accept_ended),
    Patch(Ledger, "_accept_run", _count_twice),
)

BUGS: dict[str, tuple[Patch, ...]] = {
    "double_commit": (*_LENIENT, Patch(Scheduler, "_acceptable", _any_run)),
    "stale_attempt_accepted": (*_LENIENT, Patch(Scheduler, "_acceptable", _not_yet_done)),
    "loser_deletes_winner": (Patch(Scheduler, "_refuse", _discard_always),),
    "lost_task": (Patch(Attempts, "revoke", _forget_held),),
    "lost_partition": (Patch(Attempts, "release", _keep_partition),),
    "no_reissue": (Patch(Crew, "_limit", _wait_for_ever),),
    "reduce_before_maps_end": (Patch(Scheduler, "_reducible", _all_given_out),),
    "early_exit": (Patch(Scheduler, "_advance", _stop_when_reduced),),
    "journal_after_acting": (Patch(Scheduler, "_is_durable", _at_once),),
    "attempts_reused": (Patch(Attempts, "__init__", _same_numbers),),
    "dropped_run_forgotten": (Patch(Scheduler, "_drop_run", _leave_dropped),),
}
