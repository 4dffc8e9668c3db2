"""Reads that wait until their leader is known to have led when they came (thesis, 6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.raft.leader import Leader
    from engine.raft.progress import Progress


class Reads:
    """Rounds are numbered; every message to a follower bears the number of the last, and every
    answer repeats it. An answer to a round says that its sender knew of no later leader *after* all
    reads of that round had come."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self.round = 0
        self._waiting: list[int] = []
        self._asked: list[int] = []
        self._index = 0

    def add(self, context: int) -> None:
        self._waiting.append(context)

    @property
    def busy(self) -> bool:
        """Some are waiting."""
        return bool(self._asked or self._waiting)

    def begin(self) -> None:
        """Confirm what can be, and ask for what came since."""
        if not self._asked and not self._waiting:
            return
        self._confirm()
        raft = self._leader.raft
        # Before an entry of its own term is committed a leader does not know what is.
        if self._asked or not self._waiting or raft.commit < self._leader.own_term:
            return
        self.round += 1
        self._asked, self._waiting = self._waiting, []
        self._index = raft.commit
        self._confirm()  # a voter alone

    def due(self, progress: Progress) -> bool:
        """Whether this follower is to be asked in this turn; from then on heartbeats repeat it."""
        return bool(self._asked) and progress.asked < self.round

    def _confirm(self) -> None:
        if self._asked and self._leader.raft.members.enough(self._answered):
            for context in self._asked:
                self._leader.raft.confirm(context, self._index)
            self._asked = []

    def _answered(self, member: int) -> bool:
        if member == self._leader.raft.me:
            return True
        progress = self._leader.progress.get(member)
        return progress is not None and progress.round >= self.round

    def refuse_all(self) -> None:
        """The leader is none any more."""
        for context in self._asked + self._waiting:
            self._leader.raft.refuse(context, "this member does not lead any more")
        self._asked, self._waiting = [], []
