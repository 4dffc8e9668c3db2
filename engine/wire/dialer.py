"""The worker's end of the wire; the handshake and the rules are in `engine.wire.endpoint`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic
from typing import Any

import zmq

from engine.contract import Link
from engine.errors import ConnectionFailed, EngineError, RefusedError
from engine.wire import addresses, codec, envelope, keys
from engine.wire.codec import WireError
from engine.wire.handshake import (
    Again,
    Challenge,
    Hello,
    MonitoredSocket,
    Proof,
    Refused,
    Welcome,
    frame_of,
)

RECONNECT_MS, RECONNECT_MAX_MS = 4, 250
GRACE_SECONDS = 3.0
"""A dialer whose connection went gives up after so long without another."""


class Dialer:
    """The other end: one connection to one listener, used by one process that may block.

    `node` -1 asks the listener for a number. `cluster` 0 accepts whichever is there. `token` is the
    path of a token file, for TCP. `watch` are
    descriptors whose readability (the end of a pipe) means that the server's process is gone.
    RefusedError or UsageError for an address that is not of this machine.
    """

    def __init__(
        self,
        address: str,
        *,
        role: str,
        node: int = -1,
        incarnation: int = 0,
        token: str | None = None,
        cluster: int = 0,
        watch: Sequence[int] = (),
        grace: float = GRACE_SECONDS,
    ) -> None:
        addresses.check_dial(address, token)
        self.address, self.cluster = address, cluster
        self.link: Link | None = None
        self._hello = Hello(role, node, incarnation, os.urandom(keys.NONCE_BYTES))
        self._token = None
        if token is not None and address.startswith("tcp://"):
            self._token = keys.read_token(token)
        self._watch = tuple(watch)
        self._grace = grace
        self._number = 0
        self._trusted = self._token is None
        self._down_since: float | None = monotonic()
        self._ends = MonitoredSocket(
            zmq.DEALER,
            (
                (zmq.IMMEDIATE, 1),
                (zmq.RECONNECT_IVL, RECONNECT_MS),
                (zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS),
            ),
        )
        self._socket = self._ends.socket

    def connect(self, seconds: float | None) -> Link:
        """Connect and prove who we are; who we are from now on.

        Waits for a server that is not there yet. ConnectionFailed after `seconds` (None: never), if
        the server's process ends, or if whoever answers cannot prove itself; RefusedError with the
        server's own reason.
        """
        deadline = None if seconds is None else monotonic() + seconds
        self._socket.connect(self.address)
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

    def pollables(self) -> tuple[Any, ...]:
        """What to wait on for reading before a `receive(0)`."""
        return self._socket, self._ends.monitor, *self._watch

    def close(self, linger_ms: int = 500) -> None:
        """Leave; messages already sent get `linger_ms` to do so too."""
        if not self._ends.context.closed:
            self._socket.setsockopt(zmq.LINGER, linger_ms)
        self._ends.close()

    def __enter__(self) -> Dialer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- frames ----------------------------------------------------------------------------------

    def _receive_now(self) -> Any:
        """The next message for the caller among those that have arrived, else None."""
        while True:
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return None
            while self._socket.getsockopt(zmq.RCVMORE):
                frame += self._socket.recv()  # then its length is wrong, and it is refused below
            try:
                kind, cluster, number, body = envelope.unpack(frame)
                value = codec.decode(kind, body)
            except WireError as error:
                raise ConnectionFailed(
                    f"{self.address} sent what is no message of ours ({error}): another version?"
                ) from None
            if isinstance(value, Refused):
                raise _refusal(value, self.address)
            if self._number:
                if (cluster, number) == (self.cluster, self._number) and kind not in _HANDSHAKE:
                    return value
            elif isinstance(value, Challenge) and self._token is not None:
                self._answer(value)
            elif isinstance(value, Welcome) and self._trusted:
                self._welcomed(cluster, number, value)

    def _answer(self, challenge: Challenge) -> None:
        assert self._token is not None
        nonces = self._hello.nonce, challenge.nonce
        if not keys.proves(challenge.proof, keys.proof(self._token, "listener", *nonces)):
            raise ConnectionFailed(
                f"Whoever listens at {self.address} does not know our token: is this the server's "
                f"token file?"
            )
        self._trusted = True
        self._say(Proof(keys.proof(self._token, "dialer", *nonces)))

    def _welcomed(self, cluster: int, number: int, welcome: Welcome) -> None:
        if self.cluster not in (0, cluster):
            raise RefusedError(f"The server at {self.address} belongs to another job.")
        self.cluster, self._number = cluster, number
        self.link = Link(self._hello.role, welcome.node, welcome.incarnation)

    def _say(self, value: Any) -> None:
        # If the connection went in this moment the next one says it again.
        try:
            self._socket.send(frame_of(value, self.cluster, self._number), zmq.NOBLOCK)
        except zmq.Again:
            pass

    # --- waiting ---------------------------------------------------------------------------------

    def _wait(self, event: int, deadline: float | None) -> bool:
        """Wait for the socket or news of the connection. False: the deadline passed.

        ConnectionFailed if the server's process ended, or a proven link has been down too long.
        """
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
            if event == zmq.EVENT_DISCONNECTED:
                self._down_since = monotonic()
            else:
                self._down_since = None
                self._say(Again() if self._number else self._hello)

    def _nobody(self, seconds: float) -> str:
        if self._down_since is None:
            return f"{self.address} took the connection but gave no welcome within {seconds:g} s."
        return f"Nobody listens at {self.address} (waited {seconds:g} s): is the job running there?"


_HANDSHAKE = frozenset(range(1, 16))


def _refusal(refused: Refused, address: str) -> EngineError:
    if refused.why == "link":
        return ConnectionFailed(f"{address}: {refused.text}")
    return RefusedError(f"{address} refused: {refused.text}")
