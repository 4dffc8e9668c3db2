"""The disk of a member that is played by hand: what was written, and what of it is durable.

It is a plain list of entries behind a base, as `engine.storage.entries` describes the records, and
the files of snapshots, which are durable when they are there.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence

from engine.contract import Write
from engine.raft.snapshots import Kept
from engine.storage.entries import CONFIG, Append, Base, Entry, GroupLog, Position, State

GROUP = 1


class Image:
    """What a disk would say."""

    def __init__(self, config: bytes) -> None:
        self.term = self.vote = 0
        self.base = Base(GROUP, 0, 0, config)
        self.entries: list[Entry] = []
        self.lost: Position | None = None

    @property
    def last(self) -> int:
        return self.base.last + len(self.entries)

    def end(self) -> Position:
        return Position(self.entries[-1].term if self.entries else self.base.term, self.last)

    def entry(self, index: int) -> Entry:
        assert self.base.last < index <= self.last, (self.base.last, index, self.last)
        return self.entries[index - self.base.last - 1]

    def write(self, record: Append | State | Base) -> None:
        if isinstance(record, State):
            assert record.term >= self.term, "a term falls"
            assert record.term > self.term or self.vote in (0, record.vote), "a vote changes"
            self.term, self.vote = record.term, record.vote
        elif isinstance(record, Append):
            assert self.base.last < record.first <= self.last + 1, "a gap in the log"
            del self.entries[record.first - self.base.last - 1 :]
            self.entries += record.entries
            assert self.end().term <= self.term, "an entry of a later term than the one written"
        else:
            skipped = record.last - self.base.last
            there = 0 < skipped <= len(self.entries)
            if there and self.entries[skipped - 1].term == record.term:
                del self.entries[:skipped]
            elif skipped:
                self.entries = []
            self.base = record
        if self.lost is not None and self.end() >= self.lost:
            self.lost = None

    def damage(self, first: int) -> None:
        """Durable entries from this one on do not verify any more; their end is known."""
        end = self.end()
        self.lost = max(end, self.lost or end)
        del self.entries[max(0, first - self.base.last - 1) :]

    def recovered(self) -> GroupLog:
        first = self.base.last + 1
        configs = [(i, e.body) for i, e in enumerate(self.entries, first) if e.kind == CONFIG]
        return GroupLog(
            self.term,
            self.vote,
            self.base,
            [entry.term for entry in self.entries],
            [len(entry.body) for entry in self.entries],
            configs,
            self.lost,
        )


class Disk:
    """Groups of writes become durable in order, when the script says so."""

    def __init__(self, config: bytes) -> None:
        self.durable = Image(config)
        self.written = Image(config)
        self.pending: deque[tuple[int, Sequence[Write]]] = deque()
        self.tickets = 0
        self.snapshots: list[tuple[Kept, bytes]] = []
        """Files, the newest first."""

    def write(self, writes: Sequence[Write]) -> None:
        self.tickets += 1
        self.pending.append((self.tickets, writes))
        for write in writes:
            self.written.write(write.record)

    def settle(self) -> int:
        """The oldest group is durable; its ticket."""
        ticket, writes = self.pending.popleft()
        for write in writes:
            self.durable.write(write.record)
        return ticket

    def lose_power(self) -> None:
        self.pending.clear()
        self.tickets = 0
        self.written = copy.deepcopy(self.durable)

    def keep(self, kept: Kept, data: bytes) -> None:
        """A snapshot is verified and durable; two are kept."""
        others = [one for one in self.snapshots if one[0].last != kept.last]
        self.snapshots = sorted([(kept, data), *others], key=lambda one: -one[0].last)[:2]

    def snapshot(self, last: int) -> bytes:
        return next((data for kept, data in self.snapshots if kept.last == last), b"")
