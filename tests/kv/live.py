"""A cluster of `engine kv up` for tests: its replicas by what they say of themselves, and kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness import Program, programs
from support import patience
from waiting import eventually

from engine.kv.client import Store
from engine.kv.slow import KEY_BYTES
from engine.kv.up import found, statuses


class Cluster:
    """Its keeper is a child of ours. It is ended by SIGTERM, for one that is killed leaves the
    folder of its sockets behind."""

    def __init__(self, start: Callable[..., Program], folder: Path, *flags: str) -> None:
        self.dir = str(folder)
        self._start, self._flags = start, flags
        self.up()

    def up(self) -> dict[str, Any]:
        """Start it; what it says once it serves."""
        self.keeper = self._start("kv", "up", "--dir", self.dir, "--json", *self._flags)
        keeper = self.keeper
        eventually(lambda: keeper.stdout().endswith("\n") or not keeper.running, 30, "a cluster")
        assert keeper.running, keeper.stdout() + keeper.stderr()
        said: dict[str, Any] = keeper.json()
        return said

    def down(self) -> None:
        if self.keeper.running:
            self.keeper.process.terminate()
            assert self.keeper.wait(30) == 0, self.keeper.stderr()

    def statuses(self) -> dict[int, Any]:
        """Of those that answer, by id."""
        return statuses(found(self.dir))

    def pids(self) -> dict[int, int]:
        return {number: one.pid for number, one in self.statuses().items()}

    def leader(self) -> int:
        """Its id, as soon as there is one."""

        def leads() -> int:
            all_of = self.statuses().items()
            leaders = [(one.term, number) for number, one in all_of if one.role == "leader"]
            return max(leaders)[1] if leaders else 0

        return eventually(leads, 30, "a leader")

    def kill(self, number: int) -> int:
        """SIGKILL for a replica; the pid that it had."""
        pid = eventually(lambda: self.pids().get(number, 0), 20, "its pid")
        os.kill(pid, signal.SIGKILL)
        return pid

    def back(self, number: int, before: int) -> None:
        """Wait until a replica is there again, as another process."""
        eventually(lambda: self.pids().get(number, before) != before, 30, "it to be back")


@contextmanager
def cluster(folder: Path, *flags: str) -> Iterator[Cluster]:
    """Three replicas in `folder`/store until the end."""
    with programs(folder) as start:
        made = Cluster(start, folder / "store", *flags)
        try:
            yield made
        finally:
            made.down()


def slowed(store: Cluster, key: bytes) -> None:
    """A put that its leader notes as slow, since the two others are stopped for a while. It is done
    again if somebody else led meanwhile."""

    def noted() -> bool:
        _stopped_while_it_puts(store, key)
        known = [one.key for status in store.statuses().values() for one in status.slow]
        return key[:KEY_BYTES] in known

    eventually(noted, 30, "a slow request")


def _stopped_while_it_puts(store: Cluster, key: bytes) -> None:
    leader = store.leader()
    others = [pid for number, pid in store.pids().items() if number != leader]
    with ThreadPoolExecutor() as pool, Store(store.dir, timeout=patience(30)) as client:
        client.info()  # it is connected, and knows who leads
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            done = pool.submit(client.put, key, b"a secret")
            with suppress(TimeoutError):
                done.result(0.4)
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)
        done.result(patience(30))
