"""Our view service under its lab's tests: a server process, and clerks behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support import TIME_FACTOR, patience

from engine.contract import SECOND
from engine.faults.cluster import Cluster
from engine.views.client import View, Views
from engine.views.machine import DEAD_PINGS
from engine.views.messages import PING_INTERVAL

SERVICE = "views"


class Clerk:
    """A server that pings by hand; the service knows it by its name."""

    def __init__(self, name: str, views: Views) -> None:
        self.name, self._views = name, views

    def ping(self, number: int) -> tuple[int, str, str]:
        return _told(self._views.ping(self.name, number))

    def get(self) -> tuple[int, str, str]:
        return _told(self._views.get())


class Servers:
    """Satisfies `test_viewservice.ViewServers` and `AttackedViewServers`."""

    interval = PING_INTERVAL / SECOND
    dead_pings = DEAD_PINGS
    promotes_only_who_pinged_the_view = True

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster, self._stack = cluster, stack
        self._address = cluster.address(SERVICE)
        cluster.start(SERVICE, "view", "serve")

    def clerk(self, name: str) -> Clerk:
        via = self.cluster.via(name, [SERVICE])
        views = Views(self._address, timeout=patience(20), via=via, role="server")
        return Clerk(name, self._stack.enter_context(views))

    # --- beyond the lab --------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        self.cluster.proxy.cut(name, SERVICE)

    def heal(self, name: str) -> None:
        self.cluster.proxy.heal(name, SERVICE)

    def stop(self) -> None:
        self.cluster.stop(SERVICE)

    def wake(self) -> None:
        self.cluster.go_on(SERVICE)


def _told(view: View) -> tuple[int, str, str]:
    return view.number, view.primary, view.backup


@contextmanager
def make(folder: Path, seed: int) -> Iterator[Servers]:
    """The factory: see `conftest.lab`."""
    with Cluster(folder, seed=seed, factor=TIME_FACTOR) as cluster, ExitStack() as stack:
        yield Servers(cluster, stack)
