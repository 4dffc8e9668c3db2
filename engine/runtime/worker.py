"""A thread for long work, beside the loop and beside the thread that syncs.

Work that writes much may wait for the disk, so it must not be done where the log is synced: a write
that meets writeback would hold up every vote and every acknowledgement.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.contract import Finished, Job
from engine.errors import DamagedData


class Worker:
    """Carries out jobs one after another by `work(job.work)`; its thread starts with the first.

    What is damaged, or has no space, is the result of that job alone (`Finished.error`). Any other
    error is final: `results` raises it, and the process must end.
    """

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: deque[Finished] = deque()
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def pollables(self) -> tuple[int]:
        """Readable when there are `results`."""
        return (self._read,)

    def submit(self, job: Job) -> None:
        """Have it done after those before it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def results(self) -> list[Finished]:
        """Jobs that ended since the last call."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
        found = []
        while self._done:
            found.append(self._done.popleft())
        if self._failed is not None:
            raise self._failed
        return found

    def close(self) -> None:
        """End the job that is being done, and do no other. A second call does nothing."""
        if self._read < 0:
            return
        if self._thread is not None:
            while not self._jobs.empty():
                self._jobs.get()
            self._jobs.put(None)
            self._thread.join()
        os.close(self._read)
        os.close(self._write)
        self._read = -1

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                done = Finished(job.number, self._work(job.work))
            except DamagedData as error:
                done = Finished(job.number, error=str(error))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    self._fail(error)
                    return
                done = Finished(job.number, error=str(error))
            except BaseException as error:
                self._fail(error)
                return
            self._done.append(done)
            self._tell()

    def _fail(self, error: BaseException) -> None:
        self._failed = error
        self._tell()

    def _tell(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # full of news that nobody has read yet
