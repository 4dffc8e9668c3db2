"""The real world of a service that keeps a log: sockets, a clock, a disk, and threads for it.

Writing happens in the loop, syncing in a thread of its own (`engine.kernels.syncer`), long work
in another one (`worker`). So a disk that takes a second for a sync delays what waits for it and
nothing else: heartbeats leave in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from engine.contract import Durable, Event, Job, Nanos, Send, Write
from engine.kernels.syncer import Syncer
from engine.runtime.worker import Worker
from engine.runtime.world import Entrance, SocketWorld
from engine.storage.directory import Folder, FolderFile
from engine.storage.log import Log


class DurableWorld(SocketWorld):
    """Satisfies `engine.contract.World`, with the log for writes and `work` for jobs.

    An OSError of the disk, other than for lack of space, is raised by `write`, `send` or `drain`:
    what is on the disk is not known any more, and the process must end.
    """

    def __init__(
        self,
        log: Log,
        folder: Folder,
        work: Callable[[Any], Any],
        *listeners: Entrance,
        **who: Any,
    ) -> None:
        """`folder` is the one of the log."""
        super().__init__(*listeners, **who)
        self.log, self._folder = log, folder
        self._written = self._durable = 0
        self._begun = True
        """What was written last is in the file, and on its way to the disk."""
        self._marks: deque[tuple[int, int]] = deque()
        """Of tickets that are not durable yet: how far they reach in the log."""
        self._syncer = Syncer()
        self._worker = Worker(work)
        self._watch(self._syncer)
        self._watch(self._worker)

    def drain(self, frames: int, size: int) -> list[Event]:
        """What became durable first: it is what everybody waits for."""
        events: list[Event] = []
        durable = self._syncer.durable() if self._may_have(self._syncer) else 0
        if durable > self._durable:
            self._durable, mark = durable, 0
            while self._marks and self._marks[0][0] <= durable:
                mark = self._marks.popleft()[1]
            self.log.settle(mark, tell=False)
            events.append(Durable(durable))
        if self._may_have(self._worker):
            events += self._worker.results()
        return events + super().drain(frames, size)

    def write(self, group: Sequence[Write]) -> int:
        """Into the log, in one batch, and on to the thread that syncs; both when what need not wait
        for the disk has left, since that is on its way meanwhile."""
        self.log.append([write.record for write in group], later=True)
        self._written += 1
        self._begun = False
        return self._written

    def send(self, sends: Iterable[Send]) -> None:
        """As `SocketWorld`, and then what was given to `write` is begun."""
        super().send(sends)
        self._begin()

    def wait(self, until: Nanos | None) -> None:
        """As `SocketWorld`."""
        self._begin()
        super().wait(until)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        mark, files, names = self.log.begin_sync()
        self._marks.append((self._written, mark))
        fds = tuple([cast(FolderFile, file).fileno() for file in files])
        self._syncer.submit(self._written, fds, self._folder.fileno() if names else -1)

    def later(self, *, peers: bool = True) -> None:
        """The same of what becomes durable, and of what `peers` say if they are meant as well."""
        self._later += self._syncer.pollables()
        if peers:
            super().later()

    def start(self, job: Job) -> None:
        self._worker.submit(job)

    def close(self, linger_ms: int = 0) -> None:
        """Sync what was written, end the threads, close the log and the sockets."""
        self._worker.close()
        self._syncer.close()
        self.log.close()
        self._folder.close()
        super().close(linger_ms)
