"""One member as the explorer sees it: a value, and what a turn of the shipped core makes of it.

A `Member` is all that decides how a member of a group goes on: what the core holds in memory, its
durable disk, and the groups of writes that wait for it with what must be said after them. Taking a
turn is: build the core from that value, let it step once, and read it back. What only tells the
time is left out, in a way that loses no behaviour:

* A timer runs out when the explorer says so, at any member, however short ago it was set.
* Nobody hears a leader, and no leader holds its followers. Whoever does ignores requests for votes
  without an answer, and that is what it is to lose them; messages are lost anyway.
* A leader speaks on its own to one follower when the explorer says so.
* A candidate does not repeat its requests: they would be duplicates.
* How long a way or a disk takes only sets how many messages with entries a leader has on their way
  to a follower. That is part of the bounds instead.

A leader that lacks answers steps down at the moment at which its election timer runs out after it:
between the two it would only be silent. There are no snapshots, reads, or changes of members.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from engine.contract import Durable, Nanos, Received, Send, peer
from engine.kernels.checksum import crc32c
from engine.raft.candidate import Candidate
from engine.raft.follower import Follower
from engine.raft.leader import Leader
from engine.raft.machine import LONG_AGO, Raft
from engine.raft.membership import founders, pack
from engine.raft.messages import (
    AppendReply,
    Propose,
    VoteReply,
    VoteRequest,
    WithEntries,
)
from engine.raft.progress import Progress
from engine.raft.reads import Reads
from engine.raft.settings import Settings
from engine.record import Record
from engine.storage.entries import Append, Base, Entry, GroupLog, State

MEMBERS = (1, 2, 3)
GROUP = 1
NOW: Nanos = 1 << 50
LATER: Nanos = 1 << 60
CONFIG = pack(founders({number: f"member {number}" for number in MEMBERS}))
FOLLOWER, CANDIDATE, LEADER = "follower", "candidate", "leader"

TIMER, DURABLE, DELIVER, PROPOSE, BEAT, CRASH = (
    "its election timer runs out",
    "its disk completes the oldest group",
    "receives",
    "is given command",
    "speaks to follower",
    "loses power, groups that survive:",
)
"""What can happen to a member."""

KEPT = {
    Raft: "term vote commit applied stable leader written durable state_ticket _pending log role",
    Follower: "",
    Candidate: "pre votes",
    Leader: "own_term progress",
    Progress: "state match next commit paused in_flight",
    Reads: "",
}
"""The fields that a `Member` stands for."""
SET_ASIDE = {
    Raft: "settings me rng now members lost full heard backoff disk votes snapshots"
    " _born _dirty _writes _now _after _jobs _applies _reads _answers _job",
    Follower: "raft deadline",
    Candidate: "raft transferred deadline _ask_at",
    Leader: "raft reads thrift successor _handing_until _handed _quorum_at _moved",
    Progress: "round asked heard sent pieced repeats trip snapshot offset full",
    Reads: "round _leader _waiting _asked _index",
}
"""Those that are the same in every turn, or tell the time, or are empty between turns."""


class Disk(Record):
    """What survives a loss of power."""

    term: int = 0
    vote: int = 0
    entries: tuple[Entry, ...] = ()

    def written(self, records: Sequence[Any]) -> Disk:
        """With these records."""
        disk = self
        for record in records:
            if isinstance(record, State):
                disk = Disk(record.term, record.vote, disk.entries)
            else:
                assert isinstance(record, Append), record
                disk = disk._replace(entries=disk.entries[: record.first - 1] + record.entries)
        return disk


class Group(Record):
    """Writes on their way to the disk; `last` is the entry up to which the log is on it then."""

    last: int
    records: tuple[Any, ...]
    after: tuple[Any, ...]
    """Messages that leave when the group is durable."""


class Member(Record):
    """`state_at`: the pending group with the term and vote, from 1 on; 0 if they are durable.

    `role` is (FOLLOWER,), (CANDIDATE, pre, votes) or (LEADER, first entry of the term, progress).
    """

    me: int
    term: int
    vote: int
    state_at: int
    commit: int
    stable: int
    leader: int
    role: tuple[Any, ...]
    disk: Disk
    pending: tuple[Group, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """The log, durable or not."""
        return self.surviving(len(self.pending)).entries

    def surviving(self, groups: int) -> Disk:
        """The disk, if power is lost and so many of the pending groups are on it."""
        disk = self.disk
        for group in self.pending[:groups]:
            disk = disk.written(group.records)
        return disk

    def leads(self) -> int:
        """The term that it leads, or 0."""
        return self.term if self.role[0] == LEADER else 0

    def __str__(self) -> str:
        return (
            f"{self.role[0]} of term {self.term}, vote {self.vote}, log {shown(self.entries())},"
            f" commit {self.commit}; on its disk term {self.disk.term}, vote {self.disk.vote},"
            f" log {shown(self.disk.entries)}"
        )


def shown(log: Sequence[Entry]) -> str:
    """The terms of the entries, and the commands."""
    return str([f"{e.term}:{e.body.decode()}" if e.body else f"{e.term}" for e in log])


class Turn(Record):
    """What became of a member, what it said, and what is wrong with that."""

    member: Member
    sends: tuple[Any, ...]
    problem: str


class How(Record):
    """What decides how turns go, and is the same in all of them."""

    pre_vote: bool = False
    slow_disk: bool = True
    """Writes wait until they are completed; otherwise every turn ends with all of them durable."""
    entries_max: int = 1024
    """Entries in one message."""
    window: int = 1
    """Messages with entries on their way to one follower."""
    check: bool = True
    """Ask the core as well whether it is in order."""
    promises: bool = True
    """A member may promise only what is on its disk; otherwise only what follows is looked at."""


def uncovered(thing: Any) -> set[str]:
    """Fields of the core that this module knows nothing of: then it may take two states for one."""
    kind = type(thing)
    names = set(kind.__slots__) if hasattr(kind, "__slots__") else set(vars(thing))
    return names ^ {*KEPT[kind].split(), *SET_ASIDE[kind].split()}


# --- the core and its value ----------------------------------------------------------------------


def started(me: int, disk: Disk, how: How) -> Raft:
    """The core as it begins with this disk."""
    terms, sizes = [e.term for e in disk.entries], [len(e.body) for e in disk.entries]
    found = GroupLog(disk.term, disk.vote, Base(GROUP, 0, 0, CONFIG), terms, sizes, [], None)
    settings = Settings(me, GROUP, entries_max=how.entries_max, window_max=how.window)
    return Raft(settings, found, (), random.Random(me))


def restored(member: Member, how: How) -> Raft:
    """The core in the middle of its life."""
    raft = started(member.me, member.surviving(len(member.pending)), how)
    raft.term, raft.vote, raft._born = member.term, member.vote, True
    raft.commit = raft.applied = member.commit
    raft.stable, raft.leader = member.stable, member.leader
    raft.written, raft.durable, raft.state_ticket = len(member.pending), 0, member.state_at
    raft._pending = deque([[n, group.last, NOW] for n, group in enumerate(member.pending, 1)])
    kind, *rest = member.role
    if kind == CANDIDATE:
        raft.role = Candidate(raft, pre=rest[0], transfer=False)
        raft.role.votes = dict(rest[1])
    elif kind == LEADER:
        raft.role = leader = Leader(raft)
        leader.own_term = rest[0]
        leader.progress = {one[0]: _restored_progress(one) for one in rest[1]}
    return raft


def _restored_progress(saved: tuple[Any, ...]) -> Progress:
    progress = Progress(0, NOW)
    _, progress.state, progress.match, progress.next, progress.commit, progress.paused, on = saved
    progress.in_flight = deque([(last, NOW) for last in on])
    return progress


def saved(raft: Raft, disk: Disk, pending: tuple[Group, ...]) -> Member:
    """The value of this core, between two turns."""
    lasts = [last for _, last, _ in raft._pending]
    pending = tuple(
        [Group(last, g.records, g.after) for last, g in zip(lasts, pending, strict=True)]
    )
    assert not raft._dirty, raft
    assert raft.applied == raft.commit, raft
    role: tuple[Any, ...] = (FOLLOWER,)
    if type(raft.role) is Candidate:
        role = (CANDIDATE, raft.role.pre, tuple(sorted(raft.role.votes.items())))
    elif type(raft.role) is Leader:
        progress = [
            (n, p.state, p.match, p.next, p.commit, p.paused, tuple([i[0] for i in p.in_flight]))
            for n, p in sorted(raft.role.progress.items())
        ]
        role = (LEADER, raft.role.own_term, tuple(progress))
    state_at = max(0, raft.state_ticket - raft.durable)
    return Member(
        raft.me, raft.term, raft.vote, state_at, raft.commit, raft.stable, raft.leader, role,
        disk, pending,
    )  # fmt: skip


def born(me: int, disk: Disk, how: How) -> Member:
    """A member that has just started with this disk."""
    raft = started(me, disk, how)
    raft.step(NOW, ())
    raft.ready()
    return saved(raft, disk, ())


def hold_still(raft: Raft, how: How) -> None:
    """Put all times so that no timer runs out, and nobody hears anybody."""
    raft.now, raft.heard, raft.disk = NOW, LONG_AGO, 0
    role: Any = raft.role
    if type(role) is Leader:
        role._quorum_at = LATER
        for progress in role.progress.values():
            progress.heard, progress.sent = LONG_AGO, NOW - 1
            progress.trip = how.window * 1_000_000
    else:
        role.deadline = LATER
        if type(role) is Candidate:
            role._ask_at = LATER


# --- turns ---------------------------------------------------------------------------------------


def can_campaign(member: Member) -> bool:
    """Whether its election timer can run out: a candidate's own vote must be durable before."""
    kind, *rest = member.role
    return kind != CANDIDATE or rest[0] or any(number == member.me for number, _ in rest[1])


def taken(before: Member, kind: str, value: Any, how: How) -> Turn:
    """What becomes of this member when this happens to it."""
    if kind == CRASH:
        return Turn(born(before.me, before.surviving(value), how), (), "")
    turn = turned(restored(before, how), before, kind, value, how)
    sends = turn.sends
    while not how.slow_disk and turn.member.pending and not turn.problem:
        turn = turned(restored(turn.member, how), turn.member, DURABLE, None, how)
        sends += turn.sends
    return Turn(turn.member, sends, turn.problem)


def turned(raft: Raft, before: Member, kind: str, value: Any, how: How) -> Turn:
    """A turn of this core, whose value is `before`: as `engine.contract.Server.turn`."""
    hold_still(raft, how)
    disk, pending = before.disk, before.pending
    released: tuple[Any, ...] = ()
    if kind == DURABLE:
        disk, released, pending = disk.written(pending[0].records), pending[0].after, pending[1:]
    _step(raft, kind, value, how)
    ready = raft.ready()
    if how.check:
        raft.check()
    if ready.writes:
        pending += (Group(0, tuple([write.record for write in ready.writes]), ()),)
    log = disk
    for group in pending:
        log = log.written(group.records)
    sends = tuple([_completed(send, log) for send in ready.now]) + released
    after = tuple([send.message for send in ready.after])
    if pending:
        last = pending[-1]
        pending = (*pending[:-1], last._replace(after=in_order(last.after + after)))
    else:
        sends += after
    member = saved(raft, disk, pending)
    promises = sends if how.promises else ()
    return Turn(member, sends, _broken(raft, before, member, log, promises))


def _step(raft: Raft, kind: str, value: Any, how: How) -> None:
    role: Any = raft.role
    if kind == TIMER:
        if type(role) is Leader:
            role._quorum_at = NOW
            raft.step(NOW, ())
        if how.pre_vote:
            raft.role.deadline = NOW  # type: ignore[union-attr]
            raft.step(NOW, ())
        else:
            raft.campaign(pre=False)
    elif kind == DURABLE:
        raft.step(NOW, (Durable(raft.durable + 1),))
    elif kind == DELIVER:
        raft.step(NOW, [Received(peer(f"member {m.sender}"), m) for m in value])
    elif kind == PROPOSE:
        body = b"%d" % value
        raft.step(NOW, (Propose(value, ((crc32c(body), body),)),))
    else:
        assert kind == BEAT, kind
        role.progress[value].sent = NOW - raft.settings.timing.heartbeat
        raft.step(NOW, ())


def _completed(send: Send, log: Disk) -> Any:
    """With the entries that the server would put in."""
    message = send.message
    if type(message) is not WithEntries:
        return message
    ask, last = message
    return ask._replace(entries=log.entries[ask.previous : last])


# --- what a member may not do by itself ----------------------------------------------------------


def _broken(raft: Raft, before: Member, after: Member, log: Disk, promises: Sequence[Any]) -> str:
    """What is wrong with this turn, or nothing. `log` has all that was written."""
    was = before.entries()
    found = [
        _promise(message, after.disk) for message in promises
    ] + [
        (after.term < before.term) * "the term falls",
        (after.disk.term < before.disk.term) * "the term on the disk falls",
        _two_votes(before, after) * "a second vote in one term",
        _two_votes(before.disk, after.disk) * "a second vote in one term, on the disk",
        (after.commit < before.commit) * "the commit index falls",
        (log.entries[: before.commit] != was[: before.commit]) * "a committed entry is replaced",
        (0 < before.leads() == after.leads() and log.entries[: len(was)] != was)
        * "a leader drops entries of its own log",
        ([entry.term for entry in log.entries] != raft.log.terms)
        * "the log is not what is written",
        (log.entries[: after.stable] != after.disk.entries[: after.stable])
        * "entries are taken for durable that are not",
    ]  # fmt: skip
    return next((problem for problem in found if problem), "")


def _two_votes(before: Member | Disk, after: Member | Disk) -> bool:
    return after.term == before.term and before.vote not in (0, after.vote)


def _promise(message: Any, disk: Disk) -> str:
    """What is said must not be more than what is on the disk of whoever says it."""
    kind = type(message)
    if (kind is VoteRequest or kind is VoteReply) and message.pre:
        return ""
    if message.term > disk.term:
        return "a term is said that is not durable"
    same = message.term == disk.term
    if kind is VoteReply and message.granted and same and disk.vote != message.to:
        return "a vote is given that is not durable"
    if kind is VoteRequest and same and disk.vote != message.sender:
        return "votes are asked for before the candidate's own is durable"
    if kind is AppendReply and message.accepted and message.match > len(disk.entries):
        return "entries are acknowledged that are not durable"
    return ""


# --- other names ---------------------------------------------------------------------------------


def renamed_message(message: Any, names: Sequence[int]) -> Any:
    """With member n called names[n]."""
    return message._replace(sender=names[message.sender], to=names[message.to])


def renamed(member: Member, names: Sequence[int]) -> Member:
    """With member n called names[n]; names[0] is 0."""
    kind, *rest = member.role
    if kind != FOLLOWER:
        rest[1] = tuple(sorted([(names[one[0]], *one[1:]) for one in rest[1]]))
    pending = [_renamed_group(group, names) for group in member.pending]
    return member._replace(
        me=names[member.me],
        vote=names[member.vote],
        leader=names[member.leader],
        role=(kind, *rest),
        disk=member.disk._replace(vote=names[member.disk.vote]),
        pending=tuple(pending),
    )


def _renamed_group(group: Group, names: Sequence[int]) -> Group:
    records = [
        record._replace(vote=names[record.vote]) if isinstance(record, State) else record
        for record in group.records
    ]
    after = [renamed_message(message, names) for message in group.after]
    return Group(group.last, tuple(records), in_order(after))


def in_order(messages: Iterable[Any]) -> tuple[Any, ...]:
    """The network has no order, so what leaves together needs none of its own."""
    return tuple(sorted(messages, key=lambda message: (type(message).__name__, message)))
