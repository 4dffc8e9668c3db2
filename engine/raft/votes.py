"""Giving votes: RequestVote, receiver (Raft, figure 2), and who is not to be asked.

A vote is given once a term, to a candidate whose log is no shorter than ours (5.4.1), and not while
a leader is heard: whoever was cut off and comes back must not depose it (thesis, 4.2.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.contract import Link
from engine.raft.leader import Leader
from engine.raft.messages import VoteReply, VoteRequest
from engine.storage.entries import Position

if TYPE_CHECKING:
    from engine.raft.machine import Raft


class Votes:
    """Of one member."""

    def __init__(self, raft: Raft) -> None:
        self.raft = raft

    def judge(self, link: Link, ask: VoteRequest) -> None:
        """A request of this term, or the question what one of a later term would get."""
        raft = self.raft
        if not self.open_to(ask) or not self.may_vote():
            return
        if ask.pre:
            granted = ask.term > raft.term and self.up_to_date(ask)
            term = ask.term if granted else raft.term
            raft.say(link, VoteReply(term, raft.me, ask.sender, True, granted))
            return
        granted = self.free_for(ask.sender) and self.up_to_date(ask)
        if granted:
            self._grant(ask.sender)
        raft.say(link, VoteReply(raft.term, raft.me, ask.sender, False, granted))

    def open_to(self, ask: VoteRequest) -> bool:
        """Whoever hears a leader does not help to depose it, unless it asked for that itself."""
        return ask.transfer or not self.hears_leader()

    def hears_leader(self) -> bool:
        raft = self.raft
        if type(raft.role) is Leader:
            return raft.role.holds()
        return raft.leader != 0 and raft.now - raft.heard < raft.settings.timing.election_min

    def may_vote(self) -> bool:
        """Not before what was lost is back, and not as a stranger to the group: an entry that was
        promised, or a vote, would be forgotten. Whether the last configuration in its log has this
        member does not matter: that one may never be decided, and its vote be needed for it."""
        return self.raft.lost is None and not self.raft.members.stranger

    def free_for(self, candidate: int) -> bool:
        """This term's vote is not somebody else's."""
        return self.raft.vote in (0, candidate)

    def up_to_date(self, ask: VoteRequest) -> bool:
        """The election restriction (5.4.1): the later last term, or the longer log of the same."""
        return Position(ask.last_term, ask.last_index) >= self.raft.log.end

    def _grant(self, candidate: int) -> None:
        raft = self.raft
        if raft.vote != candidate:
            raft.set_state(raft.term, candidate)
        raft.role.granted()
