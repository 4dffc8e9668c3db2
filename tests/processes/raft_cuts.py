"""What tests of real replicas share: load with its judgement, cuts, terms, the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raft_group import Load, RaftGroup
from support import Ran, engine
from waiting import eventually

LABS_TIMING = ("--timing", "labs")
"""Patient enough that no leader is deposed because a busy machine has no time for it."""
SNAPSHOTS = ("--snapshot-every", "20", "--segment-bytes", "16384")
PAUSE = 0.002


@contextmanager
def loaded(group: RaftGroup, clients: int = 2, **how: Any) -> Iterator[Load]:
    """Commands and reads while the block runs, and the judgement behind it."""
    with group.load(clients, **{"pause": PAUSE, **how}) as load:
        with group.reads(load) as reader:
            load.more(10)
            yield load
            seen = reader.seen
            eventually(lambda: reader.seen > seen, 20, "reads to go on")
        load.stop()
        group.judge(load)


@contextmanager
def witnessed(group: RaftGroup, clients: int = 2, **how: Any) -> Iterator[Load]:
    """The same for a group with snapshots."""
    with group.witness() as witness, group.load(clients, **{"pause": PAUSE, **how}) as load:
        with group.reads(load):
            load.more(10)
            yield load
        load.stop()
        group.judge_witnessed(load, witness)


def term(group: RaftGroup) -> int:
    return max(status.term for status in group.statuses().values())


def mute(group: RaftGroup, name: str, direction: str = "request") -> None:
    """Nobody hears what it says: neither what it begins nor what it answers."""
    back = "reply" if direction == "request" else "request"
    for other in group.names:
        if other != name:
            group.proxy.cut(name, other, direction)
            group.proxy.cut(other, name, back)


def deafen(group: RaftGroup, name: str) -> None:
    """It hears nobody."""
    mute(group, name, "reply")


def isolate(group: RaftGroup, name: str) -> None:
    group.proxy.cut(name, "*")
    group.proxy.cut("*", name)


def separate(group: RaftGroup, some: list[str]) -> None:
    """These on one side, the others on the other."""
    for near in some:
        for far in group.names:
            if far not in some:
                group.proxy.cut(near, far)
                group.proxy.cut(far, near)


def caught_up(group: RaftGroup, name: str, other: str) -> bool:
    """Whether it has about all that the other one has."""
    mine, theirs = group.status(name), group.status(other)
    return mine is not None and theirs is not None and mine.applied >= theirs.applied - 20


def seats(group: RaftGroup) -> dict[int, str]:
    """The members and their roles, as the leader has them."""
    status = group.status(group.leader())
    return {seat.id: seat.role for seat in status.seats} if status is not None else {}


def admins(group: RaftGroup) -> str:
    """All operators' endpoints, for the command line."""
    return ",".join(f"{group.cluster.address(name)}.a" for name in group.names)


def ordered(group: RaftGroup, *arguments: str) -> Ran:
    """`engine raft ARGUMENTS`, again while another change is under way or leadership moves."""

    def done() -> Ran | None:
        ran = engine("raft", *arguments, "--cluster", admins(group), "--json")
        if ran.code == 0:
            return ran
        why = json.loads(ran.out)["error"]
        assert any(text in why for text in PASSING), why
        return None

    return eventually(done, 30, f"engine raft {' '.join(arguments)}")


PASSING = (
    "another change of members is under way",
    "the leader has not committed an entry of its term yet",
    "leadership is being handed over",
    "Nobody leads",
    "this member does not lead",
)
