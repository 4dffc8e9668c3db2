"""A member as a process: its folder, its disk, three endpoints, and the loop around them.

Peers, clients and operators each have an endpoint of their own. Peers dial each other and stay
connected, so that a member's death is noticed by all in milliseconds, by its connections.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from engine.contract import SECOND, Link, Nanos, Ready, World
from engine.errors import EngineError, RefusedError, UsageError
from engine.raft.front import Front
from engine.raft.haste import ALL, CROWD, idle_news
from engine.raft.leader import Leader
from engine.raft.machine import Raft
from engine.raft.membership import founders, pack, unpack
from engine.raft.requests import Seat, Status
from engine.raft.sane import CarefulRaft
from engine.raft.server import Limits, recover
from engine.raft.serving import Serving
from engine.raft.settings import LAN, MILLISECOND, Settings, Timing
from engine.raft.told_front import ToldFront
from engine.record import Record
from engine.runtime.durable import DurableWorld
from engine.runtime.service import new_incarnation, run
from engine.runtime.world import Entrance
from engine.storage.entries import Base, GroupLog, State
from engine.storage.home import Home
from engine.storage.log import Log, LogSettings, NoSpace
from engine.storage.snapshots import Snapshots
from engine.wire.endpoint import Listener

if TYPE_CHECKING:
    from engine.raft.trace import Trace

GROUP = 1
THRIFT: Nanos = 3 * MILLISECOND
"""See `Settings`: a few entries of a lone client, and next to nothing where many ask."""
SPIN = 400
"""Microseconds for which a busy replica looks again and again for what comes next before it sleeps:
a processor that sleeps takes about as long to wake as an entry takes on a disk."""
SLOW_TURN: Nanos = 10 * MILLISECOND
"""A turn that takes longer is counted and logged."""
ENDPOINTS = ("peers", "clients", "admin")


class Plan(Record):
    """What a replica is told when it is started. Endpoints that are "" are sockets in the folder.

    `initial` are the members that found the group, by number; it counts only at the first start.
    `via` gives other ways to addresses, `token` is the path of the token file or the keys for TCP.
    `advertised` are what others are told instead of where peers, clients and operators are heard.
    """

    folder: str
    peers: str = ""
    clients: str = ""
    admin: str = ""
    initial: Mapping[int, str] = {}
    timing: Timing = LAN
    limits: Limits = Limits()
    log: LogSettings = LogSettings()
    token: str | None = None
    via: Mapping[str, str] = {}
    trace: str = ""
    as_json: bool = False
    advertised: tuple[str, str, str] = ("", "", "")


class Gateway(Entrance, Protocol):
    """Serves clients of another kind, at `address`, for the replica that it is attached to."""

    address: str

    @property
    def until(self) -> Nanos | None:
        """When to turn again if nothing arrives."""

    def attach(self, replica: Replica) -> None: ...


class Replica(Serving):
    """The server of a member in its process."""

    world: DurableWorld

    def __init__(
        self,
        raft: Raft,
        world: World,
        log: Log,
        snapshots: Snapshots,
        front: Front,
        limits: Limits,
    ) -> None:
        super().__init__(raft, world, log, snapshots, front, limits)
        self.clients = ""
        self.gateway: Gateway | None = None
        self.turns = self.slow_turns = self.elections = 0
        self._born = monotonic_ns()
        self._look_at: Nanos = 0
        self._told: set[str] = set()
        self._members: Any = None
        self._was = ""

    # --- the turn --------------------------------------------------------------------------------

    def turn(self) -> Nanos | None:
        begin = monotonic_ns()
        wake_at = super().turn()
        crowded = self.front.crowd >= CROWD and not self._held
        if crowded and (idle := idle_news(self.raft)):
            self.world.later(peers=idle == ALL)
        self.world.may_spin(self.front.lately <= CROWD)
        if self.gateway is not None and (until := self.gateway.until) is not None:
            wake_at = until if wake_at is None else min(wake_at, until)
        self.turns += 1
        if begin >= self._look_at:
            self._look_at = begin + SECOND
            self._tell_refusals()
        took = monotonic_ns() - begin
        if took > SLOW_TURN:
            self.slow_turns += 1
            say(f"a turn took {took / MILLISECOND:.0f} ms")
        return wake_at

    def carry(self, ready: Ready) -> None:
        super().carry(ready)
        if self._members is not self.raft.members.now:
            self._members = self.raft.members.now
            links = self.raft.members.links
            me = self.raft.me
            self.world.keep(link.principal for m, link in links.items() if m != me)
        if self.raft.role is not self._role:
            self._tell_role()

    def _tell_refusals(self) -> None:
        """Why we and others do not come together, once each, for whoever sets this up."""
        found = [str(error) for error in self.world.refusals.values()]
        found += [getattr(listener, "complaint", "") for listener in self.world.listeners]
        for what in found:
            if what and what not in self._told:
                say(what)
        self._told = set(found)

    _role: Any = None

    def _tell_role(self) -> None:
        """Roles come and go; what people want to know is who leads which term."""
        raft, self._role = self.raft, self.raft.role
        if type(raft.role) is Leader:
            self.elections += 1
            self._tell(f"leads term {raft.term}")
        elif self._was.startswith("leads"):
            self._tell(f"leads no more, in term {raft.term}")

    def _tell(self, what: str) -> None:
        self._was = what
        say(f"member {self.raft.me} {what}")

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        self.world.answers(kind, messages)

    # --- what operators ask ----------------------------------------------------------------------

    def status(self, number: int, commands: int, digest: int) -> Status:
        raft = self.raft
        kept = raft.snapshots.kept
        return Status(
            number=number,
            member=raft.me,
            pid=os.getpid(),
            clients=self.clients,
            group=self.group,
            role=type(raft.role).__name__.lower(),
            term=raft.term,
            leader=raft.leader,
            commit=raft.commit,
            applied=self.applied,
            last=raft.log.last,
            durable=raft.stable,
            base=raft.log.base,
            snapshot=kept[0].last if kept else 0,
            commands=commands,
            digest=digest,
            seats=self._seats(),
            joint=raft.members.now.joint,
            lost=raft.lost is not None,
            full=raft.full,
            log_bytes=raft.log.size_after(raft.log.base),
            disk_bytes=self._disk_bytes(),
            up_ms=(monotonic_ns() - self._born) // MILLISECOND,
            counters=tuple(sorted(self._counters().items())),
            redis=self.gateway.address if self.gateway is not None else "",
        )

    def _seats(self) -> tuple[Seat, ...]:
        raft = self.raft
        progress = raft.role.progress if isinstance(raft.role, Leader) else {}
        seats = []
        for member in raft.members.now.members:
            known = progress.get(member.id)
            if known is None:
                match = raft.stable if member.id == raft.me else 0
                seats.append(Seat(*member, match, "", 0))
            else:
                silent = (raft.now - known.heard) // MILLISECOND
                seats.append(Seat(*member, known.match, known.state, silent))
        return tuple(seats)

    def _disk_bytes(self) -> int:
        total = 0
        with os.scandir(self.snapshots.directory.path) as found:  # type: ignore[attr-defined]
            for file in found:
                try:
                    total += file.stat().st_blocks * 512
                except FileNotFoundError:
                    pass  # removed meanwhile
        return total

    @property
    def up_seconds(self) -> int:
        return (monotonic_ns() - self._born) // (1000 * MILLISECOND)

    def _counters(self) -> dict[str, int]:
        counters = {
            "turns": self.turns,
            "slow_turns": self.slow_turns,
            "elections_won": self.elections,
            "malformed": self.front.malformed + getattr(self.raft, "malformed", 0),
            **self.front.outcomes,
        }
        for name, listener in zip((*ENDPOINTS, "redis"), self.world.listeners, strict=False):
            counters |= {f"{name}_{what}": n for what, n in listener.counts.items()}
        return counters


def serve(
    plan: Plan, front: Front | None = None, gate: Callable[[], Gateway] | None = None
) -> None:
    """Be a member until a signal ends it, of the labs' log unless there is another `front`. `gate`
    makes the gateway for clients of another kind, if there is to be one.

    NotFoundError, RefusedError, UsageError; EngineError if the disk fails, and then nothing was
    said that is not true.
    """
    home = Home(plan.folder)
    listeners: list[Entrance] = []
    world: DurableWorld | None = None
    trace: Trace | None = None
    try:
        log = _opened(home, plan)
        snapshots = Snapshots(home.log, GROUP)
        recovered, kept = recover(GROUP, log, snapshots)
        _refuse_if_alone(home, recovered)
        settings = Settings(home.member, GROUP, timing=plan.timing, thrift=THRIFT)
        incarnation = new_incarnation()
        raft = CarefulRaft(settings, recovered, kept, random.Random(incarnation ^ home.member))
        front = front or ToldFront()
        ends = _listeners(home, plan, front.bulk)
        listeners += ends
        gateway = gate() if gate is not None else None
        if gateway is not None:
            listeners.append(gateway)
        works: list[Replica] = []
        world = DurableWorld(
            log, home.log, lambda work: works[0].work(work), *listeners,
            role="replica", incarnation=incarnation, token=plan.token, via=plan.via, spin=SPIN,
        )  # fmt: skip
        replica = Replica(raft, world, log, snapshots, front, plan.limits)
        works.append(replica)
        if gateway is not None:
            replica.gateway = gateway
            gateway.attach(replica)
        if plan.trace:
            trace = _traced(replica, plan.trace)
        heard = (one.address for one in ends)
        told = [other or one for one, other in zip(heard, plan.advertised, strict=True)]
        addresses = dict(zip(ENDPOINTS, told, strict=True))
        replica.clients = addresses["clients"]
        for finding in log.findings:
            say(str(finding))
        if gateway is not None:
            addresses["redis"] = gateway.address
        what = f"member {home.member} serves"
        run(replica, world, what, addresses["peers"], plan.as_json, member=home.member, **addresses)
        if trace is not None:
            trace.close()
    except OSError as error:
        raise EngineError(
            f"The disk of {plan.folder} fails ({error}): the member ended, since what is on it is "
            "not known any more. Start it again when the disk is well."
        ) from error
    finally:
        if world is not None:
            world.close()
        else:
            for listener in listeners:
                listener.close()
        home.close()


def _traced(replica: Replica, path: str) -> Trace:
    """All that it does is noted from here on."""
    from engine.raft.trace import Trace, traced

    trace = Trace(path)
    traced(replica, trace)
    return trace


def _opened(home: Home, plan: Plan) -> Log:
    """The log; a new one begins with the founders of the group, if this member is one of them."""
    try:
        log = Log.open(home.log, plan.log, lambda: int.from_bytes(os.urandom(8), "little"))
        if plan.initial and GROUP not in log.recovered:
            if home.member not in plan.initial:
                raise RefusedError(
                    f"{home.path} is of member {home.member}, which is none of the founders: it "
                    "has to be added to the group by its leader."
                )
            first = pack(founders(dict(plan.initial)))
            log.append((Base(GROUP, 0, 0, first), State(GROUP, 0, 0)))
            log.settle(log.sync())
            log.close()  # as whoever comes next finds it
            log = Log.open(home.log, plan.log, lambda: int.from_bytes(os.urandom(8), "little"))
    except NoSpace as error:
        raise EngineError(f"{home.path}: {error}.") from None
    return log


def _refuse_if_alone(home: Home, recovered: GroupLog) -> None:
    """Others can give back what was lost; without others nobody knows what it was."""
    configs = [unpack(recovered.base.config), *(unpack(body) for _, body in recovered.configs)]
    if recovered.lost is not None and configs[-1].voters == (home.member,):
        raise RefusedError(
            f"{home.path}: a part of the log that was durable is damaged, and its member is the "
            f"only voter: nobody has what is missing up to entry {recovered.lost.last}. Restore a "
            "backup into a new folder."
        )


def _listeners(home: Home, plan: Plan, bulk: int) -> Sequence[Listener]:
    """One after the other, so that a failure closes those before it."""
    made: list[Listener] = []
    asked = (plan.peers, plan.clients, plan.admin)
    try:
        for name, address in zip(ENDPOINTS, asked, strict=True):
            made.append(
                Listener(
                    address or f"ipc://{os.path.join(home.path, name)}",
                    token=plan.token,
                    roles=ROLES[name],
                    bulk=bulk if name == "clients" else None,
                )
            )
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


ROLES = {"peers": ("replica",), "clients": ("client",), "admin": ("admin",)}


def say(what: str) -> None:
    """One line to whoever reads our log."""
    sys.stderr.write(f"engine: {what}\n")
    sys.stderr.flush()


def parse_initial(texts: Iterable[str]) -> dict[int, str]:
    """`NUMBER=ENDPOINT` each. UsageError."""
    found: dict[int, str] = {}
    for text in texts:
        number, _, address = text.partition("=")
        if not number.isdecimal() or not address:
            raise UsageError(f"{text!a} is not MEMBER=ENDPOINT.")
        found[int(number)] = address
    return found
