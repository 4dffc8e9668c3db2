"""The supervisor: starts workers, notices within milliseconds that one ended, leaves none behind.

On Linux, from a process with one thread, workers are forked by a zygote (`engine.runtime.zygote`,
1-2 ms each). Elsewhere, from programs with threads and should the zygote die, they are spawned as
fresh interpreters (`engine.runtime.starters`, 0.1 s each). Both are `multiprocessing` processes.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
from collections.abc import Iterable
from typing import Any

from engine.contract import Exited
from engine.errors import UsageError
from engine.record import Record
from engine.runtime import samples
from engine.runtime.child import Target, parent_pipe
from engine.runtime.starters import Born, Ended, SpawnStarter, Starter, has_pidfd
from engine.runtime.zygote import ZygoteStarter, can_fork

__all__ = ["Supervisor", "parent_pipe"]


class _Child(Record):
    pid: int
    fd: int
    starter: Starter


class Supervisor:
    """Worker processes by node number. Used by one thread, which outlives them.

    `target(node, address, arguments)` runs in each; it is importable, and what it needs should be
    imported already. `method` is "fork", "spawn" or "" for the best that is clean here. Make it
    before threads and sockets. `name` (of the job) is shown by `ps`. `address` may be set later,
    for workers still to be started.
    """

    def __init__(
        self,
        target: Target,
        address: str = "",
        arguments: tuple[Any, ...] = (),
        *,
        name: str = "",
        method: str = "",
    ) -> None:
        if method not in ("", "fork", "spawn"):
            raise UsageError(f"There is no method {method!r}: use fork or spawn.")
        if method == "fork" and not can_fork():
            raise UsageError("fork needs Linux 5.3 and a process with one thread: use spawn.")
        self.address, self.arguments = address, arguments
        self._target = target
        self._title = "engine: worker {node}" + (f" of {_braced(name)}" if name else "")
        self._starters: list[Starter] = []
        self._asked: dict[int, Starter] = {}
        self._children: dict[int, _Child] = {}
        self._reaping: set[int] = set()
        self._doomed: set[int] = set()
        self._known: set[int] = set()
        self._peak = 0
        self._closed = False
        self._owner = os.getpid()
        fork = method != "spawn" and can_fork()
        self.method = "fork" if fork else "spawn"
        self._use((ZygoteStarter if fork else SpawnStarter)(target, self._title))
        # multiprocessing's own exit handler waits for children; ours, registered later, runs first.
        atexit.register(self.close)

    def _use(self, starter: Starter) -> None:
        self._starter = starter
        self._starters.append(starter)

    def start(self, nodes: Iterable[int]) -> None:
        """`spawn` each of them."""
        for node in nodes:
            self.spawn(node)

    def spawn(self, node: int) -> None:
        """Ask for a process; returns at once. A node that was ever asked for is not started again.

        If it cannot be started, stderr says why and `events` says `Exited(node, os.EX_OSERR)`.
        """
        if node not in self._known:
            self._known.add(node)
            self._asked[node] = self._starter
            self._starter.start(node, self.address, self.arguments)

    def kill(self, node: int) -> None:
        """SIGKILL; its `Exited` follows. Nothing if it is gone, at once if it is yet to be born."""
        child = self._children.get(node)
        if child is not None:
            _kill(child)
        elif node in self._asked:
            self._doomed.add(node)

    def filenos(self) -> list[int]:
        """Descriptors that become readable when `events` has something to do."""
        waiting = [c.fd for node, c in self._children.items() if node not in self._reaping]
        return [*waiting, *(fd for starter in self._starters for fd in starter.filenos())]

    def events(self) -> list[Exited]:
        """Who ended since the last call; never blocks."""
        self._ask_for_codes()
        exits: list[Exited] = []
        for starter in list(self._starters):
            news = starter.news()
            if news is None:
                self._bury(starter, exits)
            for item in news or ():
                if isinstance(item, Born):
                    self._born(item, starter)
                else:
                    exits.append(self._ended(item))
        return exits

    def peak(self) -> int:
        """Largest resident memory that any one worker has had, in bytes, as far as is known."""
        alive = (samples.peak_of(child.pid) for child in self._children.values())
        return max(self._peak, *alive, 0)

    def close(self) -> None:
        """Kill and reap all. A second call does nothing, nor does one in a forked copy."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        atexit.unregister(self.close)
        self.events()  # to learn of those just born
        for child in self._children.values():
            _kill(child)
        for starter in self._starters:
            starter.close()
        for child in self._children.values():
            os.close(child.fd)
        self._children.clear()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- births and deaths -----------------------------------------------------------------------

    def _born(self, born: Born, starter: Starter) -> None:
        self._asked.pop(born.node)
        child = self._children[born.node] = _Child(born.pid, born.fd, starter)
        if born.node in self._doomed:
            self._doomed.remove(born.node)
            _kill(child)

    def _ended(self, ended: Ended) -> Exited:
        node = ended.node
        child = self._children.pop(node, None)
        if child is not None:
            os.close(child.fd)
        self._asked.pop(node, None)
        self._doomed.discard(node)
        self._reaping.discard(node)
        self._peak = max(self._peak, ended.peak)
        return Exited(node, ended.code)

    def _ask_for_codes(self) -> None:
        poll = select.poll()
        nodes = {c.fd: node for node, c in self._children.items() if node not in self._reaping}
        for fd in nodes:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(0):
            node = nodes[fd]
            self._reaping.add(node)
            self._children[node].starter.reap(node)

    def _bury(self, starter: Starter, exits: list[Exited]) -> None:
        """A zygote died, and its workers with it: the kernel sees to that. Spawn from now on."""
        for node, asked in list(self._asked.items()):
            if asked is starter:
                exits.append(self._ended(Ended(node, -signal.SIGKILL)))
        for node, child in list(self._children.items()):
            if child.starter is starter:
                _kill(child)
                exits.append(self._ended(Ended(node, -signal.SIGKILL)))
        self._starters.remove(starter)
        starter.close()
        if starter is self._starter:
            self.method = "spawn"
            self._use(SpawnStarter(self._target, self._title))


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _kill(child: _Child) -> None:
    try:
        if sys.platform == "linux" and has_pidfd():
            signal.pidfd_send_signal(child.fd, signal.SIGKILL)
        elif not _ended(child.fd):  # so it was not reaped, and its pid is nobody else's
            os.kill(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _ended(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
