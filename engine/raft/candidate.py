"""A candidate: first it asks whether it would be elected (pre-vote), then it is one.

A pre-vote changes nothing: it keeps whoever was cut off from raising terms that nobody asked for
(thesis, 9.6). In the vote proper the candidate's own vote counts when it is on its disk, as the
others' do, and only then begins the time in which the votes must come. Requests are repeated with
every heartbeat, since messages are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.contract import Link, Nanos
from engine.raft.messages import AppendEntries, InstallSnapshot, VoteReply, VoteRequest
from engine.raft.role import Role

if TYPE_CHECKING:
    from engine.raft.machine import Raft


class Candidate(Role):
    """`votes` are the answers so far."""

    def __init__(self, raft: Raft, *, pre: bool, transfer: bool) -> None:
        super().__init__(raft)
        self.pre, self.transferred = pre, transfer
        self.votes: dict[int, bool] = {}
        self.deadline = raft.now + raft.patience()
        self._ask_at = raft.now + raft.settings.timing.heartbeat

    def begin(self) -> None:
        raft = self.raft
        if not self.pre:
            raft.set_state(raft.term + 1, raft.me)
        self._ask()
        self._count_own()

    def _count_own(self) -> None:
        raft = self.raft
        if raft.me not in self.votes and (self.pre or self._own_is_durable()):
            self.votes[raft.me] = True
            self.deadline = raft.now + raft.patience()
            self._decide()

    def _own_is_durable(self) -> bool:
        return self.raft.persisted()

    def granted(self) -> None:
        """Somebody else was given this member's vote: it is not to be deposed at once."""
        if self.pre:
            self.raft.follow(self.raft.term, 0)

    def settled(self) -> None:
        self._count_own()

    def _ask(self) -> None:
        raft = self.raft
        for member in raft.members.electors:
            if member != raft.me and member not in self.votes:
                self._ask_one(member)

    def _ask_one(self, member: int) -> None:
        raft = self.raft
        link = raft.link(member)
        if link is None:
            return
        ask = VoteRequest(
            raft.term + self.pre,
            raft.me,
            member,
            raft.log.last_term,
            raft.log.last,
            self.pre,
            self.transferred,
        )
        raft.say_now(link, ask) if self.pre else raft.say(link, ask)

    def linked(self, link: Link, up: bool) -> None:
        """What was said to somebody before it was there is lost."""
        member = self.raft.members.at_address(link)
        asked = self.pre or self.raft.persisted()
        if up and asked and member in self.raft.members.electors and member not in self.votes:
            self._ask_one(member)

    def receive(self, link: Link, message: Any) -> None:
        raft = self.raft
        kind = type(message)
        if kind is VoteReply:
            if message.pre == self.pre:
                self._hear(message)
        elif kind is AppendEntries or kind is InstallSnapshot:
            # Somebody won this term's election.
            raft.follow(message.term, message.sender)
            raft.role.receive(link, message)

    def _hear(self, reply: VoteReply) -> None:
        if reply.granted and reply.term != self.raft.term + self.pre:
            return  # of an earlier campaign
        self.votes[reply.sender] = reply.granted
        self._decide()

    def _decide(self) -> None:
        raft = self.raft
        if raft.members.enough(lambda member: self.votes.get(member, False)):
            if self.pre:
                raft.campaign(pre=False)
            else:
                raft.lead()
        elif raft.members.enough(lambda member: self.votes.get(member) is False):
            raft.backoff += not self.pre
            raft.follow(raft.term, 0)

    def serve(self) -> None:
        raft = self.raft
        if raft.now >= self.deadline and (self.pre or raft.me in self.votes):
            if not self.pre:
                raft.backoff += 1
            if raft.electable():
                raft.campaign(pre=True)
            else:
                raft.follow(raft.term, 0)
        elif raft.now >= self._ask_at:
            self._ask_at = raft.now + raft.settings.timing.heartbeat
            if self.pre or raft.persisted():
                self._ask()

    def wake_at(self) -> Nanos | None:
        if not self.pre and self.raft.me not in self.votes:
            return self._ask_at
        return min(self.deadline, self._ask_at)

    def check(self) -> None:
        assert self.pre or self.raft.vote == self.raft.me, self.raft
