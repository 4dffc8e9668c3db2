"""Leases: keys that hang on them go when their time has come.

A lease whose deadline is not after the time is *ending*: to clients it is gone, and its keys follow
a bounded number for each entry, so that no entry takes long. Revoking is ending now. Leases end in
order of (deadline, id), and the keys of one go in their own order.

Which keys hang on a lease is in their records too. So a snapshot does without, and nothing may rest
on the order in which they were attached.

What is next is found with a heap that is not kept exact: an entry of it may be too early, if the
deadline has moved since, or of a lease that is gone, and is put right when it comes up.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

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
_SLACK = 64


class Lease(Record):
    """As it was granted, or kept alive last."""

    id: int
    ttl: int
    deadline: Nanos

    def remaining(self, time: Nanos) -> int:
        """Milliseconds, rounded up: as long as it lives it is not 0."""
        return max(0, -(-(self.deadline - time) // MILLISECOND))


class Leases:
    """All of a group, by id, in the order in which they were granted."""

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}
        self.greatest = 0
        """The greatest id that there ever was."""
        self._keys: dict[int, set[bytes]] = {}
        self._queues: dict[int, list[bytes]] = {}
        """Of leases that are ending: the keys in reverse, with some that hang there no more."""
        self._heap: list[tuple[Nanos, int]] = []

    def living(self, lease: int, time: Nanos) -> Lease | None:
        """The lease, unless it has ended or is ending."""
        found = self.by_id.get(lease)
        return found if found is not None and found.deadline > time else None

    def size(self, lease: int) -> int:
        """How many keys hang on it."""
        return len(self._keys.get(lease, ()))

    def grant(self, lease: int, ttl: int, time: Nanos) -> Lease:
        """With an id that no lease has; 0 chooses one."""
        lease = lease or self.greatest + 1
        self.greatest = max(self.greatest, lease)
        made = self.by_id[lease] = Lease(lease, ttl, time + ttl * MILLISECOND)
        self._push(made)
        return made

    def keep_alive(self, lease: Lease, time: Nanos) -> None:
        # The deadline is later than before, so the heap may stay.
        self.by_id[lease.id] = Lease(lease.id, lease.ttl, time + lease.ttl * MILLISECOND)

    def revoke(self, lease: Lease) -> None:
        revoked = self.by_id[lease.id] = Lease(lease.id, lease.ttl, REVOKED)
        self._push(revoked)

    def attach(self, lease: int, key: bytes) -> None:
        self._keys.setdefault(lease, set()).add(key)

    def detach(self, lease: int, key: bytes) -> None:
        keys = self._keys[lease]
        keys.remove(key)
        if not keys:
            del self._keys[lease]

    def next_keys(self, lease: int, most: int) -> list[bytes]:
        """The keys of a lease that is ending that go next, at most so many."""
        keys = self._keys.get(lease)
        if keys is None:
            return []
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
            del self.by_id[lease]
            self._queues.pop(lease, None)

    def first(self) -> Lease | None:
        """The one that ends first."""
        heap = self._heap
        while heap:
            deadline, number = heap[0]
            lease = self.by_id.get(number)
            if lease is not None and lease.deadline == deadline:
                return lease
            heappop(heap)
            if lease is not None and lease.deadline > deadline:
                heappush(heap, (lease.deadline, number))
        return None

    def _push(self, lease: Lease) -> None:
        heappush(self._heap, (lease.deadline, lease.id))
        if len(self._heap) > 2 * len(self.by_id) + _SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(lease.deadline, lease.id) for lease in self.by_id.values()]
        heapify(self._heap)

    def load(self, leases: Iterable[Lease]) -> None:
        """Become these, in order; `greatest` is set and keys are attached besides."""
        self.by_id = {lease.id: lease for lease in leases}
        self._keys, self._queues = {}, {}
        self._rebuild()
