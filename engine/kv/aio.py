"""The store for programs on asyncio: `AsyncStore`, with the names of `engine.kv.client.Store`.

All that is asked in one round of the event loop shares a frame, so a thousand tasks cost little
more than one. Nothing here has a thread: the loop watches the sockets.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from engine.contract import SECOND, Nanos, Server
from engine.errors import ConnectionFailed, EngineError, NotFoundError
from engine.kv import calls, commands
from engine.kv.calls import Found, Info, Page, Plan, Text, Txn
from engine.kv.client import endpoints
from engine.kv.desk import Desk, Ticket
from engine.kv.feed import Event, Feed
from engine.runtime.caller import refused
from engine.runtime.world import SocketWorld


class AsyncStore:
    """As `Store`, for one event loop: made in it, and an asynchronous context manager."""

    def __init__(
        self,
        cluster: str | Sequence[str],
        *,
        timeout: float | None = 10.0,
        token: str | None = None,
        via: Mapping[str, str] | None = None,
    ) -> None:
        self._desk = Desk(endpoints(cluster), random.Random(os.urandom(16)))
        self._world = SocketWorld(role="client", token=token, via=via)
        self._server = Server(self._desk, self._world)
        self._patience: Nanos | None = None if timeout is None else int(timeout * SECOND)
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Ticket, asyncio.Future[None]]] = []
        self._watching: list[tuple[Feed, asyncio.Future[None]]] = []
        self._watched: set[int] = set()
        self._kicked = self._closed = False
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; whoever waits gets ConnectionFailed. Once is enough."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for fd in self._watched:
            self._loop.remove_reader(fd)
        self._world.close()
        for _, future in (*self._waiting, *self._watching):
            if not future.done():
                future.set_exception(ConnectionFailed("The connection was closed."))

    # --- keys ------------------------------------------------------------------------------------

    async def get(self, key: Text, *, local: bool = False) -> Found | None:
        """None if there is no such key."""
        found: Found | None = await self.run(calls.get(key, local=local))
        return found

    async def put(self, key: Text, value: Text, *, lease: int = 0) -> int:
        """The revision that it makes."""
        return int(await self.run(calls.put(key, value, lease)))

    async def append(self, key: Text, value: Text) -> int:
        """Behind what is there, if anything; the revision."""
        return int(await self.run(calls.append(key, value)))

    async def delete(self, key: Text) -> bool:
        """Whether there was such a key."""
        return bool(await self.run(calls.delete(key)))

    async def delete_range(self, start: Text, end: Text) -> int:
        """All keys from `start` to before `end` (b"": all): how many there were."""
        return int(await self.run(calls.delete_range(start, end)))

    async def delete_prefix(self, prefix: Text) -> int:
        """All keys that begin with this: how many there were."""
        name = calls.as_bytes(prefix)
        return await self.delete_range(name, commands.prefix_end(name))

    async def cas(self, key: Text, expected: Text | None, value: Text, *, lease: int = 0) -> bool:
        """Write if the value is as `expected` (None: no such key): whether it was."""
        return bool(await self.run(calls.cas(key, expected, value, lease)))

    async def cas_revision(self, key: Text, expected: int, value: Text, *, lease: int = 0) -> bool:
        """Write if this revision changed it last (0: no such key): whether it was."""
        return bool(await self.run(calls.cas_revision(key, expected, value, lease)))

    async def put_version(self, key: Text, value: Text, version: int) -> int:
        """The labs' versioned put: the version that it makes."""
        return int(await self.run(calls.put_version(key, value, version)))

    async def txn(
        self,
        compares: Sequence[commands.Command],
        then: Sequence[commands.Command],
        otherwise: Sequence[commands.Command] = (),
    ) -> Txn:
        """If all compares hold `then`, else `otherwise`."""
        done: Txn = await self.run(calls.txn(compares, then, otherwise))
        return done

    async def page(
        self, start: Text, end: Text | None, limit: int = 0, flags: int = 0, *, local: bool = False
    ) -> Page:
        """A part of a range, all of one moment."""
        found: Page = await self.run(calls.page(start, end, limit, flags, local=local))
        return found

    async def range(
        self, start: Text = b"", end: Text = b"", *, limit: int = 0, local: bool = False
    ) -> AsyncIterator[Found]:
        """Keys from `start` to before `end` (b"": all) in order, a page at a time."""
        left, begin = limit, calls.as_bytes(start)
        while True:
            page = await self.page(begin, end, left, local=local)
            for found in page.found:
                yield found
            left -= len(page.found)
            if not page.more or (limit and left <= 0):
                return
            begin = commands.after(page.found[-1].key)

    def prefix(self, prefix: Text, *, limit: int = 0, local: bool = False) -> AsyncIterator[Found]:
        """Keys that begin with this."""
        name = calls.as_bytes(prefix)
        return self.range(name, commands.prefix_end(name), limit=limit, local=local)

    async def count(self, start: Text = b"", end: Text = b"") -> int:
        """How many keys there are from `start` to before `end`."""
        return (await self.page(start, end, flags=commands.COUNT_ONLY)).total

    # --- leases and watches ----------------------------------------------------------------------

    async def lease(self, ttl: float) -> AsyncLease:
        """For so many seconds, unless it is kept alive."""
        number, seconds = await self.run(calls.lease_grant(ttl))
        return AsyncLease(self, number, seconds)

    async def watch(
        self,
        start: Text,
        end: Text | None = None,
        *,
        prefix: bool = False,
        after: int | None = None,
    ) -> AsyncIterator[Event]:
        """What happens to a key, a range or a `prefix`, after a revision: see `Store.watch`."""
        begin = calls.as_bytes(start)
        if prefix:
            end = commands.prefix_end(begin)
        last = None if end is None else calls.as_bytes(end)
        if after is None:
            after = (await self.info()).revision
        feed = Feed(self._desk, begin, last, after)
        try:
            while True:
                if not feed.tend(self._desk):
                    await self._told(feed)
                yield feed.take()
        finally:
            feed.end(self._desk)
            if not self._closed:
                self._kick()

    async def _told(self, feed: Feed) -> None:
        """Until there is something to take. ConnectionFailed once this is closed."""
        if self._closed:
            raise ConnectionFailed("The connection was closed.")
        future = self._loop.create_future()
        self._watching.append((feed, future))
        self._kick()
        try:
            await future
        finally:
            self._watching = [one for one in self._watching if one[1] is not future]

    # --- the whole -------------------------------------------------------------------------------

    async def info(self) -> Info:
        """What the store says of itself."""
        told: Info = await self.run(calls.info())
        return told

    async def compact(self, revision: int) -> int:
        """Forget what happened up to this revision; how far it is forgotten."""
        return int(await self.run(calls.compact(revision)))

    async def run(self, plan: Plan) -> Any:
        """Carry out a plan of `engine.kv.calls`. Whoever is cancelled meanwhile does not know
        whether it is done."""
        if self._closed:
            raise ConnectionFailed("The connection was closed.")
        now = self._world.now()
        ticket = self._desk.ask(plan.how, plan.command, self._patience, now, once=plan.once)
        future = self._loop.create_future()
        self._waiting.append((ticket, future))
        self._kick()
        await future
        if ticket.error is not None:
            raise ticket.error
        return plan.meaning(ticket.answer, ticket.handed)

    # --- the loop --------------------------------------------------------------------------------

    def _kick(self) -> None:
        """A turn, when all who want something in this round have said so."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._kicked = False
        if self._closed:
            return
        while True:
            wake_at = self._server.turn()
            self._settle()
            if not self._desk.pending and not self._world.look():
                break
        descriptors = self._world.descriptors()
        for fd in descriptors - self._watched:
            self._loop.add_reader(fd, self._kick)
        for fd in self._watched - descriptors:
            self._loop.remove_reader(fd)
        self._watched = descriptors
        if self._timer is not None:
            self._timer.cancel()
        if wake_at is not None:
            delay = max(0, wake_at - self._world.now()) / SECOND
            self._timer = self._loop.call_later(delay, self._kick)

    def _settle(self) -> None:
        left = []
        for ticket, future in self._waiting:
            if not ticket.over:
                handed = ticket.handed > 0
                ticket.error = refused(self._world, self._desk.spoken_to, handed_over=handed)
                ticket.over = ticket.error is not None
            if not ticket.over:
                left.append((ticket, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = left
        desk = self._desk
        stirred, desk.stirred = desk.stirred, False
        for feed, future in self._watching:
            if not stirred and feed.ask.number not in desk.watched:
                continue
            try:
                if not future.done() and feed.tend(self._desk):
                    future.set_result(None)
            except EngineError as error:
                future.set_exception(error)


class AsyncLease:
    """As `Lease`: an asynchronous context manager that ends it."""

    def __init__(self, store: AsyncStore, number: int, ttl: float) -> None:
        self.store, self.id, self.ttl = store, number, ttl

    async def keep_alive(self) -> float:
        """From now on for `ttl` again. NotFoundError if it has ended."""
        return float(await self.store.run(calls.lease_alive(self.id)))

    async def revoke(self) -> None:
        """End it, and the keys with it."""
        await self.store.run(calls.lease_revoke(self.id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        try:
            await self.revoke()
        except NotFoundError:
            pass  # it has ended by itself
