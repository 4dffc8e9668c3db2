"""A follower: takes the leader's entries, and tires of its silence.

AppendEntries, receiver (figure 2). Entries that are there already stay: only a real conflict
truncates, since a message that comes late, or again, may know less than the log. The commit index
goes no further than what this very message has shown to be the leader's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.contract import Link, Nanos
from engine.raft.messages import AppendEntries, InstallSnapshot, TimeoutNow
from engine.raft.role import Role
from engine.raft.settings import MILLISECOND

if TYPE_CHECKING:
    from engine.raft.machine import Raft
    from engine.storage.entries import Entry

HINT_MAX: Nanos = 20 * MILLISECOND
"""The connection to the leader broke: ask for votes within this time."""


class Follower(Role):
    """`deadline` is when patience ends."""

    def __init__(self, raft: Raft) -> None:
        super().__init__(raft)
        self.deadline = raft.now + raft.patience()

    def receive(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is AppendEntries:
            self._hear(message.sender)
            self._append(link, message)
        elif kind is InstallSnapshot:
            self._hear(message.sender)
            self.raft.snapshots.take(link, message)
        elif kind is TimeoutNow and self.raft.electable():
            self.raft.campaign(pre=False, transfer=True)

    def _hear(self, leader: int) -> None:
        self.raft.hear(leader)
        self._be_patient()

    def _be_patient(self) -> None:
        self.deadline = self.raft.now + self.raft.patience()

    def granted(self) -> None:
        """Whoever has just voted gives the candidate time (figure 2, followers)."""
        self._be_patient()

    def overslept(self, by: Nanos) -> None:
        """The leader may have spoken all the while."""
        self._be_patient()

    def linked(self, link: Link, up: bool) -> None:
        """A connection that breaks tells of a death sooner than silence does. To this member the
        leader is gone; if it is not, the others say so."""
        raft = self.raft
        if not up and link == raft.link(raft.leader):
            raft.leader = 0
            self.deadline = min(self.deadline, raft.now + raft.rng.randint(0, HINT_MAX))

    # --- entries ---------------------------------------------------------------------------------

    def _append(self, link: Link, ask: AppendEntries) -> None:
        raft = self.raft
        ask = self._behind_base(ask)
        if not self._agrees(ask):
            raft.say(link, raft.reply(ask, False, 0))
            return
        known = self._known(ask.previous, ask.entries)
        new = ask.entries[known:]
        if new and raft.full:
            new = ()
        verified = ask.previous + known + len(new)
        if new:
            first = ask.previous + known + 1
            if first <= raft.log.last:
                raft.truncate(first)
            raft.append(new)
        raft.commit_to(self._committed(ask, verified))
        if new:
            raft.say_after(link, raft.reply(ask, True, verified))
        else:
            # A sign of life does not wait for the disk. What is in a snapshot is committed.
            raft.say(link, raft.reply(ask, True, min(max(verified, raft.log.base), raft.stable)))

    def _behind_base(self, ask: AppendEntries) -> AppendEntries:
        """What is in a snapshot here is committed, so it is the leader's as well: skip it."""
        log = self.raft.log
        skipped = log.base - ask.previous
        if skipped <= 0:
            return ask
        if skipped > len(ask.entries):
            # All of it is. `previous` says how far this message reaches.
            reach = ask.previous + len(ask.entries)
            return ask._replace(previous=reach, previous_term=log.term(reach), entries=())
        return ask._replace(
            previous=log.base, previous_term=log.base_term, entries=ask.entries[skipped:]
        )

    def _agrees(self, ask: AppendEntries) -> bool:
        """The consistency check (5.3): equal index and term, so equal logs up to there."""
        return self.raft.log.term(ask.previous) == ask.previous_term

    def _known(self, previous: int, entries: tuple[Entry, ...]) -> int:
        """How many of these entries the log has."""
        log = self.raft.log
        for count, entry in enumerate(entries):
            if log.term(previous + 1 + count) != entry.term:
                return count
        return len(entries)

    def _committed(self, ask: AppendEntries, verified: int) -> int:
        return min(ask.commit, verified)

    # --- time ------------------------------------------------------------------------------------

    def serve(self) -> None:
        raft = self.raft
        if raft.now >= self.deadline:
            if raft.electable():
                raft.campaign(pre=True)
            else:
                raft.leader = 0
                self._be_patient()

    def wake_at(self) -> Nanos | None:
        return self.deadline
