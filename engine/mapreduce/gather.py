"""What a reduce merges: one partition of all runs, few enough at a time for memory and descriptors.

Two things bound how much can be merged at once. Memory: `engine.storage.runs.NarrowedMerge` merges
in passes. Open files: where there are more runs than descriptors, they are opened a group at a time
and each group is merged into one segment of a nameless file, which takes one descriptor for all.
A group is consecutive in the order of the input, so values keep that order whatever is done.

The indexes of the runs name every partition, so they are read once a worker and kept, not once a
partition.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from engine.errors import DamagedData
from engine.kernels.counts import DamagedBlock
from engine.mapreduce.messages import NO_RUN, Configure, Reduce
from engine.record import Record
from engine.storage.runs import Merge, NarrowedMerge, Segment, open_nameless, open_run

DESCRIPTORS_KEPT = 64
"""Open files of a worker that are not runs: sockets, the page, outputs, what a job's code opens."""
RUNS_OPEN_MAX = 4096
"""With more, another pass costs less than so many descriptors of a whole machine's."""
INDEX_BYTES_KEPT = 16 << 20
"""Of all indexes that are kept for the next partition: 2 million segments."""

ReportedRun = tuple[int, str, int, int]
"""(number, path, size, digest), as in `Reduce`."""


class BadRun(Exception):
    """A run is missing or damaged: `number` is its own, or `NO_RUN` for a file of the merge."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class _Piece(Record):
    """One partition of one section of a run."""

    task: int
    run: ReportedRun
    offset: int
    length: int


class _Index(Record):
    """Where the segments of a run are, packed: a section's begin where the one before ends."""

    tasks: tuple[int, ...]
    ends: array[int]
    """Of every partition of every section."""


class Gatherer:
    """Finds and opens what reduces of one worker merge; keeps indexes from one to the next."""

    def __init__(self, configure: Configure) -> None:
        self._job, self._partitions = configure.job, configure.partitions
        self._memory, self._folder = configure.memory, configure.scratch
        self._kept: dict[ReportedRun, _Index] = {}

    @contextmanager
    def gathered(self, task: Reduce, merge: Merge) -> Iterator[list[Segment]]:
        """Segments that can be merged at once, in the order of the input.

        BadRun, also for a DamagedBlock that leaves the `with` block; OSError.
        """
        pieces = self._find(task)
        groups = list(_groups(pieces, open_at_once()))
        if len(groups) > 1:
            with self._merged(groups, merge) as segments:
                yield segments
        else:
            with self._opened(pieces, merge) as segments:
                yield segments

    def _find(self, task: Reduce) -> list[_Piece]:
        """The partition's segments that hold something, in the order of the input."""
        for run in self._kept.keys() - set(task.runs):
            del self._kept[run]
        pieces: list[_Piece] = []
        for run in task.runs:
            pieces += self._pieces(run, self._index(run), task.partition)
        # Sections of the same split (a table that was full within it) stay in their order.
        pieces.sort(key=lambda piece: piece.task)
        return pieces

    def _pieces(self, run: ReportedRun, index: _Index, partition: int) -> Iterator[_Piece]:
        for section, task in enumerate(index.tasks):
            at = section * self._partitions + partition
            start = index.ends[at - 1] if at else 0
            if start < index.ends[at]:
                yield _Piece(task, run, start, index.ends[at] - start)

    def _index(self, run: ReportedRun) -> _Index:
        if run not in self._kept:
            index = self._read_index(run)
            kept = sum(len(other.ends) for other in self._kept.values())
            if (kept + len(index.ends)) * index.ends.itemsize > INDEX_BYTES_KEPT:
                return index
            self._kept[run] = index
        return self._kept[run]

    def _read_index(self, run: ReportedRun) -> _Index:
        number, path, size, digest = run
        try:
            with open_run(
                path, job=self._job, partitions=self._partitions, size=size, digest=digest
            ) as found:
                ends = array("Q")
                for section in found.sections:
                    ends.extend(offset + length for offset, length, _ in section.segments)
                return _Index(tuple(section.task for section in found.sections), ends)
        except DamagedData as error:
            raise BadRun(number, str(error)) from error

    @contextmanager
    def _merged(self, groups: list[list[_Piece]], merge: Merge) -> Iterator[list[Segment]]:
        """Each group as one segment."""
        out = open_nameless(self._folder)
        try:
            whole: list[Segment] = []
            position = 0
            for group in groups:
                with self._opened(group, merge) as segments:
                    offset, length, _records = merge(segments, out, position)
                whole.append((out, offset, length))
                position += length
            own: ReportedRun = (NO_RUN, f"a file of an intermediate merge in {self._folder}", 0, 0)
            with self._narrowed(whole, [own] * len(whole), merge) as segments:
                yield segments
        finally:
            os.close(out)

    @contextmanager
    def _opened(self, pieces: list[_Piece], merge: Merge) -> Iterator[list[Segment]]:
        with ExitStack() as stack:
            fds: dict[ReportedRun, int] = {}
            for run in {piece.run: None for piece in pieces}:
                fds[run] = _open(run)
                stack.callback(os.close, fds[run])
            segments = [(fds[piece.run], piece.offset, piece.length) for piece in pieces]
            runs = [piece.run for piece in pieces]
            yield stack.enter_context(self._narrowed(segments, runs, merge))

    @contextmanager
    def _narrowed(
        self, segments: list[Segment], runs: Sequence[ReportedRun], merge: Merge
    ) -> Iterator[list[Segment]]:
        """Merged in passes until they can be merged at once in memory; damage names its run."""
        try:
            with NarrowedMerge(segments, merge, memory=self._memory, folder=self._folder) as few:
                yield few.segments
        except DamagedBlock as error:
            number, path = runs[error.segment][:2]
            raise BadRun(number, str(DamagedData(path, error.offset, error.why))) from error
        except DamagedData as error:
            raise BadRun(NO_RUN, str(error)) from error


def _open(run: ReportedRun) -> int:
    number, path = run[:2]
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BadRun(number, str(DamagedData(path, 0, "the file is missing"))) from error


def _groups(pieces: list[_Piece], limit: int) -> Iterator[list[_Piece]]:
    """Cut into ranges of at most `limit` runs each."""
    group: list[_Piece] = []
    runs: set[ReportedRun] = set()
    for piece in pieces:
        if piece.run not in runs and len(runs) == limit:
            yield group
            group, runs = [], set()
        group.append(piece)
        runs.add(piece.run)
    if group:
        yield group


def open_at_once() -> int:
    """How many runs may be open at one time."""
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return RUNS_OPEN_MAX
    return max(2, min(soft - DESCRIPTORS_KEPT, RUNS_OPEN_MAX))


def raise_descriptor_limit() -> None:
    """Allow this process as many open files as it may allow itself (1024 is a usual default)."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # macOS says there is no limit and means one; `open_at_once` lives with what there is
