"""What the log knows of one group in memory: where its entries are, hard state, base, loss.

The same rules apply while it appends and while recovery replays: `Group` is changed by one record
after the other, in the order in which they are in the log.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque

from engine.kernels.records import Batch, measure
from engine.record import Record
from engine.storage.entries import Append, Base, Entry, GroupLog, Position, State
from engine.storage.records import HEAD_BYTES, STATE_BYTES, record_bytes

NOTHING = 1 << 63
"""The position before which a group without entries needs nothing: beyond all."""


def bytes_of(write: Append | State | Base) -> int:
    """What it takes in the log."""
    if isinstance(write, Append):
        return measure(write.entries)
    return STATE_BYTES if isinstance(write, State) else record_bytes(len(write.config))


class Columns(Record):
    """Entries that follow each other: positions and terms are of 64 bits, sizes of 32."""

    positions: array[int]
    sizes: array[int]
    terms: array[int]


class Span:
    """Entries that are also in memory, from index `first` on."""

    __slots__ = ("entries", "first")

    def __init__(self, first: int, entries: tuple[Entry, ...]) -> None:
        self.first, self.entries = first, entries


class Group:
    """One group. Entries are known from index `behind.last` + 1 on, without a gap.

    `behind` is the base, or beyond it if what lies between is unknown: a *hole*, which only
    damage leaves, or a segment that a later base made superfluous.
    """

    __slots__ = (
        "anew",
        "base",
        "behind",
        "configs",
        "lost",
        "number",
        "pins",
        "positions",
        "sizes",
        "spans",
        "term",
        "terms",
        "vote",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.term = self.vote = 0
        self.base = Base(number, 0, 0, b"")
        self.behind = Position(0, 0)
        self.positions = array("Q")
        self.sizes = array("I")
        self.terms = array("Q")
        self.configs: list[tuple[int, bytes]] = []
        self.lost: Position | None = None
        self.anew = 0
        """The position of the record that began the log anew; 0 if there was none."""
        self.spans: deque[Span] = deque()
        self.pins: deque[tuple[int, int]] = deque()
        """(position, oldest needed): once all before `position` is durable, nothing before
        `oldest needed`, the position of an entry, is needed for this group."""

    @property
    def first(self) -> int:
        """The index of the first known entry."""
        return self.behind.last + 1

    @property
    def last(self) -> int:
        """The index of the last entry."""
        return self.behind.last + len(self.terms)

    @property
    def end(self) -> Position:
        if not self.terms:
            return self.behind
        return Position(self.terms[-1], self.behind.last + len(self.terms))

    @property
    def hole(self) -> bool:
        return self.behind.last > self.base.last

    def replace(self, first: int, columns: Columns, configs: list[tuple[int, bytes]]) -> None:
        """Entries from `first` on take the place of what was there."""
        keep = first - self.behind.last - 1
        if not 0 <= keep <= len(self.terms):
            self._restart(Position(0, first - 1))
            keep = 0
        if keep < len(self.terms):
            del self.positions[keep:], self.sizes[keep:], self.terms[keep:]
            self._forget_from(first)
        self.positions += columns.positions
        self.sizes += columns.sizes
        self.terms += columns.terms
        self.configs += configs
        if self.lost is not None:
            self._found()

    def rebase(self, base: Base) -> None:
        """A snapshot covers all up to `base.last`."""
        if base.last < self.base.last:
            return
        self.base = base
        at = Position(base.term, base.last)
        behind = self.behind
        if base.last < behind.last:
            return  # the hole goes on beyond the base
        if base.last == behind.last:
            if behind.term not in (0, base.term):
                self._restart(at)
        elif base.last <= self.end.last and self.terms[base.last - self.first] == base.term:
            self._trim(base.last)
        else:
            self._restart(at)
        self.behind = at
        self._found()

    def restart(self, base: Base, position: int) -> None:
        """The log begins anew, whatever it was."""
        self.base, self.anew = base, position
        self._restart(Position(base.term, base.last))

    def told_state(self, term: int, vote: int, end: Position) -> None:
        """A record of the hard state, which also says where the log ended."""
        self.term, self.vote = term, vote
        if end != self.end:
            self._restart(end)
        self._found()

    def told_lost(self, end: Position) -> None:
        """The log is known to have been this long."""
        if self.lost is None or end > self.lost:
            self.lost = end
        self._found()

    def drop(self) -> None:
        """Keep the base only."""
        self._restart(Position(self.base.term, self.base.last))

    def _found(self) -> None:
        if self.lost is not None and not self.hole and self.end >= self.lost:
            self.lost = None

    def _restart(self, behind: Position) -> None:
        """Nothing is known up to `behind`."""
        del self.positions[:], self.sizes[:], self.terms[:]
        self._forget_from(0)
        self.behind = behind

    def _trim(self, index: int) -> None:
        count = index - self.behind.last
        del self.positions[:count], self.sizes[:count], self.terms[:count]
        del self.configs[: bisect_right(self.configs, index, key=lambda config: config[0])]
        while self.spans and self.spans[0].first + len(self.spans[0].entries) - 1 <= index:
            self.spans.popleft().entries = ()

    def _forget_from(self, first: int) -> None:
        del self.configs[bisect_left(self.configs, first, key=lambda config: config[0]) :]
        while self.spans and self.spans[-1].first >= first:
            self.spans.pop().entries = ()
        if self.spans and self.spans[-1].first + len(self.spans[-1].entries) > first:
            span = self.spans[-1]
            span.entries = span.entries[: first - span.first]

    def cached(self, first: int, last: int) -> list[Entry]:
        """The entries `first` … `last`, as far as they are in memory from `first` on."""
        found: list[Entry] = []
        spans = self.spans
        if not spans or first < spans[0].first:
            return found
        at = bisect_right(spans, first, key=lambda span: span.first) - 1
        while first <= last and at < len(spans):
            span = spans[at]
            some = span.entries[first - span.first : last + 1 - span.first]
            found += some
            first += len(some)
            at += 1
        return found

    def recovered(self) -> GroupLog:
        return GroupLog(
            self.term,
            self.vote,
            self.base,
            list(self.terms),
            list(self.sizes),
            list(self.configs),
            self.lost,
        )

    # --- what a segment says of it ---------------------------------------------------------------

    def head_bytes(self) -> int:
        """Bytes of `put_head`."""
        lost = HEAD_BYTES if self.lost is not None else 0
        return record_bytes(len(self.base.config)) + STATE_BYTES + lost

    def put_all(self, batch: Batch, tail: tuple[Entry, ...], durable: int) -> None:
        """What a log begins with: all that is known, and the last entries once more."""
        self.put_base(batch, anew=self.anew >= durable > 0)
        if tail:
            first = self.end.last + 1 - len(tail)
            positions, _, _, _ = batch.entries(self.number, first, tail)
            self.positions[len(self.positions) - len(tail) :] = positions
        self.put_state(batch)
        self.put_lost(batch)

    def put_base(self, batch: Batch, anew: bool = False) -> None:
        batch.base(self.number, self.base.last, self.base.term, self.base.config, anew)

    def put_state(self, batch: Batch) -> None:
        term, index = self.behind
        if self.terms:
            term, index = self.terms[-1], index + len(self.terms)
        batch.state(self.number, index, term, self.term, self.vote)

    def put_lost(self, batch: Batch) -> None:
        if self.lost is not None:
            batch.lost(self.number, self.lost.last, self.lost.term)

    def put_head(self, batch: Batch) -> None:
        """All that a segment begins with."""
        self.put_base(batch)
        self.put_state(batch)
        self.put_lost(batch)

    # --- what it needs ---------------------------------------------------------------------------

    def pin(self, position: int) -> None:
        """What is needed once all before `position` is durable."""
        oldest = self.positions[0] if self.positions else NOTHING  # that is, its position
        if not self.pins or self.pins[-1][1] != oldest:
            self.pins.append((position, oldest))

    def needed(self, durable: int) -> int:
        """The position of the oldest entry that is needed while only so much is durable."""
        while len(self.pins) > 1 and self.pins[1][0] <= durable:
            self.pins.popleft()
        return min((oldest for _, oldest in self.pins), default=NOTHING)


class Cache:
    """Entries that are also in memory, of all groups: the last that were written."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spans: deque[tuple[Group, Span, int]] = deque()
        self._bytes = 0

    def add(self, group: Group, first: int, entries: tuple[Entry, ...], size: int) -> None:
        """Keep these, which take so many bytes in the log, and let go of the oldest if need be."""
        span = Span(first, entries)
        group.spans.append(span)
        self._spans.append((group, span, size))
        self._bytes += size
        while self._bytes > self._limit:
            group, span, size = self._spans.popleft()
            self._bytes -= size
            if group.spans and group.spans[0] is span:
                group.spans.popleft()
