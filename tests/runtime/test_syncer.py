"""The thread that makes writes durable."""

from __future__ import annotations

import os
import select
import threading

import pytest
from support import patience
from waiting import eventually

from engine.runtime.syncer import Syncer


def readable(syncer: Syncer, seconds: float) -> bool:
    poll = select.poll()
    poll.register(syncer.fileno(), select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_a_ticket_is_durable_only_after_a_sync_that_began_later() -> None:
    began, go = threading.Semaphore(0), threading.Semaphore(0)
    calls = 0

    def sync() -> None:
        nonlocal calls
        calls += 1
        began.release()
        go.acquire()

    syncer = Syncer(sync)
    assert syncer.durable() == 0
    syncer.submit(1)
    assert began.acquire(timeout=patience(10))
    for ticket in (2, 3, 4):
        syncer.submit(ticket)
    assert syncer.durable() == 0
    assert not readable(syncer, 0)
    go.release()
    assert began.acquire(timeout=patience(10))
    assert readable(syncer, patience(10))
    assert syncer.durable() == 1, "the later tickets were written after that sync began"
    assert not readable(syncer, 0)
    go.release()
    assert readable(syncer, patience(10))
    assert syncer.durable() == 4
    assert calls == 2, "three tickets are one sync"
    syncer.close()
    syncer.close()


def test_a_failed_sync_is_final() -> None:
    fail = True

    def sync() -> None:
        if fail:
            raise OSError(5, "Input/output error")

    syncer = Syncer(sync)
    syncer.submit(1)
    assert readable(syncer, patience(10))
    fail = False
    syncer.submit(2)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            syncer.durable()
    syncer.close()


def test_close_finishes_what_was_submitted_and_leaks_nothing() -> None:
    before = len(os.listdir("/dev/fd")), threading.active_count()
    for _ in range(20):
        synced: list[int] = []
        syncer = Syncer(lambda synced=synced: synced.append(1))  # type: ignore[misc]
        for ticket in range(1, 50):
            syncer.submit(ticket)
        syncer.close()
        assert 1 <= len(synced) <= 49
        unused = Syncer(lambda: None)
        unused.close()
    eventually(lambda: (len(os.listdir("/dev/fd")), threading.active_count()) == before)


def test_news_that_nobody_reads_do_not_block_it() -> None:
    syncer = Syncer(lambda: None)
    for ticket in range(1, 70_000 if os.environ.get("ENGINE_DOSE") == "full" else 5_000):
        syncer.submit(ticket)
    last = ticket
    eventually(lambda: syncer.durable() == last)
    syncer.close()
