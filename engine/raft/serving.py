"""A member that serves: its turn, with what the front makes of requests and of decisions.

`Replica` is one in a process of its own; the trials of services have others. What a replica does in
a turn is here, so that it is what the simulator runs.
"""

from __future__ import annotations

from engine.contract import Event, Link, Nanos, Ready, World
from engine.raft.front import Front
from engine.raft.machine import Raft
from engine.raft.requests import Status
from engine.raft.server import Limits, RaftServer
from engine.storage.entries import Entry
from engine.storage.log import Log
from engine.storage.snapshots import Snapshots


class Serving(RaftServer):
    """The server of a member with its clients and operators, as a `Front` knows it."""

    def __init__(
        self,
        raft: Raft,
        world: World,
        log: Log,
        snapshots: Snapshots,
        front: Front,
        limits: Limits,
    ) -> None:
        super().__init__(raft, world, log, snapshots, front, limits)
        self.raft, self.front = raft, front
        front.replica = self

    def turn(self) -> Nanos | None:
        wake_at = super().turn()
        if self.front.due(self.world.now()):  # there has just been made room
            wake_at = super().turn()
        if (until := self.front.until) is not None:
            wake_at = until if wake_at is None else min(wake_at, until)
        return wake_at

    def sift(self, events: list[Event]) -> list[Event]:
        return super().sift(self.front.events(events, self.world.now()))

    def carry(self, ready: Ready) -> None:
        super().carry(ready)
        sends = self.front.sends()
        if sends:
            self.world.send(sends)

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        """Answer clients that asked in bulk, with encoded messages."""
        raise NotImplementedError

    def status(self, number: int, commands: int, digest: int) -> Status:
        """What operators are told; what the front knows is given."""
        raise NotImplementedError

    def tail(self, first: int, last: int) -> tuple[Entry, ...]:
        """Entries of the log; none if there are none between."""
        return self.log.entries(self.group, first, last, 1 << 62)
