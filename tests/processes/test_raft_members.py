"""Members of a group of real replicas that come and go, under load, by the command line."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from raft_cuts import LABS_TIMING, SNAPSHOTS, loaded, ordered, seats, term, witnessed
from raft_group import RaftGroup
from scenes import scene, scenes
from support import patience
from waiting import eventually

from engine.errors import ConnectionFailed
from engine.raft.settings import LABS
from engine.storage.home import make

__all__ = ["scenes"]
pytestmark = pytest.mark.processes


def add(group: RaftGroup, name: str, *more: str) -> None:
    """As a voter, and wait until it is one."""
    place = f"{group.ids[name]}={group.cluster.address(name)}"
    ordered(group, "members", "--add", place, *more)
    eventually(lambda: seats(group).get(group.ids[name]) == "voter", 30, f"{name} to vote")


@scene
def test_fresh_member(folder: Path) -> None:
    """It gets a snapshot, becomes a voter, and is one: with it the group survives a death that it
    would not without."""
    with (
        RaftGroup(folder, 3, more=1, flags=(*LABS_TIMING, *SNAPSHOTS)) as group,
        witnessed(group) as load,
    ):
        load.more(100)
        group.start("n3")
        add(group, "n3")
        status = group.operator("n3").status()
        assert status.snapshot > 0
        assert status.base > 0, "it has the log from the beginning, and no snapshot"
        group.kill("n0", "n1")
        group.start("n1")
        group.leader(["n1", "n2", "n3"])
        load.more(50)
        group.start("n0")


@scene
def test_removed_follower(folder: Path) -> None:
    """The others go on, and what is left of it disturbs nobody."""
    with RaftGroup(folder, 4, flags=LABS_TIMING) as group:
        leader = group.leader()
        name = next(name for name in group.names if name != leader)
        rest = [other for other in group.names if other != name]
        with group.load(2, pause=0.002) as load:
            load.more(20)
            ordered(group, "members", "--remove", str(group.ids[name]))
            eventually(lambda: group.ids[name] not in seats(group), 20, "it to be gone")
            before = term(group)
            until = time.monotonic() + 3 * LABS.election_max / 1e9
            while time.monotonic() < until:
                load.more(20)
            assert group.leader(rest) == leader
            assert max(s.term for s in group.statuses(rest).values()) == before
            group.kill(name)
            load.stop()
            group.judge(load, rest)


@scene
def test_removed_leader(folder: Path) -> None:
    """It leads until that is decided; then another one does, at once."""
    with RaftGroup(folder, 4, flags=LABS_TIMING) as group, group.load(2, pause=0.002) as load:
        load.more(20)
        leader = group.leader()
        rest = [other for other in group.names if other != leader]
        ordered(group, "members", "--remove", str(group.ids[leader]))
        new = group.leader(rest)
        assert new != leader
        eventually(lambda: group.ids[leader] not in seats(group), 20, "it to be gone")
        load.more(50)
        group.kill(leader)
        load.more(50)
        load.stop()
        group.judge(load, rest)


@scene
def test_replaced_member(folder: Path) -> None:
    """A folder was lost. Whoever takes its place has another number, and is nobody before it is
    added: with its vote the group would have a leader, and does not."""
    with (
        RaftGroup(folder, 3, flags=(*LABS_TIMING, *SNAPSHOTS)) as group,
        witnessed(group, 2) as load,
    ):
        load.more(50)
        old = group.ids["n2"]
        group.kill("n2")
        shutil.rmtree(group.home("n2"))
        group.ids["n2"] = make(str(group.home("n2")))
        assert group.ids["n2"] != old
        group.founders = ["n0", "n1"]  # it is told of none: it waits until it is added
        group.start("n2")
        group.kill("n0")
        eventually(lambda: group.operator("n1").status().role != "leader", 20, "no leader")
        asked = group.proxy.total("n1", "n2").requests
        eventually(lambda: group.proxy.total("n1", "n2").requests > asked + 20, 30, "asking")
        assert all(s.role != "leader" for s in group.statuses(["n1", "n2"]).values())
        status = group.operator("n2").status()
        assert (status.term, status.last) == (0, 0)
        group.founders = ["n0", "n1", "n2"]
        group.start("n0")
        group.leader()
        add(group, "n2", "--remove", str(old))
        eventually(lambda: set(seats(group)) == set(group.ids.values()), 20, "the new three")
        group.kill("n0")
        group.leader(["n1", "n2"])
        load.more(50)
        group.start("n0")


@scene
def test_wiped_founder_is_refused(folder: Path) -> None:
    """It comes back with the command that it was started with, and is somebody else by now."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        victim = next(name for name in group.names if name != group.leader())
        old = group.ids[victim]
        group.kill(victim)
        shutil.rmtree(group.home(victim))
        number = make(str(group.home(victim)))
        with pytest.raises(
            ConnectionFailed, match=f"member {number}, which is none of the founders"
        ):
            group.start(victim)
        load.more(20)
        ordered(group, "members", "--remove", str(old))
        group.founders = [name for name in group.names if name != victim]
        group.ids[victim] = number
        group.start(victim)
        add(group, victim)
        load.more(20)


@scene
def test_group_of_one_grows(folder: Path) -> None:
    """One, three, five, under load, and back to one."""
    with (
        RaftGroup(folder, 1, more=4, flags=(*LABS_TIMING, *SNAPSHOTS)) as group,
        group.witness() as witness,
        group.load(2, pause=0.002) as load,
    ):
        load.more(20)
        for name in group.names[1:]:
            group.start(name)
            add(group, name)
            load.more(20)
        group.kill("n3", "n4")
        load.more(50)
        gone = [str(group.ids[name]) for name in group.names[1:]]
        removals = [word for number in gone for word in ("--remove", number)]
        leader = group.leader()
        ordered(group, "members", *removals)
        eventually(lambda: len(seats(group)) == 1, patience(20), "one to be left")
        load.more(20)
        assert leader
        load.stop()
        group.kill("n1", "n2")
        group.judge_witnessed(load, witness, ["n0"])
