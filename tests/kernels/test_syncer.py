"""The thread that makes writes durable (`ext/syncer.pyx`)."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import dose, patience
from waiting import eventually

from engine.kernels.syncer import Syncer


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    fds = [os.open(tmp_path / f"{n}", os.O_RDWR | os.O_CREAT) for n in range(70)]
    fds.append(os.open(tmp_path, os.O_RDONLY))
    yield fds
    for fd in fds:
        os.close(fd)


def readable(syncer: Syncer, seconds: float) -> bool:
    poll = select.poll()
    poll.register(syncer.pollables()[0], select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_tickets_become_durable_in_order(files: list[int]) -> None:
    """Never one that was not submitted, and in the end the last."""
    syncer, rng = Syncer(), random.Random(1)
    assert syncer.durable() == 0
    seen = submitted = 0
    while seen < dose(3_000, 100_000):
        if submitted < seen + 50:
            submitted += rng.randint(1, 3)
            os.pwrite(files[0], b"x" * 100, 0)
            syncer.submit(submitted, tuple(files[: rng.randint(0, 3)]), rng.choice((-1, files[-1])))
        else:
            assert readable(syncer, patience(10)), "it is under way, and nothing comes of it"
        durable = syncer.durable()
        assert seen <= durable <= submitted
        seen = durable
    last = submitted
    eventually(lambda: syncer.durable() == last)
    assert not readable(syncer, 0)
    syncer.close()


def test_a_failed_sync_is_final(files: list[int]) -> None:
    """What cannot be synced stands for a disk that fails."""
    inner, outer = os.pipe()
    syncer = Syncer()
    syncer.submit(1, (files[0],))
    eventually(lambda: syncer.durable() == 1)
    syncer.submit(2, (files[0], outer, files[1]))
    assert readable(syncer, patience(10))
    syncer.submit(3, (files[0],))
    for _ in range(2):
        with pytest.raises(OSError, match="Invalid argument"):
            syncer.durable()
    syncer.close()
    os.close(inner)
    os.close(outer)


def test_a_folder_that_cannot_be_synced(files: list[int]) -> None:
    syncer = Syncer()
    gone = os.dup(files[-1])
    os.close(gone)
    syncer.submit(1, (files[0],), gone)
    assert readable(syncer, patience(10))
    with pytest.raises(OSError, match="Bad file descriptor"):
        syncer.durable()
    syncer.close()


def test_what_makes_no_sense_is_refused(files: list[int]) -> None:
    syncer = Syncer()
    syncer.submit(5, (files[0],))
    with pytest.raises(ValueError, match="not a later one"):
        syncer.submit(5, (files[0],))
    with pytest.raises(ValueError, match="no descriptor"):
        syncer.submit(6, (-1,))
    with pytest.raises(ValueError, match="too many"):
        syncer.submit(6, tuple(files))
    eventually(lambda: syncer.durable() == 5)
    syncer.submit(6, tuple(files[:60]), files[-1])
    eventually(lambda: syncer.durable() == 6)
    syncer.close()
    for call in (syncer.durable, syncer.pollables, lambda: syncer.submit(7, ())):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_close_finishes_what_was_submitted_and_leaks_nothing(files: list[int]) -> None:
    before = len(os.listdir("/dev/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(20):
        syncer = Syncer()
        for ticket in range(1, 50):
            syncer.submit(ticket, (files[0],))
        syncer.close()
        syncer.close()
        Syncer().close()
    eventually(lambda: (len(os.listdir("/dev/fd")), len(os.listdir("/proc/self/task"))) == before)


def test_news_that_nobody_reads_do_not_block_it(files: list[int]) -> None:
    """Not even more of them than a pipe holds."""
    syncer = Syncer()
    rounds = dose(2_000, 70_000)
    for ticket in range(1, rounds):
        syncer.submit(ticket, (files[0],))
    eventually(lambda: syncer.durable() == rounds - 1)
    syncer.close()
