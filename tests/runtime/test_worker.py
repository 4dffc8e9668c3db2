"""The thread for long work: order, errors that are a job's own, and errors that end the process."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waiting import eventually

from engine.contract import Finished, Job
from engine.errors import DamagedData
from engine.runtime.worker import Worker


@contextmanager
def working(work: Callable[[Any], Any]) -> Iterator[Worker]:
    worker = Worker(work)
    try:
        yield worker
    finally:
        worker.close()


def taken(worker: Worker, count: int) -> list[Finished]:
    """As soon as there are so many."""
    found: list[Finished] = []

    def enough() -> bool:
        found.extend(worker.results())
        return len(found) >= count

    eventually(enough, what=f"{count} results")
    return found


def test_jobs_are_done_one_after_another_in_order() -> None:
    threads: set[str] = set()

    def work(what: int) -> int:
        threads.add(threading.current_thread().name)
        return what * 2

    with working(work) as worker:
        for number in range(50):
            worker.submit(Job(-number, number))
        assert taken(worker, 50) == [Finished(-number, number * 2) for number in range(50)]
    assert threads == {"worker"}


def test_no_thread_before_the_first_job() -> None:
    before = threading.active_count()
    with working(str) as worker:
        assert threading.active_count() == before
        assert worker.results() == []


def test_its_descriptor_is_readable_when_there_are_results() -> None:
    with working(str) as worker:
        (fd,) = worker.pollables()
        os.set_blocking(fd, False)
        with pytest.raises(BlockingIOError):
            os.read(fd, 1)
        worker.submit(Job(1, 7))
        assert taken(worker, 1) == [Finished(1, "7")]

        def silent() -> bool:
            """No more when they were taken; the bell may ring for one just after it was."""
            assert worker.results() == []
            try:
                os.read(fd, 1)
            except BlockingIOError:
                return True
            return False

        assert eventually(silent)


@pytest.mark.parametrize(
    "error", [DamagedData("f", 3, "it is cut"), OSError(errno.ENOSPC, "full")], ids=repr
)
def test_what_is_damaged_or_has_no_space_is_that_job_s_own(error: Exception) -> None:
    def work(what: bool) -> str:
        if what:
            raise error
        return "done"

    with working(work) as worker:
        worker.submit(Job(1, True))
        worker.submit(Job(2, False))
        assert taken(worker, 2) == [Finished(1, error=str(error)), Finished(2, "done")]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), AssertionError("a bug")], ids=repr)
def test_any_other_error_is_final(error: Exception) -> None:
    done: list[int] = []

    def work(what: int) -> None:
        done.append(what)
        raise error

    with working(work) as worker:
        worker.submit(Job(1, 1))
        worker.submit(Job(2, 2))
        with pytest.raises(type(error)) as caught:
            taken(worker, 1)
        assert caught.value is error
        with pytest.raises(type(error)):  # however often it is asked
            worker.results()
    assert done == [1]


def test_the_end_waits_for_the_job_under_way_and_does_no_other() -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[int] = []

    def work(what: int) -> None:
        begun.set()
        go_on.wait()
        done.append(what)

    worker = Worker(work)
    for number in range(3):
        worker.submit(Job(number, number))
    assert begun.wait(10)
    closing = threading.Thread(target=worker.close)
    closing.start()
    eventually(lambda: worker._jobs.qsize() == 1, what="the rest to be given up")
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    assert done == [0]
    worker.close()  # a second call does nothing
