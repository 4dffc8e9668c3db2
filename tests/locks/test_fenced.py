"""Locks and elections on the replicated store, with real replicas and holders that are killed."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from kv.live import Cluster, cluster
from support import patience
from waiting import eventually

from engine.errors import RefusedError
from engine.kv import calls
from engine.kv.client import Store
from engine.locks.fenced import Election, FencedLock, LockLost, NotAcquired

pytestmark = pytest.mark.processes
CLIENTS, ROUNDS = 10, 3

WORKER = """
import os, sys
from engine.kv.client import Store
from engine.locks.fenced import FencedLock

folder, ttl, rounds, victim = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with Store(folder, timeout=60) as store:
    for _ in range(rounds):
        with FencedLock(store, "shared", ttl=ttl) as token:
            store.append("log", f"in {token};")
            if victim == "victim":
                print(token, flush=True)
                sys.stdin.read()
            found = store.get("counter")
            store.put("counter", str(int(found.value if found else 0) + 1))
            store.append("log", f"out {token};")
"""
"""Takes the lock again and again; a victim prints its token and does not let go of it."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("f")) as made:
        yield made


@pytest.fixture
def store(three: Cluster) -> Iterator[Store]:
    with Store(three.dir, timeout=patience(30)) as made:
        yield made


@pytest.fixture
def other(three: Cluster) -> Iterator[Store]:
    with Store(three.dir, timeout=patience(30)) as made:
        yield made


def test_a_token_for_whoever_holds_it(store: Store, other: Store) -> None:
    lock = FencedLock(store, "a", value=b"me")
    assert (lock.token, lock.holder()) == (0, None)
    with lock as token:
        assert lock.token == token > 0
        found = FencedLock(other, "a").holder()
        assert found is not None
        assert (found.created, found.value) == (token, b"me")
        with pytest.raises(RefusedError, match="held here already"):
            lock.acquire()
        with pytest.raises(NotAcquired, match="held by others"):
            FencedLock(other, "a").acquire(0.1)
        with FencedLock(other, "b") as free:
            assert free > token
    assert (lock.token, lock.holder()) == (0, None)
    with FencedLock(other, "a") as after:
        assert after > token


def test_one_name_is_not_the_beginning_of_another(store: Store, other: Store) -> None:
    with FencedLock(store, "a"), FencedLock(other, "ab"), FencedLock(other, ""):
        pass


def test_whoever_gave_up_waiting_leaves_nothing(store: Store, other: Store) -> None:
    before = store.info().leases
    lock = FencedLock(other, "left")
    with FencedLock(store, "left"):
        for _ in range(3):
            with pytest.raises(NotAcquired):
                lock.acquire(0.01)
    assert store.info().leases == before
    assert lock.acquire(0) > 0
    lock.release()
    lock.release()


def test_it_is_lost_when_its_lease_is_over(store: Store, other: Store) -> None:
    lock = FencedLock(store, "short", ttl=0.2)
    first = lock.acquire()
    with FencedLock(other, "short") as second:
        assert second > first
    with pytest.raises(LockLost, match="has ended"):
        lock.keep_alive()
    with pytest.raises(LockLost, match="had ended before it was released"):
        lock.release()
    with pytest.raises(RefusedError, match="not held here"):
        lock.keep_alive()


def test_an_error_inside_is_not_hidden_by_the_loss(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_after_losing(store)


def fail_after_losing(store: Store) -> None:
    with FencedLock(store, "short") as token:
        store.run(calls.lease_revoke(lease_of(store, "short", token)))
        _ = 1 // 0


def lease_of(store: Store, name: str, token: int) -> int:
    (lease,) = [one.lease for one in store.prefix(f"{name}/") if one.created == token]
    return lease


def test_it_is_held_for_as_long_as_it_is_kept_alive(store: Store, other: Store) -> None:
    lock = FencedLock(store, "kept", ttl=1.0)
    lock.acquire()
    waiting = FencedLock(other, "kept", ttl=1.0)
    for _ in range(4):
        with pytest.raises(NotAcquired):
            waiting.acquire(0.4)
        lock.keep_alive()
    lock.release()


def test_a_waiter_outlives_its_own_lease(three: Cluster, store: Store) -> None:
    """It keeps it alive while it waits."""
    taken: list[int] = []

    def wait() -> None:
        with Store(three.dir) as own:
            taken.append(FencedLock(own, "long", ttl=0.3).acquire())

    lock = FencedLock(store, "long", ttl=5.0)
    first = lock.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(1.0)
    assert thread.is_alive()
    lock.release()
    thread.join(patience(10))
    assert taken
    assert taken[0] > first


def test_those_who_wait_come_in_order(three: Cluster, store: Store) -> None:
    order: list[int] = []

    def wait(number: int) -> None:
        with Store(three.dir) as own, FencedLock(own, "queue"):
            order.append(number)

    threads = []
    with FencedLock(store, "queue"):
        for number in range(4):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            eventually(lambda n=number: store.count("queue/", "queue0") == n + 2, 10, "it to wait")
    for thread in threads:
        thread.join(patience(20))
    assert order == [0, 1, 2, 3]


def test_one_at_a_time_when_a_holder_is_killed(three: Cluster, store: Store) -> None:
    """Of ten processes one is killed while it holds the lock: the others go on after its lease, and
    not before; no two were ever in it, and tokens only grew."""

    def worker(ttl: float, rounds: int, who: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", WORKER, three.dir, str(ttl), str(rounds), who]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    with ExitStack() as stack:
        victim = stack.enter_context(worker(1.0, 1, "victim"))
        stack.callback(victim.kill)
        assert victim.stdout is not None
        held = int(victim.stdout.readline())
        others = []
        for _ in range(CLIENTS - 1):
            others.append(stack.enter_context(worker(10.0, ROUNDS, "")))
            stack.callback(others[-1].kill)
        victim.kill()
        for process in others:
            assert process.wait(patience(30)) == 0
    counter, log = store.get("counter"), store.get("log")
    assert counter is not None
    assert log is not None
    assert int(counter.value) == (CLIENTS - 1) * ROUNDS
    said = re.findall(r"(in|out) (\d+);", log.value.decode())
    assert said[0] == ("in", str(held))
    tokens = [int(token) for word, token in said if word == "in"]
    assert len(tokens) == (CLIENTS - 1) * ROUNDS + 1
    assert tokens == sorted(set(tokens))
    wanted = [("in", str(held))]
    for token in tokens[1:]:
        wanted += [("in", str(token)), ("out", str(token))]
    assert said == wanted


def test_a_lock_outlives_the_leader(three: Cluster, store: Store, other: Store) -> None:
    lock = FencedLock(store, "firm", ttl=30.0)
    lock.acquire()
    number = three.leader()
    died = three.kill(number)
    lock.keep_alive()
    with pytest.raises(NotAcquired):
        FencedLock(other, "firm").acquire(0.1)
    lock.release()
    three.back(number, died)


def test_elections(store: Store, other: Store) -> None:
    mine, theirs = Election(store, "head", value=b"one"), Election(other, "head", value=b"two")
    assert mine.leader() is None
    first = mine.campaign()
    assert theirs.leader() == b"one"
    with pytest.raises(NotAcquired):
        theirs.campaign(0.05)
    mine.resign()
    assert theirs.campaign() > first
    assert mine.leader() == b"two"
    theirs.resign()
    assert theirs.leader() is None
