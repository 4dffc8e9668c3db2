"""What the journal says: which files are the output of which tasks and partitions.

One function, `Ledger.apply`, reads a record, whether it was written a moment ago or by a
coordinator that is dead. So a resumed job cannot see its past otherwise than the one that made it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.mapreduce.messages import (
    Counters,
    OutputAccepted,
    OutputDropped,
    Published,
    Publishing,
    Resumed,
    RunAccepted,
    RunDropped,
)


class Ledger:
    """The state that the journal's records add up to.

    Invariants (`check`): a task belongs to exactly one accepted run or to none; `done` counts those
    that do; no two accepted files share a path; nothing is being published with an output missing.
    """

    def __init__(self, tasks: int, partitions: int) -> None:
        self.partitions = partitions
        self.runs: dict[int, RunAccepted] = {}
        self.run_of: list[int] = [0] * tasks
        """Number of the run that holds a task; 0 while it has none."""
        self.done = 0
        self.outputs: dict[int, OutputAccepted] = {}
        self.paths: set[str] = set()
        """Of accepted files: never to be unlinked before publication."""
        self.runs_ever = 0
        self.epoch = 1
        self.publishing = False
        self.published = False

    @property
    def mapped(self) -> bool:
        return self.done == len(self.run_of)

    @property
    def reduced(self) -> bool:
        return len(self.outputs) == self.partitions

    def apply(self, record: Any) -> None:
        """Take over one record; those that say nothing about files are passed over."""
        if isinstance(record, RunAccepted):
            self._accept_run(record)
        elif isinstance(record, RunDropped):
            self._drop_run(record)
        elif isinstance(record, OutputAccepted):
            assert record.partition not in self.outputs, record
            self.outputs[record.partition] = record
            self.paths.add(record.path)
        elif isinstance(record, OutputDropped):
            self.paths.discard(self.outputs.pop(record.partition).path)
            self.publishing = False
        elif isinstance(record, Publishing):
            self.publishing = True
        elif isinstance(record, Published):
            self.published = True
        elif isinstance(record, Resumed):
            self.epoch = record.epoch

    def _accept_run(self, record: RunAccepted) -> None:
        for task in record.tasks:
            assert not self.run_of[task], f"split {task} is in run {self.run_of[task]} already"
            self.run_of[task] = record.run
        self.done += len(record.tasks)
        self.runs[record.run] = record
        self.runs_ever = max(self.runs_ever, record.run)
        self.paths.add(record.path)

    def _drop_run(self, record: RunDropped) -> None:
        run = self.runs.pop(record.run)
        for task in run.tasks:
            self.run_of[task] = 0
        self.done -= len(run.tasks)
        self.paths.discard(run.path)

    def counters(self) -> Counters:
        """What the accepted runs add up to."""
        return _sum(run.counters for run in self.runs.values())

    def totals(self) -> tuple[tuple[str, int], ...]:
        """What the job did, equal however often its parts were done again."""
        read = self.counters()
        return (
            ("tasks", len(self.run_of)),
            ("partitions", self.partitions),
            ("bytes", read.bytes),
            ("records", read.records),
            ("skipped", read.skipped),
            ("keys", sum(output.keys for output in self.outputs.values())),
            ("total", sum(output.total for output in self.outputs.values())),
        )

    def check(self) -> None:
        """Assert the invariants."""
        held = sorted(task for run in self.runs.values() for task in run.tasks)
        assert held == [task for task, run in enumerate(self.run_of) if run], "a task in two runs"
        assert self.done == len(held), (self.done, held)
        files = [run.path for run in self.runs.values()]
        files += [output.path for output in self.outputs.values()]
        assert sorted(files) == sorted(self.paths), "accepted files share a path"
        assert self.reduced or not self.publishing, "publishing with an output missing"


def _sum(rows: Iterable[tuple[int, ...]]) -> Counters:
    columns = list(zip(*rows, strict=True))
    return Counters(*(sum(column) for column in columns)) if columns else Counters()
