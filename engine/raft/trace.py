r"""What a member does, line by line, for a judge who was not there (`engine.verify.trace`).

Nothing is done before it is noted: a line is in the file before what it tells of is written, said
or answered. So a member that is killed has done nothing that its file does not know; at most the
last lines, of what it was about to do, are missing, or half of one.

A trace is JSON lines, UTF-8, one event each, in the order in which they happened. A *life* is that
of a process; the next one is added behind it, on a line of its own. Half a line, which is the last
of a life, counts for nothing. Grammar, version 1::

    line     = {"at": ns, "event": name, …}
    ns       = CLOCK_MONOTONIC at the beginning of the turn, after it took what had arrived; all
               events of a turn have the same

    life     version 1, wall: ns since 1970, boot: text, pid, member,
             term, vote, base: [index, term], terms: [[term, entries]…] of the log behind the base,
             configs: [[index, voters, outgoing]…] from that of the base on,
             lost: [term, index] or null, snapshot: [index, term] of the newest or null, commit
    write    ticket, records: [record…]
    durable  ticket: all groups of writes up to this one
    say      what: class of the message, term, to, after: ticket it had to wait for or 0, and of
             VoteRequest    last_term, last_index, pre, transfer
             VoteReply      pre, granted
             AppendEntries  previous, previous_term, commit, round, entries: how many
             AppendReply    previous, round, accepted, match, lost
             InstallSnapshot  last, last_term, offset
             SnapshotReply  last, offset
    role     role: follower, candidate or leader; term, leader: of that term, 0 if it knows none
    commit   to: index
    config   entry: its index or 0, voters, outgoing: what the member goes by
    load     last, term: the state is that of a snapshot now
    apply    first, entries: [[term, crc]…]
    ask      context: a read came
    read     context, last: it was confirmed as of this entry
    take     a snapshot of what is applied is begun
    taken    last: it is on the disk, and says that it ends with this entry
    hear     term: later than its own, in a message after which its own cannot be the old one
    end      it ended because it was told to

    record   = ["state", term, vote] | ["base", index, term, voters, outgoing]
             | ["append", first, [[term, kind, crc]…]]
               of an entry of kind 2, a configuration: [term, 2, crc, voters, outgoing]

Members are their numbers, which may have 62 bits; a vote for 0 is none. A worked example, in which
member 7, alone in its group, is elected and begins its term::

    {"at":100,"event":"life","version":1,"wall":1700000000000000000,"boot":"b1","pid":41,"member":7,"term":0,"vote":0,"base":[0,0],"terms":[],"configs":[[0,[7],[]]],"lost":null,"snapshot":null,"commit":0}
    {"at":200,"event":"role","role":"follower","term":0,"leader":0}
    {"at":200,"event":"config","entry":0,"voters":[7],"outgoing":[]}
    {"at":300,"event":"role","role":"candidate","term":1,"leader":0}
    {"at":300,"event":"write","ticket":1,"records":[["state",1,7]]}
    {"at":400,"event":"durable","ticket":1}
    {"at":400,"event":"role","role":"leader","term":1,"leader":7}
    {"at":400,"event":"write","ticket":2,"records":[["append",1,[[1,0,0]]]]}
    {"at":500,"event":"durable","ticket":2}
    {"at":500,"event":"commit","to":1}
    {"at":500,"event":"apply","first":1,"entries":[[1,0]]}
"""
# ruff: noqa: A005 (nobody runs this folder as a path)

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from time import monotonic_ns, time_ns
from typing import Any

from engine.contract import Durable, Nanos, Ready, Received, Send
from engine.raft.membership import Configuration, unpack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Read,
    SnapshotReply,
    Snapshotted,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from engine.raft.server import RaftServer
from engine.storage.entries import CONFIG, Append, Entry, State

VERSION = 1
TOLD: dict[type, tuple[str, ...]] = {
    VoteRequest: ("last_term", "last_index", "pre", "transfer"),
    VoteReply: ("pre", "granted"),
    AppendEntries: ("previous", "previous_term", "commit", "round"),
    AppendReply: ("previous", "round", "accepted", "match", "lost"),
    InstallSnapshot: ("last", "last_term", "offset"),
    SnapshotReply: ("last", "offset"),
    TimeoutNow: (),
}
"""By message: what is told of it besides its term, and to whom it is said."""
BINDING = (AppendEntries, AppendReply, InstallSnapshot, SnapshotReply, TimeoutNow)
"""Messages whose term, if it is later, is taken by whoever hears them, whatever it is doing."""


class Trace:
    """A file that lines are added to. OSError when it cannot be written."""

    def __init__(self, path: str, clock: Callable[[], Nanos] = monotonic_ns) -> None:
        self.clock, self.at = clock, clock()
        self._lines: list[str] = []
        self._file = open(path, "a+b", buffering=0)
        size = self._file.seek(0, os.SEEK_END)
        if size:
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self._lines.append("")  # half a line, of a life before

    def tick(self) -> None:
        """A turn begins."""
        self.at = self.clock()

    def note(self, event: str, **fields: Any) -> None:
        """One line, which is in the file after the next `flush`."""
        row = {"at": self.at, "event": event, **fields}
        self._lines.append(json.dumps(row, separators=(",", ":")))

    def flush(self) -> None:
        """What was noted is in the file, and survives the process."""
        if not self._lines:
            return
        data = memoryview(("\n".join(self._lines) + "\n").encode())
        self._lines.clear()
        while data:
            data = data[self._file.write(data) :]

    def close(self) -> None:
        """The life ends because it was told to."""
        if not self._file.closed:
            self.tick()
            self.note("end")
            self.flush()
            self.drop()

    def drop(self) -> None:
        """As when the process is killed: what is not in the file yet is lost."""
        self._file.close()


def traced(server: RaftServer, trace: Trace) -> None:
    """Note all that this server does. To be called once, before its first turn."""
    watch = _Watch(server, trace)
    watch.life()
    world: Any = _World(server.world, watch)
    state: Any = _State(server.state, trace)
    server.world, server.state = world, state
    server.machine.step = watch.step  # type: ignore[method-assign]
    server.machine.ready = watch.ready  # type: ignore[method-assign]
    server.machine.lead = watch.lead  # type: ignore[method-assign]


class _Watch:
    """Compares what a member is with what was noted of it."""

    def __init__(self, server: RaftServer, trace: Trace) -> None:
        self.server, self.raft, self.trace = server, server.machine, trace
        self._step, self._ready, self._lead = self.raft.step, self.raft.ready, self.raft.lead
        self._role: Any = None
        self._members: Any = None
        self._commit = self.raft.commit
        self._held: dict[int, tuple[Any, int]] = {}
        """By the identity of a message that waits: itself, and the ticket it waits for."""

    def life(self) -> None:
        """What it begins with: what is on the disk, not yet what it makes of that."""
        raft, log = self.raft, self.server.log.recovered.get(self.server.group)
        kept = raft.snapshots.kept
        newest = [kept[0].last, kept[0].term] if kept else None
        term = vote = 0
        base, terms, configs = [0, 0], [], [[0, [], []]]
        if log is not None:
            term, vote = log.term, log.vote
        # Else its beginning was in a snapshot that is gone, and it begins anew (`recover`).
        if log is not None and log.base.last <= (kept[0].last if kept else 0):
            base, terms = [log.base.last, log.base.term], _runs(log.terms)
            bodies = [(log.base.last, log.base.config), *log.configs]
            configs = [[index, *_halves(unpack(body))] for index, body in bodies]
        lost = None if raft.lost is None else [raft.lost.term, raft.lost.last]
        self.trace.note(
            "life", version=VERSION, wall=time_ns(), boot=_boot(), pid=os.getpid(), member=raft.me,
            term=term, vote=vote, base=base, terms=terms, configs=configs, lost=lost,
            snapshot=newest, commit=raft.commit,
        )  # fmt: skip
        self.trace.flush()

    def step(self, now: Nanos, events: Sequence[Any]) -> None:
        """What the machine is told, as far as it counts."""
        raft, latest = self.raft, 0
        for event in events:
            kind = type(event)
            if kind is Durable:
                self.trace.note("durable", ticket=event.ticket)
            elif kind is Read:
                self.trace.note("ask", context=event.context)
            elif kind is Snapshotted:
                self.trace.note("taken", last=event.last)
            elif kind is Received and type(event.message) in BINDING:
                message = event.message
                if message.to == raft.me != message.sender:
                    latest = max(latest, message.term)
        if latest > raft.term:
            self.trace.note("hear", term=latest)
        self._step(now, events)

    def lead(self) -> None:
        """It is elected; it may lead no more when the turn ends, and has placed an entry then."""
        self._lead()
        self._note_role()

    def _note_role(self) -> None:
        raft = self.raft
        role = (type(raft.role).__name__.lower(), raft.term, raft.leader)
        if role != self._role:
            self._role = role
            self.trace.note("role", role=role[0], term=role[1], leader=role[2])

    def ready(self) -> Ready:
        """What the machine decided in this turn, before any of it is done."""
        ready, raft, trace = self._ready(), self.raft, self.trace
        self._note_role()
        if ready.writes:
            records = [_record(write.record) for write in ready.writes]
            trace.note("write", ticket=raft.written, records=records)
        if raft.commit != self._commit:
            self._commit = raft.commit
            trace.note("commit", to=raft.commit)
        members = (raft.members.index, raft.members.voters, raft.members.outgoing)
        if members != self._members:
            self._members = members
            trace.note("config", entry=members[0], voters=members[1], outgoing=members[2])
        for span in ready.applies:
            if span.load:
                trace.note("load", last=span.after, term=raft.log.term(span.after))
        for read in ready.reads:
            trace.note("read", context=read.context, last=read.last)
        for send in ready.after:
            self._held[id(send.message)] = (send.message, raft.written)
        trace.flush()
        return ready

    def said(self, sends: Iterable[Send]) -> None:
        for _, message in sends:
            told = TOLD.get(type(message))
            if told is None:
                continue  # for a client, or an operator
            _, ticket = self._held.pop(id(message), (None, 0))
            fields = {name: getattr(message, name) for name in told}
            if type(message) is AppendEntries:
                fields["entries"] = len(message.entries)
            self.trace.note(
                "say", what=type(message).__name__, term=message.term, to=message.to, after=ticket,
                **fields,
            )  # fmt: skip


class _World:
    """The server's world, seen from outside."""

    def __init__(self, world: Any, watch: _Watch) -> None:
        self._world, self._watch, self._trace = world, watch, watch.trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def drain(self, frames: int, size: int) -> Any:
        events = self._world.drain(frames, size)
        self._trace.tick()
        return events

    def send(self, sends: Iterable[Send]) -> None:
        sends = tuple(sends)
        if sends:
            self._watch.said(sends)
            self._trace.flush()
            self._world.send(sends)

    def point(self, name: str) -> None:
        if name == "turned":
            self._trace.flush()
        self._world.point(name)


class _State:
    """The server's state machine, seen from outside."""

    def __init__(self, state: Any, trace: Trace) -> None:
        self._state, self._trace = state, trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def apply(self, first: int, entries: tuple[Entry, ...]) -> None:
        what = [(entry.term, entry.crc) for entry in entries]
        self._trace.note("apply", first=first, entries=what)
        self._trace.flush()
        self._state.apply(first, entries)

    def pieces(self) -> Iterator[bytes]:
        self._trace.note("take")
        pieces: Iterator[bytes] = self._state.pieces()
        return pieces


def _record(record: Any) -> list[Any]:
    """A write, as in the grammar."""
    kind = type(record)
    if kind is State:
        return ["state", record.term, record.vote]
    if kind is Append:
        return ["append", record.first, [_entry(entry) for entry in record.entries]]
    return ["base", record.last, record.term, *_halves(unpack(record.config))]


def _entry(entry: Entry) -> list[Any]:
    config = _halves(unpack(entry.body)) if entry.kind == CONFIG else ()
    return [entry.term, entry.kind, entry.crc, *config]


def _halves(configuration: Configuration) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return configuration.voters, configuration.outgoing


def _runs(terms: Iterable[int]) -> list[list[int]]:
    """How many entries of each term follow each other."""
    return [[term, len(list(run))] for term, run in groupby(terms)]


def _boot() -> str:
    """Which run of this machine it is: its clock begins anew with each."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""  # no Linux: all traces are taken for those of one run
