"""What a scheduler is told, and what it tells when asked."""

from __future__ import annotations

from typing import Any

from engine.contract import SECOND, Nanos
from engine.mapreduce.messages import Configure
from engine.record import Record

Split = tuple[str, int, int, tuple[int, int, int]]
"""(path, start, end, identity), as in `Map`."""


class Settings(Record):
    """What the job is, and how patient to be."""

    tasks: tuple[Split, ...]
    """The splits; a task's number is its index."""
    partitions: int
    configure: Configure
    """What a worker is told when it joins; the world fills in its page and slot."""
    workers: int = 0
    """Processes to keep alive; 0: only those that join by themselves."""
    lease: Nanos = 10 * SECOND
    """A worker that owns attempts and whose page rests for so long is given up."""
    record_timeout: Nanos | None = None
    """One record may take so long in `map`, or one key in `reduce`; None: for ever."""
    skip_bad: int = 0
    """Records that may be passed over before the job fails."""

    def split_text(self, task: int) -> str:
        """Names a split to the user."""
        path, start, end, _ = self.tasks[task]
        return f"{path}, bytes {start} to {end}"


class Recovered(Record):
    """What the journal holds behind its `Planned`."""

    records: tuple[Any, ...] = ()
    resumed: bool = False
    """The journal was there already: somebody may have begun, even if no record tells of it."""


class Outcome(Record):
    """How the job ended."""

    ok: bool
    text: str = ""
    """If not ok: one sentence for the user."""
    detail: str = ""
    """A traceback, or ""."""
    code: int = 0
    """Exit code of the program."""
    counters: tuple[tuple[str, int], ...] = ()
    """Totals of the job, then runs, deaths, and attempts by how they ended."""
    samples: tuple[str, ...] = ()
    """A few of the records that were passed over."""


class Status(Record):
    """For the progress line."""

    phase: str
    """"map", "reduce", "publish", "done" or "failed"."""
    tasks: int
    tasks_done: int
    partitions: int
    partitions_done: int
    workers: int
    """That joined and are in touch."""
    attempts: int
    """In flight or held."""
    deaths: int
    runs: int
