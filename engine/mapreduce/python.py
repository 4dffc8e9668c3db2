"""The executor of jobs whose map and reduce are Python: feed, group, encode, merge, write lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from time import monotonic_ns
from typing import Any

from engine.kernels.checksum import crc32c
from engine.kernels.groups import DamagedBlock, GroupReader, GroupTable, merge_to_section
from engine.mapreduce import progress
from engine.mapreduce.executor import SAMPLES_MAX, AttemptFailed, Executor, trace_of
from engine.mapreduce.job import Job
from engine.mapreduce.messages import Configure, Map, Reduce
from engine.mapreduce.records import read_records, record_offset
from engine.storage.files import write_all
from engine.storage.runs import GROUPS, RunWriter, Segment

LINES_PER_WRITE = 4096
"""Lines of output gathered before they are encoded and written."""
CHARACTERS_PER_WRITE = 1 << 20
"""Fewer lines if they are as long together."""

RAISED = (Exception, SystemExit)
"""What a job's own code may end with: `sys.exit` in it ends the record, not the worker."""


class PythonExecutor(Executor):
    """Any `Job` that is not native."""

    kind = GROUPS
    merge_to_section = staticmethod(merge_to_section)
    key_cost_ns = 2000.0

    def __init__(self, configure: Configure, job: Job, page: memoryview) -> None:
        super().__init__(configure, job, page)
        self._clear()

    def _clear(self) -> None:
        self._table = GroupTable(self.configure.partitions, self.configure.memory, self.job.keys)

    @property
    def keys(self) -> int:
        """Keys in the table now."""
        return self._table.keys

    # --- map ---

    def _gap(self, task: Map) -> None:
        # A section holds consecutive splits only: then values come out in the order of the input.
        if self._table.keys:
            self._spill()
        self._first_task = task.task

    def _read(self, task: Map) -> None:
        records = read_records(self.job, task.path, task.start, task.end, self._reached)
        self.page[progress.BYTES] += task.end - task.start
        self.page[progress.PHASE] = progress.MAPPING
        done = 0
        for bad in sorted(task.skip):
            self._feed(task, records[:bad], done)
            self._skip(task, bad, "it killed its worker")
            done = bad + 1
        self._feed(task, records, done)
        self._records += len(records)

    def _reached(self, offset: int) -> None:
        """Reading goes on: the page must move, or the worker would seem to hang."""
        self.page[progress.OFFSET] = offset
        self.page[progress.BEAT] += 1

    def _feed(self, task: Map, records: list[str], done: int) -> None:
        # A name is bytes; keys and values are UTF-8, so of any other name as much as can be.
        document = os.fsencode(os.path.basename(task.path)).decode("utf-8", "replace")
        whole = self.configure.skip_bad > 0
        while done < len(records):
            try:
                done = self._table.feed(
                    self.job.map, document, records, done, self.page, whole=whole
                )
            except RAISED as error:
                bad = self.page[progress.RECORD] - 1
                self._bad_record(task, bad, records[bad], error)
                done = bad + 1
            if self._table.full:
                self._make_room()

    def _make_room(self) -> None:
        if self.job.combine is not None:
            self._table.combine(self.job.combine)
            if self._table.memory * 2 < self.configure.memory:
                return
        self._spill()
        self._first_task = self.page[progress.TASK]

    def _bad_record(self, task: Map, bad: int, record: str, error: BaseException) -> None:
        what = f"map raised {type(error).__name__}: {error}"
        if self._skipped >= self.configure.skip_bad:
            offset = record_offset(self.job, task.path, task.start, task.end, bad)
            text = (
                f"{task.path}: {what}, in the record at byte {offset} "
                f"(attempt {task.attempt}): {record[:200]!r}"
            )
            raise AttemptFailed("user", text, bad, trace_of(error)) from error
        self._skip(task, bad, what)

    def _skip(self, task: Map, bad: int, why: str) -> None:
        self._skipped += 1
        if len(self._samples) < SAMPLES_MAX:
            offset = record_offset(self.job, task.path, task.start, task.end, bad)
            self._samples.append(f"{task.path}: record at byte {offset} skipped: {why}"[:500])

    def _write_section(
        self, writer: RunWriter, task: int, attempt: int
    ) -> list[tuple[int, int, int]]:
        if self.job.combine is not None:
            self._table.combine(self.job.combine)
        return self._table.write_section(
            writer.fd, writer.position, self.configure.job, task, attempt, self.job.partition
        )

    # --- reduce ---

    def _merge(self, segments: list[Segment], out: int, task: Reduce) -> tuple[int, int, int, int]:
        configure = self.configure
        reader = GroupReader(
            segments,
            job=configure.job,
            partition=task.partition,
            memory=configure.memory,
            codec=self.job.keys,
        )
        page, written = self.page, LineWriter(out)
        keys = 0
        for key, values in reader:
            keys += 1
            page[progress.RECORD] = keys
            page[progress.RECORD_SINCE] = monotonic_ns()
            page[progress.BEAT] += 1
            for line in self._lines(key, values, task):
                written.add(line)
        written.flush()
        return keys, written.lines, written.size, written.digest

    def _lines(self, key: Any, values: Iterable[Any], task: Reduce) -> Iterator[str]:
        """By itself, so that what writing raises does not pass for what the job's code raised."""
        line = self.job.line
        try:
            for pair in self.job.reduce(key, values):
                yield line(*pair)
        except DamagedBlock:
            raise
        except RAISED as error:
            raise self._bad_group(task, key, error) from error

    def _bad_group(self, task: Reduce, key: Any, error: BaseException) -> AttemptFailed:
        text = (
            f"reduce raised {type(error).__name__}: {error}, for key {key!r:.200} "
            f"of partition {task.partition} (attempt {task.attempt})"
        )
        return AttemptFailed("user", text, 0, trace_of(error))


class LineWriter:
    """Lines gathered into large writes; counts and digests what it has written."""

    def __init__(self, fd: int) -> None:
        self.lines = self.size = self.digest = 0
        self._fd = fd
        self._gathered: list[str] = []
        self._characters = 0

    def add(self, line: str) -> None:
        """OSError when it is time to write."""
        self._gathered.append(line)
        self._characters += len(line)
        if self._characters >= CHARACTERS_PER_WRITE or len(self._gathered) >= LINES_PER_WRITE:
            self.flush()

    def flush(self) -> None:
        """Write what is gathered. OSError."""
        if not self._gathered:
            return
        self._gathered.append("")
        data = "\n".join(self._gathered).encode("utf-8", "surrogateescape")
        write_all(self._fd, data)
        self.lines += len(self._gathered) - 1
        self.size += len(data)
        self.digest = crc32c(data, self.digest)
        self._gathered.clear()
        self._characters = 0
