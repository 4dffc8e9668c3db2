"""Who watches a key: the ranges that are watched, found by a key in a few steps, however many.

A single key is looked up. All keys of a range begin with what its two ends have in common, and so a
range is found by that: a key is looked up once for each length of such beginnings, of which there
are few. Only ranges with the same beginning are gone through, and of prefixes there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.contract import Link
from engine.kv.commands import prefix_end
from engine.kv.history import Event, matches


class Guest:
    """A link and its watches, by number."""

    __slots__ = ("here", "link", "mark", "watches")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.here = True
        """Until it leaves; its watches are forgotten some at a time."""
        self.watches: dict[int, Watcher] = {}
        self.mark = 0
        """Sum of `held_mark` over them."""


class Watcher:
    """One watch. `place` is the range under which it stands, if it does."""

    __slots__ = ("after", "credit", "end", "guest", "number", "place", "start", "told")

    def __init__(
        self, guest: Guest, number: int, start: bytes, end: bytes | None, after: int, credit: int
    ) -> None:
        self.guest, self.number, self.start, self.end = guest, number, start, end
        self.after = after
        """Nothing up to this revision is for it."""
        self.told = after
        """Up to where it was told, which `after` may be past: that was not for it."""
        self.credit = credit
        self.place: Place | None = None


class Place:
    """All who watch one range, who are told the same."""

    __slots__ = ("begin", "end", "first", "home", "others", "pending", "start")

    def __init__(self, home: Interest, begin: bytes | None, start: bytes, end: bytes | None):
        self.home, self.begin, self.start, self.end = home, begin, start, end
        self.first: Watcher | None = None
        self.others: dict[Watcher, None] | None = None  # most ranges have one watcher
        self.pending: list[Event] = []
        """What happened there and was not told yet, in order."""

    def everybody(self) -> list[Watcher]:
        found = [] if self.first is None else [self.first]
        return found if self.others is None else [*found, *self.others]


class Interest:
    """Of all watchers."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Place] = {}
        self._ranges: dict[bytes, dict[tuple[bytes, bytes | None], Place]] = {}
        """By what all their keys begin with."""
        self._many: dict[int, int] = {}
        self.lengths: tuple[int, ...] = ()
        """Of those beginnings."""

    def __bool__(self) -> bool:
        return bool(self.keys or self._ranges)

    def enter(self, watcher: Watcher) -> None:
        start, end = watcher.start, watcher.end
        if end is None:
            place = self.keys.get(start)
            if place is None:
                place = self.keys[start] = Place(self, None, start, end)
        else:
            begin = beginning(start, end)
            places = self._ranges.get(begin)
            if places is None:
                places = self._ranges[begin] = {}
                self._count(len(begin), 1)
            place = places.get((start, end))
            if place is None:
                place = places[start, end] = Place(self, begin, start, end)
        watcher.place = place
        if place.first is None:
            place.first = watcher
        elif place.others is None:
            place.others = {watcher: None}
        else:
            place.others[watcher] = None

    def leave(self, watcher: Watcher) -> None:
        """One that stands here."""
        place, watcher.place = watcher.place, None
        assert place is not None
        if place.first is watcher:
            place.first = None
        else:
            assert place.others is not None
            del place.others[watcher]
        if place.first is not None or place.others:
            return
        if place.begin is None:
            del self.keys[place.start]
            return
        places = self._ranges[place.begin]
        del places[place.start, place.end]
        if not places:
            del self._ranges[place.begin]
            self._count(len(place.begin), -1)

    def _count(self, length: int, more: int) -> None:
        self._many[length] = self._many.get(length, 0) + more
        if self._many[length] <= max(0, more):
            self._many = {n: many for n, many in self._many.items() if many}
            self.lengths = tuple(sorted(self._many))

    def ranges(self, key: bytes) -> Iterator[tuple[Place, bool]]:
        """The ranges that are looked at for a key, and whether it is in them."""
        for length in self.lengths:
            if length > len(key):
                return
            for place in self._ranges.get(key[:length], {}).values():
                yield place, matches(key, place.start, place.end)


def beginning(start: bytes, end: bytes) -> bytes:
    """What all keys of a range begin with."""
    if end == prefix_end(start):
        return start
    length = 0
    for one, other in zip(start, end, strict=False):
        if one != other:
            break
        length += 1
    return start[:length]
