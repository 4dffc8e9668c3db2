"""A store whose replicas do not talk to us: both clients say why, in the same words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from support import patience
from waiting import eventually

from engine.contract import Received
from engine.errors import ConnectionFailed, EngineError, OutcomeUnknown, RefusedError
from engine.kv import calls
from engine.kv.aio import AsyncStore
from engine.kv.client import Store
from engine.kv.requests import WRITE, Ask, AskTime, Time
from engine.wire.listener import Listener


@contextmanager
def listening(address: str, *roles: str) -> Iterator[list[Any]]:
    """Somebody who lets these in, and says what time it is: what it hears otherwise."""
    heard: list[Any] = []
    over = Event()

    def serve() -> None:
        with Listener(address, roles=roles) as listener:
            while not over.is_set():
                for event in listener.drain(100, 1 << 20):
                    if type(event) is Received and type(event.message) is AskTime:
                        listener.send(event.link, Time(1, event.message.number, 5))
                    elif type(event) is Received:
                        heard.append(event.message)
                over.wait(0.005)

    thread = Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        thread.join()


def told(ask: Callable[[], Any]) -> EngineError:
    with pytest.raises(EngineError) as found:
        ask()
    return found.value


def by_store(address: str) -> EngineError:
    with Store([address], timeout=patience(20)) as store:
        return told(lambda: store.put("k", "v"))


def by_async_store(address: str) -> EngineError:
    async def story() -> None:
        async with AsyncStore([address], timeout=patience(20)) as store:
            await store.put("k", "v")

    return told(lambda: asyncio.run(story()))


def test_both_say_why(tmp_path: Path) -> None:
    """At once, and not when their patience is over."""
    address = f"ipc://{tmp_path}/a"
    with listening(address, "admin"):
        sync, other = by_store(address), by_async_store(address)
    assert type(sync) is type(other) is RefusedError
    assert str(sync) == str(other)
    assert "refused: No 'client' numbered -1 belongs here" in str(sync)


def test_what_failed_is_not_said_later(tmp_path: Path) -> None:
    """Whoever was told that nothing was done does it again, or does without it."""
    address = f"ipc://{tmp_path}/a"
    with Store([address], timeout=patience(20)) as store:
        with listening(address, "admin"):
            told(lambda: store.put("k", "v"))
        with listening(address, "client") as heard:

            def asked() -> bool:
                with pytest.raises((ConnectionFailed, RefusedError)):
                    store.run(calls.get("k"), timeout=0.3)
                return bool(heard)

            eventually(asked, 20, "the read to be heard")
        assert [one for one in heard if type(one) is Ask and one.how == WRITE] == []


def test_many_of_one_async_store(tmp_path: Path) -> None:
    """All that wait are told."""
    address = f"ipc://{tmp_path}/a"

    async def story() -> list[Any]:
        async with AsyncStore([address], timeout=patience(20)) as store:
            puts = [store.put(f"k{n}", "v") for n in range(50)]
            return await asyncio.gather(*puts, return_exceptions=True)

    with listening(address, "admin"):
        found = asyncio.run(story())
    assert {type(one) for one in found} == {RefusedError}
    assert not any(isinstance(one, OutcomeUnknown) for one in found)
