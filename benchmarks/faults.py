"""A worker is killed at half of the bytes and replaced: what does that cost, and who notices when?

Clean and killed runs take turns and are watched in the same way: the harness polls how much each
worker has read (`read_chars` of the process), and in a killed run it sends SIGKILL to the busiest
once half of the input has been read. *Noticed* is counted from the signal until the dead
process has been reaped, seen from outside: the coordinator's own word is not asked for.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import psutil
from answers import compare
from contenders import parts
from harness import Contender, Rounds, Row, compete, engine_command
from inputs import Corpus
from report import Table

WORKERS = 4
POLL_SECONDS = 0.002
REAPING_SECONDS_MAX = 5.0


class Watcher:
    """Follows one run after another; kills a worker of each at `at` bytes, or never if None."""

    def __init__(self, workers: int, at: int | None) -> None:
        self.workers = workers
        self.at = at
        self.runs = 0
        self.noticed: list[float] = []
        """Seconds from SIGKILL to reaped, one for each kill."""
        self._found: list[psutil.Process] = []
        self._armed = False

    def begin(self) -> None:
        """A new run starts: nobody is known, nobody was killed."""
        self.runs += 1
        self._found = []
        self._armed = self.at is not None

    def look(self, root: psutil.Process) -> None:
        """Called over and over while the run lasts. `root` is the launcher."""
        if len(self._found) < self.workers:
            self._found = find_workers(root)
        read = {process: read_bytes(process) for process in self._found}
        if self._armed and self.at is not None and sum(read.values()) >= self.at:
            self._armed = False
            self.noticed.append(kill(max(read, key=lambda process: read[process])))
        time.sleep(POLL_SECONDS)


def find_workers(root: psutil.Process) -> list[psutil.Process]:
    """Processes of this tree that call themselves workers."""
    found = []
    for process in root.children(recursive=True):
        try:
            if "engine: worker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue  # it ended between the two looks
    return found


def read_bytes(process: psutil.Process) -> int:
    try:
        return int(process.io_counters().read_chars)
    except psutil.Error:
        return 0


def kill(process: psutil.Process) -> float:
    """SIGKILL and wait until its parent has reaped it: the seconds in between."""
    begin = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    while time.monotonic() - begin < REAPING_SECONDS_MAX:
        try:
            os.kill(process.pid, 0)  # a zombie still answers
        except ProcessLookupError:
            break
        time.sleep(POLL_SECONDS / 10)
    return time.monotonic() - begin


class Faults:
    """Clean and killed runs over one corpus."""

    def __init__(self, corpus: Corpus, work: Path, rounds: Rounds, memory: int = 0) -> None:
        self.corpus = corpus
        self.work = work
        self.rounds = rounds
        self.memory = memory
        self.clean = Watcher(WORKERS, None)
        self.killed = Watcher(WORKERS, corpus.bytes // 2)
        self.rows: list[Row] = []

    def execute(self) -> None:
        taking = [self.contender("clean", self.clean), self.contender("one killed", self.killed)]
        inputs = self.corpus.inputs.paths
        self.rows = compete(taking, inputs, self.corpus.bytes, self.work, self.rounds)

    def contender(self, what: str, watcher: Watcher) -> Contender:
        budget = ["--memory", str(self.memory)] if self.memory else []

        def command(folder: Path) -> list[str]:
            watcher.begin()
            return [
                *engine_command(),
                *("mr", "run", "wordcount", *map(str, self.corpus.inputs.paths)),
                *("--out", str(folder / "out"), "--workers", str(WORKERS), "--on", "local"),
                *("--json", *budget),
            ]

        return Contender(
            name=f"engine, {WORKERS} workers, {what}",
            kind="engine",
            workers=WORKERS,
            command=command,
            check=lambda folder: compare(parts(folder / "out"), self.corpus.inputs.right),
            watch=watcher.look,
        )

    def table(self) -> Table:
        noticed = self.killed.noticed
        about = f"{self.corpus.about}; {len(noticed)} of {self.killed.runs} runs lost a worker"
        figures = {}
        if noticed:
            milliseconds = [1000 * seconds for seconds in noticed]
            figures["noticed"] = statistics.median(milliseconds)
            about += (
                f", noticed within {figures['noticed']:.1f} ms"
                f" ({min(milliseconds):.1f}..{max(milliseconds):.1f})"
            )
        kind = f"killed {self.corpus.kind}"
        title = f"a worker killed, {self.corpus.name}"
        return Table(kind, title, about + ".", tuple(self.rows), figures)
