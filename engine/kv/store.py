"""The table: keys, each with a packed record, an ordered index of them, and walks through it.

A *record* is one bytes object, since a million of those are nothing to a garbage collector and take
the least memory. Grammar, little-endian::

    record = create:u64 mod:u64 version:u64 lease:u64? value

The lease is there if the highest bit of the version (`LEASED`) is set. Worked example: value `v`,
made in revision 1, last written in 3, for the second time, without a lease::

    01 00 00 00 00 00 00 00  03 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00  76

A `Walk` hands out all keys and records in order, as they are at the moment at which it begins,
some at a time, while the table changes. What is about to change and was not handed out yet is put
aside; so nothing is copied that does not change, and no step takes long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from sortedcontainers import SortedList  # type: ignore[import-untyped]

from engine.record import Record

HEAD = struct.Struct("<QQQ")
HEAD_BYTES = 24
LEASED = 1 << 63
_LEASED_BYTE = 0x80  # the last of the head
_LEASE_END = 32

NOT_THERE = b""
"""In place of a record: there was none."""
STEP_KEYS = 2048
"""Keys that a step of a walk looks at."""


class Head(Record):
    """A record without its value, which may be long; all 0 for a key that is not there."""

    create: int
    mod: int
    version: int
    lease: int


ABSENT = Head(0, 0, 0, 0)


def pack_record(create: int, mod: int, version: int, lease: int, value: bytes) -> bytes:
    if lease:
        head = HEAD.pack(create, mod, version | LEASED)
        return b"".join((head, lease.to_bytes(8, "little"), value))
    return HEAD.pack(create, mod, version) + value


def head_bytes(lease: int) -> int:
    """How long a record is without its value."""
    return _LEASE_END if lease else HEAD_BYTES


def unpack_head(record: bytes) -> Head:
    create, mod, version = HEAD.unpack_from(record)
    if version < LEASED:
        return Head(create, mod, version, 0)
    lease = int.from_bytes(record[HEAD_BYTES:_LEASE_END], "little")
    return Head(create, mod, version - LEASED, lease)


def unpack_value(record: bytes) -> bytes:
    return record[HEAD_BYTES:] if record[HEAD_BYTES - 1] < _LEASED_BYTE else record[_LEASE_END:]


class Store:
    """`table` is for looking up; whoever changes it uses `write` and `remove`, or does all that
    they do, which `Machine.apply` does for speed."""

    def __init__(self) -> None:
        self.table: dict[bytes, bytes] = {}
        self.keys = SortedList()
        self.bytes = 0
        """Of keys and records."""
        self.walks: list[Walk] = []

    def write(self, key: bytes, record: bytes) -> None:
        old = self.table.get(key)
        if self.walks:
            self.put_aside(key, old)
        if old is None:
            self.keys.add(key)
            self.bytes += len(key) + len(record)
        else:
            self.bytes += len(record) - len(old)
        self.table[key] = record

    def remove(self, key: bytes) -> None:
        """A key that is there."""
        old = self.table[key]
        if self.walks:
            self.put_aside(key, old)
        self.keys.remove(key)
        self.bytes -= len(key) + len(old)
        del self.table[key]

    def head(self, key: bytes) -> Head:
        """`ABSENT` if it is not there."""
        record = self.table.get(key)
        return ABSENT if record is None else unpack_head(record)

    def value(self, key: bytes) -> bytes | None:
        """None if it is not there."""
        record = self.table.get(key)
        return None if record is None else unpack_value(record)

    def value_bytes(self, key: bytes) -> int:
        """How long its value is; 0 if it is not there."""
        record = self.table.get(key)
        if record is None:
            return 0
        return len(record) - (HEAD_BYTES if record[HEAD_BYTES - 1] < _LEASED_BYTE else _LEASE_END)

    def positions(self, start: bytes, end: bytes | None) -> tuple[int, int]:
        """Where a range is among the sorted keys: from a position to before another."""
        first: int = self.keys.bisect_left(start)
        if end is None:
            return first, first + (start in self.table)
        last: int = self.keys.bisect_left(end) if end else len(self.keys)
        return first, max(first, last)

    def span(self, first: int, last: int, reverse: bool = False) -> Iterator[bytes]:
        """The keys at these positions; nothing may change meanwhile."""
        found: Iterator[bytes] = self.keys.islice(first, last, reverse)
        return found

    def load(self, parts: Iterable[tuple[tuple[bytes, ...], tuple[bytes, ...]]]) -> None:
        """Become what these keys and records say, which come in order."""
        self.end_walks()
        self.table = {}
        ordered: list[bytes] = []
        self.bytes = 0
        for keys, records in parts:
            self.table.update(zip(keys, records, strict=True))
            ordered += keys
            self.bytes += sum(map(len, keys)) + sum(map(len, records))
        self.keys = SortedList(ordered)

    # --- walks -----------------------------------------------------------------------------------

    def walk(self) -> Walk:
        """Begin one, through the table as it is now."""
        walk = Walk(self)
        self.walks.append(walk)
        return walk

    def put_aside(self, key: bytes, old: bytes | None) -> None:
        """A key is about to change, and this is its record until now."""
        for walk in self.walks:
            if key >= walk.cursor:
                walk.put_aside(key, NOT_THERE if old is None else old)

    def end_walks(self) -> None:
        for walk in list(self.walks):
            walk.end()


class Walk:
    """Through a table as it was when the walk began."""

    def __init__(self, store: Store) -> None:
        self.cursor = b""
        """What is less was handed out."""
        self.ended = False
        self._store = store
        self._aside: dict[bytes, bytes] = {}
        self._changed = SortedList()
        """The keys put aside that may be in the table no more."""

    def put_aside(self, key: bytes, old: bytes) -> None:
        """For the first change of a key that counts; what a change undoes later is not in it."""
        if key not in self._aside:
            self._aside[key] = old
            if old:
                self._changed.add(key)

    def step(self, bytes_max: int) -> tuple[list[bytes], list[bytes]] | None:
        """The next keys, and their records: until there are so many bytes, or enough keys. They may
        be none; None says that all were handed out, and the walk has ended."""
        window = self._window()
        if not window:
            self.end()
            return None
        table, aside = self._store.table, self._aside
        keys: list[bytes] = []
        records: list[bytes] = []
        size = 0
        for key in window:
            record = aside.pop(key, None) if aside else None
            if record is None:
                record = table[key]
            if record:
                keys.append(key)
                records.append(record)
                size += len(key) + len(record)
                if size >= bytes_max:
                    break
        self.cursor = key + b"\0"
        del self._changed[: self._changed.bisect_left(self.cursor)]
        return keys, records

    def _window(self) -> list[bytes]:
        """The next keys that are there, or were. Never an iterator: the index changes."""
        there = self._store.keys
        first = there.bisect_left(self.cursor)
        window = list(there.islice(first, first + STEP_KEYS))
        changed = list(self._changed.islice(0, STEP_KEYS))
        if changed:
            window = sorted({*window, *changed})[:STEP_KEYS]
        return window

    def end(self) -> None:
        """Nothing is put aside for it any more."""
        if not self.ended:
            self._store.walks.remove(self)
            self.ended = True
        self._aside = {}
        self._changed = SortedList()
