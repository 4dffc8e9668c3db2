"""The seven MapReduce tests of MIT's labs, by name, on real coordinator and worker processes.

A coordinator listens; workers are started by hand and join it, as in the labs. Files are read whole
(one map a file) where the labs' apps count on it.
"""

from __future__ import annotations

import os

import pytest
from harness import APPS, merged, programs, until, write_books

pytestmark = [pytest.mark.mr, pytest.mark.processes]


@pytest.fixture
def lab(tmp_path):
    class Lab:
        books = write_books(tmp_path)
        out = tmp_path / "out"
        address = f"ipc://{tmp_path}/join"

    with programs(tmp_path) as start:
        Lab.start = staticmethod(start)

        def coordinator(app, *flags):
            return start(
                "mr", "coordinator", app, *Lab.books, "--out", Lab.out,
                "--listen", Lab.address, "--workers", 0, *flags,
            )  # fmt: skip

        def worker():
            return start("mr", "worker", "--join", Lab.address)

        def sequential(app, *flags):
            out = tmp_path / "sequential"
            start("mr", "sequential", app, *Lab.books, "--out", out, *flags).succeed()
            return merged(out)

        Lab.coordinator = staticmethod(coordinator)
        Lab.worker = staticmethod(worker)
        Lab.sequential = staticmethod(sequential)
        yield Lab


def leave(workers):
    """Workers end by themselves; one that came when all was done finds nobody (exit code 4)."""
    for worker in workers:
        assert worker.wait(40) in (0, 4), worker.stderr()


def test_wc(lab):
    """Three workers; the sorted union of the outputs equals the sequential one."""
    expected = lab.sequential("wordcount")
    coordinator = lab.coordinator("wordcount")
    workers = [lab.worker() for _ in range(3)]
    coordinator.succeed()
    leave(workers)
    assert merged(lab.out) == expected
    assert len(expected) > 1000


def test_indexer(lab):
    """Two workers; the same comparison for the inverted index."""
    expected = lab.sequential("index")
    coordinator = lab.coordinator("index")
    workers = [lab.worker() for _ in range(2)]
    coordinator.succeed()
    leave(workers)
    assert merged(lab.out) == expected
    assert any(b"pg-grimm.txt,pg-huckleberry_finn.txt" in line for line in expected)


def test_map_parallelism(lab, tmp_path):
    """Two workers take part, and at some time both are inside map."""
    folder = tmp_path / "marks"
    folder.mkdir()
    coordinator = lab.coordinator(f"{APPS}/timing.py:MapTiming", "--set", f"folder={folder}")
    workers = [lab.worker() for _ in range(2)]
    coordinator.succeed()
    leave(workers)
    lines = merged(lab.out)
    assert sum(line.startswith(b"times-") for line in lines) == 2, lines
    assert any(line.startswith(b"parallel-") and b"2" in line.split()[1:] for line in lines), lines


def test_reduce_parallelism(lab, tmp_path):
    """At least two of the ten reduces overlap with another one."""
    folder = tmp_path / "marks"
    folder.mkdir()
    coordinator = lab.coordinator(f"{APPS}/timing.py:ReduceTiming", "--set", f"folder={folder}")
    workers = [lab.worker() for _ in range(2)]
    coordinator.succeed()
    leave(workers)
    values = [line.split()[1] for line in merged(lab.out)]
    assert len(values) == 10
    assert values.count(b"2") >= 2, values


def test_job_count(lab, tmp_path):
    """Four workers, two of them late; every map runs exactly once."""
    folder = tmp_path / "marks"
    folder.mkdir()
    coordinator = lab.coordinator(f"{APPS}/jobcount.py", "--set", f"folder={folder}")
    workers = [lab.worker() for _ in range(2)]
    until(lambda: any(folder.iterdir()), 30, "the first map")
    workers += [lab.worker() for _ in range(2)]
    coordinator.succeed()
    leave(workers)
    assert merged(lab.out) == [b"a 8"]


def test_early_exit(lab):
    """When the first of the four processes leaves, the output is final."""
    coordinator = lab.coordinator(f"{APPS}/early_exit.py")
    everybody = [coordinator, *(lab.worker() for _ in range(3))]
    until(lambda: any(not program.running for program in everybody), 60, "anybody's exit")
    first = merged(lab.out)
    coordinator.succeed()
    leave(everybody[1:])
    assert first == merged(lab.out)
    assert len(first) == 8


def test_crash(lab):
    """Workers that exit in a third of all calls, started again and again."""
    app = f"{APPS}/crash.py"
    expected = lab.sequential(app, "--set", "faults=no")
    coordinator = lab.coordinator(app)
    workers = [lab.worker() for _ in range(4)]
    deaths = 0

    def finished():
        nonlocal deaths
        for index, worker in enumerate(workers):
            if not worker.running and coordinator.running:
                deaths += worker.process.returncode != 0
                workers[index] = lab.worker()
        return not coordinator.running

    until(finished, 120, "the coordinator")
    coordinator.succeed()
    assert merged(lab.out) == expected
    assert deaths > 0, "nothing crashed: the test proved nothing"
    assert os.listdir(lab.out).count(".job") == 0
