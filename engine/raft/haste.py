"""What a leader need not look at just now.

A majority decides, so a leader hears most things too late for them to matter: that an entry is on
its own disk, when followers' answers will decide it all the same; and what the last follower says,
when all is decided. Nothing depends on when such news are taken in, so they wait for the next turn,
if that is soon: where many ask, processors have no time for turns that decide nothing. Where few
ask they have, and what is done while nobody waits is not to be done when somebody does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.raft.leader import Leader
from engine.raft.progress import STREAM

if TYPE_CHECKING:
    from engine.raft.machine import Raft

NOTHING, DISK, ALL = 0, 1, 2
CROWD = 16
"""Requests in an entry, from which on many ask."""


def idle_news(raft: Raft) -> int:
    """Whether news of our own disk (`DISK`), or of followers as well (`ALL`), are expected that
    will change nothing."""
    leader, last = raft.role, raft.log.last
    if type(leader) is not Leader or not raft.persisted():
        return NOTHING
    if raft.commit < last:
        decided = raft.members.reached(lambda one: last if one == raft.me else leader.matched(one))
        return NOTHING if raft.stable == last or decided > raft.commit else DISK
    if leader.reads.busy or leader.successor:
        return NOTHING
    expected = raft.stable < last
    for progress in leader.progress.values():
        if progress.state != STREAM or progress.full:
            return NOTHING
        expected = expected or progress.match < last
    return ALL if expected else NOTHING
