"""Five real replicas, and accidents by a schedule that is drawn from a seed.

The schedule is data: a failure prints it with its seed. After each accident everything is healed,
and there must be progress before the next one: commands and reads. At the end all members agree,
nothing acknowledged is lost, no read saw too little, and an independent judge finds nothing in the
traces of all lives.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from raft_cuts import SNAPSHOTS, deafen, isolate, mute, ordered, separate
from raft_group import Load, RaftGroup, Reader
from support import SCORES, dose, patience
from waiting import eventually

from engine.errors import EngineError
from engine.sim.weather import CALM, LABRPC_UNRELIABLE
from engine.storage.home import make
from engine.verify.trace import judge

pytestmark = pytest.mark.processes

MEMBERS = 5
SECONDS = dose(16.0, 1800.0)
LONGEST = dose(0.8, 1.2)
KINDS_LEAST = 10


class Accident(NamedTuple):
    """What happens, for how long, and where its own draws begin."""

    kind: str
    seconds: float
    seed: int


def schedule(seed: int, kinds: list[str]) -> list[Accident]:
    """All kinds in an order of their own, again and again: more than there will be time for."""
    rng = random.Random(f"nemesis {seed}")
    found = []
    for _ in range(1 + int(SECONDS)):
        rng.shuffle(kinds)
        for kind in kinds:
            seconds = round(rng.uniform(0.1, LONGEST), 3)
            found.append(Accident(kind, seconds, rng.getrandbits(32)))
    return found


class Nemesis:
    """Does one accident after the other to a group, and heals it."""

    def __init__(self, group: RaftGroup, load: Load, reader: Reader) -> None:
        self.group, self.load, self.reader = group, load, reader
        self.members = list(group.founders)
        self.happened: Counter[str] = Counter()
        self.slowest = 0.0
        """Seconds from a heal until a command was acknowledged."""
        self.rng = random.Random(0)

    def happen(self, accident: Accident) -> None:
        self.rng = random.Random(accident.seed)
        KINDS[accident.kind](self)
        # How long it lasts is a part of the accident.
        threading.Event().wait(accident.seconds)
        self.heal()
        self.happened[accident.kind] += 1

    def heal(self) -> None:
        group = self.group
        group.proxy.heal()
        group.proxy.hold("*", "*", "both", 0)
        group.proxy.weather("*", "*", CALM)
        for power in group.powers.values():
            power.heal()
        for name in self.members:
            node = group.cluster.node(name)
            if node.running:
                group.cluster.go_on(name)
            if node.process.poll() == 1:  # of a sync that failed; all others are our own doing
                node.told = True
                group.kill(name, power=True)
            if not node.running:
                group.start(name)
        begin = time.monotonic()
        self.load.more(1, seconds=30)
        self.slowest = max(self.slowest, time.monotonic() - begin)
        self.load.more(2, seconds=30)
        seen = self.reader.seen
        eventually(lambda: self.reader.seen > seen, 30, "a read")

    # --- who -------------------------------------------------------------------------------------

    def one(self) -> str:
        return self.rng.choice(self.members)

    def some(self, count: int) -> list[str]:
        return self.rng.sample(self.members, count)

    def leader(self) -> str:
        """Or somebody, if nobody leads at the moment."""
        told_by = self.group.statuses(self.members)
        leads = [(s.term, name) for name, s in told_by.items() if s.role == "leader"]
        return max(leads)[1] if leads else self.one()

    # --- accidents -------------------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        self.group.kill(*names, power=self.rng.random() < 0.7)

    def kill_leader(self) -> None:
        self.kill(self.leader())

    def kill_one(self) -> None:
        self.kill(self.one())

    def kill_majority(self) -> None:
        self.kill(*self.some(len(self.members) // 2 + 1))

    def kill_all(self) -> None:
        self.kill(*self.members)

    def kill_again_and_again(self) -> None:
        name = self.one()
        for _ in range(3):
            self.kill(name)
            self.group.start(name)
        self.kill(name)

    def pause_leader(self) -> None:
        self.group.cluster.stop(self.leader())

    def pause_some(self) -> None:
        for name in self.some(2):
            self.group.cluster.stop(name)

    def isolate_leader(self) -> None:
        isolate(self.group, self.leader())

    def split(self) -> None:
        separate(self.group, self.some(len(self.members) // 2))

    def one_way(self) -> None:
        how = self.rng.choice((mute, deafen))
        how(self.group, self.rng.choice((self.leader(), self.one())))

    def partial(self) -> None:
        """One pair, of which one may lead."""
        near = self.leader()
        far = self.rng.choice([name for name in self.members if name != near])
        self.group.proxy.cut(near, far)
        self.group.proxy.cut(far, near)

    def delay(self) -> None:
        self.group.proxy.hold("*", "*", "both", self.rng.uniform(0.01, 0.1))

    def storm(self) -> None:
        self.group.proxy.weather("*", "*", LABRPC_UNRELIABLE)

    def hand_over(self) -> None:
        for _ in range(3):
            leader = self.leader()
            try:
                self.group.operator(leader).hand_over(self.group.ids[self.one()])
            except EngineError:  # to itself, or it leads no more
                self.group._forget(leader)

    def slow_syncs(self) -> None:
        for name in self.rng.choice((self.some(1), self.members)):
            self.group.powers[name].slow(self.rng.uniform(50, 400))

    def full_disk(self) -> None:
        self.group.powers[self.rng.choice((self.leader(), self.one()))].fail_writes()

    def failing_sync(self) -> None:
        self.group.powers[self.one()].fail_sync(times=1)

    def change_members(self) -> None:
        """The sixth comes, or goes for good: what comes next time has another number."""
        group, name = self.group, group_extra(self.group)
        if name not in self.members:
            group.start(name)
            place = f"{group.ids[name]}={group.cluster.address(name)}"
            ordered(group, "members", "--add", place)
            self.members.append(name)
            return
        ordered(group, "members", "--remove", str(group.ids[name]))
        self.members.remove(name)
        group.kill(name)
        group.powers[name].forget()
        shutil.rmtree(group.home(name))
        group.ids[name] = make(str(group.home(name)))


def group_extra(group: RaftGroup) -> str:
    return group.names[-1]


KINDS: dict[str, Callable[[Nemesis], None]] = {
    function.__name__: function
    for function in (
        Nemesis.kill_leader, Nemesis.kill_one, Nemesis.kill_majority, Nemesis.kill_all,
        Nemesis.kill_again_and_again, Nemesis.pause_leader, Nemesis.pause_some,
        Nemesis.isolate_leader, Nemesis.split, Nemesis.one_way, Nemesis.partial, Nemesis.delay,
        Nemesis.storm, Nemesis.hand_over, Nemesis.slow_syncs, Nemesis.full_disk,
        Nemesis.failing_sync, Nemesis.change_members,
    )
}  # fmt: skip


@pytest.mark.parametrize("seed", range(dose(1, 4)))
def test_nemesis(seed: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    plan = schedule(seed, sorted(KINDS))
    done: list[Accident] = []
    try:
        told = attacked(seed, tmp_path, plan, done)
    except BaseException as error:
        error.add_note(f"seed {seed}; the schedule so far: {[tuple(one) for one in done]}")
        raise
    request.config.stash.setdefault(SCORES, []).append(told)


def attacked(seed: int, folder: Path, plan: list[Accident], done: list[Accident]) -> str:
    begin = time.monotonic()
    flags: Any = SNAPSHOTS
    with (
        RaftGroup(folder, MEMBERS, seed=seed, more=1, flags=flags, power=True, trace=True) as group,
        group.witness() as witness,
        group.load(3, pause=0.002, size=200) as load,
        group.reads(load) as reader,
    ):
        load.more(50)
        nemesis = Nemesis(group, load, reader)
        until = time.monotonic() + SECONDS
        for accident in plan:
            if time.monotonic() > until and len(nemesis.happened) >= KINDS_LEAST:
                break
            done.append(accident)
            nemesis.happen(accident)
        load.more(50)
        reader.stop()
        load.stop()
        status = group.judge_witnessed(load, witness, nemesis.members)
    judged = judge(group.traces[name] for name in group.names if Path(group.traces[name]).exists())
    assert not judged.violations, judged.violations[:5]
    assert nemesis.slowest < patience(30)
    return (
        f"replicas and their nemesis: {nemesis.happened.total()} accidents of "
        f"{len(nemesis.happened)} kinds, {len(load.acknowledged)} commands acknowledged, "
        f"{len(load.unknown)} unknown, {reader.seen} reads, term {status.term}; back within "
        f"{nemesis.slowest:.1f} s; {judged.lives} lives judged, in {time.monotonic() - begin:.0f} s"
    )
