"""The worker's end of the wire; the handshake and the rules are in `engine.wire.endpoint`."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

import zmq

from engine.contract import Link
from engine.errors import ConnectionFailed
from engine.wire.connection import Connection
from engine.wire.handshake import frame_of

if TYPE_CHECKING:
    from engine.wire.passport import Passport

GRACE_SECONDS = 3.0
"""A dialer whose connection went gives up after so long without another."""
LOOK_MS = 250
"""With keys, how often it is looked whether the server is still allowed."""


class Dialer(Connection):
    """The other end for one process that may block: one connection, one message at a time.

    `watch` are descriptors whose readability (the end of a pipe) means that the server's process is
    gone. The rest is `Connection`'s.
    """

    def __init__(
        self,
        address: str,
        *,
        watch: Sequence[int] = (),
        grace: float = GRACE_SECONDS,
        **who: Any,
    ) -> None:
        super().__init__(address, **who)
        self._watch = tuple(watch)
        self._grace = grace
        self._down_since: float | None = monotonic()

    def connect(self, seconds: float | None) -> Link:
        """Connect and prove who we are; who we are from now on.

        Waits for a server that is not there yet. ConnectionFailed after `seconds` (None: never), if
        the server's process ends, or if whoever answers cannot prove itself; RefusedError with the
        server's own reason.
        """
        deadline = None if seconds is None else monotonic() + seconds
        self._dial()
        while self.link is None:
            if self._receive_now() is not None:
                raise ConnectionFailed(f"{self.address} answered out of turn: is it an engine?")
            if self.link is None and not self._wait(zmq.POLLIN, deadline):
                raise ConnectionFailed(self._nobody(seconds or 0))
        return self.link

    def send(self, value: Any) -> None:
        """Hand a message to ZeroMQ, waiting while its queue is full. ConnectionFailed."""
        frame = frame_of(value, self.cluster, self._number)
        while True:
            try:
                self._socket.send(frame, zmq.NOBLOCK)
                return
            except zmq.Again:
                self._wait(zmq.POLLOUT, None)

    def receive(self, seconds: float | None = None) -> Any:
        """The next message; None when `seconds` passed without one.

        ConnectionFailed if the server is gone (for the grace period) or cannot be understood,
        RefusedError if it no longer wants us.
        """
        deadline = None if seconds is None else monotonic() + seconds
        while True:
            value = self._receive_now()
            if value is not None:
                return value
            if not self._wait(zmq.POLLIN, deadline):
                return self._receive_now()

    def close(self, linger_ms: int = 500) -> None:
        """Leave; messages already sent get `linger_ms` to do so too."""
        super().close(linger_ms)

    def __enter__(self) -> Dialer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- waiting ---------------------------------------------------------------------------------

    def _wait(self, event: int, deadline: float | None) -> bool:
        """Wait for the socket or news of the connection. False: the deadline passed.

        ConnectionFailed if the server's process ended, or a proven link has been down too long.
        """
        if self._passport is not None:
            self._leave_if_revoked(self._passport)
        now = monotonic()
        until = deadline
        if self.link is not None and self._down_since is not None:
            give_up = self._down_since + self._grace
            if now >= give_up:
                raise ConnectionFailed(f"The server at {self.address} is gone.")
            until = give_up if deadline is None else min(deadline, give_up)
        timeout = -1 if until is None else max(0, int((until - now) * 1000) + 1)
        if deadline is not None and now >= deadline:
            timeout = 0  # still looks once, or news would never be taken by who polls with 0
        if self._passport is not None and not 0 <= timeout < LOOK_MS:
            timeout = LOOK_MS
        polled: list[tuple[Any, int]] = [(self._socket, event), (self._ends.monitor, zmq.POLLIN)]
        ready: list[tuple[Any, int]] = zmq.zmq_poll(
            [*polled, *((fd, zmq.POLLIN) for fd in self._watch)], timeout
        )
        sources = [source for source, _ in ready]
        if self._ends.monitor in sources:
            self._take_news()
        # Its last words come before the news of its end.
        if self._socket not in sources and any(fd in sources for fd in self._watch):
            raise ConnectionFailed(f"The process that serves {self.address} ended.")
        return deadline is None or monotonic() < deadline

    def _take_news(self) -> None:
        for event in self._ends.news():
            if self._passport is not None:
                self._show(self._passport, event)
            if event not in (zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
                continue
            if event == zmq.EVENT_DISCONNECTED:
                # A listener that takes connections and ends them keeps saying so.
                self._down_since = self._down_since or monotonic()
            else:
                self._down_since = None
                self._introduce()

    def _leave_if_revoked(self, passport: Passport) -> None:
        """ConnectionFailed if the server is not one that is allowed any more."""
        if (why := passport.dismissed(monotonic_ns())) is not None:
            self._hang_up()
            raise why

    def _show(self, passport: Passport, event: int) -> None:
        """RefusedError or ConnectionFailed if our key, or the listener's, will not do."""
        if (error := passport.heard(event)) is not None:
            raise error
        if passport.dial_at is not None:
            self._hang_up()
            self._dial()

    def _nobody(self, seconds: float) -> str:
        if self._down_since is None:
            return f"{self.address} took the connection but gave no welcome within {seconds:g} s."
        return f"Nobody listens at {self.address} (waited {seconds:g} s): is the job running there?"
