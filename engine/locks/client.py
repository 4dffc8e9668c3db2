"""Taking and freeing locks: `Clerk` decides, `Locks` is what programs call."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from engine.calls import Call, check_text
from engine.contract import SECOND, Link, Nanos
from engine.errors import OutcomeUnknown, UsageError
from engine.locks.messages import (
    ACQUIRE,
    DONE,
    FORGOTTEN,
    NAME_CHARACTERS_MAX,
    RELEASE,
    RETIRED,
    Answer,
    Operation,
)
from engine.runtime.caller import Caller, Client
from engine.sessions import CLIENT_BITS, Numbers

PATIENCE: Nanos = 6 * SECOND
"""The primary is given up after so long in silence: thrice what it may itself wait for a backup."""
GRACE: Nanos = SECOND // 4
"""And after so long without a connection, if it had one."""
ARRIVAL: Nanos = SECOND
"""Or if it never had one: a server that has just been started takes a tenth of that."""


class Clerk:
    """One client, as a pure object: numbers its operations, knows whom to ask.

    `client` is a random number of 62 bits (`engine.sessions`). `servers` are the primary's
    address and, if there is one, the backup's.
    """

    def __init__(self, client: int, servers: Sequence[str]) -> None:
        self.numbers, self.servers = Numbers(client), tuple(servers)
        self.asking = 0
        """Index of the server that is asked: the primary, until that seems dead."""
        self.retired: set[int] = set()
        self.up: set[str] = set()

    def acquire(self, name: str, patience: Nanos | None = None) -> OperationCall:
        """Whether the lock was free; it is held now."""
        return self._call(ACQUIRE, name, patience)

    def release(self, name: str, patience: Nanos | None = None) -> OperationCall:
        """Whether the lock was held; it is free now."""
        return self._call(RELEASE, name, patience)

    def _call(self, verb: str, name: str, patience: Nanos | None) -> OperationCall:
        check_text("A lock's name", name, NAME_CHARACTERS_MAX)
        if not name:
            raise UsageError(f"A lock's name has 1 to {NAME_CHARACTERS_MAX} characters.")
        client, sequence = self.numbers.next()
        return OperationCall(self, Operation(client, sequence, verb, name), patience)


class OperationCall(Call):
    """One operation: asked of the primary until it seems dead, and then of the backup."""

    def __init__(self, clerk: Clerk, operation: Operation, patience: Nanos | None) -> None:
        super().__init__(patience, clerk.up)
        self.clerk, self.operation = clerk, operation
        self._give_up_at: Nanos | None = None

    def ask(self, now: Nanos) -> None:
        if self._give_up_at is None:
            self._give_up_at = now + (PATIENCE if self._server in self.up else ARRIVAL)
        elif now >= self._give_up_at and self._other is not None:
            self.clerk.asking = self._other
            self._give_up_at = now + (PATIENCE if self._server in self.up else ARRIVAL)
        self.say(self._server, self.operation)

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        operation = self.operation
        if not isinstance(message, Answer) or link.principal not in self.clerk.servers:
            return
        if (message.client, message.sequence) != (operation.client, operation.sequence):
            return
        if message.status == DONE:
            self.clerk.numbers.answered()
            self.finish(message.changed)
        elif message.status == RETIRED:
            self._retired(now, self.clerk.servers.index(link.principal))
        elif message.status == FORGOTTEN:
            self.fail(
                OutcomeUnknown(
                    f"{link.principal} has forgotten this client: nobody knows what became of its "
                    "last request. Look at the lock, then go on with a new client."
                )
            )
        else:
            self.fail(UsageError(f"{link.principal} does not take {operation.name!a} for a name."))

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if link.principal == self._server:
            self._give_up_at = now + (PATIENCE if up else GRACE)
            self.ask_at(now if up else self._give_up_at)

    def silence(self) -> str:
        return f"No answer from {' or '.join(self.clerk.servers)}"

    @property
    def _server(self) -> str:
        return self.clerk.servers[self.clerk.asking]

    @property
    def _other(self) -> int | None:
        """The one that is not asked now, if there is one and it has not retired."""
        others = set(range(len(self.clerk.servers))) - {self.clerk.asking} - self.clerk.retired
        return min(others, default=None)

    def _retired(self, now: Nanos, index: int) -> None:
        self.clerk.retired.add(index)
        if len(self.clerk.retired) == len(self.clerk.servers):
            self.fail(
                OutcomeUnknown(
                    "Every server has retired, since primary and backup have served apart (they "
                    "could not reach each other): start both again."
                )
            )
        elif index == self.clerk.asking:
            self.clerk.asking = (index + 1) % len(self.clerk.servers)
            self._give_up_at = now + (PATIENCE if self._server in self.up else ARRIVAL)
            self.ask_at(now)


class Locks(Client):
    """A connection to a lock service; for one thread, and a context manager.

    `servers`: the primary's address, then the backup's. `timeout` in seconds, None to wait for
    ever. Methods raise OutcomeUnknown (time ran out and it may have been done), ConnectionFailed
    (nobody there, nothing was done) or RefusedError.
    """

    def __init__(
        self,
        servers: Sequence[str],
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        if not 1 <= len(servers) <= 2:
            raise UsageError("A lock service is a primary and perhaps a backup: PRIMARY[,BACKUP].")
        self._clerk = Clerk(secrets.randbits(CLIENT_BITS), servers)
        super().__init__(Caller(timeout=timeout, token=token, via=via))

    def acquire(self, name: str) -> bool:
        """Take the lock. False: somebody holds it (this does not wait)."""
        return bool(self._caller.run(self._clerk.acquire(name, self._caller.patience)))

    def release(self, name: str) -> bool:
        """Free the lock, whoever took it. False: it was free."""
        return bool(self._caller.run(self._clerk.release(name, self._caller.patience)))
