"""A replica dies at every place that has a name, and loses what it had not synced.

Several groups of three are kept alive under load. One member after the other is armed with the
points that are still to be met in the role that it has, dies at whichever comes first, mostly with
the power gone, and comes back; while it comes back it may die again. At the end all members agree,
no command that was acknowledged is lost, none is there twice, and an independent judge finds
nothing in what the members say to have done.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from raft_group import PROGRAM, RaftGroup
from support import SCORES, dose, patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError
from engine.faults.points import every
from engine.verify.trace import judge

pytestmark = pytest.mark.processes

GROUPS = 3
SECONDS = dose(15.0, 240.0)
"""When what is the least will do, though not everybody has died everywhere."""
LATEST = 240.0
"""When to give up; two idle cores have all of it in 40 to 50."""
SEGMENTS = ("16384", "8192")
"""The size of a life's segments: what is left of a life with others is removed, not used again."""
POWER_SHARE = 0.9
PAUSE = 0.002
UNSYNCED = str(Path(__file__).with_name("raft_unsynced.py"))
ASK_SECONDS = 0.5
"""Half of all who are asked here die of something before they answer."""
GRACE_SECONDS = 0.2
"""What the others have for their deaths once somebody of them has died."""
COMMAND_BYTES = 500
"""So that one snapshot lets several segments go."""

STARTING = "starting"
ANY = "any"
ATTACKED = (ANY, "leader", ANY, "follower", ANY, "candidate")
"""Whom the power leaves, in turn: all at once, or one while the others go on."""
LEADER_ONLY = (
    "heard AppendReply", "heard SnapshotReply", "heard Submit", "heard Look", "heard Reconfigure",
    "heard HandOver", "said AppendEntries", "said InstallSnapshot", "said TimeoutNow",
    "said Submitted", "said Seen", "said Ordered", "confirming", "answered",
)  # fmt: skip
FOLLOWER_ONLY = (
    "heard AppendEntries", "heard InstallSnapshot", "heard VoteRequest", "heard TimeoutNow",
    "said AppendReply", "said VoteReply", "said SnapshotReply", "loading", "loaded",
    "chunk stored", "snapshot received",
)  # fmt: skip
CANDIDATE_ONLY = ("said VoteRequest", "heard VoteReply")
CATCHING_UP = ("loading", "loaded", "chunk stored", "snapshot received", "heard InstallSnapshot",
               "said SnapshotReply")  # fmt: skip


def roles(point: str) -> tuple[str, ...]:
    """In which roles a member must have died there."""
    for points, role in (
        (LEADER_ONLY, "leader"), (FOLLOWER_ONLY, "follower"), (CANDIDATE_ONLY, "candidate"),
    ):  # fmt: skip
        if point in points:
            return (role,)
    if "member" in point:
        return ()  # those are of `engine raft init`
    if "receiving" in point:
        return ("follower",)
    if "opening" in point or "spare remove" in point:
        return (STARTING,)
    if "taking remove" in point or "spare sync" in point:
        return (ANY,)  # what comes early in a life, or rarely
    if "folder sync" in point:
        return (STARTING, "leader", "follower")
    return ("leader", "follower")


class Least(NamedTuple):
    """What a run is not over without."""

    kills: int = 100
    """With the power, at so many points:"""
    points: int = 50
    each: int = 20
    """Points as leader, and as follower."""


class Wanted:
    """The deaths that are still to be died, which all campaigns share, and those that were."""

    def __init__(self, seconds: float, latest: float, least: Least) -> None:
        """After so many `seconds` the `least` will do, and after `latest` it is over."""
        self.least = least
        self._all = {(role, point) for point in every() for role in roles(point)}
        self._pairs = set(self._all)
        self._lock = threading.RLock()
        self._enough_at = time.monotonic() + patience(seconds)
        self._late_at = time.monotonic() + patience(latest)
        self.kills: Counter[tuple[str, str]] = Counter()
        self.with_power: Counter[str] = Counter()
        """Those after which everything was gone that was not synced, by point."""

    def of(self, *some: str) -> set[str]:
        """In these roles; all of them once more if that was not yet enough."""
        with self._lock:
            pairs = self._pairs or (set() if self.enough() else self._all)
            return {point for role, point in pairs if role in (*some, ANY)}

    def met(self, role: str, point: str, power: bool) -> None:
        with self._lock:
            self.kills[role, point] += 1
            if power:
                self.with_power[point] += 1
            self._pairs -= {(role, point), (ANY, point)}

    def points_of(self, role: str) -> int:
        """At how many points somebody died in this role."""
        with self._lock:
            return len({point for one, point in self.kills if one == role})

    def enough(self) -> bool:
        """Whether what every run must have has happened."""
        return (
            self.with_power.total() >= self.least.kills
            and len(self.with_power) >= self.least.points
            and min(self.points_of("leader"), self.points_of("follower")) >= self.least.each
        )

    def go_on(self) -> bool:
        """Whether there is more to be died; what is rare is not waited for for ever."""
        with self._lock:
            if self.enough():
                return bool(self._pairs) and time.monotonic() < self._enough_at
        return time.monotonic() < self._late_at

    def told(self) -> str:
        kills, points = self.kills.total(), {point for _, point in self.kills}
        return (
            f"{kills} deaths at {len(points)} points, {self.with_power.total()} at "
            f"{len(self.with_power)} with the power, {self.points_of('leader')} points as leader "
            f"and {self.points_of('follower')} as follower, {len(self._pairs)} not reached"
        )

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __str__(self) -> str:
        return ", ".join(sorted(f"{point} as {role}" for role, point in self._pairs))


class Campaign:
    """One group, its load, and who kills it."""

    def __init__(self, folder: Path, seed: int, wanted: Wanted, program: str = PROGRAM) -> None:
        self.rng = random.Random(f"crash points {seed}")
        self.wanted, self.seed = wanted, seed
        self.lost: Counter[str] = Counter()
        self.acknowledged = 0
        self.over = False
        self.load: Any = None
        self.judges: tuple[Any, ...] = ()
        folder.mkdir()
        self.group = RaftGroup(
            folder, 3, seed=seed, flags=("--snapshot-every", "20", "--segment-bytes", SEGMENTS[0]),
            power=True, points=True, trace=True, ask_seconds=ASK_SECONDS, program=program,
        )  # fmt: skip
        self._lives = 0

    def run(self) -> None:
        group = self.group
        with (
            group,
            group.witness() as witness,
            group.load(2, pause=PAUSE, size=COMMAND_BYTES) as load,
            group.reads(load) as reader,
        ):
            self.load, self.judges = load, (witness, reader)
            self.more(20)
            turn = 0
            while self.wanted.go_on():
                turn += 1
                self.attack(ATTACKED[turn % len(ATTACKED)])
            self.live()
            self.more(50)
            reader.stop()
            load.stop()
            self.acknowledged = len(load.acknowledged)
            group.judge_witnessed(load, witness)
        judged = judge(group.traces.values())
        assert not judged.violations, judged.violations[:5]

    def check(self) -> None:
        """Raises what those who look on have seen to be wrong, which may be why nothing goes on."""
        for judge_ in self.judges:
            judge_.check()

    def more(self, count: int) -> None:
        """Wait for so many more commands, unless it is known already that something is wrong."""
        wanted = len(self.load.acknowledged) + count

        def there() -> bool:
            self.check()
            return len(self.load.acknowledged) >= wanted

        eventually(there, 20, "progress")

    # --- deaths ----------------------------------------------------------------------------------

    def attack(self, role: str) -> None:
        """Arm who has this role, or everybody, and see to it that they meet their points."""
        self.revive()
        if role != ANY and not self.wanted.of(role):
            return
        group = self.group
        leader = eventually(self.leading, 30, "a leader")
        armed = self.chosen(role, leader, [name for name in group.running() if name != leader])
        for name, points in armed.items():
            group.controls[name].arm(points)
        points = set().union(*armed.values())
        deadline = time.monotonic() + patience(1.5)
        next_try = time.monotonic() + 0.1
        alive = len(armed)
        while alive and (now := time.monotonic()) < deadline:
            if now > next_try:
                next_try = now + 0.25
                self.provoke(leader, list(armed), points)
            time.sleep(0.005)  # polling, with the deadline above
            still = sum(group.cluster.node(name).running for name in armed)
            if still < alive:
                alive, deadline = still, min(deadline, time.monotonic() + patience(GRACE_SECONDS))
        for name in armed:
            if group.cluster.node(name).running:
                group.controls[name].arm()

    def chosen(self, role: str, leader: str, others: list[str]) -> dict[str, set[str]]:
        """Who is to die, and of what. Everybody is armed with what each does as what it is, and of
        those who follow each with a part of it, so that they do not die of the same."""
        of, found = self.wanted.of, {}
        if role in ("leader", ANY):
            found[leader] = of("leader")
        if role == "follower" and others:
            found[self.rng.choice(others)] = of("follower")
        elif role == "candidate":
            found.update((name, of("candidate")) for name in others)
        elif role == ANY and others:
            points = sorted(of("follower", "candidate"))
            self.rng.shuffle(points)
            for at, name in enumerate(others):
                found[name] = set(points[at :: len(others)])
        return {name: points for name, points in found.items() if points}

    def leading(self) -> str:
        """Who leads, if it is known; whoever dies while it comes back is brought back meanwhile."""
        self.check()
        self.revive()
        told_by = self.group.statuses()
        leads = [(s.term, name) for name, s in told_by.items() if s.role == "leader"]
        return max(leads, default=(0, ""))[1]

    def provoke(self, leader: str, victims: list[str], points: Iterable[str]) -> None:
        """What does not happen by itself: changes of leaders and members, and somebody who lags."""
        group = self.group
        if not group.cluster.node(leader).running:
            return
        what = " ".join(points)
        wishes = [self.lag] * ("Snapshot" in what or "receiving" in what)
        wishes += [self.hand_over] * any(
            w in what for w in ("HandOver", "TimeoutNow", "Ordered", "Vote", "opening")
        )
        wishes += [self.reconfigure] * ("Reconfigure" in what)
        wishes += [self.halve] * (2 * ("SnapshotReply" in what))
        if wishes:
            self.rng.choice(wishes)(leader, victims)

    def hand_over(self, leader: str, victims: list[str]) -> None:
        names = [name for name in self.group.running() if name != leader]
        names = [name for name in names if name in victims] or names
        target = self.rng.choice(names) if names else leader
        self.order(leader, lambda operator: operator.hand_over(self.group.ids[target]))

    def reconfigure(self, leader: str, victims: list[str]) -> None:
        group = self.group
        same = [(group.ids[n], group.cluster.address(n), True) for n in group.names]
        self.order(leader, lambda operator: operator.change(same))

    def order(self, leader: str, what: Any) -> None:
        try:
            what(self.group.operator(leader))
        except EngineError:  # refused, or it has just died of it
            self.group.forget(leader)

    def lag(self, leader: str, victims: list[str]) -> None:
        """A follower that has been away gets a snapshot."""
        names = [name for name in self.group.running() if name != leader]
        if names:
            self.group.kill(self.rng.choice(names))
            self.revive()

    def halve(self, leader: str, victims: list[str]) -> None:
        """A follower that has a half of the leader's snapshot asks for the rest of it."""
        group = self.group
        names = [name for name in group.running() if name != leader]
        if not names:
            return
        name = victims[0] if victims[0] in names else self.rng.choice(names)
        group.kill(name)
        # Until the leader's log does not go back as far any more, if nobody dies of it.
        enough = len(self.load.acknowledged) + 80
        deadline = time.monotonic() + patience(2)
        while len(self.load.acknowledged) < enough and time.monotonic() < deadline:
            time.sleep(0.005)  # polling, with the deadline above
        self.load.pause = 0.5  # else the leader has another one before it is back
        group.controls[name].arm(["amid receiving write"])
        group.start(name)
        node = group.cluster.node(name)
        deadline = time.monotonic() + patience(1)
        while node.running and time.monotonic() < deadline:
            time.sleep(0.005)  # polling, with the deadline above
        if not node.running:
            group.kill(name)
            wanted = self.wanted.of("follower") if name in victims else ()
            group.controls[name].arm([p for p in wanted if "SnapshotReply" in p])
            group.start(name)
        self.load.pause = PAUSE

    # --- lives -----------------------------------------------------------------------------------

    def revive(self) -> None:
        """Bury the dead and start them again, as often as they die of it."""
        for name in self.group.names:
            node = self.group.cluster.node(name)
            while not node.running:
                self.bury(name)
                self.start(name)
                node = self.group.cluster.node(name)

    def live(self) -> None:
        """From now on nobody dies any more."""
        self.over = True
        for name in self.group.names:
            self.group.controls[name].arm()
        self.revive()

    def bury(self, name: str) -> None:
        group = self.group
        died = group.controls[name].died()
        group.cluster.node(name).told = True
        # What a death left behind half done is met only if the power stays.
        keeps = died is not None and any(f"{kind} " in died[0] for kind in LEFT_BEHIND) and any(
            f"{kind} remove" in point for kind in LEFT_BEHIND for point in self.wanted.of(
                STARTING, "follower")
        )  # fmt: skip
        power = not keeps and self.rng.random() < POWER_SHARE
        if died is not None:
            point, role = died
            self.wanted.met(role or STARTING, point, power)
        for loss in group.kill(name, power=power):
            self.lost["changes"] += loss.writes_lost + loss.writes_torn + loss.names_lost
            self.lost["kills"] += 1

    def start(self, name: str) -> None:
        self._lives += 1
        control = self.group.controls[name]
        points = self.wanted.of(STARTING) | (self.wanted.of("follower") & CATCHES)
        control.arm(() if self.over else points)
        try:
            self.group.start(name, flags=("--segment-bytes", self.rng.choice(SEGMENTS)))
        except ConnectionFailed:
            if control.died() is None:
                raise


LEFT_BEHIND = ("opening", "taking", "receiving")
CATCHES = {p for p in every() if p in CATCHING_UP or "receiving" in p}


def in_threads(campaigns: list[Campaign]) -> None:
    """Each in a thread, in which its processes live; raises what went wrong first."""
    failed: list[BaseException] = []

    def run_one(campaign: Campaign) -> None:
        try:
            campaign.run()
        except BaseException as error:
            error.add_note(f"seed {campaign.seed}")
            failed.append(error)

    threads = [threading.Thread(target=run_one, args=(one,)) for one in campaigns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("round_", range(dose(1, 8)))
def test_crash_points(round_: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """At least a hundred deaths at fifty and more points, each of them with the power; if there is
    time for it, at every point in every role that passes it."""
    begin = time.monotonic()
    wanted = Wanted(SECONDS, LATEST, Least())
    campaigns = [
        Campaign(tmp_path / f"g{number}", round_ * GROUPS + number, wanted)
        for number in range(GROUPS)
    ]
    in_threads(campaigns)
    seconds = time.monotonic() - begin
    lost = sum((campaign.lost for campaign in campaigns), Counter())
    acknowledged = sum(campaign.acknowledged for campaign in campaigns)
    request.config.stash.setdefault(SCORES, []).append(
        f"replicas at crash points: {wanted.told()}; {lost['changes']} changes lost, "
        f"{acknowledged} commands acknowledged, none lost, in {seconds:.0f} s"
    )
    assert wanted.enough(), f"{wanted.told()}; at least: {wanted.least}"
    assert lost["changes"] > lost["kills"], "the power was never missed: this tests nothing"
    assert acknowledged > wanted.kills.total(), "hardly anything was acknowledged"
    assert dose(ci=True, full=not wanted), f"never reached: {wanted}"


def test_unsynced_log_is_caught(tmp_path: Path) -> None:
    """Members that believe to have synced, and have not: the same campaign finds out at once."""
    campaign = Campaign(tmp_path / "g", 0, Wanted(0, 60, Least(12, 1, 0)), UNSYNCED)
    with pytest.raises(AssertionError):  # of whichever judge sees it first
        campaign.run()
