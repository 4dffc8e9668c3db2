"""What clients saw: every operation with the times of its call and of its return."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.contract import Nanos
from engine.record import Record


class Operation(Record):
    """One operation of one client on one key; times are of a clock that all clients share.

    `argument` is a value, or a tuple where there is not just one. `returned` None: the outcome is
    unknown. It may have happened at any time after the call, or never, and `result` means nothing.
    """

    client: int | str
    kind: str
    key: str
    argument: Any
    called: Nanos
    returned: Nanos | None = None
    result: Any = None


class History:
    """Operations by the order of their calls; a client has one open at a time."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._open: dict[int | str, int] = {}
        self._failed: set[int] = set()

    def call(self, now: Nanos, client: int | str, kind: str, key: str, argument: Any = "") -> None:
        assert client not in self._open, f"client {client} has an operation open"
        self._open[client] = len(self._operations)
        self._operations.append(Operation(client, kind, key, argument, now))

    def finish(self, now: Nanos, client: int | str, result: Any) -> None:
        """The open operation of this client returned."""
        index = self._open.pop(client)
        self._operations[index] = self._operations[index]._replace(returned=now, result=result)

    def abandon(self, client: int | str) -> None:
        """The client will never know what became of its open operation."""
        del self._open[client]

    def fail(self, client: int | str) -> None:
        """The open operation of this client definitely did not happen, nor ever will."""
        self._failed.add(self._open.pop(client))

    def operations(self) -> list[Operation]:
        """All but those that failed; those still open are of unknown outcome."""
        return [o for index, o in enumerate(self._operations) if index not in self._failed]

    def lines(self) -> Iterator[str]:
        """The history as `engine verify` reads it (`engine.verify.files`)."""
        from engine.verify.files import lines

        return lines(self.operations())
