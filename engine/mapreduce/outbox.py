"""What the scheduler's parts want done, until the turn carries it out."""

from __future__ import annotations

from typing import Any

from engine.contract import Job, Nanos, Ready, Send, Write
from engine.mapreduce.attempts import Worker
from engine.mapreduce.messages import Discard


class Outbox:
    """Collects one `Ready`. Groups of writes are numbered as the contract says: `ticket` is the
    number that the group being collected will get."""

    def __init__(self) -> None:
        self.ticket = 1
        self.failure: tuple[str, str] | None = None
        """(sentence, traceback): the first failure is the job's."""
        self._writes: list[Write] = []
        self._sends: list[Send] = []
        self._jobs: list[Job] = []
        self._garbage: list[str] = []
        self._number = 0

    def write(self, record: Any) -> None:
        self._writes.append(Write(record))

    def send(self, worker: Worker, message: Any) -> None:
        assert worker.link is not None, f"worker {worker.node} has not joined"
        self._sends.append(Send(worker.link, message))

    def start(self, work: Any) -> int:
        """Ask for a job; its number."""
        self._number += 1
        self._jobs.append(Job(self._number, work))
        return self._number

    def discard(self, path: str) -> None:
        self._garbage.append(path)

    def fail(self, text: str, detail: str = "") -> None:
        if self.failure is None:
            self.failure = (text, detail)

    def drain(self, wake_at: Nanos | None) -> Ready:
        if self._garbage:
            self.start(Discard(tuple(self._garbage)))
        writes, sends, jobs = tuple(self._writes), tuple(self._sends), tuple(self._jobs)
        self.ticket += bool(writes)
        self._writes, self._sends, self._jobs, self._garbage = [], [], [], []
        return Ready(writes, sends, (), jobs, wake_at)
