"""Replicas whose disks are full, slow, broken or damaged, and what they tell of it.

What a disk does is decided outside of the process (`engine.faults.power`); damage is done to the
files of one that is not running.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from raft_cuts import LABS_TIMING, SNAPSHOTS, isolate, loaded, term, witnessed
from raft_group import RaftGroup
from scenes import scene, scenes
from support import patience
from waiting import eventually

from engine.errors import ConnectionFailed, OutcomeUnknown
from engine.raft.client import Group

__all__ = ["scenes"]
pytestmark = pytest.mark.processes


# --- no space ------------------------------------------------------------------------------------


@scene
def test_full_disk_of_the_leader(folder: Path) -> None:
    """It hands leadership over and follows without space; when there is space again it catches up
    by itself, and may lead again."""
    with (
        RaftGroup(folder, 3, seed=1, flags=(*LABS_TIMING, *SNAPSHOTS), power=True) as group,
        witnessed(group, size=300) as load,
    ):
        old = group.leader()
        group.powers[old].fail_writes()
        others = [name for name in group.names if name != old]
        group.leader(others, seconds=20)
        load.more(100)
        status = group.operator(old).status()
        assert status.full
        assert group.powers[old].injected.failed_writes > 0
        before = status.pid
        group.powers[old].heal()
        eventually(lambda: not group.operator(old).status().full, 20, "space to be noticed")
        load.more(20)
        assert group.operator(old).status().pid == before, "it was started again"
        assert group.cluster.node(old).said().count("Traceback") == 0


@scene
def test_full_disks_of_all(folder: Path) -> None:
    """First a majority's, then the leader's too: nothing is acknowledged, reads are answered, and
    all resumes by itself."""
    with (
        RaftGroup(folder, 3, seed=2, flags=(*LABS_TIMING, *SNAPSHOTS), power=True) as group,
        witnessed(group, size=300) as load,
    ):
        leader = group.leader()
        others = [name for name in group.names if name != leader]
        for name in others:
            group.powers[name].fail_writes()
        eventually(lambda: all(s.full for s in group.statuses(others).values()), 30, "full disks")
        before = max(load.acknowledged.values())
        everywhere = [group.clients(name) for name in group.names]
        with Group(everywhere, timeout=patience(2)) as client:
            with pytest.raises((OutcomeUnknown, ConnectionFailed)):
                client.submit(b"no room")
            load.unknown.add(b"no room")
            assert client.look().commands >= before
            group.powers[leader].fail_writes()
            assert client.look().commands >= before
        for power in group.powers.values():
            power.heal()
        load.more(50, seconds=30)
        assert not any(s.full for s in group.statuses().values())


# --- failing and slow syncs ----------------------------------------------------------------------


@scene
def test_failing_sync(folder: Path) -> None:
    """The process says so and ends: what it wrote may be lost, whatever later syncs say. The group
    goes on, and when it is started again it gets from the others what it lost."""
    with (
        RaftGroup(folder, 3, seed=3, flags=(*LABS_TIMING, *SNAPSHOTS), power=True) as group,
        witnessed(group) as load,
    ):
        for role in ("leader", "follower"):
            leader = group.leader()
            name = leader
            if role == "follower":
                name = next(name for name in group.names if name != leader)
            group.powers[name].fail_sync(times=1)
            node = group.cluster.node(name)
            assert node.process.wait(patience(20)) == 1
            node.told = True
            assert "the member ended" in node.said()
            assert "Input/output error" in node.said()
            assert "Traceback" not in node.said()
            load.more(50)
            group.powers[name].heal()
            group.kill(name, power=True)
            group.start(name)
            load.more(20)


@scene
def test_slow_syncs(folder: Path) -> None:
    """A second each, on all members: commands take as long, and nobody loses patience, since
    heartbeats do not wait for disks."""
    with (
        RaftGroup(folder, 3, seed=4, flags=LABS_TIMING, power=True) as group,
        loaded(group) as load,
    ):
        leader, before = group.leader(), term(group)
        for power in group.powers.values():
            power.slow(1000)
        done = len(load.acknowledged)
        eventually(lambda: len(load.acknowledged) >= done + 4, 30, "commands to go on")
        for power in group.powers.values():
            eventually(lambda power=power: power.injected.slow_syncs >= 2, 30, "slow syncs")
            power.heal()
        assert (group.leader(), term(group)) == (leader, before)


# --- damage --------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    """One bit."""
    with open(path, "r+b") as file:
        file.seek(offset)
        was = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([was ^ 4]))


def flip_command(home: Path, commands: Sequence[bytes]) -> None:
    """A bit of a command in the log; the earliest of these that is found there."""
    for command in commands:
        for path in sorted((home / "log").glob("log-*")):
            at = path.read_bytes().find(command)
            if at >= 0:
                flip(path, at + 2)
                return
    raise AssertionError("none of them is in the log")


@scene
def test_flipped_bit_in_the_log(folder: Path) -> None:
    """It is told apart from a torn end, since what follows shows that it was durable. The member
    does not vote before it has from the others what it lost; then it is like any other."""
    with RaftGroup(folder, 3, seed=5, flags=LABS_TIMING) as group, loaded(group, size=40) as load:
        load.more(100)
        leader = group.leader()
        victim, other = (name for name in group.names if name != leader)
        group.kill(victim)
        by_place = sorted(load.acknowledged, key=lambda command: load.acknowledged[command])
        flip_command(group.home(victim), by_place[20:])
        group.kill(other)
        isolate(group, victim)  # else the leader gives it back at once
        group.start(victim)
        assert "damage=True" in group.cluster.node(victim).said()
        assert "was durable" in group.cluster.node(victim).said()
        status = group.operator(victim).status()
        assert status.lost
        group.kill(leader)  # now it could only be elected, or elect, if it voted
        group.start(other)
        group.proxy.heal()
        asked = group.proxy.total(other, victim).requests
        eventually(lambda: group.proxy.total(other, victim).requests > asked + 20, 30, "asking")
        assert all(s.role != "leader" for s in group.statuses([other, victim]).values())
        assert group.operator(victim).status().lost
        group.start(leader)
        group.leader([leader, other], seconds=20)
        eventually(lambda: not group.operator(victim).status().lost, 20, "the repair")
        group.kill(leader)
        group.leader([other, victim], seconds=20)
        load.more(20)
        group.start(leader)


@scene
def test_damaged_snapshots(folder: Path) -> None:
    """The newest: the one before and the log lead to the same. Both: the leader has another."""
    with (
        RaftGroup(folder, 3, seed=6, flags=(*LABS_TIMING, *SNAPSHOTS)) as group,
        witnessed(group) as load,
    ):
        load.more(100)
        for damaged in (1, 2):
            victim = next(name for name in group.names if name != group.leader())
            group.kill(victim)
            snapshots = sorted((group.home(victim) / "log").glob("snapshot-*"), reverse=True)
            whole = [path for path in snapshots if "." not in path.name]
            assert len(whole) == 2
            for path in whole[:damaged]:
                flip(path, path.stat().st_size - 50)
            group.start(victim)
            load.more(50)
            eventually(lambda v=victim: not group.operator(v).status().lost, 20, "the repair")


@scene
def test_damage_of_an_only_voter(folder: Path) -> None:
    """Nobody has what is missing: it does not go on as if it had never been."""
    with RaftGroup(folder, 1, seed=7) as group:
        with group.load(1, pause=0.002) as load:
            load.more(50)
        group.kill("n0")
        by_place = sorted(load.acknowledged, key=lambda command: load.acknowledged[command])
        flip_command(group.home("n0"), by_place[5:20])
        said = '(?s)only voter: nobody has what is missing.*"exit_code": 6'
        with pytest.raises(ConnectionFailed, match=said):
            group.start("n0")


@scene
def test_damaged_member_file(folder: Path) -> None:
    """Nobody knows whose folder it is, and the sentence says what to do."""
    with RaftGroup(folder, 3, flags=LABS_TIMING) as group, loaded(group) as load:
        victim = next(name for name in group.names if name != group.leader())
        group.kill(victim)
        member = group.home(victim) / "member"
        was = member.read_bytes()
        member.write_bytes(was[: len(was) // 2])
        said = '(?s)does not say whose folder this is.*"exit_code": 6'
        with pytest.raises(ConnectionFailed, match=said):
            group.start(victim)
        load.more(20)
        member.write_bytes(was)
        group.start(victim)
