"""Keys as one transaction sees them: what was read of the store, and what commands made of it."""

from __future__ import annotations

from collections.abc import Mapping

from engine.record import Record

KEEP, NEVER = -1, 0
"""In place of milliseconds to live: as it is; for ever."""
TTL_MAX = 10 * 365 * 86_400_000
"""Milliseconds that the store lets a lease live; who asks for more gets so much."""


class Seen(Record):
    """A key as it was read. `mod` is the revision of its last change, 0 if it is not there;
    `remaining` are milliseconds to live, None without a lease or if nobody asked."""

    value: bytes | None = None
    mod: int = 0
    lease: int = 0
    remaining: int | None = None


ABSENT = Seen()


class Made(Record):
    """A key as it is to be: None deletes it."""

    value: bytes | None
    ttl: int


class View:
    """What is `made` of what is `seen`. `now` is wall time in ms, for commands that name a time."""

    def __init__(self, seen: Mapping[bytes, Seen], now: int) -> None:
        self.seen, self.now = seen, now
        self.made: dict[bytes, Made] = {}
        self.read: set[bytes] = set()
        """Whose state decided something."""

    def value(self, key: bytes) -> bytes | None:
        """None if it is not there."""
        made = self.made.get(key)
        if made is not None:
            return made.value
        self.read.add(key)
        return self.seen[key].value

    def ttl(self, key: bytes) -> int | None:
        """Milliseconds that a key which is there has to live; None: for ever."""
        made = self.made.get(key)
        if made is not None and made.ttl != KEEP:
            return made.ttl or None
        self.read.add(key)
        return self.seen[key].remaining

    def put(self, key: bytes, value: bytes, ttl: int = KEEP) -> None:
        """`ttl` below 0 that is not KEEP has passed already."""
        if ttl < KEEP:
            self.drop(key)
            return
        if ttl == KEEP:
            made = self.made.get(key)
            if made is not None:
                ttl = made.ttl if made.value is not None else NEVER
        self.made[key] = Made(value, min(ttl, TTL_MAX))

    def drop(self, key: bytes) -> bool:
        """Whether it was there."""
        there = self.value(key) is not None
        if there:
            self.made[key] = Made(None, NEVER)
        return there
