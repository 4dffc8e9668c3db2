"""Clients of a lab's group: many at once in one thread, the shipped calls on one set of sockets."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import Any

from support import patience

from engine.contract import SECOND, Linked
from engine.errors import OutcomeUnknown, RefusedError
from engine.raft.client import GroupCall, Known
from engine.raft.requests import Rejected, Submit
from engine.runtime.world import SocketWorld

SUBMIT_SECONDS = 10.0


class OnceCall(GroupCall):
    """As the labs' `Submit`: a request to one server, which is over when that does not do it."""

    def _rejected(self, now: int, message: Rejected) -> None:
        if not message.unknown:
            self.fail(RefusedError(message.why))
            return
        super()._rejected(now, message)


class Submitted:
    """A command that a client asked for. `place` is which command of the log it became."""

    def __init__(self, body: bytes, call: GroupCall) -> None:
        self.body, self.call = body, call
        self.begun, self.ended = monotonic(), 0.0

    @property
    def over(self) -> bool:
        return self.call.outcome is not None

    @property
    def place(self) -> int:
        """0 if it was not acknowledged."""
        outcome = self.call.outcome
        return int(outcome.answer) if outcome is not None and outcome.error is None else 0

    @property
    def error(self) -> Exception | None:
        return self.call.outcome.error if self.call.outcome is not None else None

    @property
    def unknown(self) -> bool:
        """It may have been done, or may yet be."""
        return isinstance(self.error, OutcomeUnknown)


class Clerk:
    """`servers`: the clients' endpoints."""

    def __init__(self, servers: Sequence[str]) -> None:
        self.servers = list(servers)
        self._world = SocketWorld()
        self._up: set[str] = set()
        self._number = 0
        self._going: list[Submitted] = []
        self._known: dict[tuple[int, ...], Known] = {}
        self.done: list[Submitted] = []
        """All that were acknowledged."""

    def submit(self, body: bytes, among: Sequence[int]) -> Submitted:
        """Begin; `turn` goes on with it. It asks these servers alone, one of them only once."""
        key = tuple(among)
        if key not in self._known:
            self._known[key] = Known([self.servers[at] for at in among])
            self._known[key].up = self._up
        known = self._known[key]
        self._number += 1
        seconds = patience(SUBMIT_SECONDS)
        kind = GroupCall if len(among) > 1 else OnceCall
        call = kind(known, Submit(self._number, body), int(seconds * SECOND))
        submitted = Submitted(body, call)
        self._going.append(submitted)
        return submitted

    def busy(self) -> bool:
        return bool(self._going)

    def turn(self) -> None:
        """What arrived is heard by all calls, each of which takes what is its own."""
        world: Any = self._world
        events = world.drain(4096, 1 << 24)
        for event in events:
            if type(event) is Linked:
                (self._up.add if event.up else self._up.discard)(event.link.principal)
        now = monotonic_ns()
        for submitted in self._going:
            call = submitted.call
            call.step(now, events)
            world.send(call.ready().now)
            if call.outcome is not None:
                submitted.ended = monotonic()
                self.done += [submitted] if submitted.place else []
        self._going = [one for one in self._going if not one.over]

    def close(self) -> None:
        self._world.close()
