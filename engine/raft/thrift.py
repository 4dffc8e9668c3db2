"""Small entries go at once to as many as a majority takes, and to the others a little later.

Whoever is not needed gets what has come meanwhile in one message, and syncs its disk once for all
of it: where few ask, that is a third of all that is done for an entry, by processors that somebody
waits for. If one of those who are needed does not answer, the others are sent it long before a
follower would lose patience, and at once from then on, since what was sent to the silent one is
still under way. Where many ask an entry holds much, and all are sent it at once: the answer that
decides then comes from whoever has time. (Moraru et al., "There is more consensus in egalitarian
parliaments", SOSP 2013, section 6.2: thrifty.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.contract import Nanos
from engine.raft.progress import STREAM, Progress

if TYPE_CHECKING:
    from engine.raft.leader import Leader

NEVER: Nanos = 1 << 62
MUCH = 8 << 10
"""Bytes of entries for which nobody waits."""


class Thrift:
    """What a leader owes to whom."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._owed: dict[int, Nanos] = {}
        """By member: since when it has been spared."""

    def spares(self, member: int, progress: Progress) -> bool:
        """Whether this one, which is ready for what there is to send, need not get it now."""
        leader, raft = self._leader, self._leader.raft
        wait = raft.settings.thrift
        if wait and not leader.successor and raft.log.size_after(progress.next - 1) < MUCH:
            since = self._owed.setdefault(member, raft.now)
            if raft.now - since < wait and raft.members.enough(lambda one: self._has(one, member)):
                return True
        self._owed.pop(member, None)
        return False

    def _has(self, one: int, spared: int) -> bool:
        """Whether it is sent all there is."""
        if one == self._leader.raft.me:
            return True
        progress = self._leader.progress.get(one)
        if progress is None or one == spared or progress.state != STREAM:
            return False
        return progress.next > self._leader.raft.log.last

    @property
    def until(self) -> Nanos:
        """When somebody is to be spared no longer."""
        if not self._owed:
            return NEVER
        leader = self._leader
        times = [
            since + leader.raft.settings.thrift
            for member, since in self._owed.items()
            if (progress := leader.progress.get(member)) is not None
            and progress.state == STREAM
            and leader.may_stream(progress)
        ]
        return min(times, default=NEVER)
