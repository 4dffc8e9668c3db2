"""What clients saw: every operation with the times of its call and of its return."""

from __future__ import annotations

from typing import Any

from engine.contract import Nanos
from engine.record import Record


class Operation(Record):
    """One operation of one client on one key; times are of a clock that all clients share.

    `returned` None: the outcome is unknown. It may have happened at any time after the call, or
    never, and `result` means nothing.
    """

    client: int
    kind: str
    key: str
    argument: str
    called: Nanos
    returned: Nanos | None = None
    result: Any = None


class History:
    """Operations by the order of their calls; a client has one open at a time."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._open: dict[int, int] = {}

    def call(self, now: Nanos, client: int, kind: str, key: str, argument: str = "") -> None:
        assert client not in self._open, f"client {client} has an operation open"
        self._open[client] = len(self._operations)
        self._operations.append(Operation(client, kind, key, argument, now))

    def finish(self, now: Nanos, client: int, result: Any) -> None:
        """The open operation of this client returned."""
        index = self._open.pop(client)
        self._operations[index] = self._operations[index]._replace(returned=now, result=result)

    def abandon(self, client: int) -> None:
        """The client will never know what became of its open operation."""
        del self._open[client]

    def operations(self) -> list[Operation]:
        return list(self._operations)
