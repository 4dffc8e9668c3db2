"""How one that dials proves who it is, and that it has reached a server that is allowed.

CURVE takes one server's key before it dials. So whoever knows several that may be at an address
tries them in turn, and stays with the one that could prove itself; no other can even read a hello.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

import zmq

from engine.contract import SECOND, Nanos
from engine.errors import ConnectionFailed, EngineError, RefusedError
from engine.wire.curve import Allowed, Keyring, check_curve
from engine.wire.zap import ALL_FAILED, FAILED, arm

LOOK: Nanos = SECOND // 4
PAUSE: Nanos = SECOND // 4
"""After all servers were tried in vain, and after a refusal."""
ROUNDS = 2
"""All servers in turn, before it is said that it is none of them: one may just have ended."""


class Passport:
    """Of one connection: our key, and which of the servers is at the other end."""

    events = ALL_FAILED
    """What a monitor must tell."""

    def __init__(self, path: str, address: str, role: str) -> None:
        """`path` of the keys. EngineError if they are not fit, or know no server."""
        check_curve()
        self.ring = Keyring(path)
        self.address, self.role = address, role
        self.server: Allowed | None = None
        """Whose key the listener has proven, once it has."""
        self._trying: Allowed = self._servers()[0]
        self._failures = 0
        self._next_look: Nanos = monotonic_ns() + LOOK
        self.dial_at: Nanos | None = None
        """When to dial anew."""

    def _servers(self) -> list[Allowed]:
        found = self.ring.allowed.servers(self.address, self.role)
        if not found:
            raise RefusedError(
                f"{self.ring.allowed.path} knows no server that may be at {self.address}: have its "
                "key there as a replica's or coordinator's (`engine keys allow`)."
            )
        return found

    def show(self, socket: Any) -> None:
        """Before it dials."""
        self.dial_at = self.server = None
        arm(socket, self.ring.pair, self._trying.key)

    @property
    def wake_at(self) -> Nanos:
        return self._next_look if self.dial_at is None else min(self._next_look, self.dial_at)

    def heard(self, event: int) -> EngineError | None:
        """News of the connection: why it failed for good, as far as one can say."""
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.server, self._failures = self._trying, 0
        if event not in FAILED:
            return None
        now = monotonic_ns()
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.dial_at = now + PAUSE  # ZeroMQ itself does not try again after that
            return RefusedError(
                f"{self.address} does not let our key {self.ring.name} in as {self.role}: have "
                "it allowed there (`engine keys allow`)."
            )
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self.dial_at = now + PAUSE
            return ConnectionFailed(
                f"Whoever listens at {self.address} does not prove itself by a key."
            )
        return self._next(now)

    def _next(self, now: Nanos) -> EngineError | None:
        """It ended before it had proven itself: perhaps it is another one."""
        servers = self.ring.allowed.servers(self.address, self.role)
        keys = [one.key for one in servers]
        if not keys:
            self.dial_at = now + PAUSE
            return self._nobody()
        at = keys.index(self._trying.key) + 1 if self._trying.key in keys else 0
        self._trying = servers[at % len(keys)]
        self._failures += 1
        whole = self._failures % len(keys) == 0
        self.dial_at = now + PAUSE if whole else now
        return self._nobody() if self._failures >= ROUNDS * len(keys) else None

    def _nobody(self) -> EngineError:
        return ConnectionFailed(
            f"Whoever listens at {self.address} has the key of no server that "
            f"{self.ring.allowed.path} allows, or ends before it has proven one."
        )

    def forged(self, value: Any) -> bool:
        """Whether it says something in the name of another member."""
        member = self.server.member if self.server is not None else 0
        return bool(member) and getattr(value, "sender", member) != member

    def dismissed(self, now: Nanos) -> EngineError | None:
        """Why the connection must end, and another one be dialed later: its server is not allowed
        any more. The list is looked at from time to time."""
        if now < self._next_look:
            return None
        self._next_look = now + LOOK
        if not self.ring.allowed.fresh() or self.ring.allowed.broken:
            return None
        servers = self.ring.allowed.servers(self.address, self.role)
        for one in servers:
            if one.key == self._trying.key:
                self._trying = one
                self.server = one if self.server is not None else None
                return None
        if servers:
            self._trying = servers[0]
        self.dial_at = now + PAUSE if servers else None
        return self._nobody()
