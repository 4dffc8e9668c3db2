"""A thread that makes writes durable while the loop goes on.

Syncing a file takes from a tenth of a millisecond to a second, with the GIL released. Whatever is
submitted while one sync runs is covered by the next: under load a group of any size costs one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Syncer:
    """Calls `sync` (`Journal.sync`) for tickets; its thread starts with the first of them.

    A failed sync is final. The kernel may have dropped the dirty pages, so that a second try would
    succeed without having written them: `durable` raises, and the process must end.
    """

    def __init__(self, sync: Callable[[], object]) -> None:
        self._sync = sync
        self._wanted = self._done = 0
        self._error: OSError | None = None
        self._stopping = False
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def fileno(self) -> int:
        """Readable when `durable` has news."""
        return self._read

    def submit(self, ticket: int) -> None:
        """All that was written before this call is to be durable as `ticket`; tickets only grow."""
        with self._condition:
            assert ticket > self._wanted, (ticket, self._wanted)
            self._wanted = ticket
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="syncer", daemon=True)
                self._thread.start()
            self._condition.notify()

    def durable(self) -> int:
        """The highest durable ticket, 0 before the first. OSError if a sync failed."""
        try:
            os.read(self._read, 4096)
        except BlockingIOError:
            pass
        if self._error is not None:
            raise self._error
        return self._done

    def close(self) -> None:
        """Finish what was submitted and stop. A second call does nothing."""
        with self._condition:
            if self._stopping:
                return
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._wanted == self._done and not self._stopping:
                    self._condition.wait()
                ticket = self._wanted
            if ticket == self._done:
                return
            try:
                self._sync()
            except OSError as error:
                self._error = error
            else:
                self._done = ticket
            self._tell()
            if self._error is not None:
                return

    def _tell(self) -> None:
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            pass  # full of news that nobody has read yet
