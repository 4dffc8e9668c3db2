"""Using the store: `Clerk` decides, `Store` is what programs call."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from engine.backup.messages import (
    APPEND,
    FORGOTTEN,
    GET,
    KEY_CHARACTERS_MAX,
    NO_KEY,
    OK,
    PUT,
    TOO_LARGE,
    VALUE_CHARACTERS_MAX,
    Answer,
    Operation,
)
from engine.calls import Call, check_text
from engine.contract import Link, Nanos
from engine.errors import OutcomeUnknown, UsageError
from engine.runtime.caller import Caller, Client
from engine.sessions import CLIENT_BITS, Numbers
from engine.views.messages import NOBODY, Get, View


class Clerk:
    """One client, as a pure object: numbers its operations, knows the primary it found last.

    `client` is a random number of 62 bits that no other client has; `views` is the view service.
    """

    def __init__(self, client: int, views: str) -> None:
        self.numbers, self.views = Numbers(client), views
        self.primary = NOBODY
        self.up: set[str] = set()

    def call(
        self, verb: str, key: str, value: str = "", patience: Nanos | None = None
    ) -> StoreCall:
        """`GET`, `PUT` or `APPEND`; the answer is the value of a get (None if there is none)."""
        check_text("A key", key, KEY_CHARACTERS_MAX)
        check_text("A value", value, VALUE_CHARACTERS_MAX)
        client, sequence = self.numbers.next()
        return StoreCall(self, Operation(client, sequence, verb, key, value), patience)


class StoreCall(Call):
    """One operation: asked of the primary; without an answer, the view service is asked as well."""

    def __init__(self, clerk: Clerk, operation: Operation, patience: Nanos | None) -> None:
        super().__init__(patience, clerk.up)
        self.clerk, self.operation = clerk, operation
        self._asked = self._told = False

    def ask(self, now: Nanos) -> None:
        if self.clerk.primary != NOBODY:
            self.say(self.clerk.primary, self.operation)
        if self._asked or self.clerk.primary == NOBODY:
            self.say(self.clerk.views, Get(now), harmless=True)
        self._asked = True

    def take(self, now: Nanos, link: Link, message: Any) -> None:
        if isinstance(message, View):
            self._told = True
            if message.primary not in (NOBODY, self.clerk.primary):
                self.clerk.primary = message.primary
                self.say(self.clerk.primary, self.operation)
        elif isinstance(message, Answer):
            operation = self.operation
            if (message.client, message.sequence) == (operation.client, operation.sequence):
                self._answered(message)

    def linked(self, now: Nanos, link: Link, up: bool) -> None:
        if up:
            self.ask_at(now)

    def silence(self) -> str:
        primary = self.clerk.primary
        if primary == NOBODY and not self._told:
            return f"No answer from the view service at {self.clerk.views}"
        if primary == NOBODY:
            return f"The view service at {self.clerk.views} names no primary"
        return f"No answer from {primary}, the last primary that {self.clerk.views} named"

    def _answered(self, answer: Answer) -> None:
        if answer.status in (OK, NO_KEY, TOO_LARGE):
            self.clerk.numbers.answered()
        if answer.status == OK:
            self.finish(answer.value if self.operation.verb == GET else "")
        elif answer.status == NO_KEY:
            self.finish(None)
        elif answer.status == TOO_LARGE:
            self.fail(
                UsageError(
                    f"The value would have more than {VALUE_CHARACTERS_MAX} characters; "
                    "it was left as it is."
                )
            )
        elif answer.status == FORGOTTEN:
            self.fail(
                OutcomeUnknown(
                    "The store has forgotten this client: nobody knows what became of its last "
                    "request. Look at the key, then go on with a new client."
                )
            )
        # Any other: a server that is not the primary. The next `ask` asks for the view as well.


class Store(Client):
    """A connection to a primary/backup store; for one thread, and a context manager.

    `views` is the address of the view service. `timeout` in seconds, None to wait for ever.
    Methods raise OutcomeUnknown (time ran out and it may have been done), ConnectionFailed (nobody
    there, nothing was done), UsageError (too large) or RefusedError.
    """

    def __init__(
        self,
        views: str,
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        self._clerk = Clerk(secrets.randbits(CLIENT_BITS), views)
        super().__init__(Caller(timeout=timeout, token=token, via=via))

    def get(self, key: str) -> str | None:
        """The value, None if there is none."""
        found: str | None = self._run(GET, key)
        return found

    def put(self, key: str, value: str) -> None:
        """Let the key have this value."""
        self._run(PUT, key, value)

    def append(self, key: str, value: str) -> None:
        """Put this behind the key's value, which is empty at first. Once, however often asked."""
        self._run(APPEND, key, value)

    def _run(self, verb: str, key: str, value: str = "") -> Any:
        return self._caller.run(self._clerk.call(verb, key, value, self._caller.patience))
