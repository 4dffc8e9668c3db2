"""A server's or client's end of a connection that it dialed, for a loop that never waits.

The handshake and the rules are in `engine.wire.endpoint`.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import zmq

from engine.contract import DRAIN_FRAMES_MAX, Event, Linked, Nanos, Received, peer
from engine.errors import EngineError
from engine.wire.connection import Connection

if TYPE_CHECKING:
    from engine.wire.passport import Passport

HELLO_AGAIN: Nanos = 250_000_000
"""A hello may be lost on the way, and a listener that refused may think otherwise later."""


class Outgoing(Connection):
    """Keeps one connection for as long as it is wanted, whatever becomes of the other end.

    `name` is the address that messages and events call it by (`engine.contract.peer`); `address` is
    where it is dialed. A listener that restarted, or forgot us, is greeted again. `refusal` holds
    the listener's last reason for not wanting us; None once it does.
    """

    def __init__(self, address: str, *, name: str = "", **who: Any) -> None:
        super().__init__(address, **who)
        self.peer = peer(name or address)
        self._wanted = self.cluster
        self.refusal: EngineError | None = None
        self._connected = False
        self._said_at: Nanos = 0
        self._events: list[Event] = []
        self._dial()

    @property
    def wake_at(self) -> Nanos | None:
        """When to `drain` even if nothing arrives."""
        waiting = self._connected and self.link is None
        if self._passport is not None:
            look = self._passport.wake_at
            return min(look, self._said_at + HELLO_AGAIN) if waiting else look
        return self._said_at + HELLO_AGAIN if waiting else None

    def drain(self, frames: int = DRAIN_FRAMES_MAX) -> list[Event]:
        """What has arrived, up to so many frames, and whether the other end came or went."""
        for event in self._ends.news():
            self._lose()
            self._connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._said_at = 0
            if self._passport is not None:
                self.refusal = self._passport.heard(event) or self.refusal
        if self._passport is not None:
            self._tend(self._passport)
        while frames > 0 and (value := self._receive_now()) is not None:
            self._events.append(Received(self.peer, value))
            frames -= 1
        if self._connected and self.link is None:
            now = monotonic_ns()
            if now >= self._said_at + HELLO_AGAIN:
                self._said_at = now
                self._introduce()
        events, self._events = self._events, []
        return events

    def _tend(self, passport: Passport) -> None:
        """Dial anew when it is time to, and leave a server that is not allowed any more."""
        now = monotonic_ns()
        if (why := passport.dismissed(now)) is not None:
            self._hang_up()
            self._lose()
            self._connected, self.refusal = False, why
        if passport.dial_at is not None and now >= passport.dial_at:
            self._hang_up()
            self._dial()

    def send(self, value: Any) -> bool:
        """Hand a message to ZeroMQ; never waits. False: nobody is linked, and it is lost."""
        return self.link is not None and self._say(value)

    def _welcome(self, *welcome: Any) -> None:
        super()._welcome(*welcome)
        if self.link is not None:
            self.refusal = None
            self._events.append(Linked(self.peer, True))

    def _refused(self, error: EngineError, *, forgotten: bool = False) -> None:
        self._lose()
        if forgotten:
            self._said_at = 0  # it restarted, or let us go: say hello at once
        else:
            self.refusal = error

    def _lose(self) -> None:
        if self.link is not None:
            self._events.append(Linked(self.peer, False))
        self.link, self._number, self._trusted = None, 0, self._token is None
        self.cluster = self._wanted  # one that was started again may have another number
