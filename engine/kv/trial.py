"""The store's proof: replicas, disks, clients, watchers and a network that fail.

Replicas run the shipped member, turn, front, state machine, log and snapshots, clients the shipped
desk and feed. What happens to them is what happens to the group of `engine.raft.trial`; besides,
clients are cut off from some replicas, and the clocks of machines begin anywhere. What must hold
is in `trial_judge`.

After the calm everything heals, everybody gets the answers that are still due, leases end, watchers
are told the rest, and all replicas have the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.contract import SECOND, Link, Nanos, Received
from engine.kv import calls
from engine.kv.limits import Limits
from engine.kv.requests import Ask, AskHeld, Held, Watch, Watched
from engine.kv.trial_bugs import BUGS
from engine.kv.trial_clients import VERSIONED, Customer, Wanted, Watcher
from engine.kv.trial_judge import Books
from engine.kv.trial_model import KeyModel
from engine.kv.trial_node import StoreNode, Uptime
from engine.raft.requests import HandOver, Reconfigure
from engine.raft.settings import LAN
from engine.raft.trial import RaftCluster
from engine.raft.trial_node import Node
from engine.sim.cluster import Process
from engine.sim.experiment import Experiment, Violation
from engine.sim.network import NetworkFaults
from engine.sim.swarm import is_quiet
from engine.sim.timeline import MILLISECOND
from engine.verify.history import History
from engine.verify.linearizable import RIGHT, WRONG, check
from engine.verify.linearizable import Limits as Bounds

SETTLE: Nanos = 5 * SECOND
"""So long after the calm all is as it should be: ten elections, and the longest lease."""
LOOK_EVERY: Nanos = 20 * MILLISECOND
ALONE = 0.3
"""How many of the seeds with accidents have leaders that are cut off from all but their clients:
what is wrong with reads is seen while two believe to lead."""
TOO_MUCH_TO_TRY = 20_000
"""Configurations of a key, in the search for an order."""

SHAPE: Mapping[str, Sequence[Any]] = {
    "members": (3, 3, 3, 3, 5),
    "spares": (0, 0, 0, 1, 2),
    "clients": (2, 3, 4),
    "lanes": (1, 2),
    "watchers": (1, 2),
    "keys": (1, 2, 3),
    "reads": (0.3, 0.6),
    "leases": (0.0, 0.3, 0.5),
    "locks": (0.0, 0.3, 0.6),
    "think": (3 * MILLISECOND, 10 * MILLISECOND, 30 * MILLISECOND),
    "patience": ((None,), (None, None, SECOND // 4), (SECOND // 8, SECOND // 2), (SECOND // 2,)),
    "horizon": (None, None, SECOND),
    "value_bytes": (None, None, 64),
    "timing": (LAN,),
    "entries_max": (1, 8, 64),
    "snapshot_every": (0, 3, 3, 10, 40),
    "snapshot_bytes": (0, 0, 1000),
    "segment_bytes": (4096, 16384),
    "chunk_bytes": (256, 4096),
    "uncommitted_max": (4096, 1 << 20),
    "disk": (MILLISECOND // 5, MILLISECOND // 5, 5 * MILLISECOND),
    "aim": ("anybody", "leader", "leader"),
}
FAULTS: Mapping[str, Sequence[Any]] = {
    "loss": (0.0, 0.02, 0.1, 0.3),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.3),
    "delay": (MILLISECOND // 10, MILLISECOND, 10 * MILLISECOND, 50 * MILLISECOND),
    "late": (0.0, 0.05, 0.2),
    "reign": (0, 100 * MILLISECOND, 300 * MILLISECOND),
    "kill": (0, 2, 6),
    "power": (0, 2, 6),
    "blackout": (0, 1, 2),
    "crash_point": (0.0, 0.002, 0.01),
    "pause": (0, 2, 4),
    "cut": (0, 3, 8),
    "broken": (0, 3),
    "slow": (0, 1, 3),
    "fail_sync": (0, 0, 2),
    "full": (0, 0, 1),
    "damage": (0, 0, 1),
    "change": (0, 0, 5),
    "wipe": (0, 0, 1),
    "transfer": (0, 3, 10),
    "drift": (0, 1),
    "apart": (0, 3, 8),
    "alone": (0, 5, 15),
}


class StoreCluster(RaftCluster):
    """Replicas by name, customers and watchers."""

    present = 0.25
    shape, faults, member = SHAPE, FAULTS, StoreNode
    calm_after = 3 * SECOND // 2

    def begin_clients(self) -> None:
        rng, plan, timeline = self.timeline.rng, self.plan, self.timeline
        self.books, self.history = Books(self), History()
        for name in self.members:
            self.clocks[name] = Uptime(timeline, rng.randrange(100 * SECOND))
        self.customers = [Customer(self, number) for number in range(plan["clients"])]
        self.watchers = [Watcher(self, number) for number in range(plan["watchers"])]
        first = self.customers[0]
        first.ask(first.lanes[0], Wanted("configure", calls.configure(self._limits())))
        if not is_quiet(plan, FAULTS) and rng.random() < ALONE:
            plan["alone"] = FAULTS["alone"][-1]
        accidents: dict[str, Callable[[], None]] = {"apart": self._part, "alone": self._isolate}
        for name, accident in accidents.items():
            for _ in range(plan[name]):
                timeline.after(rng.randrange(self.calm_at), accident)

    def _limits(self) -> list[int | None]:
        limits = dict.fromkeys(Limits._fields)
        wanted: dict[str, int | None] = {
            **limits,
            "horizon": self.plan["horizon"],
            "value_bytes": self.plan["value_bytes"],
            "history_events": 200,
        }
        return list(wanted.values())

    # --- accidents -------------------------------------------------------------------------------

    def _part(self) -> None:
        """Clients and some replicas lose sight of each other."""
        rng = self.timeline.rng
        if self.calm:
            return
        clients = [one.name for one in self.customers] + [one.name for one in self.watchers]
        some = rng.sample(clients, rng.randint(1, len(clients)))
        names = list(self.members)
        far = rng.sample(names, rng.randint(1, len(names)))
        self.seen["parted"] += 1
        self.cut(some, far)
        self.cut(far, some)
        for client in some:
            for name in far:
                self.break_lines(client, name)
        self.timeline.after(rng.randrange(SECOND // 2), self.heal)

    def _isolate(self) -> None:
        """A leader does not hear the other replicas, nor they it maybe; clients hear both."""
        leader, rng = self.leader(), self.timeline.rng
        if leader is None or self.calm:
            return
        self.seen["isolated"] += 1
        others = [name for name in self.members if name != leader.name]
        if rng.random() < 0.5:
            self.cut([leader.name], others)
        self.cut(others, [leader.name])
        pause = rng.randrange(SECOND // 5, SECOND)
        self.timeline.after(pause, self.heal)

    def transfer(self) -> None:
        """As an operator orders it."""
        leader = self.leader()
        if leader is not None:
            target = self.timeline.rng.choice([0, *leader.raft.members.others])
            leader.hear(Received(Link("admin"), HandOver(1, target)))

    def order(self, leader: Node, wanted: tuple[tuple[int, str, bool], ...]) -> None:
        leader.hear(Received(Link("admin"), Reconfigure(1, wanted)))

    def drift(self, name: str, numerator: int, denominator: int) -> None:
        """Leases end by the clocks of their leaders."""
        super().drift(name, numerator, denominator)
        shown, passed = self.books.fastest
        if numerator * passed > shown * denominator:
            self.books.fastest = numerator, denominator

    def end(self, process: Process, *, power: bool, absent: Nanos | None = None) -> None:
        was = process.alive
        super().end(process, power=power, absent=absent)
        clock = self.clocks.get(process.name)
        if was and power and isinstance(clock, Uptime):
            clock.reboot()

    def send(self, source: Process, link: Link, message: Any) -> None:
        """What a client says comes once, if it does: when it is told that this was not done, there
        must be no other copy of it. A watch is told over one connection, which is in order."""
        faults = self.network.faults
        if type(message) is Ask:
            self.network.faults = faults._replace(duplicate=0.0)
        elif type(message) in (Watch, Watched, AskHeld, Held):
            self.network.faults = NetworkFaults(delay=faults.delay, loss=faults.loss)
        super().send(source, link, message)
        self.network.faults = faults

    # --- judging ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Until calm and behind it; then judge what everybody saw."""
        self.timeline.pass_by(self.calm_at + self.plan["timing"].election_max)
        if self._can_decide():
            self._live()
        for customer in self.customers:
            customer.abandon()
        for node in self.nodes():
            node.raft.check()
        self._search()

    def _live(self) -> None:
        """9, and 1 at the end. Too many may have lost what they had."""
        self._until("everybody has answers", self._idle)
        for number, customer in enumerate(self.customers):
            customer.ask(customer.lanes[0], customer.write("put", b"last %d" % number))
        self._until("a last put is done", self._idle)
        for key in [
            b"log",
            b"both",
            b"lock",
            VERSIONED,
            *(b"key %d" % n for n in range(self.plan["keys"])),
        ]:
            first = self.customers[0]
            first.ask(first.lanes[0], Wanted("get", calls.get(key), key.decode()))
            self._until("a last get is answered", self._idle)
        self._until("leases have ended", lambda: not self.books.hanging())
        self._until("watchers were told all", lambda: not any(w.behind for w in self.watchers))
        self._until("all replicas have all", self._agree)
        self.seen["live"] += 1

    def _until(self, what: str, there: Callable[[], bool]) -> None:
        """9."""
        deadline = self.calm_at + SETTLE
        while not there():
            if self.timeline.now > deadline:
                raise Violation(f"9: {what}: not by {deadline} ns; {self.nodes()}")
            self.timeline.pass_by(self.timeline.now + LOOK_EVERY)

    def _idle(self) -> bool:
        return all(customer.idle for customer in self.customers)

    def _agree(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        now = leader.raft.members.now
        nodes = [n for n in self.nodes() if isinstance(n, StoreNode) and now.member(n.member)]
        places = {node.server.applied for node in nodes}
        if places != {len(self.books.marks) - 1}:
            return False
        states = {b"".join(node.front.machine.pieces()) for node in nodes}
        if len(states) > 1:
            raise Violation(f"1: there are {len(states)} states after entry {places}")
        return True

    def _search(self) -> None:
        """8."""
        operations = self.history.operations()
        for judged in check(operations, KeyModel(), Bounds(None, TOO_MUCH_TO_TRY)):
            self.seen["searched"] += judged.verdict == RIGHT
            self.seen["undecided"] += judged.verdict not in (RIGHT, WRONG)
            if judged.verdict == WRONG:
                raise Violation(f"8: no order of what is done to {judged.key!r} explains it all")


TRIAL = Experiment("kv", StoreCluster, BUGS)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
