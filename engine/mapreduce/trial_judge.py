"""What must hold in every run, watched from outside the scheduler.

The judge believes nothing that the scheduler says of itself: it follows the journal's records, as
written and as durable, and looks at the disk.

* A split or partition is accepted at most once at a time.
* Nothing is reduced before every split is in a run that the journal would still name after a power
  cut; nothing is published before `Publishing` is durable.
* A file that the journal names is not unlinked before the job is published.
* No worker is told that the job is done before `Published` and the whole output, as the oracle
  computes it, are durable.
* No attempt number is used twice, by whichever coordinator; nothing that is done is asked for.
* Without accidents, everything is asked for once.
* When all is over, the output is the oracle's and there is no other file.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.mapreduce.ledger import Ledger
from engine.mapreduce.messages import (
    Discard,
    Map,
    OutputAccepted,
    Publish,
    Published,
    Reduce,
    RunAccepted,
    Stop,
    Sweep,
)
from engine.mapreduce.trial_worker import partition_of, write_counts
from engine.sim.disk import Disk
from engine.sim.experiment import Violation


def _must(condition: bool, text: str, *about: Any) -> None:
    if not condition:
        raise Violation(text.format(*about))


class Judge:
    """Called by the cluster at every write, send and job."""

    def __init__(self, disk: Disk, texts: list[list[str]], partitions: int) -> None:
        self.disk, self.texts, self.partitions = disk, texts, partitions
        self.written = Ledger(len(texts), partitions)
        self.durable = Ledger(len(texts), partitions)
        self.skipped: set[tuple[int, int]] = set()
        self._attempts: set[int] = set()
        self._durables = 0

    def restarted(self, records: list[Any]) -> None:
        """A new coordinator has read these from the journal: they are the truth now."""
        self.written = Ledger(len(self.texts), self.partitions)
        for record in records:
            self.written.apply(record)
        _must(len(records) >= self._durables, "the journal has lost durable records")

    def synced(self, records: list[Any]) -> None:
        """These records, the journal from its beginning, would survive a power cut."""
        for record in records[self._durables :]:
            self.durable.apply(record)
        self._durables = max(self._durables, len(records))

    def write(self, record: Any) -> None:
        if isinstance(record, RunAccepted):
            twice = [task for task in record.tasks if self.written.run_of[task]]
            _must(not twice, "split accepted twice: {}", twice)
            _must(self.disk.exists(record.path), "accepted run {} is not there", record.path)
        elif isinstance(record, OutputAccepted):
            _must(record.partition not in self.written.outputs, "output twice: {}", record)
        elif isinstance(record, Published):
            _must(self.durable.publishing, "Published before Publishing is durable")
        self.written.apply(record)

    def send(self, message: Any) -> None:
        if isinstance(message, Map | Reduce):
            _must(message.attempt not in self._attempts, "attempt used twice: {}", message)
            self._attempts.add(message.attempt)
        if isinstance(message, Map):
            _must(not self.written.run_of[message.task], "split is done already: {}", message)
        elif isinstance(message, Reduce):
            done = message.partition in self.written.outputs
            _must(not done, "partition is done already: {}", message)
            _must(self.durable.mapped, "reduce before all maps are durable")
            runs = {run for run, *_ in message.runs}
            _must(runs == set(self.written.runs), "reduces runs {}", runs)
        elif isinstance(message, Stop) and message.outcome == "done":
            _must(self.durable.published, "stopped before Published is durable")
            self.check_output()

    def start(self, work: Any) -> None:
        if isinstance(work, Discard):
            for path in work.paths:
                named = path in self.written.paths or path in self.durable.paths
                _must(self.durable.published or not named, "accepted file discarded: {}", path)
        elif isinstance(work, Publish):
            _must(self.durable.publishing, "published before Publishing is durable")
        elif isinstance(work, Sweep):
            _must(self.durable.published, "swept before Published is durable")

    def check_output(self) -> None:
        """What a power cut would leave of the output is the oracle's."""
        counts: list[Counter[str]] = [Counter() for _ in range(self.partitions)]
        for task, words in enumerate(self.texts):
            for record, word in enumerate(words):
                if (task, record) not in self.skipped:
                    counts[partition_of(word, self.partitions)][word] += 1
        _must(self.disk.durable("out/manifest") == b"complete", "no manifest")
        for partition, count in enumerate(counts):
            found = self.disk.durable(f"out/{partition}")
            expected = write_counts(count)
            _must(found == expected, "part {} is {}, not {}", partition, found, expected)

    def check_quiet(self) -> None:
        """Nothing was done twice."""
        once = len(self.texts) + self.partitions
        _must(len(self._attempts) == once, "{} attempts, not {}", len(self._attempts), once)

    def check_end(self) -> None:
        """The output is right, and nothing else is left."""
        self.check_output()
        garbage = self.disk.paths("scratch") + self.disk.paths("parts")
        _must(not garbage, "garbage is left: {}", garbage)
        expected = {"out/manifest", *(f"out/{number}" for number in range(self.partitions))}
        _must(set(self.disk.paths("out")) == expected, "the output is {}", self.disk.paths("out"))
