"""What every role can be asked, and how it answers if it has nothing of its own to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.contract import Link, Nanos

if TYPE_CHECKING:
    from engine.raft.machine import Raft
    from engine.raft.messages import Change, Propose, Read, Transfer

NOT_LEADER = "this member does not lead"


class Role:
    """A part that a member plays in one term."""

    def __init__(self, raft: Raft) -> None:
        self.raft = raft

    def receive(self, link: Link, message: Any) -> None:
        """A message of this term."""

    def propose(self, ask: Propose) -> None:
        self.raft.refuse(ask.context, NOT_LEADER)

    def read(self, ask: Read) -> None:
        self.raft.refuse(ask.context, NOT_LEADER)

    def change(self, ask: Change) -> None:
        self.raft.refuse(ask.context, NOT_LEADER)

    def transfer(self, ask: Transfer) -> None:
        self.raft.refuse(ask.context, NOT_LEADER)

    def linked(self, link: Link, up: bool) -> None:
        """A hint: a connection came or went."""

    def granted(self) -> None:
        """We voted for somebody."""

    def settled(self) -> None:
        """Something became durable."""

    def squeezed(self) -> None:
        """The disk is full, or not any more."""

    def overslept(self, by: Nanos) -> None:
        """This turn comes late by so much."""

    def leave(self) -> None:
        """The role is over."""

    def serve(self) -> None:
        """Timers."""

    def flush(self) -> None:
        """The turn is over: say what is to be said."""

    def wake_at(self) -> Nanos | None:
        return None

    def check(self) -> None:
        """Assert invariants."""
