"""Locks and elections on the replicated store: held by a lease, and fenced.

Whoever wants the lock makes a key of its own under the lock's name, with a lease; the one whose key
was made first holds it, and the others each watch the one before them, so that nobody is woken in
vain. The *token* is the revision that made the key: it only ever grows from holder to holder. A
lease bounds how long a holder that died keeps others waiting; it cannot stop one that was only slow
from going on. So what the lock protects must refuse a token that is smaller than one it has seen
(Gray and Cheriton, "Leases", 1989; Burrows, "The Chubby lock service", 2006, section 2.4).

    with Store("store") as store, FencedLock(store, "backup") as token:
        upload(..., token)
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from engine.errors import (
    ConnectionFailed,
    EngineError,
    NotFoundError,
    OutcomeUnknown,
    RefusedError,
)
from engine.kv import commands
from engine.kv.client import Found, Lease, Store

ALIVE_SHARE = 3
"""A lease is kept alive after so many parts of it."""


class LockLost(EngineError):
    """The lease ended before the lock was released: somebody else may hold it."""


class NotAcquired(RefusedError):
    """Others held it for as long as we were willing to wait; we hold nothing."""

    exit_code = 5


class FencedLock:
    """A lock by name, for one thread. A context manager, whose value is the token.

    `ttl` in seconds: for how long others wait for a holder that died. Whoever holds it for longer
    calls `keep_alive` in between. `value` is shown to whoever asks who holds it.
    """

    def __init__(self, store: Store, name: str, *, ttl: float = 10.0, value: bytes = b"") -> None:
        self.store, self.name, self.ttl, self.value = store, name, ttl, value
        self.token = 0
        """0 while it is not held."""
        self._prefix = f"{name}/".encode()
        self._lease: Lease | None = None

    def acquire(self, timeout: float | None = None) -> int:
        """Wait until it is ours: the token. NotAcquired after `timeout` seconds."""
        if self._lease is not None:
            raise RefusedError(f"The lock {self.name} is held here already: release it first.")
        deadline = None if timeout is None else monotonic() + timeout
        self._lease = self.store.lease(self.ttl)
        key = self._key(self._lease)
        try:
            self.store.put(key, self.value, lease=self._lease.id)
            self.token = self._wait(key, self._lease, deadline)
        except BaseException:
            lease, self._lease = self._lease, None
            _end(lease)
            raise
        return self.token

    def _key(self, lease: Lease) -> bytes:
        return self._prefix + b"%016x" % lease.id

    def _wait(self, key: bytes, lease: Lease, deadline: float | None) -> int:
        while True:
            page = self.store.page(self._prefix, commands.prefix_end(self._prefix))
            order = sorted(page.found, key=lambda found: found.created)
            place = [found.key for found in order].index(key) if key in _keys(order) else -1
            if place < 0:
                raise LockLost(f"The lease of {self.name} ended while we waited for the lock.")
            if place == 0:
                return order[0].created
            self._outwait(order[place - 1].key, page.revision, lease, deadline)

    def _outwait(self, before: bytes, after: int, lease: Lease, deadline: float | None) -> None:
        """Until whoever is before us goes."""
        with self.store.watch(before, after=after) as events:
            while True:
                now = monotonic()
                if deadline is not None and now >= deadline:
                    raise NotAcquired(f"The lock {self.name} is held by others.")
                patience = self.ttl / ALIVE_SHARE
                if deadline is not None:
                    patience = min(patience, deadline - now)
                event = events.wait(patience)
                if event is not None and event.deleted:
                    return
                if lease.until - monotonic() < self.ttl * (1 - 1 / ALIVE_SHARE):
                    self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        """Asked for no longer than the lease lasts: after that others may hold the lock."""
        left = max(lease.until - monotonic(), self.ttl / ALIVE_SHARE)
        try:
            lease.keep_alive(left)
        except NotFoundError:
            raise LockLost(f"The lease of the lock {self.name} has ended.") from None
        except (ConnectionFailed, OutcomeUnknown) as error:
            raise LockLost(f"The lock {self.name} could not be kept: {error}") from None

    def keep_alive(self) -> None:
        """Hold it for another `ttl` from now. LockLost."""
        if self._lease is None:
            raise RefusedError(f"The lock {self.name} is not held here.")
        self._renew(self._lease)

    def release(self) -> None:
        """Let the next one have it. LockLost if others may have had it before."""
        lease, self._lease, self.token = self._lease, None, 0
        if lease is not None and not _end(lease):
            raise LockLost(f"The lease of the lock {self.name} had ended before it was released.")

    def holder(self) -> Found | None:
        """Who holds it: the value that it gave, and with `created` the token."""
        page = self.store.page(self._prefix, commands.prefix_end(self._prefix))
        return min(page.found, key=lambda found: found.created, default=None)

    def __enter__(self) -> int:
        return self.acquire()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self.release()
        except LockLost:
            if error is None:
                raise


class Election(FencedLock):
    """Who leads, of those who want to: the same, by the names that one uses for it."""

    def campaign(self, timeout: float | None = None) -> int:
        """Wait until we lead: the token, which is greater than that of every leader before."""
        return self.acquire(timeout)

    def resign(self) -> None:
        """Let the next one lead."""
        self.release()

    def leader(self) -> bytes | None:
        """The value of whoever leads; None if nobody does."""
        found = self.holder()
        return None if found is None else found.value


def _keys(order: list[Found]) -> set[bytes]:
    return {found.key for found in order}


def _end(lease: Lease) -> bool:
    try:
        lease.revoke()
    except NotFoundError:
        return False
    return True
