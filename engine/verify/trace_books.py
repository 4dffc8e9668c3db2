"""The books that a judge of traces keeps of each member (`engine.verify.trace`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from engine.verify.trace_files import CONFIG

Position = tuple[int, int]
"""Of an entry: term and index, or index and term where it is said so."""
Config = tuple[list[int], list[int]]
"""Voters, and outgoing ones while a joint configuration is in force."""


class Log:
    """Hard state, base, and the terms of the entries behind it."""

    def __init__(self, term: int, vote: int, base: Position, terms: list[int]) -> None:
        self.term, self.vote, self.terms = term, vote, terms
        self.base, self.base_term = base
        self.configs: list[tuple[int, Config]] = [(self.base, ([], []))]

    def copy(self) -> Log:
        other = Log(self.term, self.vote, (self.base, self.base_term), self.terms[:])
        other.configs = self.configs[:]
        return other

    @property
    def last(self) -> int:
        return self.base + len(self.terms)

    @property
    def end(self) -> Position:
        """Term first: logs are compared by it."""
        return (self.terms[-1] if self.terms else self.base_term), self.last

    @property
    def config(self) -> Config:
        return self.configs[-1][1]

    def at(self, index: int) -> int:
        """The term there; -1 if it is not known."""
        if index <= self.base:
            return self.base_term if index == self.base else 0 if index == 0 else -1
        return self.terms[index - self.base - 1] if index <= self.last else -1

    def take(self, record: list[Any]) -> None:
        """A write, whatever it says."""
        kind, first = record[:2]
        if kind == "state":
            self.term, self.vote = record[1:]
        elif kind == "append":
            if not self.base < first <= self.last + 1:
                self._begin(first - 1, -1, self.config)
            del self.terms[first - self.base - 1 :]
            while len(self.configs) > 1 and self.configs[-1][0] >= first:
                self.configs.pop()
            for index, entry in enumerate(record[2], first):
                self.terms.append(entry[0])
                if entry[1] == CONFIG:
                    self.configs.append((index, (entry[3], entry[4])))
        elif first > self.base:
            config = (record[3], record[4])
            if self.at(first) == record[2]:
                behind = [one for one in self.configs if one[0] > first]
                del self.terms[: first - self.base]
                self.base, self.base_term = first, record[2]
                self.configs = [(first, config), *behind]
            else:
                self._begin(first, record[2], config)

    def _begin(self, base: int, term: int, config: Config) -> None:
        self.base, self.base_term, self.terms = base, term, []
        self.configs = [(base, config)]

    def __str__(self) -> str:
        return f"term {self.term}, vote {self.vote}, entries {self.base + 1} to {self.end}"

    def like(self, other: Log) -> bool:
        """The same, but that one may begin later than the other."""
        if (self.term, self.vote, self.end) != (other.term, other.vote, other.end):
            return False
        first = max(self.base, other.base)
        return self.terms[first - self.base :] == other.terms[first - other.base :]


class Member:
    """One, in its present life."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.written = Log(0, 0, (0, 0), [])
        self.durable = self.written.copy()
        self.owed: Log | None = None
        """What it had before it was damaged; it does not vote before it has that again."""
        self.pending: deque[tuple[int, list[list[Any]]]] = deque()
        self.begin(self.written, 0)

    def begin(self, found: Log, commit: int) -> None:
        self.durable, self.written = found, found.copy()
        self.pending.clear()
        self.ticket = self.asked = 0
        self.role, self.term, self.commit, self.applied = "", found.term, commit, 0
        self.heard = self.own = 0
        """The latest term it was told of; the first entry of the term it leads."""
        self.change: tuple[int, int] | None = None
        """A configuration that it has placed in this turn, and the one before: their indexes."""
        self.asked_at: dict[int, int] = {}
        """By context of a read: what was committed when it came."""
        self.covers: int | None = None
        """The last entry of the snapshot that it is taking."""
        self.turn = -1
        self.led = 0
        """The term in which it led when the turn began, if it does not lead any more."""
        self.configs = [found.config]
        """Those that were in force at some time in this turn."""

    def begin_turn(self, at: int) -> None:
        self.turn, self.led, self.change = at, 0, None
        self.configs = [self.written.config]

    def leads(self, term: int) -> bool:
        return (self.role == "leader" and self.term == term) or 0 < self.led == term

    def has(self, index: int, term: int) -> bool:
        """On its disk, or owed, or in a snapshot."""
        logs = (self.durable, self.owed) if self.owed else (self.durable,)
        return any(index <= log.base or log.at(index) == term for log in logs)

    def __str__(self) -> str:
        return f"member {self.number}"


def singly(records: Iterable[list[Any]]) -> Iterable[list[Any]]:
    """As they come to a disk: each entry by itself."""
    for record in records:
        if record[0] == "append":
            for index, entry in enumerate(record[2], record[1]):
                yield ["append", index, [entry]]
        else:
            yield record
