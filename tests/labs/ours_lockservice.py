"""Our lock service under the lab's tests: two server processes, every link through the proxy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support import TIME_FACTOR, patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError
from engine.faults.cluster import Cluster
from engine.locks.client import PATIENCE, Locks
from engine.sim.weather import LABRPC_UNRELIABLE

PRIMARY, BACKUP = "primary", "backup"


class Clerk:
    """A client of ours, with the lab's names for what it does."""

    def __init__(self, name: str, locks: Locks) -> None:
        self.name, self._locks = name, locks

    def lock(self, name: str) -> bool:
        return self._locks.acquire(name)

    def unlock(self, name: str) -> bool:
        return self._locks.release(name)


class Servers:
    """Satisfies `test_lockservice.LockServers` and `AttackedLockServers`.

    The servers start with the first clerk, so that a crash point can be chosen before.
    """

    silence_taken_for_death = PATIENCE / 1e9

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster, self._stack = cluster, stack
        self._addresses = [cluster.address(PRIMARY), cluster.address(BACKUP)]
        self._clerks = 0
        self._point: list[str] = []
        self._bad_weather = False

    def clerk(self) -> Clerk:
        if not self._clerks:
            self._start()
        self._clerks += 1
        name = f"clerk-{self._clerks}"
        via = self.cluster.via(name, (PRIMARY, BACKUP))
        locks = Locks(self._addresses, timeout=patience(20), via=via)
        clerk = Clerk(name, self._stack.enter_context(locks))
        if not self._bad_weather:
            # A client that has never met the primary waits long for it, as it may be yet to come.
            clerk.unlock("nobody's")
        return clerk

    def kill_primary(self) -> None:
        self.cluster.kill(PRIMARY)

    def kill_backup(self) -> None:
        self.cluster.kill(BACKUP)

    def dying(self, clerk: Clerk, silence: float) -> threading.Event:
        self.cluster.proxy.swallow(clerk.name, PRIMARY, hide=silence)
        dead = threading.Event()
        self._stack.enter_context(_killer(self.cluster, dead))
        return dead

    # --- beyond the lab --------------------------------------------------------------------------

    def bad_weather(self) -> None:
        self._bad_weather = True
        self.cluster.proxy.weather("*", "*", LABRPC_UNRELIABLE)

    def lost_in_bad_weather(self) -> int:
        return self.cluster.proxy.total().lost

    def dies_by_itself(self, point: str) -> None:
        assert not self._clerks, "the primary runs already"
        self._point = [point]

    def primary_alive(self) -> bool:
        return self.cluster.node(PRIMARY).running

    def stop_primary_amid(self, ask: Callable[[], object]) -> None:
        """The backup's acknowledgements are lost until the primary is stopped."""
        proxy = self.cluster.proxy
        link = PRIMARY, BACKUP
        before = proxy.total(*link).requests_delivered
        proxy.cut(*link, "reply")
        ask()
        eventually(lambda: proxy.total(*link).requests_delivered > before, 10, "a forward")
        self.cluster.stop(PRIMARY)
        eventually(
            lambda: proxy.total(*link).replies == proxy.total(*link).requests_delivered,
            10,
            "the backup's last word",
        )
        proxy.heal(*link)

    def wake_primary(self) -> None:
        self.cluster.go_on(PRIMARY)

    # --- ours ------------------------------------------------------------------------------------

    def _start(self) -> None:
        start, (_, backup) = self.cluster.start, self._addresses
        start(BACKUP, "lock", "serve", "--backup", reaches=[PRIMARY])
        start(
            PRIMARY, "lock", "serve", "--primary", "--peer", backup,
            reaches=[BACKUP], kill_at=self._point,
        )  # fmt: skip


@contextmanager
def _killer(cluster: Cluster, dead: threading.Event) -> Iterator[None]:
    """Kills the primary as soon as it has given the answer that its client will not get."""
    over = threading.Event()

    def wait_and_kill() -> None:
        while not over.is_set():
            try:
                cluster.proxy.swallowed(0.2)
            except ConnectionFailed:
                raise
            except EngineError:
                continue  # not yet
            cluster.kill(PRIMARY)
            dead.set()
            return

    thread = threading.Thread(target=wait_and_kill, name="killer")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def make(folder: Path, seed: int) -> Iterator[Servers]:
    """The factory: see `conftest.lab`."""
    with Cluster(folder, seed=seed, factor=TIME_FACTOR) as cluster, ExitStack() as stack:
        yield Servers(cluster, stack)
