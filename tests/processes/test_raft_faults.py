"""Groups of real replicas that are stopped, cut off and killed, one accident at a time.

Each test is one accident under load, and ends with the same judgement: all members agree, and every
acknowledged command is there once, where it was said to be. Chance is for `test_raft_nemesis.py`,
disks for `test_raft_disks.py`, and members that come and go for `test_raft_members.py`.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from raft_cuts import (
    LABS_TIMING,
    admins,
    caught_up,
    deafen,
    isolate,
    loaded,
    mute,
    separate,
    term,
)
from raft_group import Load, RaftGroup
from scenes import scene, scenes
from support import engine, patience
from waiting import eventually

from engine.errors import ConnectionFailed, EngineError
from engine.raft.client import Group
from engine.raft.settings import LABS

__all__ = ["scenes"]
pytestmark = pytest.mark.processes

# --- stopped members -----------------------------------------------------------------------------


@scene
def test_stopped_leader(folder: Path) -> None:
    """Another one leads; the old one, when it goes on, steps down and disturbs nobody. Whoever asks
    it how many commands there are is never told of fewer than were acknowledged before."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        for cut in (False, True):
            stop_leader(group, load, cut)
            load.more(30)


def stop_leader(group: RaftGroup, load: Load, cut: bool) -> None:
    """With `cut` nobody can tell it, when it goes on, what happened meanwhile."""
    old = group.leader()
    with Group([group.clients(old)], timeout=patience(3)) as looker:
        assert looker.look().commands > 0
        if cut:
            isolate(group, old)
        group.cluster.stop(old)
        new = group.leader([name for name in group.names if name != old])
        load.more(30)
        before = max(load.acknowledged.values())
        told: list[int] = []
        asking = threading.Thread(target=lambda: told.append(look(looker)))
        asked = looker._known.number
        asking.start()
        eventually(lambda: looker._known.number > asked, what="the question")
        now = max(status.term for status in group.statuses([new]).values())
        group.cluster.go_on(old)
        asking.join()
        assert told[0] >= before or told[0] == 0, "a stale answer"
        group.proxy.heal()
        status = eventually(lambda: follows(group, old, now), 20, "the old one to follow")
    assert status == now
    assert group.leader() == new


def look(group: Group) -> int:
    """How many there are; 0 if nobody says so."""
    try:
        return group.look().commands
    except ConnectionFailed:
        return 0


def follows(group: RaftGroup, name: str, least: int) -> int:
    """The term in which it follows somebody, if that is no earlier than this one."""
    status = group.status(name)
    good = status is not None and status.role == "follower" and status.term >= least
    return status.term if status is not None and good else 0


@scene
def test_stopped_follower(folder: Path) -> None:
    """Nobody minds, and it catches up."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        leader, before = group.leader(), term(group)
        sleeper = next(name for name in group.names if name != leader)
        with group.cluster.stopped(sleeper):
            load.more(200)
        eventually(lambda: caught_up(group, sleeper, leader), 20, "it to catch up")
        assert (group.leader(), term(group)) == (leader, before)


# --- cuts ----------------------------------------------------------------------------------------


@scene
def test_leader_cannot_be_heard(folder: Path) -> None:
    """The others choose another one, whom it hears, and follows."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        old = group.leader()
        mute(group, old)
        others = [name for name in group.names if name != old]
        new = group.leader(others)
        eventually(lambda: follows(group, old, term(group)), 20, "the old one to follow")
        load.more(50)
        assert group.leader() == new
        group.proxy.heal()
        load.more(20)


@scene
def test_leader_cannot_hear(folder: Path) -> None:
    """It is still heard, so nobody else would ever lead: it has to notice, and step down."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        old = group.leader()
        deafen(group, old)
        others = [name for name in group.names if name != old]
        group.leader(others)
        assert group.operator(old).status().role != "leader"
        load.more(50)
        group.proxy.heal()
        load.more(20)


def one_way_follower(folder: Path, how: str) -> None:
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        leader, before = group.leader(), term(group)
        name = next(name for name in group.names if name != leader)
        (mute if how == "mute" else deafen)(group, name)
        # Several times as long as it takes to lose patience.
        until = time.monotonic() + 3 * LABS.election_max / 1e9
        while time.monotonic() < until:
            load.more(20)
        assert group.leader() == leader
        assert term(group) == before, "a follower that is half cut off has raised the term"
        group.proxy.heal()
        eventually(lambda: caught_up(group, name, leader), 20, "it to catch up")
        load.more(20)
        assert term(group) == before


@scene
def test_follower_cannot_be_heard(folder: Path) -> None:
    one_way_follower(folder, "mute")


@scene
def test_follower_cannot_hear(folder: Path) -> None:
    """It asks for votes, and nobody who hears the leader grants it one."""
    one_way_follower(folder, "deaf")


@scene
def test_partial_partition(folder: Path) -> None:
    """A hears B, B hears C, A does not hear C, and C leads: it goes on, and terms do not grow for
    ever. Cloudflare's etcd was without a leader for six hours of this."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group:
        leader, before = group.leader(), term(group)
        group.agreed()
        far, near = (name for name in group.names if name != leader)
        group.proxy.cut(far, leader)
        group.proxy.cut(leader, far)
        # While nothing is written its log is as good as any, and only B's word is in the way.
        asked = group.proxy.total(far, near).requests
        eventually(lambda: group.proxy.total(far, near).requests >= asked + 20, 30, "impatience")
        assert (group.leader([leader, near]), term(group)) == (leader, before)
        with loaded(group) as load:
            until = time.monotonic() + 2 * LABS.election_max / 1e9
            while time.monotonic() < until:
                load.more(20)
            assert term(group) == before, "terms grow"
            group.proxy.heal()
            load.more(20)


@scene
def test_isolated_member_returns(folder: Path) -> None:
    """It has lost patience often, and the term is the same when it is back (pre-vote)."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        leader, before = group.leader(), term(group)
        name = next(name for name in group.names if name != leader)
        isolate(group, name)
        eventually(lambda: group.operator(name).status().role == "candidate", 20, "impatience")
        load.more(100)
        group.proxy.heal()
        eventually(lambda: caught_up(group, name, leader), 20, "it to catch up")
        assert (group.leader(), term(group)) == (leader, before)


@scene
def test_isolated_leader_answers_no_read(folder: Path) -> None:
    """For a moment there are two who think that they lead. The old one, asked all the while, does
    not answer with what is true no more."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group, 1) as load:
        for turn in range(4):
            old = group.leader()
            others = [name for name in group.names if name != old]
            with group.reads(load, names=[old], pause=0) as reader:
                seen = reader.seen
                eventually(lambda reader=reader, seen=seen: reader.seen > seen, 20, "a read")
                isolate(group, old)
                group.leader(others)
                with Group([group.clients(name) for name in others], timeout=None) as client:
                    for number in range(10):
                        command = b"load other %d %d" % (turn, number)
                        load.acknowledged[command] = client.submit(command)
                eventually(lambda old=old: follows(group, old, 0) or not leads(group, old), 20)
            group.proxy.heal()
            load.more(10)


def leads(group: RaftGroup, name: str) -> bool:
    status = group.status(name)
    return status is not None and status.role == "leader"


@scene
def test_minority_answers_nobody(folder: Path) -> None:
    """A leader that is cut off with a minority acknowledges nothing and answers no read."""
    with RaftGroup(folder, 5, flags=LABS_TIMING) as group, loaded(group) as load:
        old = group.leader()
        friend = next(name for name in group.names if name != old)
        separate(group, [old, friend])
        with Group([group.clients(old), group.clients(friend)], timeout=2.0) as inside:
            with pytest.raises(EngineError):
                inside.submit(b"inside")
            load.unknown.add(b"inside")
            with pytest.raises(ConnectionFailed):
                inside.look()
        load.more(50)
        group.proxy.heal()
        load.more(20)


# --- deaths --------------------------------------------------------------------------------------


@scene
def test_death_while_recovering(folder: Path) -> None:
    """A member dies again and again while it opens its log, each time at another place and with the
    power; then it opens it, and has forgotten nothing."""
    points = [
        "after opening create", "amid opening write", "after opening write", "before opening sync",
        "after opening sync", "before opening rename", "after opening rename",
        "before folder sync", "after folder sync", "after opening rename", "before opening remove",
    ]  # fmt: skip
    with RaftGroup(folder, 3, seed=5, power=True, points=True) as group, loaded(group) as load:
        victim = group.leader()
        status = group.operator(victim).status()
        group.kill(victim, power=True)
        deaths = 0
        for point in points:
            control = group.controls[victim]
            control.arm([point])
            try:
                group.start(victim)
            except ConnectionFailed:
                assert control.died() == (point, "")
                deaths += 1
            group.kill(victim, power=deaths % 3 != 0)
        group.controls[victim].arm()
        assert deaths >= len(points) - 1
        group.start(victim)
        after = group.operator(victim).status()
        assert after.term >= status.term
        assert after.last >= status.durable
        load.more(20)


@scene
def test_whole_group_dies(folder: Path) -> None:
    """All at once and with the power, under load, three times."""
    with RaftGroup(folder, 3, seed=6, power=True) as group, loaded(group) as load:
        for _ in range(3):
            load.more(50)
            group.kill(*group.names, power=True)
            for name in group.names:
                group.start(name)
        load.more(50)


@scene
def test_rolling_restart(folder: Path) -> None:
    """One after the other is ended in good order and started again, the leader last."""
    with RaftGroup(folder, 3) as group, loaded(group) as load:
        leader = group.leader()
        for name in sorted(group.names, key=lambda name: name == leader):
            group.forget(name)
            process = group.cluster.node(name).process
            process.terminate()
            assert process.wait(patience(20)) == 0
            group.start(name)
            load.more(30)


@scene
def test_leadership_is_handed_over(folder: Path) -> None:
    """To whom it is said, by the command line, while commands go on."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        for _ in range(3):
            leader = group.leader()
            name = next(name for name in group.names if name != leader)
            assert engine("raft", "lead", str(group.ids[name]), "--cluster", admins(group)) == (
                0,
                "",
                "",
            )
            eventually(lambda name=name: group.leader() == name, 20, f"{name} to lead")
            load.more(20)
        assert len(load.unknown) <= 3 * 2, "each client may be left in the dark once a time"
