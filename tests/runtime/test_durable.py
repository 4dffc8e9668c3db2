"""The world of a service with a log: what is durable when, and what the disk's errors come to."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import eventually

from engine.contract import Durable, Event, Finished, Job, Write
from engine.kernels.checksum import crc32c
from engine.runtime.durable import DurableWorld
from engine.runtime.world import SocketWorld
from engine.storage.directory import Folder, FolderFile
from engine.storage.entries import COMMAND, Append, Base, Entry, State
from engine.storage.log import Log, LogSettings


def opened(path: Path) -> tuple[Log, Folder]:
    folder = Folder(str(path))
    return Log.open(folder, LogSettings(16384), lambda: 7), folder


def entry(body: bytes) -> Entry:
    return Entry(1, COMMAND, crc32c(body), body)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DurableWorld]:
    log, folder = opened(tmp_path)
    made = DurableWorld(log, folder, lambda work: work + 1)
    try:
        yield made
    finally:
        made.close()


def drained(world: DurableWorld, kind: type, count: int = 1) -> list[Any]:
    found: list[Event] = []

    def enough() -> bool:
        found.extend(event for event in world.drain(10, 1000) if type(event) is kind)
        return len(found) >= count

    eventually(enough, what=kind.__name__)
    return found


def test_groups_of_writes_become_durable_in_order(world: DurableWorld, tmp_path: Path) -> None:
    assert world.write([Write(Base(1, 0, 0, b"")), Write(State(1, 1, 0))]) == 1
    for number in range(2, 40):
        assert world.write([Write(Append(1, number - 1, (entry(b"%d" % number),)))]) == number
    world.send(())
    tickets: list[int] = []

    def all_of_them() -> bool:
        tickets.extend(e.ticket for e in world.drain(10, 1000) if type(e) is Durable)
        return bool(tickets) and tickets[-1] == 39

    eventually(all_of_them, what="ticket 39")
    assert tickets == sorted(set(tickets))
    world.close()
    log, folder = opened(tmp_path)
    try:
        found = log.recovered[1]
        assert (found.term, len(found.terms)) == (1, 38)
    finally:
        log.close()
        folder.close()


def test_what_is_durable_comes_before_what_others_say(world: DurableWorld) -> None:
    world.write([Write(Base(1, 0, 0, b""))])
    world.send(())
    world.start(Job(-1, 4))
    eventually(lambda: world._worker._done, what="the job")
    (ticket,) = drained(world, Durable)
    assert ticket == Durable(1)
    assert world.drain(10, 1000) == []


def test_jobs_come_back(world: DurableWorld) -> None:
    world.start(Job(3, 4))
    assert drained(world, Finished) == [Finished(3, 5)]


def test_waiting_ends_with_news_of_the_disk(world: DurableWorld) -> None:
    world.write([Write(Base(1, 0, 0, b""))])
    world.wait(None)
    assert drained(world, Durable) == [Durable(1)]


def test_what_need_not_wait_for_the_disk_leaves_first(
    world: DurableWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk begins with what was written when the others have been told, not before."""
    done: list[str] = []
    monkeypatch.setattr(SocketWorld, "send", lambda self, sends: done.append("sent"))
    submit, write = world._syncer.submit, FolderFile.write
    monkeypatch.setattr(
        FolderFile, "write", lambda self, *what: (done.append("written"), write(self, *what))
    )
    syncer = SimpleNamespace(
        submit=lambda *what: (done.append("begun"), submit(*what)),
        durable=world._syncer.durable, close=world._syncer.close,
    )  # fmt: skip
    monkeypatch.setattr(world, "_syncer", syncer)
    assert world.write([Write(Base(1, 0, 0, b""))]) == 1
    assert done == []
    world.send(())
    assert done == ["sent", "written", "begun"]
    world.send(())
    assert done == ["sent", "written", "begun", "sent"]
    assert drained(world, Durable) == [Durable(1)]


def test_a_failed_sync_is_raised_and_stays(world: DurableWorld) -> None:
    """A descriptor that cannot be synced stands for a disk that fails."""
    read, write = os.pipe()
    try:
        world._syncer.submit(1, (read,), -1)
        with pytest.raises(OSError, match="argument") as caught:
            drained(world, Durable)
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OSError, match="argument"):
            world.drain(10, 1000)
    finally:
        os.close(read)
        os.close(write)


def test_the_end_syncs_what_was_written(tmp_path: Path) -> None:
    log, folder = opened(tmp_path)
    world = DurableWorld(log, folder, str)
    world.write([Write(Base(1, 0, 0, b"")), Write(State(1, 5, 2))])
    world.send(())
    world.close()
    assert world._syncer is not None
    log, folder = opened(tmp_path)
    assert (log.recovered[1].term, log.recovered[1].vote) == (5, 2)
    log.close()
    folder.close()
