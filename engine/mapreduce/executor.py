"""What a worker does with its messages: splits into a table, tables into runs, runs into outputs.

An executor holds one table for the life of its worker. `scan` folds a split into it, writing
sections to the run at hand when the memory budget is reached; `commit` closes the run, which then
holds every split scanned since the last commit; `reduce` merges one partition of all runs.
The two kinds differ only in their kernels: `NativeExecutor` counts words, `PythonExecutor` calls
the job's own functions.

Nothing here knows processes or messages' transport: the worker process, the inline runner and the
tests drive the same executor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic_ns
from typing import NoReturn

from engine.errors import JobFailed
from engine.mapreduce import progress
from engine.mapreduce.gather import BadRun, Gatherer
from engine.mapreduce.job import Job
from engine.mapreduce.messages import Committed, Configure, Map, Reduce, Reduced
from engine.mapreduce.splits import unchanged
from engine.storage.runs import Merge, RunWriter, Segment

COMMIT_SHARE = 30
"""A run is committed when the work in it took this many times as long as writing it will: so
commits cost about 3 % and a worker's death loses little."""
COMMIT_COST_MIN_NS = 5_000_000
"""No run costs less, however small: it is a file, a message, a durable record of the journal, and
one more file to open in the reduce of every partition."""
COMMIT_AFTER_NS = 10_000_000_000
"""No more than this much work is at risk, whatever a commit costs."""
SAMPLES_MAX = 5
"""Skipped records that are quoted in a report."""


class AttemptFailed(Exception):
    """An attempt cannot end well; the fields are those of `messages.Failed`."""

    def __init__(self, reason: str, text: str, where: int = 0, detail: str = "") -> None:
        super().__init__(text)
        self.reason, self.text, self.where, self.detail = reason, text, where, detail


class Executor:
    """What both kinds share: the run at hand, when to commit, opening runs, the progress page."""

    kind = 0
    """Kind of the run's blocks; see `engine.storage.runs`."""
    key_cost_ns = 100.0
    """First guess of what writing one key costs; corrected by every commit."""
    merge_to_section: Callable[..., tuple[int, int, int]]
    """The kernel's."""

    def __init__(self, configure: Configure, job: Job, page: memoryview) -> None:
        self.configure, self.job, self.page = configure, job, page
        self._gatherer = Gatherer(configure)
        self._writer: RunWriter | None = None
        self._attempts: list[int] = []
        self._bytes = self._records = self._skipped = 0
        self._samples: list[str] = []
        self._keys_written = 0
        self._busy_ns = 0
        self._last_task = -2
        self._first_task = 0

    # --- map ---

    def scan(self, task: Map) -> None:
        """Fold a split into the table. `AttemptFailed` if it cannot be read or mapped."""
        began = monotonic_ns()
        self._show(task.attempt, progress.READING, task.task)
        with self._explained(task.path):
            unchanged(task.path, task.identity)
            if task.task != self._last_task + 1:
                self._gap(task)
            self._attempts.append(task.attempt)
            self._read(task)
            unchanged(task.path, task.identity)
        self._last_task = task.task
        self._bytes += task.end - task.start
        self._busy_ns += monotonic_ns() - began
        self._show(task.attempt, progress.IDLE, task.task)

    def wants_commit(self) -> bool:
        """Whether the work since the last commit is worth more than writing it down."""
        if not self._attempts:
            return False
        keys = self.keys + self._keys_written
        cost_ns = max(COMMIT_COST_MIN_NS, keys * self.key_cost_ns)
        return self._busy_ns > min(COMMIT_SHARE * cost_ns, COMMIT_AFTER_NS)

    def commit(self) -> Committed | None:
        """Write the table's rest and close the run; None if nothing was scanned since the last."""
        if not self._attempts:
            return None
        began = monotonic_ns()
        keys = self.keys + self._keys_written
        self._show(self._attempts[-1], progress.COMMITTING, self._last_task)
        with self._explained(self.configure.scratch):
            self._spill()
            assert self._writer is not None
            info = self._writer.close()
        if keys > 1000:  # below, the clock measures the file system
            self.key_cost_ns = (monotonic_ns() - began) / keys
        done = Committed(
            tuple(self._attempts),
            info.path,
            info.size,
            info.digest,
            (self._bytes, self._records, self._skipped),
            tuple(self._samples),
        )
        self._forget()
        self._show(done.attempts[-1], progress.IDLE, 0)
        return done

    def abandon(self) -> None:
        """Drop what was scanned since the last commit, and its file."""
        if self._writer is not None:
            self._writer.abandon()
        self._clear()
        self._forget()

    def _forget(self) -> None:
        self._writer = None
        self._attempts = []
        self._samples = []
        self._bytes = self._records = self._skipped = 0
        self._keys_written = self._busy_ns = 0
        self._last_task = -2

    def _spill(self) -> None:
        """Write the table as a section of the run at hand, and empty it."""
        configure = self.configure
        if self._writer is None:
            name = f"run-{self._attempts[0]}-{os.getpid()}"
            path = os.path.join(configure.scratch, name)
            self._writer = RunWriter(path, self.kind, configure.job, configure.partitions)
        if self.keys:
            self._keys_written += self.keys
            segments = self._write_section(self._writer, self._first_task, self._attempts[-1])
            self._writer.add_section(self._first_task, segments)

    # --- reduce ---

    def reduce(self, task: Reduce) -> Reduced:
        """Merge a partition of all runs into a private file. `AttemptFailed("run")` names a run."""
        self._show(task.attempt, progress.REDUCING, task.partition)
        name = f"part-{task.partition}-{task.attempt}-{os.getpid()}"
        path = os.path.join(self.configure.parts, name)
        self._make_way()
        merge = self._bound(task)
        with self._explained(path), self._gatherer.gathered(task, merge) as segments:
            # It becomes an output, so its mode is the umask's to say; its folder is private.
            out = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            try:
                keys, total, size, digest = self._merge(segments, out, task)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(out)
        self._show(task.attempt, progress.IDLE, task.partition)
        return Reduced(task.attempt, path, size, digest, keys, total)

    def _bound(self, task: Reduce) -> Merge:
        """The kind's `merge_to_section`, for passes of this reduce."""
        configure = self.configure
        return partial(
            self.merge_to_section,
            job=configure.job,
            task=0,
            attempt=task.attempt,
            partition=task.partition,
            memory=configure.memory,
            page=self.page,
        )

    # --- what the kinds provide ---

    @property
    def keys(self) -> int:
        """Keys in the table now."""
        raise NotImplementedError

    def _read(self, task: Map) -> None:
        raise NotImplementedError

    def _clear(self) -> None:
        raise NotImplementedError

    def _gap(self, task: Map) -> None:
        """The next split does not follow the last one."""
        if not self.keys:
            self._first_task = task.task

    def _write_section(
        self, writer: RunWriter, task: int, attempt: int
    ) -> list[tuple[int, int, int]]:
        raise NotImplementedError

    def _make_way(self) -> None:
        """Give back memory that the merge is to have."""

    def _merge(self, segments: list[Segment], out: int, task: Reduce) -> tuple[int, int, int, int]:
        """(keys, total, bytes, digest) of what was written to `out`."""
        raise NotImplementedError

    # --- the page, and errors in one sentence ---

    def _show(self, attempt: int, phase: int, task: int) -> None:
        page = self.page
        page[progress.ATTEMPT] = attempt
        page[progress.PHASE] = phase
        page[progress.TASK] = task
        page[progress.RECORD] = 0
        page[progress.RECORD_SINCE] = monotonic_ns()
        page[progress.KEYS] = self.keys
        page[progress.BEAT] += 1

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """What the world did, as an `AttemptFailed`; what the job's code did passes through."""
        try:
            yield
        except BadRun as error:
            raise AttemptFailed("run", str(error), error.number) from error
        except JobFailed as error:
            raise AttemptFailed("input", str(error)) from error
        except MemoryError as error:
            raise AttemptFailed("memory", f"{path}: out of memory; lower --memory.") from error
        except OSError as error:
            _explain_os_error(error, path, self.configure.scratch)


def _explain_os_error(error: OSError, path: str, scratch: str) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = f"{scratch}: no space left; free some, or name another disk with --scratch."
        raise AttemptFailed("space", text) from error
    name = error.filename
    where = name.decode(errors="replace") if isinstance(name, bytes) else name or path
    text = f"{where}: {error.strerror or error}."
    raise AttemptFailed("input", text) from error


def make_executor(configure: Configure, page: memoryview) -> Executor:
    """The executor of the job named in `configure`; loads the job."""
    from engine.mapreduce.load import load

    job = load(configure.app, configure.options)
    if job.native:
        from engine.mapreduce.native import NativeExecutor

        return NativeExecutor(configure, job, page)
    from engine.mapreduce.python import PythonExecutor

    return PythonExecutor(configure, job, page)


def trace_of(error: BaseException) -> str:
    """The traceback, as Python prints it."""
    import traceback

    return "".join(traceback.format_exception(error))
