"""What must hold after every event of a simulated group, whatever its members believe.

The judge keeps its own books: what each disk holds for certain, what was ever placed, applied and
committed, and who led. It asks no member what is durable; it knows.

1 one leader a term · 2 a leader only appends · 3 equal index and term, equal log up to there · 4 a
leader has all that is committed · 5 what is applied is the same everywhere · 6 what is committed is
on the disks of enough voters · 7 nothing is said before it is durable · 8 what was acknowledged
stays · 9 one change of members at a time, with overlapping quorums · 10 a snapshot is what a replay
would give (numbers as in Ongaro's thesis, figure 3.2, and beyond).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engine.kernels.checksum import crc32c
from engine.raft.leader import Leader
from engine.raft.membership import Configuration, unpack
from engine.raft.messages import AppendEntries, AppendReply, InstallSnapshot, VoteReply, VoteRequest
from engine.sim.experiment import Violation
from engine.storage.entries import COMMAND, CONFIG, Append, Base, Entry, GroupLog, Position, State

if TYPE_CHECKING:
    from engine.raft.trial import RaftCluster
    from engine.raft.trial_node import Node


class Book:
    """A log as the judge knows it: hard state, base, and terms of the entries behind it."""

    def __init__(self) -> None:
        self.term = self.vote = 0
        self.base, self.base_term = 0, 0
        self.terms: list[int] = []

    @property
    def last(self) -> int:
        return self.base + len(self.terms)

    def term_at(self, index: int) -> int:
        if index <= self.base:
            return self.base_term if index == self.base else -1
        return self.terms[index - self.base - 1] if index <= self.last else -1

    def end(self) -> Position:
        return Position(self.terms[-1] if self.terms else self.base_term, self.last)

    def copy(self) -> Book:
        other = Book()
        other.term, other.vote = self.term, self.vote
        other.base, other.base_term = self.base, self.base_term
        other.terms = list(self.terms)
        return other

    def take(self, record: Append | State | Base) -> None:
        if isinstance(record, State):
            self.term, self.vote = record.term, record.vote
        elif isinstance(record, Append):
            del self.terms[record.first - self.base - 1 :]
            self.terms += [entry.term for entry in record.entries]
        elif record.last > self.base and self.term_at(record.last) == record.term:
            del self.terms[: record.last - self.base]
            self.base, self.base_term = record.last, record.term
        elif record.last > self.base:
            self.terms = []
            self.base, self.base_term = record.last, record.term

    def is_like(self, found: GroupLog) -> bool:
        """What recovery found is this, or this cut at a later base."""
        mine = (self.term, self.vote, self.base, self.base_term, self.terms)
        return mine == (found.term, found.vote, found.base.last, found.base.term, found.terms)


class Disk:
    """One member's: what survives for certain, and the records on their way there."""

    def __init__(self) -> None:
        self.durable = Book()
        self.pending: list[tuple[int, list[Any]]] = []
        self.damaged = False
        """Flips were drawn since it was last recovered."""
        self.owed: Book | None = None
        """What it had before it was damaged. Its member does not vote before it has all that again,
        so whatever it acknowledged still binds the group."""

    def has(self, index: int, term: int) -> bool:
        """The disk has this entry, or a snapshot of what is past it, or its member owes it."""
        books = [book for book in (self.durable, self.owed) if book is not None]
        return any(index <= book.base or book.term_at(index) == term for book in books)


class Judge:
    """Of one cluster."""

    def __init__(self, cluster: RaftCluster) -> None:
        self.cluster = cluster
        self.disks: dict[int, Disk] = {}
        self.leaders: dict[int, int] = {}
        self.campaigns: set[tuple[int, int]] = set()
        self.placed: dict[tuple[int, int], tuple[int, int]] = {}
        """(index, term): (checksum, term of the entry before)."""
        self.decided: list[tuple[int, int, int]] = [(0, 0, 0)]
        """By index: term, checksum of its body, digest of all commands up to it."""
        self.committed = 0
        """The last index that any member has committed, or acknowledged."""

    def disk(self, member: int) -> Disk:
        disk = self.disks.get(member)
        if disk is None:
            disk = self.disks[member] = Disk()
        return disk

    # --- the disk --------------------------------------------------------------------------------

    def written(self, node: Node, records: list[Any]) -> None:
        """A group of writes begins."""
        disk = self.disk(node.member)
        ticket = disk.pending[-1][0] + 1 if disk.pending else node.raft.written
        disk.pending.append((ticket, records))
        stays = 1 << 62
        for record in reversed(records):
            if type(record) is Append:
                self._kept(node, record, stays)
                stays = min(stays, record.first)
        for place, record in enumerate(records):
            if type(record) is Append:
                self._placed(node, record)
            elif type(record) is Base and self._drops(disk, records[:place], record):
                node.last_written = record.last

    def _drops(self, disk: Disk, before: list[Any], base: Base) -> bool:
        """Whether the whole log goes with what this snapshot covers: it has another entry there."""
        book = disk.durable.copy()
        for record in (*(one for _, records in disk.pending[:-1] for one in records), *before):
            book.take(record)
        return book.base < base.last and book.term_at(base.last) != base.term

    def _kept(self, node: Node, record: Append, stays: int) -> None:
        """5: what is decided is not replaced, unless that is mended in the same group."""
        known = self.decided
        for index, entry in enumerate(record.entries, record.first):
            if index >= min(stays, node.raft.commit + 1, len(known)):
                break
            if known[index][0] != entry.term:
                raise Violation(f"5: {node} replaces entry {index}, which was decided")

    def _placed(self, node: Node, record: Append) -> None:
        """3: by index and term an entry and all before it are known. 2: leaders only append."""
        raft = node.raft
        seen = self.cluster.seen
        if raft.leader == node.member and record.first <= node.last_written:
            raise Violation(f"2: {node} leads, and replaces entry {record.first}")
        seen["truncated"] += record.first <= node.last_written
        node.last_written = record.first + len(record.entries) - 1
        before = raft.log.term(record.first - 1)
        for index, entry in enumerate(record.entries, record.first):
            what = (entry.crc, before)
            if self.placed.setdefault((index, entry.term), what) != what and before >= 0:
                raise Violation(f"3: two different entries {index} of term {entry.term}")
            before = entry.term
            if entry.kind == CONFIG and raft.leader == node.member:
                self._configured(node, index, entry)

    def _configured(self, node: Node, index: int, entry: Entry) -> None:
        """9."""
        now, then = node.raft.members.at(index - 1), unpack(entry.body)
        self.cluster.seen["change placed"] += 1
        self.cluster.seen["joint"] += then.joint
        if not _overlap(now, then):
            raise Violation(f"9: {now.voters} and {then.voters} can decide without each other")
        role = node.raft.role
        assert type(role) is Leader
        if node.raft.members.index_before(index) > node.raft.commit:
            raise Violation("9: two changes of members at once")
        if node.raft.commit < role.own_term:
            raise Violation(f"9: {node} changes members, and cannot know which are decided")

    def durable(self, node: Node, ticket: int) -> None:
        """All groups up to this one are on the disk."""
        disk = self.disk(node.member)
        while disk.pending and disk.pending[0][0] <= ticket:
            for record in disk.pending.pop(0)[1]:
                disk.durable.take(record)
        if disk.owed is not None and disk.durable.end() >= disk.owed.end():
            disk.owed = None
            self.cluster.seen["repaired"] += 1

    def recovered(self, node: Node, found: GroupLog) -> None:
        """What a member finds at its start is what was durable, and then maybe more of what was
        being written, in its order; of a damaged log it says how far it went."""
        for finding in node.log.findings:
            self.cluster.seen["damage found" if finding.damage else "torn"] += 1
        disk = self.disk(node.member)
        book = disk.durable.copy()
        node.last_written = found.base.last + len(found.terms)
        if found.lost is not None or disk.damaged:
            self._recovered_damaged(node, found)
            return
        pending = [one for _, records in disk.pending for one in _singly(records)]
        for record in pending:
            if book.is_like(found):
                break
            book.take(record)
        if not book.is_like(found):
            raise Violation(f"8: {node.name} finds {found}, and had {vars(disk.durable)}")
        disk.durable, disk.pending = book, []

    def _recovered_damaged(self, node: Node, found: GroupLog) -> None:
        disk = self.disk(node.member)
        ends = [disk.durable.end()]
        book = disk.durable
        end = Position(found.terms[-1] if found.terms else found.base.term, node.last_written)
        if max(end, found.lost or end) < ends[0]:
            raise Violation(f"8: {node.name} dropped {ends[0]} silently, and has {end}")
        if (found.term, found.vote) < (book.term, 0) or (
            found.term == book.term and book.vote not in (0, found.vote)
        ):
            raise Violation(f"7: {node.name} forgot {book.term, book.vote}: {found}")
        for index, term in enumerate(found.terms, found.base.last + 1):
            if (index, term) not in self.placed:
                raise Violation(f"8: {node.name} invents entry {index} of term {term}")
        if found.lost is not None:
            self.cluster.seen["lost"] += 1
            if disk.owed is None or disk.owed.end() < disk.durable.end():
                disk.owed = disk.durable
        disk.damaged = False
        book = Book()
        book.term, book.vote = found.term, found.vote
        book.base, book.base_term = found.base.last, found.base.term
        book.terms = list(found.terms)
        disk.durable, disk.pending = book, []

    # --- what is said ----------------------------------------------------------------------------

    def said(self, node: Node, message: Any) -> None:
        """7: terms, votes and acknowledgements are on the disk of whoever speaks of them."""
        kind, book = type(message), self.disk(node.member).durable
        self.cluster.seen[kind.__name__] += 1
        if kind in (VoteRequest, VoteReply) and message.pre:
            return
        if kind in (AppendEntries, InstallSnapshot) and message.term < node.over:
            raise Violation(f"1: {node} leads on, and was told of term {node.over}")
        if message.term > book.term:
            raise Violation(
                f"7: {node} speaks in term {message.term}, and its disk has {book.term}"
            )
        if message.term < book.term:
            return  # it was true when it was decided to say so
        if kind is VoteRequest:
            self._asks_for_votes(node, message, book)
        if kind is VoteReply and message.granted:
            self.cluster.just_voted = node.name
            if book.vote != message.to:
                raise Violation(f"7: {node} gives a vote that its disk does not know")
        if kind is AppendReply and message.accepted and message.match > book.last:
            raise Violation(f"7: {node} acknowledges {message.match}, and has {book.last}")

    def _asks_for_votes(self, node: Node, ask: VoteRequest, book: Book) -> None:
        if book.vote != node.member:
            raise Violation(f"7: {node} is a candidate, and its disk does not know")
        if (ask.term, node.member) not in self.campaigns:
            self.campaigns.add((ask.term, node.member))
            self.cluster.seen["campaigns"] += 1

    # --- after each event ------------------------------------------------------------------------

    def look(self, node: Node) -> None:
        """At the member that has just had its turn."""
        raft = node.raft
        if type(raft.role) is Leader and self.leaders.get(raft.term) != node.member:
            self._leads(node)
        if raft.commit > node.committed:
            self._commits(node)
        node.configuration = raft.members.now

    def _leads(self, node: Node) -> None:
        raft = node.raft
        leader = self.leaders.setdefault(raft.term, node.member)
        if leader != node.member:
            raise Violation(f"1: {leader} and {node.member} lead term {raft.term}")
        self.cluster.seen["led"] += 1
        self.cluster.leads(node)
        index = self.committed
        if index > raft.log.base and raft.log.term(index) != self.decided[index][0]:
            raise Violation(f"4: {node} leads without entry {index}, which was committed")

    def _commits(self, node: Node) -> None:
        """6: enough voters have it on their disks, by the members that the entry is decided by."""
        raft = node.raft
        node.committed = index = raft.commit
        if index <= self.committed:
            return
        term = raft.log.term(index)
        if type(raft.role) is Leader:
            # Either may have been in force when it counted: that may be older than its last entry.
            in_force = (raft.members.now, node.configuration)
            if not any(self._on_enough_disks(c, index, term) for c in in_force):
                raise Violation(f"6: {node} commits {index}, which is on too few disks")
            self.cluster.commits(node)
            self.cluster.seen["committed indirectly"] += raft.log.term(self.committed + 1) not in (
                term,
                -1,
            )
        self.committed = index

    def _on_enough_disks(self, configuration: Configuration, index: int, term: int) -> bool:
        for half in (configuration.voters, configuration.outgoing):
            having = [member for member in half if self.disk(member).has(index, term)]
            if half and 2 * len(having) <= len(half):
                return False
        return True

    # --- what is applied -------------------------------------------------------------------------

    def applied(self, node: Node, index: int, entry: Entry) -> None:
        """5, and 8 by way of it: there is one sequence of decided entries."""
        decided = self.decided
        if index < len(decided):
            if decided[index][:2] != (entry.term, entry.crc):
                raise Violation(f"5: {node} applies {entry} at {index}, not {decided[index]}")
            return
        assert index == len(decided), (index, len(decided))
        digest = decided[-1][2]
        if entry.kind == COMMAND:
            digest = crc32c(entry.body, digest)
        self.cluster.seen["change decided"] += entry.kind == CONFIG
        decided.append((entry.term, entry.crc, digest))
        self.cluster.seen["decided"] += 1

    def loaded(self, node: Node, before: int, index: int, digest: int) -> None:
        """10; and a state that was at entry `before` does not go back."""
        if index < before:
            raise Violation(f"10: {node.name} goes back from {before} to a snapshot of {index}")
        if index >= len(self.decided) or self.decided[index][2] != digest:
            raise Violation(f"10: {node.name} loads a snapshot of {index} that no replay gives")
        self.cluster.seen["installed"] += node.raft.log.base == index


def _singly(records: Iterable[Append | State | Base]) -> Iterator[Append | State | Base]:
    """As the log writes them: each entry by itself, of which any first few may be there."""
    for record in records:
        if isinstance(record, Append):
            for index, entry in enumerate(record.entries, record.first):
                yield record._replace(first=index, entries=(entry,))
        else:
            yield record


def _overlap(now: Configuration, then: Configuration) -> bool:
    """Whether every quorum of the one has a member in every quorum of the other."""
    if now.joint or then.joint:
        joint, plain = (now, then) if now.joint else (then, now)
        return plain.voters in (joint.voters, joint.outgoing)
    return len(set(now.voters) ^ set(then.voters)) <= 1
