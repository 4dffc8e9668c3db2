"""The table: keys, each with a packed record, in order, and walks through it.

A *record* is a byte string. It lies in the table (`kernels.table`) beside its key, and whoever asks
for one is given a copy; so nobody asks for all of it who wants to know but its head, or its length.
Grammar, little-endian::

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

from engine.kernels.table import Table
from engine.record import Record

HEAD = struct.Struct("<QQQ")
HEAD_BYTES = 24
LEASED = 1 << 63
_LEASED_BYTE = 0x80  # the last of the head
HEAD_MOST = 32
"""Bytes of a record before its value, at most."""

NOT_THERE = b""
"""In place of a record: there was none."""
STEP_KEYS = 2048
"""Keys that a step of a walk looks at."""
_SPAN_KEYS = 256


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
    return HEAD_MOST if lease else HEAD_BYTES


def unpack_head(record: bytes) -> Head:
    create, mod, version = HEAD.unpack_from(record)
    if version < LEASED:
        return Head(create, mod, version, 0)
    lease = int.from_bytes(record[HEAD_BYTES:HEAD_MOST], "little")
    return Head(create, mod, version - LEASED, lease)


def unpack_value(record: bytes) -> bytes:
    return record[HEAD_BYTES:] if record[HEAD_BYTES - 1] < _LEASED_BYTE else record[HEAD_MOST:]


class Store:
    """`table` is for looking up; whoever changes it uses `write` and `remove`, or does all that
    they do, which `Machine.apply` does for speed."""

    def __init__(self) -> None:
        self.table = Table()
        self.walks: list[Walk] = []

    @property
    def size(self) -> int:
        """Of keys and records."""
        return self.table.total

    def write(self, key: bytes, record: bytes) -> None:
        if self.walks:
            self.put_aside(key, self.table.get(key))
        self.table[key] = record

    def remove(self, key: bytes) -> None:
        """A key that is there."""
        if self.walks:
            self.put_aside(key, self.table[key])
        del self.table[key]

    def head(self, key: bytes) -> Head:
        """`ABSENT` if it is not there."""
        head = self.table.head(key, HEAD_MOST)
        return ABSENT if head is None else unpack_head(head)

    def value(self, key: bytes) -> bytes | None:
        """None if it is not there."""
        record = self.table.get(key)
        return None if record is None else unpack_value(record)

    def value_bytes(self, key: bytes) -> int:
        """How long its value is; 0 if it is not there."""
        head = self.table.head(key, HEAD_BYTES)
        if head is None:
            return 0
        leased = head[HEAD_BYTES - 1] >= _LEASED_BYTE
        return self.table.size(key) - (HEAD_MOST if leased else HEAD_BYTES)

    def positions(self, start: bytes, end: bytes | None) -> tuple[int, int]:
        """Where a range is among the sorted keys: from a position to before another."""
        first = self.table.bisect(start)
        if end is None:
            return first, first + (start in self.table)
        last = self.table.bisect(end) if end else len(self.table)
        return first, max(first, last)

    def span(self, first: int, last: int, reverse: bool = False) -> Iterator[bytes]:
        """The keys at these positions; nothing may change meanwhile."""
        while first < last:  # some at a time: who asks for many is seldom told them all
            if reverse:
                begin = max(first, last - _SPAN_KEYS)
                yield from self.table.keys(begin, last, True)
                last = begin
            else:
                end = min(last, first + _SPAN_KEYS)
                yield from self.table.keys(first, end)
                first = end

    def load(self, parts: Iterable[tuple[tuple[bytes, ...], tuple[bytes, ...]]]) -> None:
        """Become what these keys and records say, which come in order."""
        self.end_walks()
        self.table = Table()
        for keys, records in parts:
            self.table.extend(keys, records)

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
        self._aside = Table()

    def put_aside(self, key: bytes, old: bytes) -> None:
        """For the first change of a key that counts; what a change undoes later is not in it."""
        if key not in self._aside:
            self._aside[key] = old

    def step(self, bytes_max: int) -> tuple[list[bytes], list[bytes]] | None:
        """The next keys, and their records: until there are so many bytes, or enough keys. They may
        be none; None says that all were handed out, and the walk has ended."""
        keys, records, more = self._store.table.part(self.cursor, STEP_KEYS, bytes_max)
        if not self._aside:
            if not keys:
                self.end()
                return None
            self.cursor = keys[-1] + b"\0"
            return keys, records
        found = dict(zip(keys, records, strict=True))
        then = self._then(found, keys[-1] if more else None, bytes_max)
        self.cursor = then[-1][0] + b"\0"
        there = [pair for pair in then if pair[1]]
        return [key for key, _ in there], [record for _, record in there]

    def _then(
        self, found: dict[bytes, bytes], upto: bytes | None, bytes_max: int
    ) -> list[tuple[bytes, bytes]]:
        """What comes next of what was, by what there is now, which was looked for up to a key, and
        what was put aside, which is not empty. What was made since has `NOT_THERE`."""
        keys, records, more = self._aside.part(self.cursor, STEP_KEYS, bytes_max)
        if more:
            upto = keys[-1] if upto is None else min(upto, keys[-1])
        found.update(zip(keys, records, strict=True))
        aside, size = set(keys), 0
        then: list[tuple[bytes, bytes]] = []
        for key in sorted(found):
            if size >= bytes_max or (upto is not None and key > upto):
                break
            record = found[key]
            then.append((key, record))
            size += len(key) + len(record) if record else 0
            if key in aside:
                del self._aside[key]
        return then

    def end(self) -> None:
        """Nothing is put aside for it any more."""
        if not self.ended:
            self._store.walks.remove(self)
            self.ended = True
        self._aside = Table()
