"""Brings accidents upon a group of real replicas (`engine.faults.accidents` says which there are).

    nemesis = Nemesis(group, alive=probe)
    for accident in schedule(7, kinds_of("kv"), 0.8):
        nemesis.happen(accident)

After each everything is healed, and `alive` has to return before the next one: whoever watches over
the group says there that it serves again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from threading import Event
from time import monotonic

from engine.errors import EngineError
from engine.faults.accidents import KINDS, Accident
from engine.faults.damage import flip_log, flip_snapshots
from engine.faults.replicas import LOOK_SECONDS, Replicas
from engine.sim.weather import CALM, LABRPC_UNRELIABLE

RESET_SECONDS = 0.06
"""From one reset to the next: long enough for a handshake, so that there is something to break."""
RECOVERIES = 3
JOURNAL_BYTES = 1 << 28
"""What a disk may have noted before its replica is killed for once, so that it can forget."""
REPAIR_SECONDS = 20.0
END_SECONDS = 20.0
FULL_SECONDS = 2.0
STORM = LABRPC_UNRELIABLE._replace(request_duplicate=0.2, reply_duplicate=0.1)
Again = Callable[[], None] | None


class Nemesis:
    """Does one accident after the other to a group, and heals it. EngineError if it cannot.

    `alive` is given how long it took to start what was down, and returns when the group serves.
    `clients` are names that pass the proxy. `members` changes as accidents change it; all others of
    the group's names are free for those who come. `least` members always remain. `over` ends an
    accident before its time, and then nothing is healed any more.
    """

    def __init__(
        self,
        group: Replicas,
        alive: Callable[[], None],
        *,
        clients: Sequence[str] = (),
        least: int = 0,
        over: Event | None = None,
    ) -> None:
        self.group, self.alive, self.clients = group, alive, list(clients)
        self.members = list(group.founders)
        self.least = least or len(self.members) - 1
        self.happened: Counter[str] = Counter()
        """By name of the kind."""
        self.now: Accident | None = None
        """What is happening."""
        self.storms = 0
        self.stormy = False
        """Some messages come twice at the moment, and how often such a time has begun."""
        self.recoveries: list[float] = []
        """Seconds from a heal, when all that had been down ran again, until the group served."""
        self.notes: list[str] = []
        """What was done in the last accident besides what its kind says."""
        self.over = over or Event()
        self.rng = random.Random(0)
        self._may_end: dict[str, int] = {}
        """How many syncs had failed before one was to fail."""
        self._damaged: set[str] = set()

    @property
    def cuts(self) -> bool:
        """Whether replicas do not reach each other at the moment."""
        return self.now is not None and KINDS[self.now.name].cuts

    def happen(self, accident: Accident) -> None:
        """Do it, let it last, heal it."""
        self.rng, self.notes = random.Random(accident.seed), []
        again = ACTIONS[accident.name](self, accident.aim)
        self.now = accident
        deadline = monotonic() + accident.seconds
        # How long it lasts is a part of the accident.
        while (left := deadline - monotonic()) > 0 and not self.over.is_set():
            self.over.wait(min(left, RESET_SECONDS) if again else left)
            if again:
                again()
        self.now = None
        if self.over.is_set():
            return
        self.heal()
        self.happened[accident.name] += 1

    def heal(self) -> None:
        """Undo all that is not done yet, and wait until the group serves."""
        group = self.group
        group.proxy.accept()
        group.proxy.heal()
        group.proxy.hold("*", "*", "both", 0)
        group.proxy.weather("*", "*", CALM)
        self.stormy = False
        for power in group.powers.values():
            power.heal()
        for name in self.members:
            self._look_at(name)
        failed = group.start_all([n for n in self.members if n not in group.running()])
        for name, why in failed.items():
            self._replaced(name, why)
        begin = monotonic()
        self.alive()
        self.recoveries.append(monotonic() - begin)
        self._repaired()

    def _look_at(self, name: str) -> None:
        group, node = self.group, self.group.cluster.node(name)
        power, before = group.powers.get(name), self._may_end.pop(name, None)
        if node.running:
            group.cluster.go_on(name)
            if power is not None and power.noted > JOURNAL_BYTES:
                group.kill(name, power=True)
        if power is not None and before is not None and power.injected.failed_syncs > before:
            self._await_end(name)
            node.told = True
            group.kill(name, power=True)

    def _await_end(self, name: str) -> None:
        """Of one whose sync has failed: that is all that it may do."""
        node = self.group.cluster.node(name)
        deadline = monotonic() + END_SECONDS * self.group.factor
        while node.running:
            if monotonic() > deadline:
                raise EngineError(f"{name} goes on after a sync that failed: it has to end.")
            Event().wait(LOOK_SECONDS)
        if node.process.returncode != 1:
            code = node.process.returncode
            raise EngineError(f"{name} ended with code {code} after a sync that failed, not 1.")

    # --- what was damaged ------------------------------------------------------------------------

    def _repaired(self) -> None:
        """Whoever lost a part of its log has it back from the others."""
        deadline = monotonic() + REPAIR_SECONDS * self.group.factor
        while self._damaged:
            for name, status in self.group.statuses(list(self._damaged)).items():
                if not status.lost:
                    self._damaged.discard(name)
            if self._damaged and monotonic() > deadline:
                names = ", ".join(sorted(self._damaged))
                raise EngineError(f"{names}: what was damaged is not repaired from the others.")
            Event().wait(LOOK_SECONDS if self._damaged else 0)

    def _replaced(self, name: str, why: str) -> None:
        """Whoever finds its files damaged may refuse to start, with a sentence; then an operator
        replaces it. All others have to start."""
        if name not in self._damaged or '"exit_code": 6' not in why:
            raise EngineError(why)
        self._damaged.discard(name)
        self.notes.append(f"{name} refused to start, and was replaced: {why}")
        self._change(name)

    def _change(self, name: str) -> None:
        other = self._spare() or name
        if other == name:
            self.group.remove(name)
            self.group.add(name)
        else:
            self.group.replace(name, other)
        self.members[self.members.index(name)] = other

    # --- who -------------------------------------------------------------------------------------

    def one(self) -> str:
        return self.rng.choice(self.members)

    def some(self, count: int) -> list[str]:
        return self.rng.sample(self.members, count)

    def leader(self) -> str:
        """Or somebody, if nobody leads at the moment."""
        found = self.group.leads(self.members)
        return found if found in self.members else self.one()

    def aimed(self, aim: str) -> list[str]:
        """The members that an accident is aimed at."""
        many = len(self.members)
        if aim == "leader":
            return [self.leader()]
        count = {"one": 1, "minority": max(1, (many - 1) // 2), "majority": many // 2 + 1}
        return self.some(count.get(aim, many))

    def _spare(self) -> str:
        return next((name for name in self.group.names if name not in self.members), "")

    # --- processes -------------------------------------------------------------------------------

    def kill(self, aim: str) -> Again:
        self.group.kill(*self.aimed(aim))
        return None

    def power_loss(self, aim: str) -> Again:
        self.group.kill(*self.aimed(aim), power=True)
        return None

    def kill_recovering(self, aim: str) -> Again:
        names = self.aimed(aim)
        self.group.kill(*names, power=True)
        for _ in range(RECOVERIES):
            for name in names:
                self.group.start(name, wait=False)
            Event().wait(self.rng.uniform(0, 0.4))
            self.group.kill(*names, power=self.rng.random() < 0.7)
        return None

    def pause(self, aim: str) -> Again:
        for name in self.aimed(aim):
            self.group.cluster.stop(name)
        return None

    # --- network ---------------------------------------------------------------------------------

    def part(self, near: Sequence[str], far: Sequence[str]) -> None:
        """No message passes between these and those."""
        for one in near:
            for other in far:
                if one != other:
                    self.group.proxy.cut(one, other)
                    self.group.proxy.cut(other, one)

    def isolate(self, aim: str) -> Again:
        self.part(self.aimed(aim), self.group.names)
        return None

    def split(self, _: str) -> Again:
        near = self.some(len(self.members) // 2)
        self.part(near, [name for name in self.group.names if name not in near])
        return None

    def bridge(self, _: str) -> Again:
        _, *others = self.some(len(self.members))
        half = len(others) // 2
        self.part(others[:half], others[half:])
        return None

    def ring(self, _: str) -> Again:
        """Each reaches so many of its neighbours as make a majority with it."""
        names = self.some(len(self.members))
        many, reach = len(names), (len(names) // 2 + 1) // 2
        for at, one in enumerate(names):
            for other, name in enumerate(names[:at]):
                if min(at - other, many - at + other) > reach:
                    self.part([one], [name])
        return None

    def one_link(self, aim: str) -> Again:
        (near,) = self.aimed(aim)
        self.part([near], [self.rng.choice([name for name in self.members if name != near])])
        return None

    def one_way(self, aim: str) -> Again:
        """Nobody hears what it says, neither what it begins nor what it answers; or it does not
        hear."""
        (name,) = self.aimed(aim)
        there, back = self.rng.choice((("request", "reply"), ("reply", "request")))
        for other in self.group.names:
            if other != name:
                self.group.proxy.cut(name, other, there)
                self.group.proxy.cut(other, name, back)
        return None

    def delay(self, aim: str) -> Again:
        seconds = self.rng.uniform(0.01, 0.1)
        name = "*" if aim == "all" else self.leader()
        self.group.proxy.hold(name, "*", "both", seconds)
        self.group.proxy.hold("*", name, "both", seconds)
        return None

    def resets(self, aim: str) -> Again:
        """Before this returns, and as often as there is time."""
        names = {"peers": self.group.names, "clients": self.clients}.get(aim, ["*"])

        def reset() -> None:
            for name in names:
                self.group.proxy.refuse(name, "*")
                self.group.proxy.accept(name, "*")

        reset()
        return reset

    def weather(self, _: str) -> Again:
        self.storms, self.stormy = self.storms + 1, True
        self.group.proxy.weather("*", "*", STORM)
        return None

    # --- disks -----------------------------------------------------------------------------------

    def slow_sync(self, aim: str) -> Again:
        for name in self.aimed(aim):
            self.group.powers[name].slow(self.rng.uniform(50, 400))
        return None

    def failing_sync(self, aim: str) -> Again:
        for name in self.aimed(aim):
            self._may_end[name] = self.group.powers[name].injected.failed_syncs
            self.group.powers[name].fail_sync(times=1)
        return None

    def full_disk(self, aim: str) -> Again:
        """Until some write has failed: a log that has room in its file goes on for a while."""
        powers = [self.group.powers[name] for name in self.aimed(aim)]
        before = [power.injected.failed_writes for power in powers]
        for power in powers:
            power.fail_writes()
        deadline = monotonic() + FULL_SECONDS
        while [power.injected.failed_writes for power in powers] == before:
            if monotonic() > deadline:
                self.notes.append("nothing was written to it")
                break
            Event().wait(LOOK_SECONDS)
        return None

    def flip_log(self, aim: str) -> Again:
        for name in self._down(aim):
            self.notes += flip_log(self.group.home(name), self.rng)
        return None

    def flip_snapshot(self, aim: str) -> Again:
        for name in self._down(aim):
            self.notes += flip_snapshots(self.group.home(name), self.rng)
        return None

    def _down(self, aim: str) -> list[str]:
        names = self.aimed(aim)
        self.group.kill(*names)
        for name in names:
            if name in self.group.powers:
                self.group.powers[name].forget()  # damage is not taken back
        self._damaged |= set(names)
        return names

    # --- operators -------------------------------------------------------------------------------

    def add(self, _: str) -> Again:
        name = self._spare()
        if not name:
            self.notes.append("there is no room, so one is removed")
            return self.remove("one")
        self.group.add(name)
        self.members.append(name)
        return None

    def remove(self, aim: str) -> Again:
        if len(self.members) <= self.least:
            self.notes.append("there are few, so one is added")
            return self.add("")
        (name,) = self.aimed(aim)
        self.group.remove(name)
        self.members.remove(name)
        return None

    def replace(self, aim: str) -> Again:
        (name,) = self.aimed(aim)
        self.group.kill(name)
        self._change(name)
        return None

    def lead(self, _: str) -> Again:
        for _turn in range(3):
            leader = self.leader()
            try:
                self.group.operator(leader).hand_over(self.group.ids[self.one()])
            except EngineError as error:  # to itself, or it leads no more
                self.notes.append(str(error))
                self.group.forget(leader)
        return None

    def snapshot(self, aim: str) -> Again:
        from engine.kv.backup import StoreOperator

        for name in self.aimed(aim):
            operator = self.group.operator(name)
            try:
                if isinstance(operator, StoreOperator):
                    operator.take_snapshot()
            except EngineError as error:  # it had nothing new, or was overtaken by another one
                self.notes.append(str(error))
                self.group.forget(name)
        return None


ACTIONS: dict[str, Callable[[Nemesis, str], Again]] = {
    "quiet": lambda nemesis, aim: None,
    "kill": Nemesis.kill,
    "power-loss": Nemesis.power_loss,
    "kill-recovering": Nemesis.kill_recovering,
    "pause": Nemesis.pause,
    "isolate": Nemesis.isolate,
    "split": Nemesis.split,
    "bridge": Nemesis.bridge,
    "ring": Nemesis.ring,
    "one-link": Nemesis.one_link,
    "one-way": Nemesis.one_way,
    "delay": Nemesis.delay,
    "resets": Nemesis.resets,
    "weather": Nemesis.weather,
    "slow-sync": Nemesis.slow_sync,
    "failing-sync": Nemesis.failing_sync,
    "full-disk": Nemesis.full_disk,
    "flip-log": Nemesis.flip_log,
    "flip-snapshot": Nemesis.flip_snapshot,
    "add": Nemesis.add,
    "remove": Nemesis.remove,
    "replace": Nemesis.replace,
    "lead": Nemesis.lead,
    "snapshot": Nemesis.snapshot,
}
