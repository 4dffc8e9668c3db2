"""What a log must hold, as plain lists: the model that the log is compared with."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

from engine.kernels.checksum import crc32c
from engine.storage.entries import COMMAND, Append, Base, Entry, GroupLog, State
from engine.storage.log import Log, LogSettings

TINY = LogSettings(segment_bytes=2048, spare=1, cache_bytes=512, step_bytes=1024)


def entry(term: int, body: bytes = b"", kind: int = COMMAND) -> Entry:
    return Entry(term, kind, crc32c(body), body)


def salts(seed: int = 1) -> Callable[[], int]:
    rng = random.Random(seed)
    return lambda: rng.getrandbits(64)


class Book:
    """One group: term, vote, base, and (term, kind, body) of the entries after it."""

    def __init__(self) -> None:
        self.state = (0, 0)
        self.base = (0, 0, b"")
        self.entries: list[tuple[int, int, bytes]] = []

    @property
    def end(self) -> int:
        return self.base[0] + len(self.entries)

    def take(self, write: Any) -> None:
        if isinstance(write, State):
            self.state = (write.term, write.vote)
        elif isinstance(write, Append):
            del self.entries[write.first - self.base[0] - 1 :]
            self.entries += [(one.term, one.kind, one.body) for one in write.entries]
        elif write.last >= self.base[0]:
            covered = write.last - self.base[0]
            has = covered == 0 or (
                covered <= len(self.entries) and self.entries[covered - 1][0] == write.term
            )
            self.entries = self.entries[covered:] if has else []
            self.base = (write.last, write.term, write.config)

    def frozen(self) -> tuple[Any, ...]:
        return (self.state, self.base, tuple(self.entries))


class Shelf:
    """All groups."""

    def __init__(self) -> None:
        self.books: dict[int, Book] = {}

    def take(self, write: Any) -> None:
        self.books.setdefault(write.group, Book()).take(write)

    def frozen(self) -> dict[int, tuple[Any, ...]]:
        empty = Book().frozen()
        return {n: book.frozen() for n, book in self.books.items() if book.frozen() != empty}


def steps(write: Any) -> list[Any]:
    """A write as the records that a torn batch may be cut between."""
    if isinstance(write, Append):
        return [
            Append(write.group, index, (one,))
            for index, one in enumerate(write.entries, write.first)
        ]
    return [write]


def contents(log: Log) -> dict[int, tuple[Any, ...]]:
    """What an open log holds, every entry read back."""
    found = {}
    for number, group in log.recovered.items():
        found[number] = content(log, number, group)
    empty = Book().frozen()
    return {number: book for number, book in found.items() if book != empty}


def content(log: Log, number: int, group: GroupLog) -> tuple[Any, ...]:
    base = group.base
    last = base.last + len(group.terms)
    entries: list[tuple[int, int, bytes]] = []
    while base.last + len(entries) < last:
        some = log.entries(number, base.last + len(entries) + 1, last, 200)
        assert some
        for one in some:
            assert one.crc == crc32c(one.body)
        entries += [(one.term, one.kind, one.body) for one in some]
    assert group.terms == [term for term, _, _ in entries]
    assert group.sizes == [len(body) for _, _, body in entries]
    found = [(i, body) for i, (_, kind, body) in enumerate(entries, base.last + 1) if kind == 2]
    assert group.configs == found
    return ((group.term, group.vote), (base.last, base.term, base.config), tuple(entries))


class Writer:
    """A log and its book, driven as a server does: append, sync, settle."""

    def __init__(self, log: Log, shelf: Shelf | None = None) -> None:
        self.log = log
        self.shelf = shelf or Shelf()
        self.records: list[Any] = []
        """All that was appended, as far as a torn batch may be cut between."""
        self.durable = 0
        """How many of them were acknowledged."""

    def append(self, *writes: Any) -> int:
        for write in writes:
            self.records += steps(write)
            self.shelf.take(write)
        return self.log.append(writes)

    def settle(self) -> None:
        count = len(self.records)
        mark = self.log.sync()
        self.durable = count
        self.log.settle(mark)

    def put(self, *writes: Any) -> None:
        self.append(*writes)
        self.settle()

    def versions(self, base: Shelf | None = None) -> list[dict[int, tuple[Any, ...]]]:
        """What may be there: all that was acknowledged, and then any number of the others."""
        shelf = base or Shelf()
        found = []
        for count in itertools.count():
            if count >= self.durable:
                found.append(shelf.frozen())
            if count == len(self.records):
                return found
            shelf.take(self.records[count])
        raise AssertionError


def script(writer: Writer, rng: random.Random, rounds: int) -> None:
    """Random batches of three groups, settled now and then, with maintenance between."""
    term = 1
    for _ in range(rounds):
        writes: list[Any] = []
        books = {n: writer.shelf.books.get(n, Book()) for n in (1, 2, 3)}
        ends = {n: (book.base[0], book.end) for n, book in books.items()}
        for number in rng.sample((1, 2, 3), rng.randint(1, 3)):
            base, end = ends[number]
            action = rng.random()
            if action < 0.2:
                term += 1
                writes.append(State(number, term, rng.choice((0, 1, 2))))
            if action < 0.85:
                first = end + 1 if rng.random() < 0.8 else rng.randint(base + 1, end + 1)
                term += first <= end  # only a leader of a later term replaces entries
                some = [
                    entry(term, rng.randbytes(rng.choice((0, 3, 8, 60))), rng.choice((0, 1, 1, 2)))
                    for _ in range(rng.randint(1, 4))
                ]
                writes.append(Append(number, first, tuple(some)))
            elif end > base:
                last = rng.randint(base + 1, end)
                covered = books[number].entries[last - base - 1][0]
                if rng.random() < 0.2:
                    term += 1
                    covered = term  # the log has another entry there, and is dropped
                writes.append(Base(number, last, covered, b"config %d" % last))
            else:
                writes.append(Base(number, end + 3, term, b""))
        writer.append(*writes)
        if rng.random() < 0.7:
            writer.settle()
        while rng.random() < 0.7 and writer.log.maintain():
            pass
