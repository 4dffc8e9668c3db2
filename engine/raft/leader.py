"""A leader: places entries, brings them to the others, and says what is decided.

It commits by counting only entries of its own term; earlier ones are committed by what follows them
(Raft, 5.4.2 and figure 8). It counts itself when its own disk has an entry, no sooner. It steps
down when it has heard too few for an election's time (check-quorum), so that whoever asks it learns
that nothing will come of it, and its log does not grow for nothing.

Reads are confirmed in rounds (ReadIndex, thesis 6.4): all that came since the last round wait for
one exchange that *begins* after them, and one round is under way at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.contract import Link, Nanos
from engine.kernels.checksum import crc32c
from engine.raft import membership
from engine.raft.messages import (
    AppendEntries,
    AppendReply,
    Change,
    InstallSnapshot,
    Placed,
    Propose,
    Read,
    SnapshotReply,
    TimeoutNow,
    Transfer,
    WithEntries,
    WithPiece,
)
from engine.raft.progress import PROBE, SNAPSHOT, STREAM, Progress
from engine.raft.reads import Reads
from engine.raft.role import Role
from engine.raft.thrift import Thrift
from engine.storage.entries import COMMAND, CONFIG, NOOP, Entry

if TYPE_CHECKING:
    from engine.raft.machine import Raft

NOTICE = 8
"""A commit index that no entries carry is told after this part of a heartbeat."""


class Leader(Role):
    """`progress` is what is known of each other member."""

    def __init__(self, raft: Raft) -> None:
        super().__init__(raft)
        self.progress: dict[int, Progress] = {}
        self.own_term = raft.log.last + 1
        """The first entry of this term: what is committed before it is not known."""
        self.reads, self.thrift = Reads(self), Thrift(self)
        self._moved = True
        """Something may be decided that was not before."""
        self.successor = 0
        """Whom leadership is being handed to, until `_handing_until`."""
        self._handing_until: Nanos = 0
        self._handed = False
        """It was told to start. Until it has, or time is up, no proposal is taken: with one more
        entry among the others they would not vote for it."""
        self._quorum_at = raft.now + raft.settings.timing.election_max

    def begin(self) -> None:
        self._follow_members()
        self._place(NOOP, 0, b"")

    def leave(self) -> None:
        self.reads.refuse_all()

    def _follow_members(self) -> None:
        """The members changed."""
        raft = self.raft
        self._moved = True
        known, self.progress = self.progress, {}
        for member in raft.members.others:
            self.progress[member] = known.get(member) or Progress(raft.log.last, raft.now)

    # --- what is asked ---------------------------------------------------------------------------

    def propose(self, ask: Propose) -> None:
        raft = self.raft
        why = self._why_not()
        if why:
            raft.refuse(ask.context, why)
            return
        first = raft.log.last + 1
        raft.append(tuple([Entry(raft.term, COMMAND, crc, body) for crc, body in ask.commands]))
        raft.answer(Placed(ask.context, first, raft.term))

    def _why_not(self) -> str:
        raft = self.raft
        if raft.full:
            return "the disk of the leader is full"
        if self.successor:
            return "leadership is being handed over"
        if raft.log.size_after(raft.commit) > raft.settings.uncommitted_max:
            return "too much waits to be committed"
        return ""

    def _place(self, kind: int, crc: int, body: bytes) -> int:
        raft = self.raft
        raft.append((Entry(raft.term, kind, crc, body),))
        return raft.log.last

    def read(self, ask: Read) -> None:
        self.reads.add(ask.context)

    def transfer(self, ask: Transfer) -> None:
        raft = self.raft
        target = ask.target or self._best()
        if target == raft.me or target not in raft.members.voters or self.successor:
            raft.refuse(ask.context, f"member {target} cannot be handed leadership")
            return
        self._hand_over(target)

    def _best(self) -> int:
        """The voter that has most and is alive, or nobody."""
        candidates = [
            (self.progress[member].match, member)
            for member in self.raft.members.voters
            if member in self.progress and self._alive(member) and not self.progress[member].full
        ]
        return max(candidates, default=(0, 0))[1]

    def squeezed(self) -> None:
        """No space for entries: somebody else had better lead."""
        if self.raft.full and not self.successor:
            self._hand_over(self._best())

    def _hand_over(self, target: int) -> None:
        """Take no more proposals, and let this voter start when it has all."""
        self.successor, self._handed = target, False
        self._handing_until = self.raft.now + self.raft.settings.timing.election_max

    # --- members ---------------------------------------------------------------------------------

    def change(self, ask: Change) -> None:
        raft = self.raft
        why = self._why_not() or self._why_not_change()
        then = membership.target(raft.members.now, ask.members)
        if not why and not then.voters:
            why = "a group needs a voter"
        if not why and not all(map(self._caught_up, self._risen(then))):
            why = "a learner that is to vote has not caught up"
        if why:
            raft.refuse(ask.context, why)
            return
        raft.answer(Placed(ask.context, self._reconfigure(then), raft.term))

    def _risen(self, then: membership.Configuration) -> list[int]:
        """Learners that are voters from now on: one that knows nothing yet does not vote."""
        was = self.raft.members.now
        learners = {m.id for m in was.members if m.role == membership.LEARNER}
        return [number for number in then.voters if number in learners]

    def _why_not_change(self) -> str:
        """One change at a time, and the first after an entry of this term: a leader that does not
        know what is committed does not know which voters there are (Ongaro, 2015)."""
        raft = self.raft
        if raft.commit < self.own_term:
            return "the leader has not committed an entry of its term yet"
        if raft.members.index > raft.commit or raft.members.now.joint:
            return "another change of members is under way"
        return ""

    def _reconfigure(self, then: membership.Configuration) -> int:
        body = membership.pack(then)
        index = self._place(CONFIG, crc32c(body), body)
        self._follow_members()
        return index

    def _tend_members(self) -> None:
        """Leave a joint configuration, promote who has caught up, go if we are out."""
        raft = self.raft
        if raft.members.index > raft.commit or raft.commit < self.own_term:
            return
        now = raft.members.now
        if now.joint:
            self._reconfigure(membership.settled(now))
        elif not raft.members.votes:
            self._step_out()
        elif not self._why_not():
            for member in now.members:
                if member.role == membership.JOINING and self._caught_up(member.id):
                    self._reconfigure(membership.promoted(now, member.id))
                    break

    def _caught_up(self, member: int) -> bool:
        raft, progress = self.raft, self.progress.get(member)
        if progress is None or not self._alive(member):
            return False
        # It must know that it is a member: a stranger does not vote, and its vote may be needed.
        needs = max(self.own_term, raft.members.index, raft.log.base)
        lag = raft.log.last - progress.match
        return progress.match >= needs and lag <= raft.settings.promotion_lag

    def _step_out(self) -> None:
        """We are no voter any more, and that is decided (4.2.2): the best of the others may start
        at once."""
        raft = self.raft
        best = self._best()
        self._tell_commit()
        self._hand_to(best)
        raft.follow(raft.term, 0)

    def _tell_commit(self) -> None:
        for member in self.progress:
            self._heartbeat(member)

    def _hand_to(self, member: int) -> None:
        raft = self.raft
        link = raft.link(member)
        if link is not None:
            raft.say_now(link, TimeoutNow(raft.term, raft.me, member))

    # --- what is answered ------------------------------------------------------------------------

    def receive(self, link: Link, message: Any) -> None:
        progress = self.progress.get(message.sender)
        if progress is None:
            return
        kind = type(message)
        if kind is AppendReply:
            progress.heard, progress.repeats = self.raft.now, 0
            progress.round = max(progress.round, message.round)
            progress.full = message.full
            self._take_reply(progress, message)
        elif kind is SnapshotReply:
            progress.heard = self.raft.now
            ours = progress.state == SNAPSHOT and message.last == progress.snapshot
            # The same again was answered already, or will be with the next heartbeat: pieces must
            # not multiply where messages do.
            if ours and message.offset != progress.offset:
                progress.offset, progress.paused = message.offset, False

    def _take_reply(self, progress: Progress, reply: AppendReply) -> None:
        if reply.lost and not reply.accepted and reply.hint < progress.match:
            # It lost what it had said to have. What was committed with its help stays committed:
            # it does not vote before it has all that again.
            progress.match = 0
            progress.probe(reply.hint + 1)
        elif reply.accepted:
            self._accepted(progress, reply)
        elif reply.previous > progress.match and progress.state != SNAPSHOT:
            self._rejected(progress, reply)

    def _accepted(self, progress: Progress, reply: AppendReply) -> None:
        agreed = reply.previous >= progress.next - 1
        progress.matched(reply.match, self.raft.now)
        self._moved = True
        if progress.state == SNAPSHOT:
            if progress.match < progress.snapshot:
                return
            progress.probe(progress.match + 1)
        if progress.state == PROBE and agreed:
            # The logs agree before the entry that is next: it can have all.
            progress.state, progress.paused = STREAM, False

    def _rejected(self, progress: Progress, reply: AppendReply) -> None:
        """Back up, a term at a time (end of 5.3). An answer to an earlier probe says nothing."""
        if progress.state == PROBE and reply.previous != progress.next - 1:
            return
        hint = self.raft.log.last_not_after(reply.hint, reply.hint_term)
        progress.probe(min(hint + 1, reply.previous))

    def settled(self) -> None:
        self._moved = True

    def linked(self, link: Link, up: bool) -> None:
        """Whoever is there again has missed what was said meanwhile."""
        member = self.raft.members.at_address(link)
        if up and member in self.progress:
            self.progress[member].sent -= self.raft.settings.timing.heartbeat

    # --- commit ----------------------------------------------------------------------------------

    def matched(self, member: int) -> int:
        """Up to where this voter has our log on its disk, as far as we know."""
        if member == self.raft.me:
            return self.raft.stable
        progress = self.progress.get(member)
        return 0 if progress is None else progress.match

    def _advance(self) -> None:
        """The commit index: what enough voters have on their disks, if it is of this term."""
        raft = self.raft
        index = raft.members.reached(self.matched)
        if index > raft.commit and raft.log.term(index) == raft.term:
            raft.commit_to(index)

    # --- is anybody there ------------------------------------------------------------------------

    def _alive(self, member: int) -> bool:
        if member == self.raft.me:
            return True
        progress = self.progress.get(member)
        patience = self.raft.settings.timing.election_max
        return progress is not None and self.raft.now - progress.heard < patience

    def holds(self) -> bool:
        """Whether enough voters answered lately that none of them would depose this leader."""
        return self.raft.members.enough(self._alive)

    def serve(self) -> None:
        raft = self.raft
        if raft.now >= self._quorum_at:
            self._quorum_at = raft.now + raft.settings.timing.election_min // 2
            if not self.holds():
                raft.follow(raft.term, 0)
                return
        if raft.now >= self._handing_until:
            self.successor = 0
            self.squeezed()

    # --- what is said ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Once a turn: commit, confirm, and send what there is to whoever can take it."""
        raft = self.raft
        if self._moved:
            self._advance()
            self._tend_members()
            if raft.role is not self:
                return
            self._moved = False
        self.reads.begin()
        last, since = raft.log.last, raft.now - raft.settings.timing.heartbeat
        for member, progress in self.progress.items():
            idle = progress.state == STREAM and progress.next > last and progress.sent > since
            told = progress.commit >= raft.commit and progress.asked >= self.reads.round
            if not (idle and told):
                self._serve(member, progress)
        if self.successor and not self._handed and self.matched(self.successor) == raft.log.last:
            self._hand_to(self.successor)
            self._handed = True

    def _serve(self, member: int, progress: Progress) -> None:
        raft = self.raft
        due = raft.now - progress.sent >= raft.settings.timing.heartbeat
        if progress.state != SNAPSHOT and progress.next <= raft.log.base:
            progress.begin_snapshot(raft.snapshots.kept[0].last)
        if progress.state == PROBE:
            if not progress.paused or due:
                self._send(member, progress)
                progress.paused = True
        elif progress.state == STREAM:
            while self.may_stream(progress) and not self.thrift.spares(member, progress):
                self._send(member, progress)
        elif not progress.paused or raft.now >= progress.piece_at(raft.settings.timing.heartbeat):
            self._send_piece(member, progress)
        silent = progress.sent != raft.now
        if (silent and (due or self._notice(progress))) or self.reads.due(progress):
            self._heartbeat(member)

    def may_stream(self, progress: Progress) -> bool:
        raft = self.raft
        if progress.next > raft.log.last or progress.full:
            return False
        return len(progress.in_flight) < progress.window(raft.disk, raft.settings.window_max)

    def _notice(self, progress: Progress) -> bool:
        """There is a commit index to tell, and nothing that would carry it soon."""
        raft = self.raft
        idle = raft.now - progress.sent >= raft.settings.timing.heartbeat // NOTICE
        return idle and self._untold(progress)

    def _untold(self, progress: Progress) -> bool:
        if progress.state != STREAM or progress.commit >= self.raft.commit:
            return False
        return progress.commit < progress.next - 1

    def _send(self, member: int, progress: Progress) -> None:
        """Entries from the next one on; none, if that is the question."""
        raft, previous = self.raft, progress.next - 1
        last = previous
        if not progress.full:
            last = raft.log.span(progress.next, raft.settings.entries_max, raft.settings.bytes_max)
        self._say(member, progress, previous, last)
        if progress.state == STREAM:
            progress.in_flight.append((last, raft.now))
            progress.next = last + 1

    def _heartbeat(self, member: int) -> None:
        """Without entries. What it asks about is the last entry sent, so that the answer tells
        whether that was lost."""
        progress = self.progress[member]
        previous = progress.next - 1
        if progress.state == SNAPSHOT or previous < self.raft.log.base:
            previous = 0  # which every log has
        self._say(member, progress, previous, previous)

    def _say(self, member: int, progress: Progress, previous: int, last: int) -> None:
        raft = self.raft
        term = raft.log.term(previous)
        assert term >= 0, (raft, previous)
        message = AppendEntries(
            raft.term, raft.me, member, previous, term, raft.commit, self.reads.round, ()
        )
        progress.sent, progress.asked = raft.now, self.reads.round
        progress.commit = min(raft.commit, last)
        link = raft.link(member)
        assert link is not None
        raft.say_now(link, WithEntries(message, last) if last > previous else message)

    # --- snapshots -------------------------------------------------------------------------------

    def _send_piece(self, member: int, progress: Progress) -> None:
        raft, link = self.raft, self.raft.link(member)
        kept = raft.snapshots.find(progress.snapshot)
        if kept is None:  # there are newer ones
            kept = raft.snapshots.kept[0]
            progress.begin_snapshot(kept.last)
        offset = min(progress.offset, kept.size)
        message = InstallSnapshot(
            raft.term, raft.me, member, kept.last, kept.term, kept.size, offset, b""
        )
        assert link is not None
        raft.say_now(link, WithPiece(message, min(raft.settings.chunk_bytes, kept.size - offset)))
        progress.gave_piece(raft.now)

    # --- time ------------------------------------------------------------------------------------

    def wake_at(self) -> Nanos | None:
        raft, wake_at = self.raft, self._quorum_at
        heartbeat = raft.settings.timing.heartbeat
        for progress in self.progress.values():
            due = progress.sent + heartbeat
            if progress.state == SNAPSHOT:
                due = min(due, progress.piece_at(heartbeat))
            if self._untold(progress):
                due = progress.sent + heartbeat // NOTICE
            wake_at = min(wake_at, due)
        wake_at = min(wake_at, self.thrift.until)
        if self.successor or raft.full:
            wake_at = min(wake_at, max(self._handing_until, raft.now + heartbeat))
        return wake_at

    def check(self) -> None:
        raft = self.raft
        assert raft.vote == raft.me, raft
        assert raft.log.last >= self.own_term, raft
        for progress in self.progress.values():
            assert progress.match < progress.next <= raft.log.last + 1, (raft, progress.match)
