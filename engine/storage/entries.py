"""What a replicated log holds and is asked to write: plain data, for pure machines too.

Terms, indexes and votes are those of Raft (Ongaro and Ousterhout, "In Search of an Understandable
Consensus Algorithm", section 5): terms only grow, indexes begin with 1, and an entry is known by
its index and term.
"""

from __future__ import annotations

from engine.record import Record

NOOP, COMMAND, CONFIG = 0, 1, 2
"""Kinds of entries."""


class Entry(Record):
    """One entry. `crc` is the CRC32C of `body`, made once, where the entry is born."""

    term: int
    kind: int
    crc: int
    body: bytes


class Append(Record):
    """Entries of the indexes `first`, `first` + 1 …; what the log had from `first` on is replaced.

    There is at least one, and `first` is at most one beyond the end of the log.
    """

    group: int
    first: int
    entries: tuple[Entry, ...]


class State(Record):
    """The hard state of a group; vote 0 is nobody."""

    group: int
    term: int
    vote: int


class Base(Record):
    """A snapshot covers all up to index `last`, whose entry is of `term`; `config` is as of there.

    If the log has that entry with that term, or its base is there or beyond already, what follows
    stays; else the whole log of the group is dropped and goes on from `last` + 1.
    """

    group: int
    last: int
    term: int
    config: bytes


class Position(Record):
    """The end of a log: the term and index of its last entry.

    Positions compare as Raft compares logs (section 5.4.1): term first.
    """

    term: int
    last: int


class GroupLog(Record):
    """What recovery found of a group.

    `terms` and `sizes` (bytes of the body) are of the entries after `base`; `configs` are (index,
    body) of those of kind CONFIG. `lost` is set if durable entries were damaged: it is an end that
    the log is known to have had, and the group must not vote before its log is that far again.
    """

    term: int
    vote: int
    base: Base
    terms: list[int]
    sizes: list[int]
    configs: list[tuple[int, bytes]]
    lost: Position | None
