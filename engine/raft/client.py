"""Clients of a group of replicas (`Group`), and whoever operates one of them (`Operator`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.calls import Call
from engine.contract import SECOND, Link, Nanos
from engine.errors import ConnectionFailed, OutcomeUnknown, RefusedError, UsageError
from engine.raft.requests import (
    COMMAND_BYTES_MAX,
    Applied,
    AskStatus,
    Follow,
    HandOver,
    Look,
    Ordered,
    Reconfigure,
    Rejected,
    Seen,
    Start,
    Started,
    Status,
    Submit,
    Submitted,
)
from engine.runtime.caller import Caller, Client

LOOK_AGAIN: Nanos = SECOND // 50
"""Before the next is asked, when nobody knows of a leader."""


ORDERS = (Start, Reconfigure, HandOver)
"""What operators ask for that changes something, so that without an answer it may be done."""


class Known:
    """What a client has learned from one call to the next: who leads, and who is who."""

    def __init__(self, servers: Sequence[str]) -> None:
        if not servers:
            raise UsageError("A group has at least one replica: name its clients' endpoint.")
        self.servers = tuple(servers)
        self.asking = 0
        self.up: set[str] = set()
        self.addresses: dict[int, str] = {}
        self.number = 0

    @property
    def server(self) -> str:
        return self.servers[self.asking]

    def turn_to(self, member: int) -> bool:
        """To this one, or the next; whether it was known."""
        address = self.addresses.get(member, "")
        if address in self.servers:
            self.asking = self.servers.index(address)
            return True
        self.asking = (self.asking + 1) % len(self.servers)
        return False


class GroupCall(Call):
    """One request, brought to the leader. A command that was handed to it is not said again: it
    might be done twice."""

    retry = SECOND // 10

    def __init__(self, known: Known, ask: Submit | Look, patience: Nanos | None) -> None:
        super().__init__(patience, known.up)
        self.known, self.request = known, ask
        self.repeatable = type(ask) is Look
        self.why = ""

    def ask(self, now: Nanos) -> None:
        known = self.known
        if self.handed_over and not self.repeatable:
            return
        if known.server not in known.up:
            for server in known.servers:
                if server not in known.up:
                    self.say(server, self.request)  # which dials, and is not heard
            if not known.up & set(known.servers):
                return
            while known.server not in known.up:
                known.turn_to(0)  # on from where we are, so that nobody is left out
        self.say(known.server, self.request, harmless=self.repeatable)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        kind, number = type(message), self.request.number
        if kind not in (Submitted, Seen, Rejected):
            return
        self.known.addresses[message.sender] = link.principal
        if kind is Seen and message.number == number:
            self.finish(message)
        elif kind is Submitted:
            for asked, place in message.done:
                if asked == number:
                    self.finish(place)
        elif kind is Rejected and number in message.numbers:
            self._rejected(now, message)

    def _rejected(self, now: Nanos, message: Rejected) -> None:
        if message.unknown and not self.repeatable:
            self.fail(OutcomeUnknown(f"{message.why}: it may have been done, or may yet be."))
            return
        self.why, self.handed_over = message.why, False
        known = self.known.turn_to(message.leader)
        self.ask_at(now if known else now + LOOK_AGAIN)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        asked = self.handed_over and link.principal == self.known.server
        if asked and not up and not self.repeatable:
            self.fail(OutcomeUnknown(f"{link.principal} went: it may have been done."))
        else:
            self.ask_at(now)

    def silence(self) -> str:
        there = sum(server in self.up for server in self.known.servers)
        why = f"; {self.why}" if self.why else ""
        return f"{there} of {len(self.known.servers)} replicas reachable{why}"


class Group(Client):
    """A connection to a group; for one thread, and a context manager.

    `servers`: the clients' endpoints of its replicas. `timeout` in seconds, None to wait for ever.
    `token`: a token file or a folder of keys, for TCP.
    Methods raise OutcomeUnknown (it may have been done) or ConnectionFailed (nothing was done).
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        self._known = Known(servers)
        super().__init__(Caller(timeout=timeout, token=token, via=via))

    def submit(self, command: bytes) -> int:
        """Append a command: which one of the log it became, from 1."""
        if len(command) > COMMAND_BYTES_MAX:
            size = f"{len(command):,}"
            raise UsageError(f"A command has at most {COMMAND_BYTES_MAX:,} bytes, not {size}.")
        return int(self._run(Submit(self._next(), command)))

    def look(self) -> Seen:
        """How many commands there are: all that were done before, whoever did them."""
        seen: Seen = self._run(Look(self._next()))
        return seen

    def _next(self) -> int:
        self._known.number += 1
        return self._known.number

    def _run(self, ask: Submit | Look) -> Any:
        return self._caller.run(GroupCall(self._known, ask, self._caller.patience))


class AskCall(Call):
    """A question to one replica."""

    def __init__(self, address: str, up: set[str], ask: Any, patience: Nanos | None) -> None:
        super().__init__(patience, up)
        self.address, self.request = address, ask
        self.once, self.harmless = type(ask) is Start, type(ask) not in ORDERS

    def ask(self, now: Nanos) -> None:
        if not (self.once and self.handed_over):
            self.say(self.address, self.request, harmless=self.harmless)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if getattr(message, "number", None) == self.request.number:
            self.finish(message)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if not up and self.handed_over:
            self.fail(OutcomeUnknown(f"{self.address} went: it may have been done."))
        self.ask_at(now)

    def silence(self) -> str:
        return f"No answer from {self.address}"


class Operator(Client):
    """A connection to one replica's admin endpoint; for one thread, and a context manager.

    Methods raise ConnectionFailed if nobody answers, RefusedError with the replica's reason.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self._up: set[str] = set()
        self._number = 0
        super().__init__(Caller(timeout=timeout, token=token, via=via, role="admin"))

    def status(self) -> Status:
        """All that the replica knows of itself."""
        status: Status = self._ask(AskStatus(self._next()))
        return status

    def follow(self, after: int, most: int = 1000) -> Applied:
        """What it applied after entry `after`, as soon as there is something."""
        applied: Applied = self._ask(Follow(self._next(), after, most))
        return applied

    def start(self, command: bytes) -> Started:
        """Place a command, and do not wait for what becomes of it."""
        started: Started = self._ask(Start(self._next(), command))
        return started

    def change(self, members: Sequence[tuple[int, str, bool]]) -> None:
        """Make these the members: (number, peers' endpoint, whether it votes)."""
        self._order(Reconfigure(self._next(), tuple(members)))

    def hand_over(self, target: int = 0) -> None:
        """Let this member lead, or whoever has most; only the leader can."""
        self._order(HandOver(self._next(), target))

    def _order(self, ask: Any) -> None:
        answer: Ordered = self._ask(ask)
        if answer.why:
            raise RefusedError(f"{self.address} refused: {answer.why}.")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _ask(self, ask: Any) -> Any:
        return self._caller.run(AskCall(self.address, self._up, ask, self._caller.patience))


def leader_of(statuses: Mapping[str, Status]) -> str:
    """Whose status says that it leads the latest term. ConnectionFailed if nobody's does."""
    leading = [(one.term, at) for at, one in statuses.items() if one.role == "leader"]
    if not leading:
        raise ConnectionFailed("Nobody leads: is a majority of the voters running?")
    return max(leading)[1]
