"""The store for programs: `Store`, and leases and watches on it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Self

from engine.contract import SECOND, Nanos
from engine.errors import NotFoundError, UsageError
from engine.kv import calls, commands
from engine.kv.calls import CompareFailed, Found, Info, Maybe, Page, Plan, Text, Txn
from engine.kv.desk import Desk
from engine.kv.feed import Event, Feed
from engine.kv.history import Compacted
from engine.runtime.caller import Caller, Client

__all__ = [
    "Compacted",
    "CompareFailed",
    "Event",
    "Found",
    "Info",
    "Lease",
    "Maybe",
    "Page",
    "Store",
    "Txn",
]


class Store(Client):
    """A connection to a store; for one thread, and a context manager.

    `cluster`: the clients' endpoints of its replicas, or the folder of `engine kv up`. `timeout` in
    seconds, None to wait for ever. `token` is the path of a token file or of a folder of keys (see
    `engine keys`), for TCP. Reads see all that was done before them, whoever did it; with
    `local=True` they ask a single replica, which may be behind. Every method raises
    OutcomeUnknown if what it asked may have been done, and another EngineError if it was not.
    """

    def __init__(
        self,
        cluster: str | Sequence[str],
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        self._desk = Desk(endpoints(cluster), random.Random(os.urandom(16)))
        super().__init__(Caller(timeout=timeout, token=token, via=via))

    # --- keys ------------------------------------------------------------------------------------

    def get(self, key: Text, *, local: bool = False) -> Found | None:
        """None if there is no such key."""
        found: Found | None = self._run(calls.get(key, local=local))
        return found

    def put(self, key: Text, value: Text, *, lease: int = 0) -> int:
        """The revision that it makes."""
        return int(self._run(calls.put(key, value, lease)))

    def append(self, key: Text, value: Text) -> int:
        """Behind what is there, if anything; the revision."""
        return int(self._run(calls.append(key, value)))

    def delete(self, key: Text) -> bool:
        """Whether there was such a key."""
        return bool(self._run(calls.delete(key)))

    def delete_range(self, start: Text, end: Text) -> int:
        """All keys from `start` to before `end` (b"": all): how many there were."""
        return int(self._run(calls.delete_range(start, end)))

    def delete_prefix(self, prefix: Text) -> int:
        """All keys that begin with this: how many there were."""
        name = calls.as_bytes(prefix)
        return self.delete_range(name, commands.prefix_end(name))

    def cas(self, key: Text, expected: Text | None, value: Text, *, lease: int = 0) -> bool:
        """Write if the value is as `expected` (None: no such key): whether it was."""
        return bool(self._run(calls.cas(key, expected, value, lease)))

    def cas_revision(self, key: Text, expected: int, value: Text, *, lease: int = 0) -> bool:
        """Write if this revision changed it last (0: no such key): whether it was."""
        return bool(self._run(calls.cas_revision(key, expected, value, lease)))

    def put_version(self, key: Text, value: Text, version: int) -> int:
        """The labs' versioned put: the version that it makes, from 1. NotFoundError, CompareFailed;
        `Maybe` if it was repeated and the version has gone. Only the version tells a repeated one:
        where keys are deleted, and so begin anew at version 1, use `cas_revision`."""
        return int(self._run(calls.put_version(key, value, version)))

    def txn(
        self,
        compares: Sequence[commands.Command],
        then: Sequence[commands.Command],
        otherwise: Sequence[commands.Command] = (),
    ) -> Txn:
        """If all compares hold `then`, else `otherwise`; operations as `commands` makes them."""
        done: Txn = self._run(calls.txn(compares, then, otherwise))
        return done

    def page(
        self, start: Text, end: Text | None, limit: int = 0, flags: int = 0, *, local: bool = False
    ) -> Page:
        """A part of a range, all of one moment."""
        found: Page = self._run(calls.page(start, end, limit, flags, local=local))
        return found

    def range(
        self, start: Text = b"", end: Text = b"", *, limit: int = 0, local: bool = False
    ) -> Iterator[Found]:
        """Keys from `start` to before `end` (b"": all) in order, a page at a time: keys that change
        meanwhile may be seen before or after that."""
        left, begin = limit, calls.as_bytes(start)
        while True:
            page = self.page(begin, end, left, local=local)
            yield from page.found
            left -= len(page.found)
            if not page.more or (limit and left <= 0):
                return
            begin = commands.after(page.found[-1].key)

    def prefix(self, prefix: Text, *, limit: int = 0, local: bool = False) -> Iterator[Found]:
        """Keys that begin with this."""
        name = calls.as_bytes(prefix)
        return self.range(name, commands.prefix_end(name), limit=limit, local=local)

    def count(self, start: Text = b"", end: Text = b"") -> int:
        """How many keys there are from `start` to before `end`."""
        return self.page(start, end, flags=commands.COUNT_ONLY).total

    # --- leases and watches ----------------------------------------------------------------------

    def lease(self, ttl: float) -> Lease:
        """For so many seconds, unless it is kept alive."""
        began = monotonic()
        number, seconds = self._run(calls.lease_grant(ttl))
        return Lease(self, number, seconds, began + seconds)

    def watch(
        self,
        start: Text,
        end: Text | None = None,
        *,
        prefix: bool = False,
        after: int | None = None,
    ) -> Watching:
        """What happens to a key, a range or a `prefix`, after a revision (None: from now on).

        Every event once, in order, those of one revision together; the iterator waits for them for
        ever, whatever becomes of replicas. `Compacted` if it was away for too long.
        """
        begin = calls.as_bytes(start)
        if prefix:
            end = commands.prefix_end(begin)
        last = None if end is None else calls.as_bytes(end)
        if after is None:
            after = self.info().revision
        return Watching(self._desk, self._caller, Feed(self._desk, begin, last, after))

    # --- the whole -------------------------------------------------------------------------------

    def info(self) -> Info:
        """What the store says of itself."""
        told: Info = self._run(calls.info())
        return told

    def compact(self, revision: int) -> int:
        """Forget what happened up to this revision; how far it is forgotten."""
        return int(self._run(calls.compact(revision)))

    def run(self, plan: Plan, timeout: float | None = None) -> Any:
        """Carry out a plan of `engine.kv.calls`, with a patience of its own if one is given."""
        return self._run(plan, None if timeout is None else int(timeout * SECOND))

    def _run(self, plan: Plan, patience: Nanos | None = None) -> Any:
        desk, caller = self._desk, self._caller
        patience = caller.patience if patience is None else patience
        ticket = desk.ask(plan.how, plan.command, patience, caller.now(), once=plan.once)
        desk.awaited = ticket
        try:
            answer = caller.run(desk)
        finally:
            ticket.over = True  # whoever was told that it failed is not told of it once it is done
        return plan.meaning(answer, ticket.handed)


class Lease:
    """Keys that were put with `id` end with it. A context manager that ends it."""

    def __init__(self, store: Store, number: int, ttl: float, until: float) -> None:
        self.store, self.id, self.ttl = store, number, ttl
        self.until = until
        """By our clock; it ends then or later, since it began after it was asked for."""

    def keep_alive(self, timeout: float | None = None) -> float:
        """From now on for `ttl` again. NotFoundError if it has ended."""
        now = monotonic()
        left = float(self.store.run(calls.lease_alive(self.id), timeout))
        self.until = now + left
        return left

    def revoke(self) -> None:
        """End it, and the keys with it."""
        self.store.run(calls.lease_revoke(self.id))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.revoke()
        except NotFoundError:
            pass  # it has ended by itself


class Watching(Iterator[Event]):
    """See `Store.watch`. `after` is the revision up to which all was handed out. A context manager,
    which ends it: a replica has those in mind that are not ended for as long as we are linked."""

    def __init__(self, desk: Desk, caller: Caller, feed: Feed) -> None:
        self._desk, self._caller, self._feed = desk, caller, feed

    @property
    def after(self) -> int:
        return self._feed.handed

    def wait(self, seconds: float) -> Event | None:
        """The next event; None if there was none for so long."""
        there = self._caller.run_until(self._desk, lambda: self._feed.tend(self._desk), seconds)
        return self._feed.take() if there else None

    def close(self) -> None:
        """Watch no more."""
        self._feed.end(self._desk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __next__(self) -> Event:
        self._caller.run_until(self._desk, lambda: self._feed.tend(self._desk))
        return self._feed.take()


def endpoints(cluster: str | Sequence[str]) -> list[str]:
    """Of replicas: those given, or those of a folder. UsageError, NotFoundError."""
    if not isinstance(cluster, str):
        return list(cluster)
    if "://" in cluster:
        return cluster.split(",")
    if not cluster:
        raise UsageError("Which store? Name the folder of `engine kv up`, or its endpoints.")
    from engine.kv.up import found

    return [seat.client for seat in found(cluster)]
