"""The store on asyncio, with real replicas: all it offers, a thousand at a time, and deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from kv.live import Cluster, cluster
from support import patience

from engine.errors import ConnectionFailed, NotFoundError, RefusedError, UsageError
from engine.kv import commands as c
from engine.kv.aio import AsyncStore
from engine.kv.calls import CompareFailed
from engine.kv.feed import Event
from engine.kv.history import Compacted

pytestmark = pytest.mark.processes
NOBODY = "ipc:///nowhere/at/all"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("a")) as made:
        yield made


def runs(story: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own, which does not go on for ever."""

    async def bounded() -> None:
        await asyncio.wait_for(story, patience(60))

    asyncio.run(bounded())


def test_keys(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir) as store:
            first = await store.put("k", "v")
            assert await store.append(b"k", b"w") == first + 1
            found = await store.get("k")
            assert found is not None
            assert found == (b"k", b"vw", first, first + 1, 2, 0)
            local = await store.get("k", local=True)
            assert local is None or local.created == first
            assert await store.get("none") is None
            assert not await store.cas("k", "v", "x")
            assert await store.cas("k", "vw", "x")
            assert not await store.cas("k", None, "y")
            assert await store.cas_revision("k", first + 2, "y")
            assert await store.put_version("versioned", "1", 0) == 1
            with pytest.raises(CompareFailed):
                await store.put_version("versioned", "1", 0)
            with pytest.raises(NotFoundError):
                await store.put_version("other", "1", 5)
            done = await store.txn([c.compare(b"k", c.VALUE, c.EQUAL, b"y")], [c.get(b"k")])
            assert (done.succeeded, done.answers[0][2]) == (True, b"y")
            assert await store.delete("k")
            assert not await store.delete("k")
            assert await store.delete_range("v", "w") == 1

    runs(story())


def test_a_thousand_at_a_time(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir, timeout=patience(30)) as store:
            before = (await store.info()).revision
            puts = [store.put(f"many/{number:04}", b"%d" % number) for number in range(1000)]
            revisions = await asyncio.gather(*puts)
            assert sorted(revisions) == list(range(before + 1, before + 1001))
            gets = await asyncio.gather(*[store.get(f"many/{n:04}") for n in range(1000)])
            assert [one and one.value for one in gets] == [b"%d" % n for n in range(1000)]
            assert await store.count("many/", "many0") == 1000
            found = [one.key async for one in store.prefix("many/")]
            assert found == [b"many/%04d" % number for number in range(1000)]
            some = [one.key async for one in store.range("many/0500", "many/0600", limit=7)]
            assert some == [b"many/%04d" % number for number in range(500, 507)]
            sessions = (await store.info()).sessions
            await asyncio.gather(*[store.append("many/0000", "+") for _ in range(1000)])
            assert (await store.info()).sessions == sessions, "they are used again"
            grown = await store.get("many/0000")
            assert grown is not None
            assert grown.value == b"0" + b"+" * 1000
            assert await store.delete_prefix("many/") == 1000

    runs(story())


def test_leases(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir) as store:
            async with await store.lease(60) as lease:
                await store.put("leased", "v", lease=lease.id)
                assert 59 < await lease.keep_alive() <= 60
            assert await store.get("leased") is None
            with pytest.raises(NotFoundError):
                await lease.keep_alive()
            short = await store.lease(0.2)
            after = await store.put("leased", "v", lease=short.id)
            async for event in store.watch("leased", after=after):
                assert event.deleted
                break

    runs(story())


def test_a_watch_goes_on_when_the_leader_is_killed(three: Cluster) -> None:
    """Every event once, in order, and none is missing; of two watches, and of what is theirs."""

    async def story() -> None:
        async with AsyncStore(three.dir, timeout=patience(30)) as store:
            before = await store.put("w/begin", "")
            feeds = [
                asyncio.create_task(taken(store.watch("w/", prefix=True, after=before), 300)),
                asyncio.create_task(taken(store.watch("w/7", after=before), 30)),
            ]
            died = 0
            number = await asyncio.to_thread(three.leader)
            revisions = []
            for count in range(300):
                if count == 100:
                    died = await asyncio.to_thread(three.kill, number)
                revisions.append(await store.put(f"w/{count % 10}", b"%d" % count))
            every, some = await asyncio.gather(*feeds)
            assert [event.revision for event in every] == revisions
            assert [event.value for event in every] == [b"%d" % count for count in range(300)]
            assert [event.revision for event in some] == revisions[7::10]
            await asyncio.to_thread(three.back, number, died)

    runs(story())


async def taken(events: Any, many: int) -> list[Event]:
    found: list[Event] = []
    async for event in events:
        found.append(event)
        if len(found) == many:
            break
    return found


def test_appends_while_the_leader_is_killed_are_there_once(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir, timeout=patience(30)) as store:
            number = await asyncio.to_thread(three.leader)
            pieces = [b"%03d;" % piece for piece in range(200)]
            asked = [asyncio.create_task(store.append("pieces", one)) for one in pieces[:100]]
            died = await asyncio.to_thread(three.kill, number)
            asked += [asyncio.create_task(store.append("pieces", one)) for one in pieces[100:]]
            await asyncio.gather(*asked)
            found = await store.get("pieces")
            assert found is not None
            assert sorted(found.value.split(b";")[:-1]) == [one[:-1] for one in pieces]
            await asyncio.to_thread(three.back, number, died)

    runs(story())


def test_what_is_compacted_is_said(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir) as store:
            await store.put("c", "1")
            revision = await store.put("c", "2")
            assert await store.compact(revision) == revision
            with pytest.raises(Compacted, match=f"up to revision {revision} "):
                await taken(store.watch("c", after=revision - 1), 1)

    runs(story())


@pytest.mark.parametrize("value", [3, None, bytearray(b"v"), "\ud800"])
def test_what_makes_no_sense_is_not_sent(three: Cluster, value: Any) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir) as store:
            for asked in (
                lambda: store.put("k", value),
                lambda: store.cas_revision("k", -1, "v"),
                lambda: store.cas_revision("k", 1 << 63, "v"),
                lambda: store.put("k", "v", lease=-2),
                lambda: store.page("k", None, limit=-1),
                lambda: store.compact(-1),
                lambda: store.lease(0),
                lambda: store.txn([c.compare(b"k", 9, 0, 0)], []),
            ):
                with pytest.raises(UsageError):
                    await asked()
            with pytest.raises(RefusedError, match="may not be so long"):
                await store.put("k", bytes(2 << 20))
            with pytest.raises(RefusedError, match="may not be so long"):
                await store.put("k", bytes(17 << 20))

    runs(story())


def test_nobody_is_there() -> None:
    """The loop goes on meanwhile, and so does whoever watches."""

    async def story() -> None:
        async with AsyncStore(NOBODY, timeout=0.3) as store:
            watching = asyncio.create_task(taken(store.watch("k", after=0), 1))
            with pytest.raises(ConnectionFailed, match="0 of 1 replicas reachable: nothing was"):
                await store.put("k", "v")
            with pytest.raises(ConnectionFailed):
                await store.get("k")
            assert not watching.done()
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching

    runs(story())


def test_closing_tells_whoever_waits(three: Cluster) -> None:
    async def story() -> None:
        store = AsyncStore(three.dir)
        after = (await store.info()).revision
        watching = asyncio.create_task(taken(store.watch("never", after=after), 1))
        asking = asyncio.create_task(store.put("k", "v"))
        await asyncio.sleep(0)
        store.close()
        store.close()
        for task in (watching, asking):
            with pytest.raises(ConnectionFailed, match="was closed"):
                await task
        with pytest.raises(ConnectionFailed, match="was closed"):
            await store.get("k")
        with pytest.raises(ConnectionFailed, match="was closed"):
            await taken(store.watch("k", after=after), 1)

    runs(story())


def test_whoever_is_cancelled_disturbs_nobody(three: Cluster) -> None:
    async def story() -> None:
        async with AsyncStore(three.dir) as store:
            asked = [asyncio.create_task(store.append("cut", "x")) for _ in range(20)]
            await asyncio.sleep(0)
            for task in asked[::2]:
                task.cancel()
            ended = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(one, int) for one in ended) == 10
            found = await store.get("cut")
            assert found is not None
            assert 10 <= len(found.value) <= 20

    runs(story())


def test_a_name_that_is_none() -> None:
    async def story() -> None:
        with pytest.raises(UsageError):
            AsyncStore("")
        with pytest.raises(NotFoundError, match="has no cluster"):
            AsyncStore("/no/such/folder")

    runs(story())
