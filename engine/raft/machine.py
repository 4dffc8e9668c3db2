"""One member of a group: terms, votes, the log, what is durable, committed and applied.

What a follower, a candidate and a leader do differently is in the module of that name; here is what
holds for all of them, and the way in and out. A figure numbered as in the paper (Ongaro and
Ousterhout, "In search of an understandable consensus algorithm", 2014) stands beside what it asks.

What must be durable before it is said is put into `after`; the server holds it until every write so
far is. Only two things go out at once: what a leader sends, since a leader's own term is durable,
and signs of life, which promise nothing beyond what already is.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from engine.contract import (
    Durable,
    Finished,
    Job,
    Link,
    Linked,
    Nanos,
    Overslept,
    ReadAt,
    Ready,
    Received,
    Send,
    Span,
    Write,
)
from engine.raft.candidate import Candidate
from engine.raft.follower import Follower
from engine.raft.leader import Leader
from engine.raft.log import LogView
from engine.raft.membership import Membership, unpack
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    Change,
    InstallSnapshot,
    Propose,
    Read,
    Refused,
    Room,
    SnapshotReply,
    Snapshotted,
    Transfer,
    VoteReply,
    VoteRequest,
)
from engine.raft.settings import Settings
from engine.raft.snapshots import Kept, Snapshots
from engine.raft.votes import Votes
from engine.storage.entries import CONFIG, Append, Base, Entry, GroupLog, Position, State

NOBODY = 0
LONG_AGO: Nanos = -(1 << 62)


class Raft:
    """A machine (`engine.contract.Machine`).

    Invariants, asserted by `check` (names as in the paper's figure 3):

    * base <= applied <= commit <= last, and nothing durable lies behind the last entry;
    * terms never fall, along the log and over time, and no entry is of a later term than the vote;
    * election safety: a leader or candidate has voted for itself, durably, in its term;
    * leader append-only: nothing up to `commit` is ever truncated (asserted where it is done);
    * a leader's commit index is durable on enough voters, and of its own term when it moves.
    """

    def __init__(
        self,
        settings: Settings,
        recovered: GroupLog,
        kept: Sequence[Kept],
        rng: random.Random,
    ) -> None:
        """`kept`: the verified snapshots, newest first. Of the log, whatever `recovered` says."""
        self.settings, self.me, self.rng = settings, settings.me, rng
        self.now: Nanos = 0
        self.term, self.vote = recovered.term, recovered.vote
        base = recovered.base
        self.log = LogView(base.last, base.term, recovered.terms, recovered.sizes)
        self.members = Membership(self.me, unpack(base.config))
        for index, body in recovered.configs:
            self.members.append(index, unpack(body))
        self.commit = self.applied = base.last
        self.stable = self.log.last
        """All up to here is on the disk."""
        self.lost: Position | None = recovered.lost
        """The end that this log once had on the disk, if a part of it was damaged there."""
        self.full = False
        self.leader = NOBODY
        self.heard: Nanos = LONG_AGO
        """When the leader was last heard."""
        self.backoff = 0
        """Campaigns that failed since a leader was heard."""
        self.written = self.durable = 0
        """Groups of writes: asked for, and survived by a power loss."""
        self.state_ticket = 0
        """The group with the present term and vote."""
        self.disk: Nanos = 0
        """How long the disk takes, smoothed."""
        self._born = self._dirty = False
        self._pending: deque[list[int]] = deque()
        self._writes: list[Any] = []
        self._now: list[Send] = []
        self._after: list[Send] = []
        self._jobs: list[Job] = []
        self._applies: list[Span] = []
        self._reads: list[ReadAt] = []
        self._answers: list[Any] = []
        self._job = 0
        self.votes = Votes(self)
        self.role: Follower | Candidate | Leader = Follower(self)
        self.snapshots = Snapshots(self, kept)

    # --- in --------------------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Any]) -> None:
        self.now = now
        if not self._born:
            self._born = True
            self.role.overslept(0)  # patience begins with the first look at the clock
        for event in events:
            kind = type(event)
            if kind is Received:
                self._receive(event.link, event.message)
            elif kind is Durable:
                self._settle(event.ticket)
            elif kind is Propose:
                self.role.propose(event)
            elif kind is Read:
                self.role.read(event)
            elif kind is Finished:
                self.snapshots.finished(event)
            elif kind is Linked:
                self.role.linked(event.link, event.up)
            else:
                self._told(event)
        self.role.serve()

    def _told(self, event: Any) -> None:
        kind = type(event)
        if kind is Change:
            self.role.change(event)
        elif kind is Transfer:
            self.role.transfer(event)
        elif kind is Snapshotted:
            self.snapshots.taken(event)
        elif kind is Room:
            self.full = not event.enough
            self.role.squeezed()
        elif kind is Overslept:
            self.role.overslept(event.by)

    def _receive(self, link: Link, message: Any) -> None:
        """Rules for all servers (figure 2): a later term is adopted, an earlier one is answered
        with ours or ignored."""
        if message.to != self.me or message.sender == self.me:
            return
        kind = type(message)
        if message.term > self.term:
            if kind is VoteRequest and (message.pre or not self.votes.open_to(message)):
                pass  # nothing is promised, or the leader is alive: terms do not grow for that
            elif kind is VoteReply and message.pre and message.granted:
                pass  # the term that was asked about, and is nobody's yet
            else:
                leads = kind is AppendEntries or kind is InstallSnapshot
                self.follow(message.term, message.sender if leads else NOBODY)
        elif message.term < self.term:
            self._answer_the_past(link, message)
            return
        if kind is VoteRequest:
            self.votes.judge(link, message)
        else:
            self.role.receive(link, message)

    def _answer_the_past(self, link: Link, message: Any) -> None:
        """So that a leader or candidate of an earlier term learns that it is none any more."""
        kind = type(message)
        if kind is VoteRequest:
            if self.votes.open_to(message):
                self.say(link, VoteReply(self.term, self.me, message.sender, message.pre, False))
        elif kind is AppendEntries:
            self.say(link, self.reply(message, False, 0))
        elif kind is InstallSnapshot:
            self.say(link, SnapshotReply(self.term, self.me, message.sender, message.last, 0))

    # --- terms and roles -------------------------------------------------------------------------

    def set_state(self, term: int, vote: int) -> None:
        """What must survive: see `persisted`."""
        self.term, self.vote = term, vote
        self._dirty = True

    def persisted(self) -> bool:
        """Whether the present term and vote are on the disk."""
        return not self._dirty and self.durable >= self.state_ticket

    def follow(self, term: int, leader: int) -> None:
        """Become a follower, of this leader if it is known."""
        if term > self.term:
            self.set_state(term, NOBODY)
        was, self.role = self.role, Follower(self)
        was.leave()
        self.leader = NOBODY
        if leader != NOBODY:
            self.hear(leader)

    def hear(self, leader: int) -> None:
        """The leader of this term has spoken."""
        assert self.leader in (NOBODY, leader), (self.term, self.leader, leader)
        self.leader, self.heard, self.backoff = leader, self.now, 0

    def campaign(self, *, pre: bool, transfer: bool = False) -> None:
        """Ask for votes, or whether there would be any."""
        self.leader = NOBODY
        was, self.role = self.role, Candidate(self, pre=pre, transfer=transfer)
        was.leave()
        self.role.begin()

    def lead(self) -> None:
        """Enough voters want it."""
        self.leader = self.me
        self.backoff = 0
        self.role = Leader(self)
        self.role.begin()

    def patience(self) -> Nanos:
        """A random election timeout; longer after campaigns that failed, for slow disks."""
        timing = self.settings.timing
        spread = self.rng.randint(timing.election_min, timing.election_max)
        return spread << min(self.backoff, self.settings.backoff_max)

    def electable(self) -> bool:
        """Whether this member may ask for votes."""
        return self.members.may_lead(self.commit) and self.lost is None and not self.full

    # --- the log ---------------------------------------------------------------------------------

    def append(self, entries: tuple[Entry, ...]) -> None:
        """At the end of the log."""
        first = self.log.last + 1
        self.log.append(entries)
        for index, entry in enumerate(entries, first):
            if entry.kind == CONFIG:
                self.members.append(index, unpack(entry.body))
        self._writes.append(Append(self.settings.group, first, entries))

    def truncate(self, first: int) -> None:
        """Entries from this index on are not the leader's (5.3)."""
        assert first > self.commit, f"truncating {first}, committed {self.commit}"
        self.log.truncate(first)
        self.members.truncate(first)
        self.stable = min(self.stable, first - 1)
        # What is being written there will be something else by the time it is durable.
        for pending in self._pending:
            pending[1] = min(pending[1], first - 1)

    def restart_log(self, index: int, term: int, config: bytes) -> None:
        """Nothing of the log is of use: it begins anew behind a snapshot."""
        assert index > self.commit, (index, self.commit)
        self.log.reset(index, term)
        self.members.reset(unpack(config))
        self.stable = 0
        for pending in self._pending:
            pending[1] = 0
        self.write_base(index, term, config)

    def write_base(self, index: int, term: int, config: bytes) -> None:
        self._writes.append(Base(self.settings.group, index, term, config))

    def load(self, index: int) -> None:
        """The state machine is to begin anew from the snapshot that ends with this entry."""
        self.commit = self.applied = max(self.commit, index)
        self._applies = [Span(index, index, True)]

    def commit_to(self, index: int) -> None:
        """Entries up to this index are decided (5.3, 5.4.2)."""
        if index <= self.commit:
            return
        assert index <= self.log.last, (index, self.log.last)
        self.commit = index

    def _settle(self, ticket: int) -> None:
        """Groups of writes up to this one are on the disk."""
        self.durable = max(self.durable, ticket)
        while self._pending and self._pending[0][0] <= self.durable:
            _, last, asked = self._pending.popleft()
            self.stable = max(self.stable, last)
            self.disk += (self.now - asked - self.disk) // 4
        if self.lost is not None:
            end = Position(self.log.term(self.stable), self.stable)
            if end >= self.lost:
                self.lost = None  # the log is again as long as it was, so no promise is forgotten
        self.role.settled()

    # --- out -------------------------------------------------------------------------------------

    def say_now(self, link: Link, message: Any) -> None:
        self._now.append(Send(link, message))

    def say_after(self, link: Link, message: Any) -> None:
        """When all that was written until then is durable."""
        self._after.append(Send(link, message))

    def say(self, link: Link, message: Any) -> None:
        """What promises no more than the present term and vote: at once if those are durable."""
        if self.persisted():
            self._now.append(Send(link, message))
        else:
            self._after.append(Send(link, message))

    def link(self, member: int) -> Link | None:
        """Of another member; None if it has no address."""
        return self.members.links.get(member)

    def reply(self, ask: AppendEntries, accepted: bool, match: int) -> AppendReply:
        hint = 0
        if not accepted:
            hint = self.log.last_not_after(ask.previous, ask.previous_term)
        hint_term = max(0, self.log.term(hint))
        return AppendReply(
            self.term, self.me, ask.sender, ask.previous, ask.round, accepted, match, hint,
            hint_term, self.lost is not None, self.full,
        )  # fmt: skip

    def job(self, work: Any) -> int:
        self._job += 1
        self._jobs.append(Job(self._job, work))
        return self._job

    def confirm(self, context: int, index: int) -> None:
        self._reads.append(ReadAt(context, index))

    def answer(self, answer: Any) -> None:
        self._answers.append(answer)

    def refuse(self, context: int, why: str) -> None:
        self._answers.append(
            Refused(context, why, self.leader if self.leader != self.me else NOBODY)
        )

    def ready(self) -> Ready:
        self.role.flush()
        writes = self._take_writes() if self._writes or self._dirty else ()
        last = self._applicable()
        if last > self.applied:
            self._applies.append(Span(self.applied, last, False))
            self.applied = last
        ready = Ready(
            writes, tuple(self._now), tuple(self._after), tuple(self._jobs), self.role.wake_at(),
            tuple(self._applies), tuple(self._reads), tuple(self._answers),
        )  # fmt: skip
        self._now, self._after, self._jobs = [], [], []
        self._applies, self._reads, self._answers = [], [], []
        return ready

    def _applicable(self) -> int:
        """What may be applied, here and everywhere: what is committed."""
        return self.commit

    def _take_writes(self) -> tuple[Write, ...]:
        """The term and vote first: no entry is ever of a later term than the one on the disk."""
        if self._dirty:
            self._writes.insert(0, State(self.settings.group, self.term, self.vote))
        self.written += 1
        if self._dirty:
            self._dirty, self.state_ticket = False, self.written
        self._pending.append([self.written, self.log.last, self.now])
        writes = tuple([Write(record) for record in self._writes])
        self._writes = []
        return writes

    def check(self) -> None:
        log = self.log
        last = log.last
        assert log.base <= self.applied <= self.commit <= last, self
        assert self.stable <= last, self
        for _, pending, _ in self._pending:
            assert pending <= last, self
        assert log.last_term <= self.term, self
        assert len(log.sizes) == len(log.terms) == last - log.base, self
        self.role.check()

    def __repr__(self) -> str:
        role = type(self.role).__name__.lower()
        log = f"{self.log.base}+{len(self.log.terms)}, stable {self.stable}, commit {self.commit}"
        return f"<{self.me} {role} term {self.term} vote {self.vote} log {log}>"
