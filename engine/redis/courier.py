"""Frames of requests on their way to whoever leads, until each is answered or it is too late.

If this replica leads, they go to its own front as clients' frames do, and otherwise over a
connection to the clients' endpoint of the one that does, as any client's would. A frame that was
refused, or lost, is said again, byte for byte: the sessions in it see to it that nothing is done
twice, whoever is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]
import zmq

from engine.contract import SECOND, Linked, Nanos, Received
from engine.errors import EngineError
from engine.kernels.resp import Batch, Intake, number_of
from engine.kv.requests import READ, WRITE, Answered, Ask, AskTime, Time
from engine.raft.herd import Herd
from engine.raft.machine import NOBODY
from engine.raft.requests import Rejected
from engine.redis.replies import DOWN, UNKNOWN
from engine.wire.endpoint import Outgoing

if TYPE_CHECKING:
    from engine.raft.replica import Replica

PATIENCE: Nanos = 5 * SECOND
"""Nobody waits longer for a frame that is under way."""
REPEAT: Nanos = SECOND // 2
LOOK_AGAIN: Nanos = SECOND // 50
KNOW_AGAIN: Nanos = SECOND
"""From one look for who is where to the next."""
NEVER: Nanos = 1 << 62

Over = Callable[[list[Any], list[tuple[Any, Any]], list[tuple[Any, Batch]], bytes], None]
"""What `Batch.answer` or `fail` returned, and the reply if it failed."""


class Flight:
    """A frame under way. `to`: the member that it was said to last, NOBODY if it has to be said;
    `handed`: how often somebody was told who may do it."""

    __slots__ = ("batch", "deadline", "frame", "handed", "hold", "said_at", "to")

    def __init__(self, batch: Batch, now: Nanos) -> None:
        self.batch, self.frame = batch, batch.frame()
        self.deadline = now + PATIENCE
        self.to = NOBODY
        self.handed = 0
        self.hold = self.said_at = now


class Courier:
    """Takes what is in `intake`. `others` says at which endpoints clients find the members."""

    def __init__(
        self, intake: Intake, others: Callable[[], Mapping[int, str]], token: str | None
    ) -> None:
        self.intake, self._others, self._token = intake, others, token
        self.replica: Replica | None = None
        self.time: Nanos = 0
        """Replicated time, as others have told it."""
        self.counts = {"frames": 0, "repeated": 0, "late": 0}
        self._flights: tuple[dict[int, Flight], ...] = ({}, {})
        """Of writes and of reads, by number."""
        self._herds = Herd(), Herd()
        self._said = [0, 0]
        self._local: list[bytes] = []
        self._led = (NOBODY, 0)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ways: dict[int, str] = {}
        self._known_at: Nanos = -KNOW_AGAIN
        self._outgoing: dict[str, Outgoing] = {}
        self._wanted = False

    # --- what is waited for ----------------------------------------------------------------------

    def pollables(self) -> tuple[Any, ...]:
        return tuple([one for out in self._outgoing.values() for one in out.pollables()])

    @property
    def until(self) -> Nanos | None:
        """When to go on if nothing arrives."""
        times = [out.wake_at for out in self._outgoing.values() if out.wake_at is not None]
        for how, flights in enumerate(self._flights):
            for flight in flights.values():
                again = flight.hold if flight.to == NOBODY else flight.said_at + REPEAT
                times.append(min(flight.deadline, again))
            if not flights and self.intake.pending(how):
                times.append(self._herds[how].until)
        return min(times, default=None)

    def idle(self, now: Nanos) -> bool:
        """Whether `go` would do nothing."""
        until = self.until
        if until is not None and until <= now:
            return False
        if self._led != self._leads() and (self._flights[0] or self._flights[1]):
            return False
        return not any(self._ripe(how, now) for how in (WRITE, READ))

    def _ripe(self, how: int, now: Nanos) -> bool:
        here = self.intake.pending(how)
        return bool(here) and not self._flights[how] and self._herds[how].here(here, now)

    # --- out -------------------------------------------------------------------------------------

    def go(self, now: Nanos) -> list[bytes]:
        """Say what is to be said; what is for our own front is returned."""
        led = self._leads()
        if led != self._led:
            self._led = led
            for flights in self._flights:
                for flight in flights.values():
                    flight.to, flight.hold = NOBODY, now
        for how in (WRITE, READ):
            if self._ripe(how, now):
                self._take(how, now)
            for flight in self._flights[how].values():
                if flight.to != NOBODY and now >= flight.said_at + REPEAT:
                    flight.to, flight.hold = NOBODY, now
                if flight.to == NOBODY and now >= flight.hold:
                    self._say(flight, now)
        local, self._local = self._local, []
        return local

    def _take(self, how: int, now: Nanos) -> None:
        self._said[how] = 0
        for batch in self.intake.take(how):
            if len(batch):
                self._said[how] += len(batch)
                self._flights[how][batch.number] = Flight(batch, now)

    def again(self, batch: Batch, now: Nanos) -> None:
        """Ask what had no room in an answer, by itself."""
        self._flights[batch.how][batch.number] = Flight(batch, now)

    def _leads(self) -> tuple[int, int]:
        assert self.replica is not None
        raft = self.replica.raft
        return raft.leader, raft.term

    def _say(self, flight: Flight, now: Nanos) -> None:
        assert self.replica is not None
        leader = self.replica.raft.leader
        ask = Ask(flight.batch.how, flight.frame)
        if leader == self.replica.raft.me:
            self._local.append(msgpack.packb(tuple(ask)))
        else:
            out = self._way(leader, now)
            if out is None or not out.send(ask):
                flight.hold = now + LOOK_AGAIN
                return
        self.counts["frames"] += 1
        self.counts["repeated"] += flight.handed > 0
        flight.to, flight.said_at = leader, now
        flight.handed += 1

    # --- others ----------------------------------------------------------------------------------

    def dial(self, now: Nanos) -> None:
        """Be connected to all, for the day on which another one leads."""
        self._wanted = True
        self._look(now)

    def _look(self, now: Nanos) -> None:
        assert self.replica is not None
        self._known_at = now
        me = self.replica.raft.me
        self._ways = {m: where for m, where in self._others().items() if m != me}
        for address in self._outgoing.keys() - set(self._ways.values()):
            self._let_go(address)
        for address in self._ways.values():
            if address not in self._outgoing:
                try:
                    out = Outgoing(address, context=self._context, role="client", token=self._token)
                except EngineError:
                    continue  # whoever named it may have meant another one
                self._outgoing[address] = out
                self.replica.world.watch(out)

    def _let_go(self, address: str) -> None:
        assert self.replica is not None
        out = self._outgoing.pop(address)
        self.replica.world.unwatch(out)
        out.close()

    def _way(self, member: int, now: Nanos) -> Outgoing | None:
        if member not in self._ways and now >= self._known_at + KNOW_AGAIN and member != NOBODY:
            self._look(now)
        return self._outgoing.get(self._ways.get(member, ""))

    # --- in --------------------------------------------------------------------------------------

    def hear(self, now: Nanos, over: Over) -> None:
        """What others say."""
        for out in list(self._outgoing.values()):
            for event in out.drain():
                if type(event) is Received:
                    self.take(event.message, now, over)
                elif type(event) is Linked:
                    self._linked(out, event.up, now)

    def take(self, message: Any, now: Nanos, over: Over) -> None:
        """An answer, or a refusal."""
        kind = type(message)
        if kind is Answered:
            for frame in message.frames:
                self.answered(frame, now, over)
        elif kind is Rejected:
            self._rejected(message, now)
        elif kind is Time:
            self.time = max(self.time, message.time)

    def answered(self, frame: bytes, now: Nanos, over: Over) -> None:
        number = number_of(frame)
        for how, flights in enumerate(self._flights):
            flight = flights.get(-1 if number is None else number)
            if flight is None:
                continue
            try:
                owners, calls, left = flight.batch.answer(frame)
            except ValueError:
                return  # from a store of another version: it is said again, to whoever leads then
            del flights[flight.batch.number]
            if not flights:
                self._herds[how].answered(self._said[how], self.intake.pending(how), now)
            over(owners, calls, left, b"")
            return

    def _rejected(self, message: Rejected, now: Nanos) -> None:
        assert self.replica is not None
        other = self.replica.raft.leader not in (NOBODY, message.sender)
        for flights in self._flights:
            for number in message.numbers:
                flight = flights.get(number)
                if flight is not None:
                    flight.handed -= not message.unknown
                    if flight.to == message.sender:
                        flight.to, flight.hold = NOBODY, now if other else now + LOOK_AGAIN

    def _linked(self, out: Outgoing, up: bool, now: Nanos) -> None:
        if up:
            out.send(AskTime(0))
        members = [m for m, where in self._ways.items() if where == out.peer.principal]
        for flights in self._flights:
            for flight in flights.values():
                if up and flight.to == NOBODY:
                    flight.hold = now
                elif not up and flight.to in members:
                    flight.to, flight.hold = NOBODY, now

    def expire(self, now: Nanos, over: Over) -> None:
        """Tell those who waited too long."""
        for flights in self._flights:
            for number, flight in list(flights.items()):
                if now >= flight.deadline:
                    del flights[number]
                    self.counts["late"] += 1
                    unknown = flight.handed and flight.batch.how == WRITE
                    reply = UNKNOWN if unknown else DOWN
                    over(*flight.batch.fail(reply), reply)

    def close(self) -> None:
        for out in self._outgoing.values():
            out.close()
        self._context.destroy()
