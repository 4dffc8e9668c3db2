"""The primary/backup store on real processes that die, sleep, and hear badly, at the worst moments.

What the lab asks for is in `tests/labs/test_pbservice.py`, whose words for waiting are used here
too. This is what only our own servers can be put through: death at a named point of the turn, a
copy so large that death comes in the middle of it, and accidents by chance, judged as a whole.
"""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic_ns

import pytest
from ours_pbservice import SERVERS, OurServers, make
from support import TIME_FACTOR, dose
from test_pbservice import check_appends, pings, running, settled, view_is
from waiting import eventually

from engine.backup.client import Store
from engine.backup.messages import APPEND, GET, PUT, VALUE_CHARACTERS_MAX
from engine.backup.trial import ValueModel
from engine.errors import ConnectionFailed, OutcomeUnknown
from engine.sim.timeline import MILLISECOND
from engine.sim.weather import CALM, LABRPC_UNRELIABLE, LABS_2012, Weather
from engine.verify.history import History, Operation
from engine.verify.linearizable import unlinearizable

pytestmark = pytest.mark.processes


@pytest.fixture
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OurServers]:
    with make(tmp_path, zlib.crc32(request.node.name.encode())) as made:
        yield made


def dies(servers: OurServers, name: str) -> None:
    """Wait until it killed itself."""
    node = servers.cluster.node(name)
    eventually(lambda: not node.running, 30, f"{name} to die")
    assert node.process.returncode == -9, node.said()


# --- crash points --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(dose(1, 10)))
@pytest.mark.parametrize("point", ["drained", "stepped", "sent", "turned"])
def test_death_at_a_point_of_the_turn(servers: OurServers, point: str, seed: int) -> None:
    """A server dies there as primary and comes back as backup, as which it dies there again, and
    comes back to be the last: of what three clients appended nothing is lost or done twice."""
    rng = random.Random(f"{point}/{seed}")
    done = [0, 0, 0]

    def client(number: int, stop: threading.Event) -> None:
        with servers.clerk(f"c{number}") as clerk:
            while not stop.is_set():
                clerk.append("k", f"<{number}.{done[number]}>")
                done[number] += 1

    def go_on() -> None:
        enough = min(done) + 5
        eventually(lambda: min(done) >= enough, 20, "clients to go on")

    # It takes about 20 turns until the backup is ready; the others go by under load.
    servers.start("s1", kill_at=[f"{point}:{rng.randrange(250, 350)}"])
    view_is(servers, "s1", "")
    servers.start("s2")
    settled(servers, "s1", "s2")
    with running(*(lambda stop, number=number: client(number, stop) for number in range(3))):
        dies(servers, "s1")
        go_on()
        servers.start("s1", kill_at=[f"{point}:{rng.randrange(250, 350)}"])
        dies(servers, "s1")
        go_on()
        servers.start("s1")
        settled(servers, "s2", "s1")
        servers.kill("s2")
        go_on()
    with servers.clerk("last") as clerk:
        check_appends(clerk.get("k"), done)


# --- an answer means that the backup can take over -----------------------------------------------


def test_primary_answers_when_the_view_service_knows_that_it_serves(servers: OurServers) -> None:
    """Until then nobody would ever be promoted, should it die: and the write would be out of reach.

    Its pings are late, so for a while it knows the new view, and the view service not that it does.
    """
    proxy = servers.cluster.proxy
    servers.start("s1")
    with servers.clerk("c1") as clerk:
        clerk.put("a", "1")
        proxy.hold("s1", "views", "request", 0.25)
        servers.start("s2")
        view_is(servers, "s1", "s2")
        pings(servers, "s1", 1)  # the answer to this one tells it of the view
        clerk.put("a", "2")
        servers.cut("s1", "views")
        servers.kill("s1")
        view_is(servers, "s2", "")
        assert clerk.get("a") == "2"


# --- copies in parts -----------------------------------------------------------------------------


def test_large_copies(servers: OurServers) -> None:
    """Tens of megabytes go to a new backup, and the primary dies as soon as they are there. Then
    the next new backup dies in the middle of its copy, and the one after that takes over."""
    rng = random.Random(1)
    values = {
        f"key {n}": rng.randbytes(VALUE_CHARACTERS_MAX // 2).hex() for n in range(dose(24, 90))
    }
    values["wide"] = "".join(rng.choices("aé€😀", k=VALUE_CHARACTERS_MAX))
    parts = len(values)
    servers.start("s1")
    with servers.clerk("c1") as clerk:
        for key, value in values.items():
            clerk.put(key, value)
        servers.start("s2")
        settled(servers, "s1", "s2")
        servers.kill("s1")
        assert {key: clerk.get(key) for key in values} == values

        # One part a turn, and some turns before the first.
        servers.start("s1", kill_at=["turned:14"])
        dies(servers, "s1")
        taken = servers.requests("s2", "s1")
        assert 0 < taken < parts, "it did not die in the middle"
        clerk.append("more", "1")
        servers.start("s1")
        settled(servers, "s2", "s1")
        clerk.append("more", "2")
        servers.kill("s2")
        assert {key: clerk.get(key) for key in values} == values
        assert clerk.get("more") == "12"


# --- accidents by chance -------------------------------------------------------------------------

KEYS = ("x", "y")
PATIENCE = 0.25 / TIME_FACTOR
"""Less than the view service's, on machines of any speed: outcomes are meant to stay unknown."""
ROUGH = Weather(0.1, 0.1, 0.2, 0.2, (0, 15 * MILLISECOND), (0, 15 * MILLISECOND))
"""Losses, copies, and enough delay that messages overtake each other."""


class Clients:
    """Three clients that do what nobody else does, with little patience, and note down everything.

    A store that gave up is not used again; its client goes on with a new one.
    """

    def __init__(self, servers: OurServers, seed: int) -> None:
        self.servers, self.seed = servers, seed
        self.history = History()
        self.answered = self.unknown = 0
        self.never: set[str] = set()
        """What was certainly not written."""
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Callable[[threading.Event], None]:
        def client(stop: threading.Event) -> None:
            rng = random.Random(f"{self.seed}/{number}")
            count = 0
            while not stop.is_set():
                with self.servers.clerk(f"c{number}", PATIENCE) as clerk:
                    going_on = True
                    while going_on and not stop.is_set():
                        count += 1
                        kind = rng.choice((GET, APPEND, APPEND, GET, PUT))
                        argument = "" if kind == GET else f"<{number}.{count}>"
                        going_on = self.ask(clerk.store, number, kind, rng.choice(KEYS), argument)
                        stop.wait(0.005)

        return client

    def ask(self, store: Store, number: int, kind: str, key: str, argument: str = "") -> bool:
        """One operation; whether the store knows its outcome."""
        with self._lock:
            self.history.call(monotonic_ns(), number, kind, key, argument)
        try:
            result = store.get(key) if kind == GET else None
            if kind != GET:
                (store.put if kind == PUT else store.append)(key, argument)
        except (OutcomeUnknown, ConnectionFailed) as error:
            with self._lock:
                self.history.abandon(number)
                self.unknown += isinstance(error, OutcomeUnknown)
                if isinstance(error, ConnectionFailed) and kind != GET:
                    self.never.add(argument)
            return False
        with self._lock:
            self.history.finish(monotonic_ns(), number, result)
            self.answered += 1
        return True

    def judge(self) -> None:
        operations = with_outcomes(self.history.operations())
        assert unlinearizable(operations, ValueModel()) is None, f"seed {self.seed}"
        read = "".join(o.result or "" for o in operations if o.kind == GET and o.returned)
        assert not [argument for argument in self.never if argument in read], f"seed {self.seed}"


def with_outcomes(operations: list[Operation]) -> list[Operation]:
    """The same history without unknown outcomes, explained by a single copy if and only if it was.

    Nobody else writes what a client writes. So a write that somebody read took effect, and before
    that read returned. One that nobody ever read may be left out: until the next put, nobody read
    the key, or had seen it. (The search for an order would try every subset of those.)
    """
    gets = [o for o in operations if o.kind == GET and o.returned is not None]
    known = []
    for operation in operations:
        if operation.returned is None:
            reads = [o.returned for o in gets if operation.argument in (o.result or "")]
            if operation.kind == GET or not reads:
                continue
            operation = operation._replace(returned=min(reads))
        known.append(operation)
    return known


class Accidents:
    """One at a time, and only when all data is in two places, or it might rightly be lost."""

    def __init__(self, servers: OurServers, rng: random.Random) -> None:
        self.servers, self.rng = servers, rng

    def happen(self) -> None:
        proxy = self.servers.cluster.proxy
        primary, backup = settled(self.servers)
        destination = self.rng.choice(("*", *SERVERS))
        proxy.weather(
            "*", destination, self.rng.choice((ROUGH, LABS_2012, LABRPC_UNRELIABLE, CALM))
        )
        name = self.rng.choice((primary, backup, *SERVERS))
        self.rng.choice((self.kill, self.restart, self.pause, self.cut, self.cut))(name)
        if self.rng.random() < 0.5:
            proxy.weather("*", "*", CALM)

    def kill(self, name: str) -> None:
        """It is missed before it comes back."""
        self.servers.kill(name)
        self.last()
        settled(self.servers)
        self.servers.start(name)

    def restart(self, name: str) -> None:
        """It is back before anybody can miss it, with nothing."""
        self.servers.kill(name)
        self.servers.start(name)

    def pause(self, name: str) -> None:
        name = self.rng.choice((name, name, "views"))
        with self.servers.cluster.stopped(name):
            self.last()

    def cut(self, name: str) -> None:
        other = self.rng.choice([n for n in ("*", "views", "c0", *SERVERS) if n != name])
        for one, two in self.rng.choice(([(name, other)], [(other, name)], [(name, other)] * 2)):
            self.servers.cut(one, two)
        self.last()
        self.servers.heal()

    def last(self) -> None:
        """A while, by the pings that the servers send: sometimes long enough to be dead."""
        pings(self.servers, "*", self.rng.choice((3, 10, 30)))


@pytest.mark.parametrize("seed", range(dose(3, 40)))
def test_histories_under_accidents(servers: OurServers, seed: int) -> None:
    """What clients see, outcomes unknown and all, is what a single copy would have answered."""
    accidents = Accidents(servers, random.Random(seed))
    for name in SERVERS:
        servers.start(name)
    clients = Clients(servers, seed)
    with running(*map(clients, range(3))):
        for _ in range(dose(4, 10)):
            accidents.happen()
        servers.cluster.proxy.weather("*", "*", CALM)
        primary, backup = settled(servers)
        # Asleep, then dead: nobody learns what became of what lies in its sockets.
        before = clients.unknown
        servers.pause(primary)
        eventually(lambda: clients.unknown > before, 20, "clients to lose patience")
        servers.kill(primary)
        settled(servers, backup)
        enough = clients.answered + 30
        eventually(lambda: clients.answered >= enough, 20, "clients to go on")
    with servers.clerk("last") as clerk:
        for key in KEYS:
            assert clients.ask(clerk.store, 3, GET, key)
    clients.judge()
