"""What a server remembers of its clients, so that a request that is repeated is not done twice.

A client draws a random number once and counts its requests from 1; it has one outstanding and
repeats it, with the same number, until it is answered (`Numbers`). A server keeps the last answer
of each client (`Sessions`). That is enough: a request with the last number was answered, and the
answer is given again; one with the next is new; anything earlier is a late copy of what the client
has long been told. A client that gave a request up goes on as another one: of the old one nobody
knows, for good, whether its last request was, or will be, carried out.

Memory is bounded: of more than `CLIENTS_MAX` clients the one that was silent for longest is
forgotten. Should it ask again it is told so and nothing is executed, since nobody knows any more
what became of its earlier requests. (Its very first request has none before it: repeated after so
many others came, it would be taken for a new client's.) Liskov and Cowling, "Viewstamped
Replication Revisited", 2012, section 4.1, call this the client table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

CLIENTS_MAX = 1 << 16

CLIENT_BITS = 62


class Numbers:
    """The client's side: (client, sequence) of its requests, from a random `client` on."""

    def __init__(self, client: int) -> None:
        self.client = client
        self._sequence = 0
        self._open = False

    def next(self) -> tuple[int, int]:
        """Of a new request; if the last one was not answered, of another client's first."""
        if self._open:
            self.client, self._sequence = self.client + 1, 0
        self._sequence, self._open = self._sequence + 1, True
        return self.client, self._sequence

    def answered(self) -> None:
        """The last request was."""
        self._open = False


NEW, REPEATED, LATE, FORGOTTEN = "new", "repeated", "late", "forgotten"


class Sessions:
    """The last answer of each client. Equal histories of `keep` give equal tables."""

    def __init__(self, clients_max: int = CLIENTS_MAX) -> None:
        self._max = clients_max
        self._last: dict[int, tuple[int, Any]] = {}

    def judge(self, client: int, sequence: int) -> str:
        """What a request is: `NEW`, `REPEATED`, `LATE` or `FORGOTTEN`."""
        last, _ = self._last.get(client, (0, None))
        if sequence == last + 1:
            return NEW
        if sequence > last:
            return FORGOTTEN
        return REPEATED if sequence == last > 0 else LATE

    def answer(self, client: int) -> Any:
        """The answer that a `REPEATED` request is given again."""
        return self._last[client][1]

    def keep(self, client: int, sequence: int, answer: Any) -> None:
        """A request was carried out."""
        self._last.pop(client, None)  # so that the order is that of the last word
        self._last[client] = sequence, answer
        if len(self._last) > self._max:
            del self._last[next(iter(self._last))]

    def rows(self) -> list[tuple[int, int, Any]]:
        """(client, sequence, answer), the longest silent first: what `add` takes."""
        return [(client, *last) for client, last in self._last.items()]

    def add(self, rows: Iterable[tuple[int, int, Any]]) -> None:
        """Rows of another table; after all of them, in order, this one is its copy."""
        self._last.update((client, (sequence, answer)) for client, sequence, answer in rows)
