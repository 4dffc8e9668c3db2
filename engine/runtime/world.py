"""The real world of a service that keeps nothing on disk: sockets and a clock.

Whoever dials in arrives over a `Listener`; a service with several keeps roles apart by them. Peers
(`engine.contract.peer`) are dialed when they are first spoken to, over the address that they have
or the one that `via` gives for it, and let go when nobody has spoken to them for long, unless they
are to be kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import monotonic_ns
from typing import Any, Protocol

import zmq

from engine.contract import PEER, SECOND, Event, Job, Link, Linked, Nanos, Send, Write
from engine.errors import EngineError
from engine.kernels.frames import Frames, Poller
from engine.wire.endpoint import Outgoing

WAIT_MS_MAX = 200
"""Longest wait: bounds how long a signal to end goes unnoticed."""
IDLE: Nanos = 60 * SECOND
"""A peer that was not spoken to for so long is let go; the next word dials again."""
LOOK_FOR_IDLE: Nanos = SECOND
LATER_MS = 2
"""Longest wait for something else, while what may come `later` is left where it is."""


class Pollable(Protocol):
    """Something to wait for."""

    def pollables(self) -> tuple[Frames | int, ...]: ...


class Entrance(Pollable, Protocol):
    """Where clients come in: a `Listener`, or what is like one."""

    roles: frozenset[str]

    @property
    def restless(self) -> bool: ...
    @property
    def counts(self) -> dict[str, int]: ...
    def drain(self, frames: int, size: int) -> list[Event]: ...
    def send(self, link: Link, value: Any) -> bool: ...
    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None: ...
    def close(self, linger_ms: int = 0) -> None: ...


class SocketWorld:
    """Satisfies `engine.contract.World`; one thread uses it.

    `role` and `incarnation` are how we introduce ourselves to peers, `token` is the path of the
    token file for those on TCP. `spin`, in microseconds: see `Poller`.
    """

    def __init__(
        self,
        *listeners: Entrance,
        role: str = "client",
        incarnation: int = 0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
        spin: int = 0,
    ) -> None:
        self.listeners = listeners
        self._of_role = {role: one for one in listeners for role in one.roles}
        self.refusals: dict[str, EngineError] = {}
        """By address: why a peer does not want us, or cannot be dialed."""
        self._who: dict[str, Any] = {"role": role, "incarnation": incarnation, "token": token}
        self._via = dict(via or {})
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peers: dict[str, Outgoing] = {}
        self._used: dict[str, Nanos] = {}
        self._kept: frozenset[str] = frozenset()
        self._gone: list[Event] = []
        self._poller = Poller(spin)
        self._ready: set[Frames | int] | None = None
        """What is readable by a `wait` or `look` just now; None: it is not known."""
        self._later: list[Frames | int] = []
        self._look_for_idle: Nanos = 0
        for listener in listeners:
            self._watch(listener)

    def now(self) -> Nanos:
        """CLOCK_MONOTONIC."""
        return monotonic_ns()

    def drain(self, frames: int, size: int) -> list[Event]:
        """From those who dialed in, listener by listener, then from peers."""
        events, self._gone = self._gone, []
        if self._ready is None:
            self._ready = set(self._poller.poll(0))
        for listener in self.listeners:
            if listener.restless or self._may_have(listener):
                events += listener.drain(frames, size)
        for address, outgoing in self._peers.items():
            if outgoing.wake_at or self._may_have(outgoing):
                events += outgoing.drain(frames)
                if outgoing.refusal is None:
                    self.refusals.pop(address, None)
                else:
                    self.refusals[address] = outgoing.refusal
        self._ready = None
        return events

    def _may_have(self, end: Pollable) -> bool:
        """Whether there is something; if nobody has asked lately, there may be."""
        return self._ready is None or not self._ready.isdisjoint(end.pollables())

    def send(self, sends: Iterable[Send]) -> None:
        """Lost unless the other end is linked and its pipe has room."""
        for link, message in sends:
            if link.role != PEER:
                assert link.role in self._of_role, link
                self._of_role[link.role].send(link, message)
            elif (outgoing := self._peer(link.principal)) is not None:
                outgoing.send(message)

    def answers(self, kind: int, messages: list[tuple[Link, bytes]]) -> None:
        """Messages that are encoded already, to those who dialed in and asked in bulk."""
        of: dict[str, list[tuple[Link, bytes]]] = {}
        for message in messages:
            of.setdefault(message[0].role, []).append(message)
        for role, some in of.items():
            self._of_role[role].answers(kind, some)

    def write(self, group: Sequence[Write]) -> int:
        """There is no disk in this world."""
        raise AssertionError(f"a service without a log writes {group}")

    def start(self, job: Job) -> None:
        """There is no long work in this world."""
        raise AssertionError(f"a service without jobs starts {job}")

    def point(self, name: str) -> None:
        """Nothing: crash points are for tests, which replace this method."""

    def wait(self, until: Nanos | None) -> None:
        """Until something arrives or `until`; at most `WAIT_MS_MAX`."""
        now = monotonic_ns()
        for outgoing in self._peers.values():
            when = outgoing.wake_at
            if when is not None and (until is None or when < until):
                until = when
        timeout = WAIT_MS_MAX
        if until is not None:
            timeout = min(timeout, max(0, -(-(until - now) // 1_000_000)))
        later, self._later = self._later, []
        if later:
            self._poller.poll(min(timeout, LATER_MS), later)
            self._ready = None  # of them it is not known
        else:
            ready = self._poller.poll(timeout)
            # Looking into a socket that has nothing costs more than to take a message from one.
            self._ready = set(ready) if ready else None
        if now >= self._look_for_idle:
            self._look_for_idle = now + LOOK_FOR_IDLE
            self._let_go(now)

    def later(self) -> None:
        """What peers say next is not urgent: the next `wait` does not end because of it. It is
        taken in with whatever does, or when a moment has passed."""
        self._later += [outgoing.frames for outgoing in self._peers.values()]

    def may_spin(self, may: bool) -> None:
        """Where many ask, all processors are wanted by those who have something to do."""
        self._poller.may_spin = may

    def look(self) -> bool:
        """Whether something has arrived; for whoever waits elsewhere, by `descriptors`."""
        ready = self._poller.poll(0)
        self._ready = set(ready) if ready else None
        return bool(ready)

    def descriptors(self) -> set[int]:
        """One of them becomes readable when something arrives; but what arrived before the last
        turn ended may have been announced already, hence `look` after every turn."""
        return set(self._poller.descriptors())

    def close(self, linger_ms: int = 0) -> None:
        """Close all sockets; messages already sent get `linger_ms` to leave."""
        for outgoing in self._peers.values():
            outgoing.close(linger_ms)
        self._context.destroy()
        for listener in self.listeners:
            listener.close(linger_ms)

    # --- peers -----------------------------------------------------------------------------------

    def keep(self, addresses: Iterable[str]) -> None:
        """Stay connected to these peers, spoken to or not, so that it is noticed when they go."""
        self._kept = frozenset(addresses)
        for address in sorted(self._kept):
            self._peer(address)

    def _peer(self, address: str) -> Outgoing | None:
        self._used[address] = monotonic_ns()
        if address not in self._peers:
            try:
                way = self._via.get(address, address)
                made = Outgoing(way, name=address, context=self._context, **self._who)
            except EngineError as error:  # peers are named by others, who may say anything
                self.refusals[address] = error
                return None
            self._peers[address] = made
            self._watch(made)
        return self._peers[address]

    def _let_go(self, now: Nanos) -> None:
        idle = [a for a, used in self._used.items() if now - used > IDLE and a not in self._kept]
        for address in idle:
            del self._used[address]
            self.refusals.pop(address, None)
            if (outgoing := self._peers.pop(address, None)) is not None:
                for source in outgoing.pollables():
                    self._poller.remove(source)
                outgoing.close()
                if outgoing.link is not None:
                    self._gone.append(Linked(outgoing.peer, False))

    def watch(self, end: Pollable) -> None:
        """Wait for this too, which belongs to a listener of ours, and is drained by it."""
        self._watch(end)

    def unwatch(self, end: Pollable) -> None:
        """Not any more; it is about to be closed."""
        for source in end.pollables():
            self._poller.remove(source)

    def _watch(self, end: Pollable) -> None:
        for source in end.pollables():
            self._poller.add(source)
