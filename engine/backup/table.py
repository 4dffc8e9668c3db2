"""What a server holds: keys with their values, the last answer of each client, and its number.

Equal operations in equal order give equal tables; a table crosses to a new backup in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from engine.backup.messages import (
    APPEND,
    GET,
    KEY_CHARACTERS_MAX,
    NO_KEY,
    OK,
    PUT,
    TOO_LARGE,
    VALUE_CHARACTERS_MAX,
    Answer,
    Operation,
    Part,
    Session,
)
from engine.relay import PART_BYTES
from engine.sessions import Sessions


class Table:
    """The state that operations take effect on. Not to be changed while `parts` is gone through."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.sessions = Sessions()
        self.number = 0
        """Of the last operation that took effect."""

    def apply(self, operation: Operation) -> Answer:
        """Let an operation take effect; total, for whatever a client may send."""
        client, sequence, verb, key, value = operation
        status, found = OK, ""
        if len(key) > KEY_CHARACTERS_MAX or len(value) > VALUE_CHARACTERS_MAX:
            status = TOO_LARGE
        elif verb == PUT:
            self.values[key] = value
        elif verb == APPEND:
            longer = self.values.get(key, "") + value
            if len(longer) > VALUE_CHARACTERS_MAX:
                status = TOO_LARGE
            else:
                self.values[key] = longer
        elif verb == GET and key in self.values:
            found = self.values[key]
        else:
            status = NO_KEY
        answer = Answer(client, sequence, status, found)
        self.sessions.keep(client, sequence, answer)
        self.number += 1
        return answer

    def parts(self, view: int) -> Iterator[Part]:
        """All of it, as messages of about `PART_BYTES`."""
        rows: list[tuple[str, str]] = []
        sessions: list[Session] = []
        size = count = 0
        every: Iterator[tuple[str, str] | Session] = chain(
            self.values.items(), map(_session, self.sessions.rows())
        )
        for row in every:
            if isinstance(row, Session):
                sessions.append(row)
            else:
                rows.append(row)
            size += 32 + sum(len(field) for field in row if isinstance(field, str))
            if size >= PART_BYTES:
                yield Part(view, count, False, self.number, tuple(rows), tuple(sessions))
                rows, sessions, size, count = [], [], 0, count + 1
        yield Part(view, count, True, self.number, tuple(rows), tuple(sessions))

    def take(self, part: Part) -> None:
        """Add a part of another table; after all of them, in order, this one is its copy."""
        self.values.update(part.rows)
        self.sessions.add(
            (s.client, s.sequence, Answer(s.client, s.sequence, s.status, s.value))
            for s in part.sessions
        )
        self.number = part.number


def _session(row: tuple[int, int, Answer]) -> Session:
    client, sequence, answer = row
    return Session(client, sequence, answer.status, answer.value)
