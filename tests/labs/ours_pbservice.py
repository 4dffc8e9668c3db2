"""Our primary/backup store as the lab's tests want it: processes, every link through the proxy.

Clerks live in the test's process. Everything has a name, which is also that of its end of a link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import TIME_FACTOR, patience

from engine.backup.client import Store
from engine.contract import SECOND
from engine.errors import ConnectionFailed, OutcomeUnknown
from engine.faults.cluster import Cluster
from engine.sim.weather import CALM, LABS_2012
from engine.views.client import Views
from engine.views.messages import PING_INTERVAL

SERVERS = ("s1", "s2", "s3")


class OurClerk:
    """A `Store` that answers as the labs' clerks do."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, key: str) -> str:
        with _answered():
            return self.store.get(key) or ""

    def put(self, key: str, value: str) -> None:
        with _answered():
            self.store.put(key, value)

    def append(self, key: str, value: str) -> None:
        with _answered():
            self.store.append(key, value)


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except (OutcomeUnknown, ConnectionFailed) as error:
        raise TimeoutError(str(error)) from error


class OurServers:
    """`test_pbservice.Servers`; `cluster` is for those tests of ours that want more."""

    interval = PING_INTERVAL / SECOND

    def __init__(self, folder: Path, seed: int) -> None:
        self.cluster = Cluster(folder, seed=seed, factor=TIME_FACTOR)
        for name in ("views", *SERVERS):
            self.cluster.address(name)
        self._views = Views(
            self.cluster.address("views"),
            timeout=patience(10),
            via=self.cluster.via("tester", ["views"]),
        )

    # --- servers ---------------------------------------------------------------------------------

    def start(self, name: str, *, kill_at: Sequence[str] = ()) -> None:
        views = self.cluster.address("views")
        self.cluster.start(name, "pb", "serve", "--cluster", views, kill_at=kill_at)

    def kill(self, name: str) -> None:
        self.cluster.kill(name)

    def pause(self, name: str) -> None:
        self.cluster.stop(name)

    def resume(self, name: str) -> None:
        self.cluster.go_on(name)

    def view(self) -> tuple[int, str, str]:
        view = self._views.get()
        name_of = self.cluster.name_of
        return view.number, name_of(view.primary), name_of(view.backup)

    # --- clients ---------------------------------------------------------------------------------

    @contextmanager
    def clerk(self, name: str, patience_seconds: float = 30.0) -> Iterator[OurClerk]:
        views, via = self.cluster.address("views"), self.cluster.via(name)
        with Store(views, timeout=patience(patience_seconds), via=via) as store:
            yield OurClerk(store)

    # --- links -----------------------------------------------------------------------------------

    def unreliable(self, name: str, on: bool = True) -> None:
        self.cluster.proxy.weather("*", name, LABS_2012 if on else CALM)

    def cut(self, source: str, destination: str) -> None:
        # What it says when it dialed, and what it answers when it was dialed.
        self.cluster.proxy.cut(source, destination, "request")
        self.cluster.proxy.cut(destination, source, "reply")

    def heal(self) -> None:
        self.cluster.proxy.heal()

    def delay(self, name: str, seconds: float) -> None:
        self.cluster.proxy.hold("*", name, "request", seconds)

    def requests(self, source: str, destination: str) -> int:
        return self.cluster.proxy.total(source, destination).requests_delivered

    # --- from beginning to end -------------------------------------------------------------------

    def __enter__(self) -> OurServers:
        try:
            self.cluster.start("views", "view", "serve")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._views.close()
        self.cluster.close()


def make(folder: Path, seed: int) -> OurServers:
    return OurServers(folder, seed)
