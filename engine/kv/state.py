"""The state of a group, and the steps of which every change of it is made.

A change is made *at* a revision: the next one, the same for all that one request does. The first
step of a request makes it the state's; a request that changes nothing takes none.
"""

from __future__ import annotations

from engine.contract import Nanos
from engine.kv.history import DELETE, PUT, History
from engine.kv.leases import Lease, Leases
from engine.kv.limits import Limits
from engine.kv.sessions import Sessions
from engine.kv.store import HEAD_MOST, Store, head_bytes, pack_record, unpack_head

EXPIRE_KEYS_MAX = 250
"""Keys that leases take with them for one entry, which is about a millisecond; a lease without keys
counts as one."""


class State:
    """Also what `writes`, `txn` and `reads` work on."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.revision = 0
        self.time: Nanos = 0
        self.digest = 0
        self.limits = Limits()
        self.store = Store()
        self.leases = Leases()
        self.sessions = Sessions()
        self.history = History()

    def put(self, at: int, key: bytes, value: bytes, lease: int) -> int:
        """Write a key; the version that it has now. The lease is one that is there."""
        old = self.store.table.head(key, HEAD_MOST)
        if old is None:
            create, version, was = at, 1, 0
        else:
            head = unpack_head(old)
            create, version, was = head.create, head.version + 1, head.lease
        if was != lease:
            if was:
                self.leases.detach(was, key)
            if lease:
                self.leases.attach(lease, key)
        record = pack_record(create, at, version, lease, value)
        self.store.write(key, record)
        self.history.add(at, PUT, key, record)
        self.revision = at
        return version

    def remove(self, at: int, key: bytes) -> bool:
        """Delete a key, if it is there."""
        head = self.store.head(key)
        if not head.version:
            return False
        if head.lease:
            self.leases.detach(head.lease, key)
        self.store.remove(key)
        self.history.add(at, DELETE, key, b"")
        self.revision = at
        return True

    def end_lease(self, lease: Lease, most: int) -> int:
        """Delete up to so many of a lease's keys, in one revision, and it if none is left; how many
        were deleted."""
        at = self.revision + 1
        keys = self.leases.next_keys(lease.id, most)
        for key in keys:
            self.remove(at, key)
        self.leases.drop_if_empty(lease.id)
        return len(keys)

    def expire(self) -> None:
        """End leases whose time has come, as many as one entry may."""
        left = EXPIRE_KEYS_MAX
        while left > 0:
            lease = self.leases.first()
            if lease is None or lease.deadline > self.time:
                return
            left -= max(1, self.end_lease(lease, left))

    @property
    def size(self) -> int:
        """What `Limits.state_bytes` bounds."""
        return self.store.size + self.sessions.bytes

    def growth(self, key: bytes, value_bytes: int, lease: int) -> int:
        """Bytes that the state would have more with such a value of this key."""
        old = self.store.table.size(key)
        size = head_bytes(lease) + value_bytes
        return size + len(key) if old < 0 else size - old

    def trim(self) -> None:
        """Hold the history to its limits."""
        self.history.trim(self.limits.history_events, self.limits.history_bytes)
