"""Snapshots: which there are, how the log begins behind one, and receiving one piece by piece.

The log is compacted to the snapshot *before* the newest: should that one turn out to be damaged,
the one before and the log lead to the same state. A piece that was received and is lost in a crash
is asked for again, so pieces need no fsync; the whole is verified and made durable before anybody
hears that it is there (Raft, 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.contract import Finished, Link
from engine.raft.membership import pack
from engine.raft.messages import (
    AppendReply,
    FinishSnapshot,
    Installed,
    InstallSnapshot,
    SnapshotReply,
    Snapshotted,
    StoreChunk,
)
from engine.record import Record

if TYPE_CHECKING:
    from engine.raft.machine import Raft


class Kept(Record):
    """A snapshot on the disk: the entry it ends with, and the size of its file."""

    last: int
    term: int
    config: bytes
    size: int


class Snapshots:
    """Of one member; `kept` are those on its disk, the newest first. At most one piece is worked
    on; what comes meanwhile comes again."""

    def __init__(self, raft: Raft, kept: Sequence[Kept]) -> None:
        self.raft = raft
        self.kept = list(kept)
        self._job = 0
        self._ask: InstallSnapshot | None = None
        self._link: Link | None = None
        if self.kept:
            if self.kept[0].term > raft.term:
                # It became durable before the term did in which it came. Nothing was said in it.
                raft.set_state(self.kept[0].term, 0)
            self._begin_behind(self.kept[0])

    def find(self, index: int) -> Kept | None:
        """The one that ends with this entry, if it is still kept."""
        return next((kept for kept in self.kept if kept.last == index), None)

    # --- ours ------------------------------------------------------------------------------------

    def taken(self, event: Snapshotted) -> None:
        """A snapshot of what was applied is on the disk."""
        raft, index = self.raft, event.last
        if index > raft.applied or (self.kept and index <= self.kept[0].last):
            return
        config = pack(raft.members.at(index))
        self.kept = [Kept(index, raft.log.term(index), config, event.size), *self.kept[:1]]
        if len(self.kept) > 1:
            self._compact(self.kept[-1])

    def _compact(self, kept: Kept) -> None:
        raft = self.raft
        if kept.last > raft.log.base:
            raft.log.compact(kept.last)
            raft.members.compact(kept.last)
            raft.write_base(kept.last, kept.term, kept.config)

    def _begin_behind(self, kept: Kept) -> None:
        """Go on from this snapshot. What the log has behind it stays, if its entry is the same."""
        raft = self.raft
        if raft.log.term(kept.last) != kept.term:
            raft.restart_log(kept.last, kept.term, kept.config)
        raft.load(kept.last)

    def install(self, kept: Kept) -> None:
        """The leader's snapshot takes the place of what it covers."""
        self.kept = [kept]
        self._begin_behind(kept)

    # --- the leader's ----------------------------------------------------------------------------

    def take(self, link: Link, ask: InstallSnapshot) -> None:
        """A piece from the leader."""
        raft = self.raft
        if self._stale(ask):
            raft.say(link, self._have(ask))
        elif self._job == 0:
            self._ask, self._link = ask, link
            work = StoreChunk(ask.last, ask.last_term, ask.size, ask.offset, ask.data)
            self._job = raft.job(work)

    def _stale(self, ask: InstallSnapshot) -> bool:
        """The log is past it already."""
        return ask.last <= self.raft.commit

    def _have(self, ask: InstallSnapshot) -> AppendReply:
        """As after a message with all entries up to the commit index."""
        raft = self.raft
        match = min(raft.commit, raft.stable)
        return AppendReply(
            raft.term, raft.me, ask.sender, match, 0, True, match, 0, 0, raft.lost is not None,
            raft.full,
        )  # fmt: skip

    def finished(self, event: Finished) -> None:
        """A piece is stored, or the whole is verified and durable."""
        if event.job != self._job:
            return
        self._job = 0
        ask, link, raft = self._ask, self._link, self.raft
        assert ask is not None
        assert link is not None
        if event.error:
            self._say(link, ask, 0)  # it is gone: from the beginning
        elif isinstance(event.result, Installed):
            if not self._stale(ask):
                got = event.result
                self.install(Kept(got.last, got.term, got.config, got.size))
                if raft.term == ask.term:
                    raft.say_after(link, self._installed(ask))
        elif event.result == ask.size:
            self._job = raft.job(FinishSnapshot(ask.last, ask.last_term, ask.size))
        else:
            self._say(link, ask, event.result)

    def _say(self, link: Link, ask: InstallSnapshot, offset: int) -> None:
        raft = self.raft
        if raft.term == ask.term:
            raft.say(link, SnapshotReply(raft.term, raft.me, ask.sender, ask.last, offset))

    def _installed(self, ask: InstallSnapshot) -> AppendReply:
        raft = self.raft
        return AppendReply(
            raft.term, raft.me, ask.sender, ask.last, 0, True, ask.last, 0, 0, False, raft.full
        )
