"""What starts worker processes: what the supervisor asks of it, and `spawn`, which always works.

A starter answers two requests, `start` and `reap`, with `Born` and `Ended`, in its own time. A
process is reaped only when asked, which is after its descriptor said that it ended: until then its
pid cannot be given to another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from typing import Any, Protocol

from engine.errors import UsageError
from engine.record import Record
from engine.runtime import child
from engine.runtime.child import Target


class Born(Record):
    """A process runs. `fd` (ours to close) becomes readable when it has ended."""

    node: int
    pid: int
    fd: int


class Ended(Record):
    """Reaped, or never started; code as in `engine.contract.Exited`. `peak` is bytes of memory."""

    node: int
    code: int
    peak: int = 0


class Starter(Protocol):
    """Starts processes, one way or the other."""

    def start(self, node: int, address: str, arguments: tuple[Any, ...]) -> None:
        """Ask for a process; `Born` follows, or `Ended`."""

    def reap(self, node: int) -> None:
        """Ask for the exit code of a process that has ended; `Ended` follows."""

    def news(self) -> list[Born | Ended] | None:
        """What there is to say; never blocks. None: this starter is dead, for ever."""

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that become readable when there may be news."""

    def close(self) -> None:
        """Release everything; all processes have been killed."""


class SpawnStarter:
    """Fresh interpreters through `multiprocessing`'s spawn: slower by 0.1 s, works from anywhere.

    The caller's `__main__` is not imported again: a script without a `__main__` guard is safe.
    """

    def __init__(self, target: Target, title: str) -> None:
        if target.__module__ == "__main__":
            raise UsageError("A worker's entry must be importable: move it out of the main script.")
        from multiprocessing import connection, context

        self._target, self._title = target, title
        self._make = context.SpawnProcess
        self._read, self._write = connection.Pipe(duplex=False)
        self._processes: dict[int, Any] = {}
        self._news: list[Born | Ended] = []
        self._bell, self._ring = os.pipe()

    def start(self, node: int, address: str, arguments: tuple[Any, ...]) -> None:
        # The kernel's signal follows the thread that starts, so only the main one may ask for it.
        lasting = threading.current_thread() is threading.main_thread()
        call = (self._target, node, address, arguments)
        parent = os.getpid() if lasting else None
        title = self._title.format(node=node)
        process = self._make(target=_spawned, args=(call, title, parent, self._read))
        try:
            with _HiddenMain():
                process.start()
        except OSError as error:
            report_failure(node, error)
            self._tell(Ended(node, os.EX_OSERR))
            return
        assert process.pid is not None
        self._processes[node] = process
        self._tell(Born(node, process.pid, _end_of(process)))

    def reap(self, node: int) -> None:
        process = self._processes.pop(node)
        process.join()
        code = process.exitcode
        process.close()
        # None: somebody else in this program waited for all children, and took the answer.
        self._tell(Ended(node, -signal.SIGKILL if code is None else code))

    def _tell(self, item: Born | Ended) -> None:
        if not self._news:
            os.write(self._ring, b"!")
        self._news.append(item)

    def news(self) -> list[Born | Ended] | None:
        news, self._news = self._news, []
        if news:
            os.read(self._bell, 1)
        return news

    def filenos(self) -> tuple[int, ...]:
        return (self._bell,)

    def close(self) -> None:
        for node in list(self._processes):
            self.reap(node)
        self._read.close()
        self._write.close()
        os.close(self._bell)
        os.close(self._ring)


def _end_of(process: Any) -> int:
    if has_pidfd():
        return os.pidfd_open(process.pid)
    return os.dup(process.sentinel)


def has_pidfd() -> bool:
    """True where a descriptor can stand for a process: Linux 5.3, unless a sandbox forbids it."""
    global _pidfd
    if _pidfd is None:
        _pidfd = sys.platform == "linux" and _pidfd_works()
    return _pidfd


_pidfd: bool | None = None


def _pidfd_works() -> bool:
    try:
        fd = os.pidfd_open(os.getpid())
    except OSError:
        return False
    try:
        signal.pidfd_send_signal(fd, 0)  # none, which only asks whether it could
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def report_failure(node: int, error: OSError) -> None:
    """Say why a process could not be started; its exit code cannot."""
    sys.stderr.write(f"engine: worker {node} cannot be started: {error.strerror}.\n")
    sys.stderr.flush()


class _HiddenMain:
    """While `multiprocessing` looks for a main module to run again in the child, there is none."""

    _lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")

    def __exit__(self, *error: object) -> None:
        sys.modules["__main__"] = self._main
        self._lock.release()


def _spawned(
    call: tuple[Target, int, str, tuple[Any, ...]], title: str, parent: int | None, pipe: Any
) -> None:
    child.settle(title, parent, pipe.fileno())
    child.run(*call)
