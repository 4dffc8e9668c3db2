"""The group's proof: members, disks, clients and a network that fail, and a judge of all of it.

Members run the shipped machine, turn, codec, log and kernels. They are killed, lose power in the
middle of writing, are stopped, cut off in one direction or both, run on slow, full, failing and
rotten disks and on clocks that drift, join, leave and come back as somebody else; messages are
late, lost, repeated, out of order. Faults aim at leaders, candidates and whoever has just voted as
well as at anybody: chance alone rarely finds the moment that matters.

After `CALM` everything heals, everybody starts again, and then the group must decide what it is
asked within a few elections: safety first, then liveness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from engine.contract import SECOND, Nanos
from engine.kernels.checksum import crc32c
from engine.raft.candidate import Candidate
from engine.raft.leader import Leader
from engine.raft.membership import JOINING, VOTER, founders, pack
from engine.raft.messages import Change, Placed, Propose, Read, Refused, Transfer
from engine.raft.settings import LABS, LAN
from engine.raft.trial_accidents import Accidents
from engine.raft.trial_bugs import BUGS
from engine.raft.trial_judge import Judge
from engine.raft.trial_node import GROUP, Node
from engine.sim.cluster import PlannedCluster, Process
from engine.sim.drives import Drive
from engine.sim.experiment import Experiment, Violation
from engine.sim.swarm import is_quiet
from engine.sim.timeline import MILLISECOND, Crashed
from engine.storage.entries import Base, State
from engine.storage.log import Log, LogSettings

AGAIN = 0.3
"""How many pieces of snapshots come once more when much has changed, or in the calm never, in seeds
with accidents."""
CALM: Nanos = 3 * SECOND
"""Accidents end here; later if elections take longer."""
SHORT_REIGNS = 0.4
"""How many of the seeds with accidents have leaders that do not lead for long: most is learnt when
one follows another."""
PATIENCE = 40
"""Times `election_max` after which a healed group must have decided: ten elections, and what failed
campaigns before have added to the first of them."""

SHAPE: dict[str, Sequence[Any]] = {
    "members": (1, 2, 3, 3, 3, 4, 5),
    "spares": (0, 0, 1, 2),
    "clients": (1, 2, 4),
    "reads": (0.2, 0.6),
    "think": (3 * MILLISECOND, 10 * MILLISECOND, 50 * MILLISECOND),
    "timing": (LAN, LAN, LABS),
    "entries_max": (1, 1, 8, 64),
    "snapshot_every": (0, 3, 3, 20, 200),
    "segment_bytes": (4096, 16384),
    "chunk_bytes": (64, 1024),
    "uncommitted_max": (2048,),
    "disk": (MILLISECOND // 5, MILLISECOND // 5, 5 * MILLISECOND),
    "aim": ("anybody", "leader", "leader", "candidate", "voter"),
}
FAULTS: dict[str, Sequence[Any]] = {
    "loss": (0.0, 0.02, 0.1, 0.3),
    "duplicate": (0.0, 0.05, 0.3),
    "reorder": (0.0, 0.05, 0.3),
    "delay": (MILLISECOND // 10, MILLISECOND, 10 * MILLISECOND, 50 * MILLISECOND),
    "late": (0.0, 0.02, 0.1),
    "reign": (0, 20 * MILLISECOND, 100 * MILLISECOND, 300 * MILLISECOND),
    "kill": (0, 2, 8),
    "power": (0, 2, 8),
    "blackout": (0, 1, 3),
    "crash_point": (0.0, 0.002, 0.01),
    "pause": (0, 2, 6),
    "cut": (0, 3, 10),
    "broken": (0, 3),
    "slow": (0, 1, 3),
    "fail_sync": (0, 1, 3),
    "full": (0, 1, 2),
    "damage": (0, 1, 2),
    "change": (0, 3, 10),
    "wipe": (0, 1),
    "transfer": (0, 2, 6),
    "drift": (0, 1),
}


class Asked:
    """A request of a client: a command, or a read."""

    def __init__(self, client: int, body: bytes, seen: int) -> None:
        self.client, self.body = client, body
        self.must_see = seen
        """Of a read: what had been acknowledged when it was asked."""
        self.placed: tuple[int, int] | None = None


class RaftCluster(PlannedCluster):
    """Nodes by name; a name is an address, and its member changes when its disk is wiped."""

    present = 0.2
    shape: Mapping[str, Sequence[Any]] = SHAPE
    faults: Mapping[str, Sequence[Any]] = FAULTS
    member: type[Node] = Node
    """What lives at an address."""
    calm_after: Nanos = CALM

    def __init__(self, seed: int, staged: Mapping[str, Any] | None = None, **how: Any) -> None:
        """With `staged`, the shape that it names, no accident and no client: whoever makes such a
        cluster does to it what is to be done."""
        if staged is not None:
            how["beyond"] = "staged"
        super().__init__(seed, self.shape, self.faults, staged or {}, **how)
        plan, rng = self.plan, self.timeline.rng
        plan["sudden"] = False
        quiet = is_quiet(plan, self.faults)
        plan["again"] = 0.0 if quiet else AGAIN
        if not quiet and rng.random() < SHORT_REIGNS:
            plan["reign"] = rng.choice(self.faults["reign"][1:])
            plan["entries_max"] = rng.choice((1, 1, 1, plan["entries_max"]))
            plan["timing"], plan["think"] = LAN, 10 * MILLISECOND
            plan["sudden"] = rng.random() < 0.5
        self.calm_at = self.calm_after * (2 if plan["timing"] == LABS or plan["reign"] else 1)
        self.timeline.note("seed", str(seed), plan)
        self.judge = Judge(self)
        self.calm = False
        self.drives: dict[str, Drive] = {}
        self.members: dict[str, int] = {}
        """Who lives at this address."""
        self.disk_means: dict[str, Nanos] = {}
        self.just_voted = ""
        self.acknowledged = 0
        """The last index whose proposer was told that it is decided."""
        self._context = 0
        self._asked: dict[int, Asked] = {}
        self._by_place: dict[str, dict[int, int]] = {}
        self.done = 0
        self.last_command = b""
        self.crash_point = plan["crash_point"]
        self.mortal = self._is_aim
        names = [f"node {number}" for number in range(1, plan["members"] + plan["spares"] + 1)]
        first = founders({number: names[number - 1] for number in range(1, plan["members"] + 1)})
        for number, name in enumerate(names, 1):
            self._found(name, number, pack(first) if number <= plan["members"] else b"")
        self.next_member = len(names) + 1
        self.accidents = Accidents(self)
        for name in names:
            self.timeline.after(rng.randrange(50 * MILLISECOND), self.begin, name)
        if staged is None:
            self.begin_clients()
            self.accidents.plan()
            self.timeline.after(self.calm_at, self._calm)

    # --- nodes -----------------------------------------------------------------------------------

    def _found(self, name: str, member: int, config: bytes) -> None:
        """A disk, with the first configuration on it if its member is a founder."""
        rng = self.timeline.rng
        self.members[name] = member
        drive = self.drives[name] = Drive(rng)
        drive.synchronous = True
        log = Log.open(drive, LogSettings(segment_bytes=4096, spare=0), lambda: rng.getrandbits(64))
        if config:
            log.append([Base(GROUP, 0, 0, config), State(GROUP, 0, 0)])
        log.sync()
        log.close()
        drive.synchronous = False

    def begin(self, name: str) -> None:
        """A node starts, or starts again; it may die while it recovers."""
        if self.alive(name) is not None:
            return
        drive = self.drives[name]
        if self.timeline.chance(10 * self.crash_point):
            drive.crash_at(self.timeline.rng.randint(1, 12))
        try:
            node = self.member(self, name, self.members[name], drive)
        except (Crashed, OSError) as error:
            self.timeline.note(name, "dies while it recovers", type(error).__name__)
            self.seen["died while recovering"] += 1
            drive.synchronous = False
            self._leave_disk(name, power=self.timeline.chance(0.5))
            self.timeline.after(20 * MILLISECOND, self.begin, name)
            return
        finally:
            drive.crash_at(0)  # what is armed is for this start only
        self.processes[name] = node
        self.timeline.note(name, "starts", node)
        self.seen["started"] += 1
        node.after_turn = lambda: self._look(node)
        node.wake()

    def kill(self, process: Process) -> None:
        """SIGKILL; its name comes back soon."""
        self.end(process, power=False)

    def end(self, process: Process, *, power: bool, absent: Nanos | None = None) -> None:
        """Its life ends, and with `power` so does the page cache; for about so long."""
        if not process.alive:
            return
        super().kill(process)
        self._by_place.pop(process.name, None)
        self._leave_disk(process.name, power=power)
        if absent is None:
            absent = self.timeline.rng.choice((10, 300)) * MILLISECOND
        self.timeline.after(self.timeline.spread(absent), self.begin, process.name)

    def _leave_disk(self, name: str, *, power: bool) -> None:
        if power:
            self.seen["lost power"] += 1
            self.drives[name].lose_power()
        else:
            self.drives[name].kill()

    def node(self, name: str) -> Node | None:
        process = self.alive(name)
        assert process is None or isinstance(process, Node)
        return process

    def nodes(self) -> list[Node]:
        """All that live, in the order of their names."""
        known = self.processes
        lives = [known[name] for name in self.members if name in known and known[name].alive]
        return cast("list[Node]", lives)

    def leader(self) -> Node | None:
        """The one of the latest term that believes to lead."""
        leading = [n for n in self.nodes() if type(n.raft.role) is Leader]
        return max(leading, key=lambda node: node.raft.term, default=None)

    def candidate(self) -> Node | None:
        asking = [n for n in self.nodes() if type(n.raft.role) is Candidate]
        return max(asking, key=lambda node: node.raft.term, default=None)

    def disk_time(self, node: Node) -> Nanos:
        return self.timeline.spread(self.disk_means.get(node.name, self.plan["disk"]))

    def _is_aim(self, process: Process) -> bool:
        if not isinstance(process, Node):
            return False
        aim = self.plan["aim"]
        if aim == "leader":
            return type(process.raft.role) is Leader
        if aim == "candidate":
            return type(process.raft.role) is Candidate
        return aim == "anybody" or process.name == self.just_voted

    def _look(self, node: Node) -> None:
        self.judge.look(node)

    def leads(self, node: Node) -> None:
        """A reign begins; it may be a short one: nothing but its beginning, or until something is
        decided in it, or some time."""
        if not self.plan["reign"] or self.calm:
            return
        node.doom = self.timeline.rng.choice(
            ("birth", "commit") if self.plan["sudden"] else ("time",)
        )
        if node.doom == "birth":
            self.timeline.after(1, self.accidents.strike, node)
        elif node.doom == "time":
            pause = self.timeline.spread(self.plan["reign"])
            self.timeline.after(pause, self.accidents.strike, node)

    def commits(self, node: Node) -> None:
        """A leader has decided something new."""
        if node.doom == "commit":
            node.doom = "decided"
            self.timeline.after(1, self.accidents.strike, node)

    # --- clients ---------------------------------------------------------------------------------

    def begin_clients(self) -> None:
        for client in range(self.plan["clients"]):
            self.timeline.after(self.timeline.rng.randrange(200 * MILLISECOND), self._ask, client)
        self.timeline.after(self.calm_at, self._read_on)

    def _ask(self, client: int) -> None:
        """Something of whoever seems to lead, or of anybody; what becomes of it is seen later."""
        rng = self.timeline.rng
        if not self.calm:
            self.timeline.after(self.timeline.spread(self.plan["think"]), self._ask, client)
        nodes = self.nodes()
        if not nodes:
            return
        leaders = [node for node in nodes if type(node.raft.role) is Leader]
        if not leaders and rng.random() < 0.8:
            return
        node = rng.choice(leaders if leaders and rng.random() < 0.9 else nodes)
        if rng.random() < self.plan["reads"]:
            self.read_at(node, client)
        else:
            self.propose_to(node, client, b"%d.%d" % (client, self._context))

    def _read_on(self) -> None:
        """Reads go on in the calm: what waits until a leader is silent must not wait for ever."""
        leader = self.leader()
        if leader is not None:
            self.read_at(leader, 0)
        self.timeline.after(self.plan["timing"].heartbeat // 4, self._read_on)

    def propose_to(self, node: Node, client: int, body: bytes) -> int:
        self._context += 1
        self._asked[self._context] = Asked(client, body, 0)
        node.hear(Propose(self._context, ((crc32c(body), body),)))
        return self._context

    def read_at(self, node: Node, client: int) -> int:
        self._context += 1
        self._asked[self._context] = Asked(client, b"", self.acknowledged)
        node.hear(Read(self._context))
        return self._context

    def answered(self, node: Node, answer: Placed | Refused) -> None:
        asked = self._asked.get(answer.context)
        self.seen[type(answer).__name__] += 1
        if type(answer) is Placed and asked is not None and asked.body:
            self._by_place.setdefault(node.name, {})[answer.first] = answer.context
            asked.placed = (answer.first, answer.term)

    def was_applied(self, node: Node, index: int, term: int) -> None:
        """The proposer's own node applies: it can tell now."""
        context = self._by_place.get(node.name, {}).pop(index, None)
        asked = self._asked.pop(context, None) if context is not None else None
        if asked is not None and asked.placed == (index, term):
            self.acknowledged = max(self.acknowledged, index)
            self.seen["acknowledged"] += 1
            self.last_command = asked.body
            self.done += 1

    def confirmed(self, node: Node, context: int) -> None:
        """A read is answered by what is applied there: it must see all that was acknowledged."""
        asked = self._asked.pop(context)
        self.seen["read"] += 1
        if node.state.applied < asked.must_see:
            raise Violation(
                f"11: {node} answers a read as of {node.state.applied}, after {asked.must_see} "
                "was acknowledged"
            )

    # --- members ---------------------------------------------------------------------------------

    def replace_disk(self, name: str) -> None:
        """Whoever lived there never comes back, and somebody else will."""
        self._found(name, self.next_member, b"")
        self.next_member += 1

    def change(self) -> None:
        """Ask the leader for other members: one more, one less, another, or several at once."""
        leader, rng = self.leader(), self.timeline.rng
        if leader is None:
            return
        now = {
            m.id: (m.address, m.role in (VOTER, JOINING)) for m in leader.raft.members.now.members
        }
        live = {member: name for name, member in self.members.items()}
        for member in list(now):
            if member not in live and rng.random() < 0.7:
                del now[member]  # its disk was wiped, and it will never be back
        for member in rng.sample(sorted(now), min(len(now) - 1, rng.choice((0, 0, 0, 2, 3)))):
            now[member] = (now[member][0], not now[member][1])  # several at once
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            name = rng.choice(list(self.members))
            member = self.members[name]
            if member in now and len(now) > 1 and rng.random() < 0.5:
                del now[member]
            else:
                now[member] = (name, rng.random() < 0.8)
        self.order(leader, tuple((member, *now[member]) for member in sorted(now)))

    def order(self, leader: Node, wanted: tuple[tuple[int, str, bool], ...]) -> None:
        """These members, of whoever leads."""
        self._context += 1
        leader.hear(Change(self._context, wanted))

    def transfer(self) -> None:
        leader = self.leader()
        if leader is not None:
            self._context += 1
            target = self.timeline.rng.choice([0, *leader.raft.members.others])
            leader.hear(Transfer(self._context, target))

    # --- judging ---------------------------------------------------------------------------------

    def _calm(self) -> None:
        """Everything heals; whoever is dead starts again."""
        self.timeline.note("accident", "calm")
        self.calm = True
        self.heal()
        self.network.heal()
        self.crash_point = 0.0
        self.disk_means = {}
        self.accidents.calm()
        for name in self.members:
            self.timeline.after(self.timeline.spread(50 * MILLISECOND), self.begin, name)

    def run(self) -> None:
        """Until calm; then whoever can lead must, and decide one more command everywhere."""
        election = self.plan["timing"].election_max
        self.timeline.pass_by(self.calm_at + election)
        if self._can_decide():
            self._decide(self.calm_at + PATIENCE * election)
            self.seen["live"] += 1
        for node in self.nodes():
            node.raft.check()

    def _can_decide(self) -> bool:
        """Whether enough voters of the latest configuration are there with all that they had."""
        whole = [node for node in self.nodes() if node.raft.lost is None]
        newest = max(whole, key=lambda node: node.raft.log.end, default=None)
        there = {node.member for node in whole}
        return newest is not None and newest.raft.members.enough(lambda member: member in there)

    def _decide(self, deadline: Nanos) -> None:
        """Ask until the command is applied by all members that there are."""
        before = self.done
        ask_at = self.timeline.now
        while not (self.done > before and self._all_agree()):
            if self.timeline.now > deadline:
                raise Violation(f"nothing is decided by {self.nodes()}, which all are well")
            leader = self.leader()
            if leader is not None and self.timeline.now >= ask_at and self.done == before:
                self.propose_to(leader, 0, b"the last one %d" % self.timeline.now)
                ask_at = self.timeline.now + 100 * MILLISECOND
            assert self.timeline.step()

    def _all_agree(self) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        members = [n for n in self.nodes() if leader.raft.members.now.member(n.member)]
        return all(n.state.applied >= self.acknowledged for n in members)


TRIAL = Experiment("raft", RaftCluster, BUGS)

if __name__ == "__main__":
    raise SystemExit(TRIAL.main())
