"""The log as consensus sees it: of each entry its term and its size, and never its bytes.

Indexes begin at 1. All entries up to `base` are in a snapshot; of the last of those the term is
still known. Terms never fall along a log, so what is asked about terms is found by halving.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from engine.storage.entries import Entry, Position


class LogView:
    """Terms and sizes of the entries `base` + 1 … `last`."""

    __slots__ = ("base", "base_term", "last", "sizes", "terms")

    def __init__(self, base: int, base_term: int, terms: Sequence[int], sizes: Sequence[int]):
        self.base, self.base_term = base, base_term
        self.terms, self.sizes = list(terms), list(sizes)
        self.last = base + len(terms)
        """Kept rather than counted: nothing is asked for more often."""

    @property
    def last_term(self) -> int:
        return self.terms[-1] if self.terms else self.base_term

    @property
    def end(self) -> Position:
        """Where it ends; logs are compared by this (Raft, 5.4.1)."""
        return Position(self.last_term, self.last)

    def term(self, index: int) -> int:
        """Of the entry at this index; -1 if it is not known, as before the base or behind the end.
        The entry 0, before everything, is of term 0."""
        place = index - self.base
        if 0 < place <= len(self.terms):
            return self.terms[place - 1]
        if place == 0:
            return self.base_term
        return 0 if index == 0 else -1

    def append(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.terms.append(entry.term)
            self.sizes.append(len(entry.body))
        self.last += len(entries)

    def truncate(self, first: int) -> None:
        """Drop all from this index on."""
        assert first > self.base, (first, self.base)
        del self.terms[first - self.base - 1 :]
        del self.sizes[first - self.base - 1 :]
        self.last = self.base + len(self.terms)

    def compact(self, index: int) -> None:
        """Forget the entries up to this index, which is in the log."""
        term = self.term(index)
        assert self.base <= index <= self.last, (self.base, index, self.last)
        del self.terms[: index - self.base]
        del self.sizes[: index - self.base]
        self.base, self.base_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Begin anew behind a snapshot."""
        self.base, self.base_term, self.last = index, term, index
        self.terms, self.sizes = [], []

    def last_not_after(self, index: int, term: int) -> int:
        """The last entry up to `index` whose term is at most `term`; the base if there is none.

        Two logs that differ at `index` cannot agree on any entry between: this skips a whole term
        at a time (Raft, end of 5.3).
        """
        upto = max(0, min(index, self.last) - self.base)
        return self.base + bisect_right(self.terms, term, 0, upto)

    def span(self, first: int, entries: int, size: int) -> int:
        """The last index of a message that begins with entry `first`: so many entries, and so many
        bytes of bodies, at most; but one entry, if there is one."""
        last = min(self.last, first + entries - 1)
        total = 0
        for index in range(first, last + 1):
            total += self.sizes[index - self.base - 1]
            if total > size and index > first:
                return index - 1
        return last

    def size_after(self, index: int) -> int:
        """Bytes of the bodies behind this index."""
        return sum(self.sizes[max(0, index - self.base) :])
