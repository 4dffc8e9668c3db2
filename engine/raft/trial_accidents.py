"""What happens to a simulated group, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.contract import SECOND
from engine.raft.trial_node import Node
from engine.sim.timeline import MILLISECOND

if TYPE_CHECKING:
    from engine.raft.trial import RaftCluster

PACES = ((1, 1), (9, 10), (10, 9), (1, 2), (2, 1))
"""Of clocks, in seconds a second."""


class Accidents:
    """Of one seed, as planned."""

    def __init__(self, cluster: RaftCluster) -> None:
        self.cluster = cluster
        self.rng = cluster.timeline.rng
        self._damaged = ""
        self._away = ""

    def plan(self) -> None:
        """Each kind so often, at times drawn evenly."""
        cluster = self.cluster
        kinds = {
            "kill": self._kill,
            "power": self._power,
            "blackout": self._blackout,
            "pause": self._pause,
            "cut": self._cut,
            "broken": self._break,
            "slow": self._slow,
            "fail_sync": self._fail_sync,
            "full": self._full,
            "damage": self._damage,
            "change": cluster.change,
            "wipe": self._wipe,
            "transfer": cluster.transfer,
        }
        if cluster.plan["drift"]:
            for name in cluster.members:
                cluster.drift(name, *self.rng.choice(PACES))
        for kind, accident in kinds.items():
            for _ in range(cluster.plan[kind]):
                cluster.timeline.after(
                    self.rng.randrange(cluster.calm_at), self._happen, kind, accident
                )

    def _happen(self, kind: str, accident: object) -> None:
        self.cluster.timeline.note("accident", kind)
        self.cluster.seen[f"accident {kind}"] += 1
        self.cluster.events += 1
        assert callable(accident)
        accident()

    def calm(self) -> None:
        for name in self.cluster.clocks:
            self.cluster.drift(name, 1, 1)
        for drive in self.cluster.drives.values():
            drive.calm()
            drive.capacity = None

    def victim(self) -> Node | None:
        """Whom this seed aims at, mostly."""
        cluster, aim = self.cluster, self.cluster.plan["aim"]
        aimed: Node | None = None
        if aim == "leader":
            aimed = cluster.leader()
        elif aim == "candidate":
            aimed = cluster.candidate()
        elif aim == "voter":
            aimed = cluster.node(cluster.just_voted) if cluster.just_voted else None
        if aimed is not None and self.rng.random() < 0.7:
            return aimed
        nodes = cluster.nodes()
        return self.rng.choice(nodes) if nodes else None

    def _kill(self) -> None:
        if (node := self.victim()) is not None:
            self.cluster.end(node, power=False)

    def _power(self) -> None:
        if (node := self.victim()) is not None:
            self.cluster.end(node, power=True)

    def _blackout(self) -> None:
        """All of them lose power at once."""
        for node in self.cluster.nodes():
            self.cluster.end(node, power=True)

    def strike(self, node: Node) -> None:
        """At whoever has begun to lead: dead, deaf, mute, alone or with one follower, or asleep."""
        cluster, rng = self.cluster, self.rng
        if not node.alive or cluster.calm:
            return
        cluster.seen["struck"] += 1
        cluster.events += 1
        how = rng.choice((0, 0, 0, 0, 1) if cluster.plan["sudden"] else (0, 2, 3, 3, 4, 5, 6, 6))
        others = [name for name in cluster.members if name != node.name]
        if how < 2 or not others:
            # One who led is away while the next one leads, and comes back to be elected again: so
            # terms are led in turn by members that know different things (figure 8).
            if self._away:
                cluster.timeline.after(
                    cluster.timeline.spread(MILLISECOND), cluster.begin, self._away
                )
            self._away = node.name
            cluster.end(node, power=how == 1, absent=800 * MILLISECOND)
            return
        if how == 2:
            node.pause(cluster.timeline.spread(300 * MILLISECOND))
            return
        friends = [rng.choice(others)] if how == 3 else []
        far = [name for name in others if name not in friends]
        if how != 4:
            cluster.cut([node.name, *friends], far)
        if how != 5:
            cluster.cut(far, [node.name, *friends])
        mend = self._heal_one_by_one if rng.random() < 0.7 else cluster.heal
        cluster.timeline.after(cluster.timeline.spread(400 * MILLISECOND), mend)

    def _heal_one_by_one(self) -> None:
        """Who was cut off hears some of the others before it hears the rest."""
        timeline = self.cluster.timeline
        for pair in self.rng.sample(sorted(self.cluster.cuts), len(self.cluster.cuts)):
            timeline.after(timeline.spread(150 * MILLISECOND), self.cluster.cuts.discard, pair)

    def _pause(self) -> None:
        if (node := self.victim()) is not None:
            self.cluster.seen["paused"] += 1
            node.pause(self.rng.randrange(SECOND))

    def _cut(self) -> None:
        """A partition: one alone, two halves, one link, a bridge; in one direction or in both."""
        cluster, rng = self.cluster, self.rng
        names = list(cluster.members)
        victim = self.victim()
        one = victim.name if victim is not None else rng.choice(names)
        others = [name for name in names if name != one]
        if not others:
            return
        shape = rng.randrange(4)
        if shape == 0:
            left, right = [one], others
        elif shape == 1:
            left, right = [one], [rng.choice(others)]
        else:
            shuffled = rng.sample(others, len(others))
            half = len(names) // 2
            left, right = [one, *shuffled[: half - 1]], shuffled[half - 1 :]
            if shape == 3 and len(right) > 1:
                right = right[1:]  # who is left out hears both sides
        direction = rng.randrange(4)
        if direction != 1:
            cluster.cut(left, right)
        if direction != 2:
            cluster.cut(right, left)
        if rng.random() < 0.5:
            cluster.timeline.after(rng.randrange(SECOND), cluster.heal)

    def _break(self) -> None:
        names = list(self.cluster.members)
        if len(names) > 1:
            self.cluster.break_lines(*self.rng.sample(names, 2))

    # --- disks -----------------------------------------------------------------------------------

    def _slow(self) -> None:
        if (node := self.victim()) is not None:
            mean = self.rng.choice((20, 100, 400)) * MILLISECOND
            self.cluster.disk_means[node.name] = mean

    def _fail_sync(self) -> None:
        if (node := self.victim()) is not None:
            node.drive.fail_sync(self.rng.randint(1, 5))

    def _full(self) -> None:
        if (node := self.victim()) is not None:
            node.drive.capacity = node.drive.used() + self.rng.randrange(4096)
            self.cluster.timeline.after(self.rng.randrange(SECOND), self._free, node.name)

    def _free(self, name: str) -> None:
        self.cluster.drives[name].capacity = None

    def _damage(self) -> None:
        """A flip on one disk of the group, whose process is killed at once, so that it is noticed
        before power is lost there as well."""
        cluster = self.cluster
        if not self._damaged:
            self._damaged = self.rng.choice(list(cluster.members))
        node = cluster.node(self._damaged)
        if node is None or node.log.untold or self._wiped():
            return
        flipped = node.drive.damage_somewhere(self.rng.choice(node.drive.names()))
        if flipped is not None:
            cluster.timeline.note(node.name, "rots", flipped)
            cluster.judge.disk(node.member).damaged = True
            cluster.end(node, power=False)

    def _wiped(self) -> bool:
        return self.cluster.seen["wiped"] > 0

    def _wipe(self) -> None:
        """A disk is replaced: whoever comes back there is somebody else."""
        cluster = self.cluster
        name = self.rng.choice(list(cluster.members))
        if self._damaged or len(cluster.members) < 3:
            return
        if (node := cluster.node(name)) is not None:
            cluster.end(node, power=True)
        cluster.seen["wiped"] += 1
        cluster.replace_disk(name)
