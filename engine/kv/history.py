"""The latest changes, for those who watch.

A bounded number of events is kept, whole revisions only; what is before is *compacted*. A watcher
asks for what came after a revision, and is told up to where that is all, so that it need not look
again at what is not for it. If what it asks for is compacted it must read the state anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from engine.errors import EngineError
from engine.kernels.puts import dropped

PUT, DELETE = 1, 2
SCAN_MAX = 20_000
"""Events looked at in one call."""
_SHIFT_MIN = 1024

Event = tuple[int, int, bytes, bytes]
"""(revision, `PUT` or `DELETE`, key, record); the record of a deletion is b""."""


_DROPPED: Event = (0, 0, b"", b"")


class Compacted(EngineError):
    """What was asked for is not all there: everything up to `revision` may be missing."""

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"what happened up to revision {revision} is not kept: read the state anew"
        )
        self.revision = revision


def matches(key: bytes, start: bytes, end: bytes | None) -> bool:
    """Whether a key is in a range."""
    if end is None:
        return key == start
    return key >= start and (not end or key < end)


class History:
    """`events` from `head` on, in order; those before are dropped, and removed now and then."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.head = 0
        self.bytes = 0
        """Of keys and records."""
        self.compacted = 0

    def __len__(self) -> int:
        return len(self.events) - self.head

    def add(self, revision: int, kind: int, key: bytes, record: bytes) -> None:
        """Whoever adds trims when the entry is applied."""
        self.events.append((revision, kind, key, record))
        self.bytes += len(key) + len(record)

    def trim(self, events_max: int, bytes_max: int) -> None:
        """Drop the oldest revisions until there are no more than so many events and bytes. That
        gives the same if it was done before, so it need not be done for every revision."""
        over = len(self.events) - events_max
        if over > self.head:
            self._cut(over)
        while self.bytes > bytes_max:
            self._cut(self.head + 1)

    def compact(self, revision: int) -> None:
        """Drop everything up to this revision."""
        cut = bisect_left(self.events, (revision + 1, 0, b"", b""), lo=self.head)
        if cut > self.head:
            self._cut(cut)
        self.compacted = max(self.compacted, revision)

    def _cut(self, cut: int) -> None:
        """Drop the events before this position, and what else is of the last one's revision."""
        events, head = self.events, self.head
        revision = events[cut - 1][0]
        while cut < len(events) and events[cut][0] == revision:
            cut += 1
        self.bytes -= dropped(events, head, cut, _DROPPED)  # their records are not kept
        if cut >= _SHIFT_MIN and 2 * cut > len(events):
            del events[:cut]
            cut = 0
        self.head, self.compacted = cut, revision

    def after(
        self, revision: int, start: bytes, end: bytes | None, most: int, bytes_max: int, now: int
    ) -> tuple[list[Event], int]:
        """The events of a range after a revision, and the revision up to which these are all.

        Whole revisions: as many as fit into `most` events and `bytes_max`, but at least one. `now`
        is the revision of the state. Compacted.
        """
        if revision < self.compacted:
            raise Compacted(self.compacted)
        events = self.events
        found: list[Event] = []
        at = bisect_left(events, (revision + 1, 0, b"", b""), lo=self.head)
        size = whole = 0  # `whole`: found events of revisions that are complete
        last, scanned = max(revision, now), at + SCAN_MAX
        current = 0
        for position in range(at, len(events)):
            event = events[position]
            if event[0] != current:
                if position >= scanned:
                    last = current
                    break
                whole, current = len(found), event[0]
            if matches(event[2], start, end):
                found.append(event)
                size += len(event[2]) + len(event[3])
                if (len(found) > most or size > bytes_max) and whole:
                    del found[whole:]
                    last = current - 1
                    break
        return found, last

    def load(self, events: Iterable[Event]) -> None:
        """Become what these say. `compacted` is set besides."""
        self.events = list(events)
        self.head = 0
        self.bytes = sum(len(key) + len(record) for _, _, key, record in self.events)
