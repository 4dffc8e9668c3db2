"""A client's side of the store: any number of requests at a time, until each outcome is known.

A machine like any other (`engine.contract`). All that is asked in one turn shares a frame. A write
has a session of its own while it is under way, and is repeated under the same number in it, however
often its connection or its leader goes: the store does it once. What was not answered in time ends
as `OutcomeUnknown` if anybody was ever handed it, and as `ConnectionFailed`, certainly not done, if
nobody was.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Event, Link, Linked, Nanos, Ready, Received, Send, peer
from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown, RefusedError
from engine.kv import commands
from engine.kv.requests import (
    FRAME_BYTES_MAX,
    WRITE,
    Answered,
    Ask,
    AskTime,
    Held,
    Time,
    Watch,
    Watched,
)
from engine.kv.tellers import Tellers
from engine.raft.client import Known
from engine.raft.requests import Rejected

REPEAT: Nanos = SECOND // 10
"""Without an answer for so long it is said again, to another one."""
SHUN: Nanos = SECOND // 5
"""Whoever was silent is not asked again for so long, even if others say that it leads."""
LOOK_AGAIN: Nanos = SECOND // 50
"""Before the next is asked, when nobody knows of a leader."""
FORGET: Nanos = 60 * SECOND
"""An answer that comes later than this after it was asked for is not waited for."""
FRAME_BYTES = 1 << 19
FRAME_REQUESTS = 256
REQUEST_BYTES_MAX = FRAME_BYTES_MAX - 16
"""No frame can carry more, whatever the limits of the store are."""
NEVER: Nanos = 1 << 62
AT_LENGTH = {commands.RANGE, commands.LEASES, commands.TXN}
CUT = commands.TOO_LARGE, "answer"
"""Said to a get that has no room in an answer any more."""
PLAIN, DEDUPLICATED = False, True


class Ticket:
    """One request: `answer` or `error` once it is `over`."""

    __slots__ = ("alone", "answer", "deadline", "error", "handed", "how", "key", "over", "request")

    def __init__(self, how: int, request: tuple[Any, ...], deadline: Nanos | None) -> None:
        self.how, self.request, self.deadline = how, request, deadline
        self.key: list[Any] | None = None
        """[session, sequence] of a write that is done once."""
        self.handed = 0
        """How often it was said to somebody who may do it."""
        self.alone = request[0] in AT_LENGTH
        """It shares no frame, and so nobody takes from what its answer may have."""
        self.over = False
        self.answer: tuple[Any, ...] = ()
        self.error: EngineError | None = None


class Frame:
    """Tickets that were said together, to whom and when. `stale`: they were said again since, or
    will be. An answer counts all the same, or a store that takes longer than `REPEAT` for each
    would be repeated to for ever."""

    __slots__ = ("address", "at", "stale", "tickets")

    def __init__(self, address: str, at: Nanos, tickets: list[Ticket]) -> None:
        self.address, self.at, self.tickets = address, at, tickets
        self.stale = False


class Desk:
    """Takes requests by `ask`; `step` and `ready` as every machine."""

    def __init__(self, servers: Sequence[str], rng: random.Random) -> None:
        self.known = Known(servers)
        self.now: Nanos = 0
        self.why = ""
        """The last refusal."""
        self.watched: dict[int, list[Watched]] = {}
        """What was told to watchers, by number; whoever reads it takes it."""
        self.dismissed: set[int] = set()
        """Watches, by number, which whoever had them in mind has no more."""
        self.spoken_to: set[str] = set()
        self._rng = rng
        self._time: Nanos | None = None
        """Replicated time, as last heard: what a new session's name begins with."""
        self._free: list[list[Any]] = []
        self.tellers = Tellers()
        self.stirred = False
        """Something became of a watch other than that it was told something; whoever looks after
        them says when that is done."""
        self._shunned: dict[str, Nanos] = {}
        self._new: deque[Ticket] = deque()
        self._later: list[tuple[Nanos, Ticket]] = []
        self._frames: dict[int, Frame] = {}
        self._sends: list[Send] = []
        self._hold: Nanos = 0
        """Nothing is said before: nobody knows of a leader."""
        self._time_asked: Nanos | None = None
        self._dial_at: Nanos = 0
        self._watch_waits = False
        """Somebody watches, and nobody is there who could tell."""
        self._watch_at: Nanos | None = None
        """Whoever watches has to be looked after by then."""
        self._wakes: Nanos = NEVER
        """When the next turn is, if nothing arrives."""
        self.awaited: Ticket | None = None
        """For whoever runs the desk until this one is over."""

    @property
    def outcome(self) -> Ticket | None:
        """As `engine.runtime.caller` asks: of the one that is awaited."""
        return self.awaited if self.awaited is not None and self.awaited.over else None

    @property
    def pending(self) -> bool:
        """The next turn says something, or when to look again, that the last one did not know."""
        sooner = self._watch_at is not None and self._watch_at < self._wakes
        return bool(self._sends) or sooner

    @property
    def handed_over(self) -> bool:
        return self.awaited is not None and self.awaited.handed > 0

    def ask(
        self, how: int, request: tuple[Any, ...], patience: Nanos | None, now: Nanos, *, once: bool
    ) -> Ticket:
        """`request` as `engine.kv.commands` has it, without session and sequence. `once`: it must
        not be done twice."""
        ticket = Ticket(how, request, None if patience is None else now + patience)
        if once:
            ticket.key = [b"", 0]
        self._new.append(ticket)
        return ticket

    def say_watch(self, ask: Watch) -> str:
        """Say this to whoever is asked: who that is, "" if nobody is there."""
        server = self._server()
        self._watch_waits = not server
        if server:
            self.tellers.asked(server, ask, self.now)
            self._say(server, ask)
        return server

    def watch_by(self, at: Nanos) -> None:
        """Whoever runs the desk shall look after a watch by then."""
        self._watch_at = at if self._watch_at is None else min(at, self._watch_at)

    def end_watch(self, server: str, ask: Watch) -> None:
        """Nobody watches this any more; `server` has it in mind, "" if nobody has."""
        self.watched.pop(ask.number, None)
        self.tellers.ended(server, ask.number)
        if server in self.known.up:
            self._say(server, ask._replace(credit=0))

    # --- in --------------------------------------------------------------------------------------

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        self.now = now
        if self._watch_at is not None and now >= self._watch_at:
            self._watch_at = None
            self.stirred = True
        self.stirred = self.stirred or self._watch_waits
        for event in events:
            if type(event) is Received:
                self._take(event.link, event.message)
            elif type(event) is Linked:
                self._linked(event.link, event.up)
        self._expire(now)

    def _take(self, link: Link, message: Any) -> None:
        kind = type(message)
        if kind is Answered:
            self.known.addresses[message.sender] = link.principal
            for frame in message.frames:
                self._answered(frame)
        elif kind is Rejected:
            self.known.addresses[message.sender] = link.principal
            self._rejected(link.principal, message)
            self._dismissed(link.principal, message.numbers)
        elif kind is Time:
            self._time = max(self._time or 0, message.time)
        elif kind is Watched:
            self.watched.setdefault(message.number, []).append(message)
            self.tellers.told(link.principal, message)
        elif kind is Held:
            self.tellers.held(link.principal, message)
            self.stirred = self.stirred or bool(self.tellers.doubted)

    def _answered(self, body: bytes) -> None:
        try:
            number, *answers = msgpack.unpackb(body, use_list=False)
        except (ValueError, TypeError):
            return  # not from a store of this version
        frame = self._frames.pop(number, None) if type(number) is int else None
        if frame is not None and len(answers) == len(frame.tickets):
            for ticket, answer in zip(frame.tickets, answers, strict=True):
                if ticket.over:
                    continue
                if answer == CUT and not ticket.alone:
                    ticket.alone = True
                    self._new.append(ticket)
                else:
                    ticket.answer = answer
                    self._end(ticket)

    def _end(self, ticket: Ticket) -> None:
        ticket.over = True
        if ticket.key is not None and ticket.key[0]:
            self._free.append(ticket.key)
            ticket.key = None

    def _rejected(self, server: str, message: Rejected) -> None:
        """Not done, or unknown: then it is repeated under its number, or it may be read again."""
        frames = [self._frames.pop(n) for n in message.numbers if n in self._frames]
        if any(not frame.stale for frame in frames):
            self._turn_by(server, message)
        for frame in frames:
            self._once_more(frame, done=message.unknown)

    def _dismissed(self, server: str, numbers: Sequence[int]) -> None:
        """Of watches: whoever hears of nothing is asked nothing for a while."""
        numbers = [number for number in numbers if self.tellers.of(number) == server]
        if numbers:
            self.dismissed.update(numbers)
            self.stirred = True
            self._shunned[server] = self.now + SHUN
            if server == self.known.server:
                self._turn_away()

    def _turn_by(self, server: str, message: Rejected) -> None:
        """To the leader, if it says who that is. If not, away from it: once, however many frames it
        was asked in, or somebody between it and the next might never be asked."""
        self.why = message.why
        known = self.known
        leader = known.addresses.get(message.leader, "")
        if leader in known.servers and self._shunned.get(leader, 0) <= self.now:
            known.turn_to(message.leader)
            if leader not in known.up:  # or others would tell us so again at once, for ever
                self._hold = self.now + LOOK_AGAIN
        else:
            self._hold = self.now + LOOK_AGAIN
            if server == known.server:
                self._turn_away()

    def _turn_away(self) -> None:
        """To the next who is not shunned; if all are, to the next."""
        known = self.known
        for _ in known.servers:
            known.turn_to(0)
            if self._shunned.get(known.server, 0) <= self.now:
                return
        known.turn_to(0)

    def _once_more(self, frame: Frame, *, done: bool) -> None:
        for ticket in frame.tickets:
            if not ticket.over:
                ticket.handed -= not done
                if not frame.stale:
                    self._new.append(ticket)

    def _linked(self, link: Link, up: bool) -> None:
        address = link.principal
        self.stirred = True
        if up:
            self.known.up.add(address)
            if address == self.known.server:
                self._hold = 0
            return
        self.known.up.discard(address)
        self.tellers.gone(address)
        for number in [n for n, frame in self._frames.items() if frame.address == address]:
            self._once_more(self._frames.pop(number), done=True)

    def _expire(self, now: Nanos) -> None:
        for number, frame in list(self._frames.items()):
            over = all(ticket.over for ticket in frame.tickets)
            if over or (frame.stale and now >= frame.at + FORGET):
                del self._frames[number]
            elif not frame.stale and now >= frame.at + REPEAT:
                self._once_more(frame, done=True)
                frame.stale = True
                self._shunned[frame.address] = now + SHUN
                if frame.address == self.known.server:
                    self._turn_away()
        late = False
        said = [t for frame in self._frames.values() if not frame.stale for t in frame.tickets]
        for ticket in (*self._new, *said):
            if ticket.deadline is not None and now >= ticket.deadline and not ticket.over:
                ticket.error = self._too_late(ticket)
                self._end(ticket)
                late = True
        if late:
            self._new = deque([ticket for ticket in self._new if not ticket.over])

    def _too_late(self, ticket: Ticket) -> EngineError:
        there = len(self.known.up & set(self.known.servers))
        why = f"; {self.why}" if self.why else ""
        said = f"{there} of {len(self.known.servers)} replicas reachable{why}"
        if ticket.handed and ticket.how == WRITE:
            return OutcomeUnknown(f"{said}: it may have been done, or may yet be.")
        return ConnectionFailed(f"{said}: nothing was done.")

    # --- out -------------------------------------------------------------------------------------

    def ready(self) -> Ready:
        if self._new and self.now >= self._hold:
            self._flush()
        beat_at = self.tellers.beat_at
        if beat_at is not None and self.now >= beat_at:
            self._beat()
        sends, self._sends = self._sends, []
        wake_at = self._wake_at()
        self._wakes = NEVER if wake_at is None else wake_at
        return Ready(now=tuple(sends), wake_at=wake_at)

    def _beat(self) -> None:
        """Whoever tells us of watches is asked whether it has them all."""
        known = self.known
        ask, silent = self.tellers.beat(self.now, known.server, known.up)
        for server in silent:
            self._shunned[server] = self.now + SHUN
            if server == known.server:
                self._turn_away()
        for server in ask:
            self._say(server, self.tellers.question(server))
        if self.tellers.doubted:
            self.watch_by(self.now + 1)

    def _server(self) -> str:
        """Whom to ask; all are dialed while nobody is linked."""
        known = self.known
        if known.server not in known.up:
            if self.now >= self._dial_at:  # who watches asks every time it is looked at
                self._dial_at = self.now + LOOK_AGAIN
                for server in known.servers:
                    if server not in known.up:
                        self._say(server, AskTime(0))  # which dials, and is not heard
            if not known.up & set(known.servers):
                return ""
            while known.server not in known.up:
                known.turn_to(0)  # on from where we are, so that nobody is left out
        return known.server

    def _say(self, server: str, message: Any) -> None:
        self.spoken_to.add(server)
        self._sends.append(Send(peer(server), message))

    def _flush(self) -> None:
        server = self._server()
        if not server:
            return
        waiting = [ticket for ticket in self._new if not ticket.over]
        self._new.clear()
        if self._time is None and any(t.key is not None and not t.key[0] for t in waiting):
            self._new.extend(waiting)
            if self._time_asked is None or self.now >= self._time_asked + REPEAT:
                self._time_asked = self.now
                self._say(server, AskTime(0))
            return
        for how in {ticket.how: None for ticket in waiting}:
            self._frames_of(server, how, [ticket for ticket in waiting if ticket.how == how])

    def _frames_of(self, server: str, how: int, tickets: list[Ticket]) -> None:
        packed: list[bytes] = []
        part: list[Ticket] = []
        size = 0
        for ticket in tickets:
            body = self._packed(ticket)
            if len(body) > REQUEST_BYTES_MAX:
                ticket.error = RefusedError("Nothing was done: a request may not be so long.")
                self._end(ticket)
                continue
            full = size + len(body) > FRAME_BYTES or len(part) >= FRAME_REQUESTS
            if part and (full or ticket.alone or part[-1].alone):
                self._frame(server, how, part, packed)
                packed, part, size = [], [], 0
            packed.append(body)
            part.append(ticket)
            size += len(body)
        if part:
            self._frame(server, how, part, packed)

    def _packed(self, ticket: Ticket) -> bytes:
        if ticket.how != WRITE:
            return bytes(msgpack.packb(ticket.request))
        if ticket.key is None:
            return bytes(msgpack.packb((b"", 1, *ticket.request)))
        if not ticket.key[0]:
            ticket.key = self._free.pop() if self._free else [self._session(), 0]
            ticket.key[1] += 1
        return bytes(msgpack.packb((*ticket.key, *ticket.request)))

    def _session(self) -> bytes:
        return (self._time or 0).to_bytes(8, "big") + self._rng.randbytes(8)

    def _frame(self, server: str, how: int, part: list[Ticket], packed: list[bytes]) -> None:
        self.known.number += 1
        number = self.known.number
        head = msgpack.Packer().pack_array_header(1 + len(packed))
        for ticket in part:
            ticket.handed += 1
        self._frames[number] = Frame(server, self.now, part)
        self._say(server, Ask(how, b"".join([head, msgpack.packb(number), *packed])))

    def _wake_at(self) -> Nanos | None:
        frames = [frame for frame in self._frames.values() if not frame.stale]
        times = [frame.at + REPEAT for frame in frames]
        if any(not ticket.over for ticket in self._new):
            times.append(max(self._hold, self.now + LOOK_AGAIN))
        if self._watch_waits:
            times.append(max(self._dial_at, self.now + 1))
        times += [at for at in (self._watch_at, self.tellers.beat_at) if at is not None]
        tickets = [*self._new, *(t for frame in frames for t in frame.tickets)]
        times += [t.deadline for t in tickets if t.deadline is not None and not t.over]
        return min(times, default=None)

    def check(self) -> None:
        """Every ticket that is not over is waiting or said."""
