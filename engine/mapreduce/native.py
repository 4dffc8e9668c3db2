"""The executor of native jobs: words are counted and merged by kernels, without the GIL."""

from __future__ import annotations

from engine.errors import UsageError
from engine.kernels import counts
from engine.kernels.words import WordTable, WordTooLong
from engine.mapreduce.executor import AttemptFailed, Executor
from engine.mapreduce.job import Job
from engine.mapreduce.messages import Configure, Map, Reduce
from engine.storage.runs import COUNTS, RunWriter, Segment

RELEASE_BYTES = 8 << 20
"""A smaller table is kept through a reduce: giving it back would cost more than it weighs."""


class NativeExecutor(Executor):
    """Word count: `job.native` is "words"."""

    kind = COUNTS
    merge_to_section = staticmethod(counts.merge_to_section)

    def __init__(self, configure: Configure, job: Job, page: memoryview) -> None:
        if job.native != "words":
            raise UsageError(f"{configure.app}: no kernel is called {job.native!r}.")
        super().__init__(configure, job, page)
        self._table = self._new_table()

    def _new_table(self) -> WordTable:
        configure = self.configure
        return WordTable(
            configure.partitions,
            configure.memory,
            fold_case=self.job.settings.get("fold_case") == "yes",
            isa=configure.isa,
        )

    @property
    def keys(self) -> int:
        """Distinct words in the table now."""
        return self._table.keys

    def _clear(self) -> None:
        self._table.clear()

    def _read(self, task: Map) -> None:
        position = task.start
        end = min(task.end, task.identity[0])
        try:
            while True:
                position = self._table.count(task.path, position, end, self.page)
                if position >= end:
                    return
                self._spill()
        except WordTooLong as error:
            text = (
                f"{task.path}: the word at byte {error.offset} is longer than 64 MiB; "
                "is this a text file?"
            )
            raise AttemptFailed("word", text) from error

    def _write_section(
        self, writer: RunWriter, task: int, attempt: int
    ) -> list[tuple[int, int, int]]:
        self._records += self._table.words
        configure = self.configure
        return self._table.write_section(writer.fd, writer.position, configure.job, task, attempt)

    def _make_way(self) -> None:
        if self._table.memory > RELEASE_BYTES:
            self._table = self._new_table()

    def _merge(self, segments: list[Segment], out: int, task: Reduce) -> tuple[int, int, int, int]:
        configure = self.configure
        return counts.merge_to_text(
            segments,
            out,
            job=configure.job,
            partition=task.partition,
            memory=configure.memory,
            page=self.page,
        )
