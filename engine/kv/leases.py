"""Leases: keys that hang on them go when their time has come.

A lease whose deadline is not after the time is *ending*: to clients it is gone, and its keys follow
a bounded number for each entry, so that no entry takes long. Revoking is ending now. Leases end in
order of (deadline, id), and the keys of one go in their own order.

Which keys hang on a lease is in their records too. So a snapshot does without, and nothing may rest
on the order in which they were attached.

A lease is one number here, of its deadline and its ttl, and a `Lease` is made for whoever asks. A
hundred thousand tuples, each replaced whenever it is kept alive, are a hundred thousand that are
young, and Python's collector would go through them all again and again, 30 ms at a time.

What is next is found in buckets, each for a short span of deadlines. A lease that is kept alive, as
most are all the time, moves from one to another, which costs the same however many there are; and
only where something ends next are leases put into order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from engine.contract import Nanos
from engine.record import Record

CHOSEN_MAX = 1 << 53
"""The greatest id that a client may choose. The store goes on from the greatest there ever was, so
it never runs out, whatever clients choose."""
TTL_MAX = 10 * 365 * 86_400_000
"""Milliseconds."""
REVOKED: Nanos = 0
"""As a deadline: before any other."""
MILLISECOND: Nanos = 1_000_000
SPAN_BITS = 24
"""Of a bucket: 17 ms. Few leases are granted or kept alive in that time, and few buckets there are
in the life of one."""

_TTL_BITS = 40
_TTL = (1 << _TTL_BITS) - 1

_Keys: TypeAlias = bytes | set[bytes]
"""Of a lease: most have one, and a set takes more memory than all the rest of a lease."""


class Lease(Record):
    """As it was granted, or kept alive last."""

    id: int
    ttl: int
    deadline: Nanos

    def remaining(self, time: Nanos) -> int:
        """Milliseconds, rounded up: as long as it lives it is not 0."""
        return max(0, -(-(self.deadline - time) // MILLISECOND))


def lease_of(number: int, row: int) -> Lease:
    """As it is kept: see `Leases.rows`."""
    return Lease(number, row & _TTL, row >> _TTL_BITS)


class _ById(Mapping[int, Lease]):
    """Rows, as leases."""

    def __init__(self, rows: dict[int, int]) -> None:
        self._rows = rows

    def __getitem__(self, number: int) -> Lease:
        return lease_of(number, self._rows[number])

    def __contains__(self, number: object) -> bool:
        return number in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


class _Bucket:
    """The leases that end in one span."""

    __slots__ = ("ids", "order")

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.order: list[tuple[Nanos, int]] | None = None
        """A heap of (deadline, id), from when it was asked for: with those that are gone."""


class Leases:
    """All of a group, by id, in the order in which they were granted."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        """By id: the deadline, and in the last `_TTL_BITS` the ttl."""
        self.greatest = 0
        """The greatest id that there ever was."""
        self._keys: dict[int, _Keys] = {}
        self._queues: dict[int, list[bytes]] = {}
        """Of leases that are ending: the keys in reverse, with some that hang there no more."""
        self._buckets: dict[int, _Bucket] = {}
        self._heap: list[int] = []
        """The numbers of the buckets, some of which may be empty by now."""

    @property
    def by_id(self) -> Mapping[int, Lease]:
        return _ById(self.rows)

    def living(self, lease: int, time: Nanos) -> Lease | None:
        """The lease, unless it has ended or is ending."""
        row = self.rows.get(lease)
        return lease_of(lease, row) if row is not None and row >> _TTL_BITS > time else None

    def size(self, lease: int) -> int:
        """How many keys hang on it."""
        keys = self._keys.get(lease, ())
        return 1 if isinstance(keys, bytes) else len(keys)

    def grant(self, lease: int, ttl: int, time: Nanos) -> Lease:
        """With an id that no lease has; 0 chooses one."""
        lease = lease or self.greatest + 1
        self.greatest = max(self.greatest, lease)
        made = Lease(lease, ttl, time + ttl * MILLISECOND)
        self._place(made)
        return made

    def keep_alive(self, lease: Lease, time: Nanos) -> None:
        self._move(lease, time + lease.ttl * MILLISECOND)

    def revoke(self, lease: Lease) -> None:
        self._move(lease, REVOKED)

    def attach(self, lease: int, key: bytes) -> None:
        keys = self._keys.setdefault(lease, key)
        if not isinstance(keys, bytes):
            keys.add(key)
        elif keys != key:
            self._keys[lease] = {keys, key}

    def detach(self, lease: int, key: bytes) -> None:
        keys = self._keys[lease]
        if not isinstance(keys, bytes):
            keys.remove(key)
            if keys:
                return
        elif keys != key:
            raise KeyError(key)
        del self._keys[lease]

    def next_keys(self, lease: int, most: int) -> list[bytes]:
        """The keys of a lease that is ending that go next, at most so many."""
        keys = self._keys.get(lease)
        if keys is None:
            return []
        if isinstance(keys, bytes):
            return [keys]
        if len(keys) <= most:
            return sorted(keys)
        queue = self._queues.get(lease)
        if queue is None:
            queue = self._queues[lease] = sorted(keys, reverse=True)
        found: list[bytes] = []
        while queue and len(found) < most:
            key = queue.pop()
            if key in keys:
                found.append(key)
        return found

    def drop_if_empty(self, lease: int) -> None:
        """It is ending; it has ended if no key hangs on it."""
        if lease not in self._keys:
            deadline = self.rows.pop(lease) >> _TTL_BITS
            self._buckets[deadline >> SPAN_BITS].ids.remove(lease)
            self._queues.pop(lease, None)

    def first(self) -> Lease | None:
        """The one that ends first."""
        while self._heap:
            number = self._heap[0]
            bucket = self._buckets[number]
            if bucket.ids:
                return self._first_of(bucket)
            heappop(self._heap)
            del self._buckets[number]
        return None

    def _first_of(self, bucket: _Bucket) -> Lease:
        if bucket.order is None:
            bucket.order = [(self.rows[number] >> _TTL_BITS, number) for number in bucket.ids]
            heapify(bucket.order)
        while True:
            deadline, number = bucket.order[0]
            row = self.rows.get(number)
            if row is not None and row >> _TTL_BITS == deadline:
                return lease_of(number, row)
            heappop(bucket.order)

    def _move(self, lease: Lease, deadline: Nanos) -> None:
        if deadline == lease.deadline:
            return  # one that is kept alive a thousand times at once is put into order once
        self._buckets[lease.deadline >> SPAN_BITS].ids.remove(lease.id)
        self._place(Lease(lease.id, lease.ttl, deadline))

    def _place(self, lease: Lease) -> None:
        self.rows[lease.id] = lease.deadline << _TTL_BITS | lease.ttl
        number = lease.deadline >> SPAN_BITS
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = _Bucket()
            heappush(self._heap, number)
        bucket.ids.add(lease.id)
        if bucket.order is not None:
            heappush(bucket.order, (lease.deadline, lease.id))

    def load(self, leases: Iterable[Lease]) -> None:
        """Become these, in order; `greatest` is set and keys are attached besides."""
        self._keys, self._queues, self._buckets, self._heap = {}, {}, {}, []
        self.rows = {}
        for lease in leases:
            self._place(lease)
