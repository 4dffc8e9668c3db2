"""The twelve tests of MIT's lock service lab, by name, on real processes; and harder ones.

They are held to our servers, or to yours: `pytest -m lockservice --impl module:factory`, where
`factory(folder, seed)` is a context manager that gives a `LockServers`. A folder of the test's own
takes whatever the servers write; equal seeds should give equal faults. The tests beyond the lab's
need an `AttackedLockServers` and are skipped without one.

The lab's tests wait for time to pass; these wait for what is to happen meanwhile.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import pytest
from support import dose, patience
from waiting import eventually

Needs = Callable[..., None]

pytestmark = [pytest.mark.lockservice, pytest.mark.processes]

SILENCE = dose(0.8, 2.0)
"""So long a client hears nothing after the primary took its request and died; the lab has 2 s."""
LIMBO = dose(1.5, 2.0)
"""The same where somebody else is to act in the meantime."""
BEFORE, AFTER = dose(150, 5000), dose(100, 2000)
"""Operations of each client before a server dies and after, where the lab has 2 s each."""


class Clerk(Protocol):
    """A client. One thread uses it at a time; it repeats a request until that is answered."""

    def lock(self, name: str) -> bool:
        """True: the lock was free, and is held now. False: it was held. Never waits for it."""

    def unlock(self, name: str) -> bool:
        """True: the lock was held, by whomever, and is free now. False: it was free."""


class LockServers(Protocol):
    """A primary and a backup, each a process, both running and empty."""

    def clerk(self) -> Clerk:
        """A new client, which reaches both servers and has found the primary."""

    def kill_primary(self) -> None:
        """SIGKILL; it is dead when this returns, and never comes back."""

    def kill_backup(self) -> None:
        """The same for the backup."""

    def dying(self, clerk: Clerk, silence: float) -> threading.Event:
        """Arm a trap; returns at once, with an event that is set when the trap has sprung.

        The next request of this clerk reaches the primary and is executed there. Its reply is
        swallowed; then the primary is killed. That clerk sees neither reply nor end of its
        connection until `silence` seconds after the death. All others see the death at once.
        """


class AttackedLockServers(LockServers, Protocol):
    """What the tests beyond the lab's ask for; each of them skips if its part is missing."""

    silence_taken_for_death: float
    """Seconds after which a clerk leaves a primary that is there and says nothing."""

    def bad_weather(self) -> None:
        """From now on, on all links: requests are 0 to 26 ms late, a tenth of them is lost, and a
        tenth of the replies."""

    def lost_in_bad_weather(self) -> int:
        """How many messages were."""

    def dies_by_itself(self, point: str) -> None:
        """`POINT:N`, before the first clerk: the primary kills itself when it passes this point of
        its code for the N-th time. The points are those of `POINTS`."""

    def primary_alive(self) -> bool:
        """Whether its process is there."""

    def stop_primary_amid(self, ask: Callable[[], object]) -> None:
        """Call `ask`, which has a clerk send a request, and SIGSTOP the primary when it has passed
        that on to the backup and has not yet heard that the backup has it."""

    def wake_primary(self) -> None:
        """SIGCONT."""


# --- the lab's twelve ----------------------------------------------------------------------------


def test_basic(lab: LockServers) -> None:
    """Lock and unlock, one lock and two, twice in a row."""
    clerk = lab.clerk()
    assert clerk.lock("a") is True
    assert clerk.unlock("a") is True
    assert clerk.lock("a") is True
    assert clerk.lock("b") is True
    assert clerk.unlock("a") is True
    assert clerk.unlock("b") is True
    assert clerk.lock("a") is True
    assert clerk.lock("a") is False
    assert clerk.unlock("a") is True
    assert clerk.unlock("a") is False


def test_primary_fail_1(lab: LockServers) -> None:
    """The backup knows all that was done."""
    clerk = lab.clerk()
    some_of_each(clerk)
    lab.kill_primary()
    what_is_left(clerk)


def test_primary_fail_2(lab: LockServers) -> None:
    """A lock whose reply was lost is answered as it was, by the backup, and stays held."""
    first, second = lab.clerk(), lab.clerk()
    assert first.lock("a") is True
    assert first.lock("b") is True
    assert in_its_death(lab, second, lambda: second.lock("c")) is True
    assert first.lock("c") is False
    assert second.unlock("c") is True
    assert first.lock("c") is True


def test_primary_fail_3(lab: LockServers) -> None:
    """Its holder asks for a lock again; the reply is lost; it is still held."""
    first = lab.clerk()
    assert first.lock("a") is True
    assert first.lock("b") is True
    assert in_its_death(lab, first, lambda: first.lock("b")) is False


def test_primary_fail_4(lab: LockServers) -> None:
    """The same, and somebody else asks."""
    first, second = lab.clerk(), lab.clerk()
    assert first.lock("a") is True
    assert first.lock("b") is True
    assert in_its_death(lab, second, lambda: second.lock("b")) is False


def test_primary_fail_5(lab: LockServers) -> None:
    """An unlock without effect, whose reply is lost, has none later."""
    first, second = lab.clerk(), lab.clerk()
    assert first.lock("a") is True
    assert first.lock("b") is True
    assert first.unlock("b") is True
    assert in_its_death(lab, first, lambda: first.unlock("b")) is False
    assert second.lock("b") is True


def test_primary_fail_6(lab: LockServers) -> None:
    """An unlock of somebody else's lock whose reply is lost is answered as it was."""
    first, second = lab.clerk(), lab.clerk()
    assert first.lock("a") is True
    assert first.unlock("a") is True
    assert second.unlock("a") is False
    assert first.lock("b") is True
    assert in_its_death(lab, second, lambda: second.unlock("b")) is True
    assert first.lock("b") is True


def test_primary_fail_7(lab: LockServers) -> None:
    """An unlock that is repeated does not free what somebody has locked meanwhile."""
    second = lab.clerk()
    fail_7(lab, second, second)


def test_primary_fail_8(lab: LockServers) -> None:
    """Nor does one that was answered False."""
    fail_8(lab)


def test_backup_fail(lab: LockServers) -> None:
    """The primary goes on alone, and knows all that was done."""
    clerk = lab.clerk()
    some_of_each(clerk)
    lab.kill_backup()
    what_is_left(clerk)


def test_many(lab: LockServers) -> None:
    """Two clients with ten locks each; the primary dies while they work.

    The lab: at the end each lock is as the client's record has it. Ours: and every answer was.
    """
    workers = [Worker(lab.clerk(), number, private=10) for number in range(2)]
    with working(workers):
        amid_work(workers, lab.kill_primary)
    agree(workers)


def test_concurrent_counts(lab: LockServers) -> None:
    """Two clients, one lock; the primary dies: as many unlocks as locks succeed, or one less."""
    workers = [Worker(lab.clerk(), number, shared=True) for number in range(2)]
    with working(workers):
        amid_work(workers, lab.kill_primary)
    balance(workers)


# --- what they have in common --------------------------------------------------------------------


def some_of_each(clerk: Clerk) -> None:
    assert clerk.lock("a") is True
    assert clerk.lock("b") is True
    assert clerk.unlock("b") is True
    assert clerk.lock("c") is True
    assert clerk.lock("c") is False
    assert clerk.lock("d") is True
    assert clerk.unlock("d") is True
    assert clerk.lock("d") is True


def what_is_left(clerk: Clerk) -> None:
    assert clerk.lock("a") is False
    assert clerk.unlock("a") is True
    assert clerk.unlock("b") is False
    assert clerk.lock("b") is True
    assert clerk.unlock("c") is True
    assert clerk.unlock("d") is True


def in_its_death(lab: LockServers, clerk: Clerk, ask: Callable[[], bool]) -> bool:
    """What `clerk` is told in the end, if the primary dies of this request."""
    dead = lab.dying(clerk, SILENCE)
    told = ask()
    assert dead.wait(patience(10)), "the primary is alive: nothing was tested"
    return told


@contextmanager
def limbo(lab: LockServers, clerk: Clerk, ask: Callable[[], bool]) -> Iterator[Future[bool]]:
    """The primary has executed a request and died, and `clerk` does not know it yet.

    When the block ends it still must not, or what was done in it came too late to matter.
    """
    dead = lab.dying(clerk, patience(LIMBO))
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(ask)
        assert dead.wait(patience(10)), "the primary is alive: nothing was tested"
        yield told
        assert not told.done(), "the silence was too short, or the others too slow"


def fail_7(lab: LockServers, second: Clerk, third: Clerk) -> None:
    """In the lab the second clerk is the third as well."""
    first = lab.clerk()
    assert first.lock("a") is True
    assert first.unlock("a") is True
    assert second.unlock("a") is False
    assert first.lock("b") is True
    with limbo(lab, third, lambda: third.unlock("b")) as told:
        assert first.lock("b") is True
    assert told.result() is True
    assert first.unlock("b") is True


def fail_8(lab: LockServers) -> None:
    first, second = lab.clerk(), lab.clerk()
    assert first.lock("a") is True
    assert first.unlock("a") is True
    with limbo(lab, second, lambda: second.unlock("a")) as told:
        assert first.lock("a") is True
    assert told.result() is False
    assert first.unlock("a") is True


class Worker:
    """A client in a thread of its own, which locks and unlocks at random until it is told to stop.

    Nobody else touches its private locks, so it knows what every answer must be. Of the one that it
    shares it counts what succeeded.
    """

    def __init__(self, clerk: Clerk, number: int, private: int = 0, shared: bool = False) -> None:
        self.clerk = clerk
        self.held = {f"client {number} lock {index}": False for index in range(private)}
        self.locks = self.unlocks = self.operations = 0
        self._names = [*self.held, *(["shared"] if shared else [])]
        self._rng = random.Random(number)
        self._stop = threading.Event()

    def run(self) -> None:
        while not self._stop.is_set():
            name = self._rng.choice(self._names)
            locks = self._rng.random() < 0.5
            changed = self.clerk.lock(name) if locks else self.clerk.unlock(name)
            if name in self.held:
                what = "lock" if locks else "unlock"
                expected = self.held[name] != locks
                assert changed == expected, f"{what} {name}: {changed}, held: {self.held[name]}"
                self.held[name] = locks
            else:
                self.locks += locks and changed
                self.unlocks += not locks and changed
            self.operations += 1

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def working(workers: Sequence[Worker]) -> Iterator[None]:
    """They work for as long as the block runs; what went wrong for them is raised at its end."""
    with ThreadPoolExecutor(len(workers)) as pool:
        running = [pool.submit(worker.run) for worker in workers]
        try:
            yield
        finally:
            for worker in workers:
                worker.stop()
            for future in running:
                future.result(patience(60))


def more_work(workers: Sequence[Worker], operations: int) -> None:
    """Wait until each has done so many more."""
    goals = [worker.operations + operations for worker in workers]
    eventually(
        lambda: all(w.operations >= goal for w, goal in zip(workers, goals, strict=True)),
        30,
        "clients that go on",
    )


def amid_work(workers: Sequence[Worker], strike: Callable[[], None]) -> None:
    """Strike when all are at work, and see them work on."""
    more_work(workers, BEFORE)
    strike()
    more_work(workers, AFTER)


def agree(workers: Sequence[Worker]) -> None:
    """Each private lock is as its client's record has it, whoever asks."""
    for worker, other in zip(workers, reversed(workers), strict=True):
        held = {name: other.clerk.lock(name) is False for name in worker.held}
        assert held == worker.held
    assert len({held for worker in workers for held in worker.held.values()}) == 2, "all alike"


def balance(workers: Sequence[Worker]) -> None:
    """Nobody's success was forgotten or doubled."""
    locks, unlocks = sum(w.locks for w in workers), sum(w.unlocks for w in workers)
    assert locks > 0, "nobody ever had the lock"
    assert locks - unlocks in (0, 1), (locks, unlocks)
    assert workers[0].clerk.unlock("shared") is (locks != unlocks)


# --- beyond the lab ------------------------------------------------------------------------------

POINTS = ("drained", "stepped", "sent", "turned")
"""Of one turn of a server: it has taken requests in, has decided, has sent, is done."""


@pytest.mark.parametrize("scenario", ["fail_7", "fail_8"])
def test_dying_in_bad_weather(lab: AttackedLockServers, needs: Needs, scenario: str) -> None:
    """The hard ones again, with messages late and lost on all links.

    Whose death it is has asked nothing before: the reply that is swallowed is then its own.
    """
    needs("bad_weather", "lost_in_bad_weather")
    lab.bad_weather()
    if scenario == "fail_7":
        fail_7(lab, lab.clerk(), lab.clerk())
    else:
        fail_8(lab)


def test_many_in_bad_weather(lab: AttackedLockServers, needs: Needs) -> None:
    """Clients repeat themselves all the time, and the primary dies: everything happens once."""
    needs("bad_weather", "lost_in_bad_weather")
    lab.bad_weather()
    workers = [Worker(lab.clerk(), number, private=3, shared=True) for number in range(4)]
    with working(workers):
        more_work(workers, dose(8, 100))
        lab.kill_primary()
        more_work(workers, dose(8, 100))
    assert lab.lost_in_bad_weather() > 10
    agree(workers)
    balance(workers)


@pytest.mark.parametrize("point", POINTS)
def test_primary_dies_at(lab: AttackedLockServers, needs: Needs, point: str) -> None:
    """Killed between any two of its deeds while clients work: every answer is as if it lived."""
    needs("dies_by_itself", "primary_alive")
    lab.dies_by_itself(f"{point}:{dose(100, 1000)}")
    workers = [Worker(lab.clerk(), number, private=10, shared=True) for number in range(2)]
    with working(workers):
        eventually(lambda: not lab.primary_alive(), 30, "the death of the primary")
        more_work(workers, AFTER)
    agree(workers)
    balance(workers)


def test_backup_dies_amid_work(lab: LockServers) -> None:
    """The primary goes on alone, with whatever it had forwarded and not heard of."""
    workers = [Worker(lab.clerk(), number, private=10, shared=True) for number in range(2)]
    with working(workers):
        amid_work(workers, lab.kill_backup)
    agree(workers)
    balance(workers)


def test_stopped_primary_retires(lab: AttackedLockServers, needs: Needs) -> None:
    """One that slept for longer than its clients wait has been replaced, and must find out.

    It wakes in the worst state: with a request of which it has not heard that the backup has it, so
    the backup, too, seems to have been silent for long; and with another in its mailbox, for a lock
    that the backup has given away.
    """
    needs("stop_primary_amid", "wake_primary", "silence_taken_for_death")
    first, second = lab.clerk(), lab.clerk()
    assert second.lock("c") is True
    with ThreadPoolExecutor(2) as pool:
        asked: list[Future[bool]] = []
        lab.stop_primary_amid(lambda: asked.append(pool.submit(first.lock, "a")))
        try:
            assert not asked[0].done(), "it was answered before the primary was stopped"
            long = lab.silence_taken_for_death + patience(10)
            assert asked[0].result(long) is True
            waiting = pool.submit(second.lock, "b")
            assert first.lock("b") is True
            assert not waiting.done()
        finally:
            lab.wake_primary()
        assert waiting.result(patience(20)) is False, "a lock with two holders"
    third = lab.clerk()
    assert third.lock("a") is False
    assert third.lock("b") is False
    assert third.unlock("c") is True
