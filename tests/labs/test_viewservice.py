"""The nine parts of MIT's view service lab, by name, on a real process; and harder ones.

They are held to our service, or to yours: `pytest -m viewservice --impl module:factory`, where
`factory(folder, seed)` is a context manager that gives a `ViewServers`. The tests beyond the lab's
need an `AttackedViewServers` and are skipped without one.

The lab has one test of nine parts, each of which goes on from where the one before ended. Here each
has a name: asked for one of them alone, its test goes through those before it first. In all of them
every view that anybody is told of is judged by what was really pinged (`Watch`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import pytest
from support import dose, patience

Needs = Callable[..., None]
View = tuple[int, str, str]
"""Number, primary, backup; "" is nobody."""

pytestmark = [pytest.mark.viewservice, pytest.mark.processes]

NOBODY = ""


class Clerk(Protocol):
    """A server as the view service sees it: it exists when it pings."""

    def ping(self, number: int) -> View:
        """Tell the service that this server lives and acts on this view, 0 if it has just started;
        the view that it is told. A number is pinged when all the data of that view is there.

        Who pings 0 after it has pinged a number has started again, and lost its data; a server that
        has become a member since its last ping, and cannot know that yet, has not."""

    def get(self) -> View:
        """The present view; asking is no sign of life."""


class ViewServers(Protocol):
    """A view service, as a process, which nobody has pinged yet."""

    interval: float
    """Seconds from one ping of a server to the next."""
    dead_pings: int
    """A server that was silent for so many intervals is dead."""

    def clerk(self, name: str) -> Clerk:
        """A server of this name, connected to the service."""


class AttackedViewServers(ViewServers, Protocol):
    """What the tests beyond the lab's ask for; each of them skips if its part is missing."""

    def cut(self, name: str) -> None:
        """No message passes between this clerk and the service; its ping waits, or fails late."""

    def heal(self, name: str) -> None:
        """Messages pass again; none of those lost in the cut ever arrives."""

    promotes_only_who_pinged_the_view: bool
    """There, and true: a backup is not promoted before it has pinged the view's number itself."""

    def stop(self) -> None:
        """SIGSTOP the service."""

    def wake(self) -> None:
        """SIGCONT."""


class Watch:
    """Three clerks in one hand, so that whatever they are told can be judged.

    A view may follow another only if its number is the next, its primary was in the one before, and
    the primary of the one before had pinged that one. With one exchange at a time nobody can miss a
    view: to be left it must be acknowledged, and the answer to that is seen here.
    """

    def __init__(self, lab: ViewServers) -> None:
        self.lab = lab
        self.last: View = (0, NOBODY, NOBODY)
        self.clerks = {name: lab.clerk(name) for name in ("one", "two", "three")}
        self._observer = lab.clerk("observer")  # who never pings is no server
        self._pinged: set[tuple[str, int]] = set()

    def ping(self, name: str, number: int) -> View:
        self._pinged.add((name, number))
        return self.seen(self.clerks[name].ping(number))

    def get(self) -> View:
        return self.seen(self._observer.get())

    def has_pinged(self, name: str, number: int) -> bool:
        return (name, number) in self._pinged

    def seen(self, view: View) -> View:
        """Judge what somebody was told."""
        before, self.last = self.last, view
        if view == before:
            return view
        (old, *members), (new, primary, backup) = before, view
        assert new == old + 1, f"from {before} to {view}: the number must be the next"
        assert NOBODY != primary != backup, view
        if old > 0:
            assert primary in members, f"from {before} to {view}: a primary from outside"
            known = self.has_pinged(members[0], old)
            assert known, f"from {before} to {view}: its primary has not pinged {old}"
        return view

    def reach(self, expected: View, step: Callable[[], object], intervals: int) -> None:
        """Repeat a step, an interval apart, until the view is as expected."""
        for _ in range(intervals):
            step()
            if self.get() == expected:
                return
            self.pace()
            if self.get() == expected:  # a step more may be one too many
                return
        pytest.fail(f"after {intervals} intervals: {self.last}, not {expected}")

    def stay(self, step: Callable[[], object], intervals: int) -> None:
        """Repeat a step, an interval apart; the view must not change."""
        expected = self.get()
        for _ in range(intervals):
            step()
            assert self.get() == expected
            self.pace()

    def pace(self) -> None:
        """One interval: for the service time is what it counts, so it must really pass."""
        time.sleep(self.lab.interval)


# --- the lab's nine parts ------------------------------------------------------------------------


def first_primary(watch: Watch) -> None:
    """Nobody is primary until somebody pings, and then that is who."""
    assert watch.get() == (0, NOBODY, NOBODY)
    watch.reach((1, "one", NOBODY), lambda: watch.ping("one", 0), within(watch))


def first_backup(watch: Watch) -> None:
    """The next one is backup."""

    def step() -> None:
        watch.ping("one", 1)
        watch.ping("two", 0)

    watch.reach((2, "one", "two"), step, within(watch))


def backup_takes_over(watch: Watch) -> None:
    """The primary falls silent; its backup is alone then."""
    watch.ping("one", 2)
    watch.reach((3, "two", NOBODY), lambda: watch.ping("two", 2), within(watch))


def restarted_server_becomes_backup(watch: Watch) -> None:
    """It comes back with nothing."""
    watch.ping("two", 3)

    def step() -> None:
        watch.ping("one", 0)
        watch.ping("two", 3)

    watch.reach((4, "two", "one"), step, within(watch))


def idle_third_server_becomes_backup(watch: Watch) -> None:
    """The primary falls silent while a third is idle: both move up, in one change of view."""
    watch.ping("two", 4)

    def step() -> None:
        watch.ping("three", 0)
        watch.ping("one", 4)

    watch.reach((5, "one", "three"), step, within(watch))


def restarted_primary_is_dead(watch: Watch) -> None:
    """The primary starts again so quickly that no ping is missed: it is dead all the same."""
    watch.ping("one", 5)
    for _ in range(within(watch)):
        watch.ping("one", 0)
        watch.ping("three", 5)
        if watch.get()[1] != "one":
            break
        watch.pace()
    assert watch.get()[:2] == (6, "three")


def dead_backup_is_removed(watch: Watch) -> None:
    """Only the primary pings, and learns that it is alone."""
    for _ in range(3 * watch.lab.dead_pings):
        watch.ping("three", watch.get()[0])
        watch.pace()
    assert watch.get()[1:] == ("three", NOBODY)


def waits_for_acknowledgement(watch: Watch) -> None:
    """The primary never says that it knows the view, and dies: the view stays, if need be for ever.

    Its backup must not be promoted, for the primary may have served as if it were still alone.
    """
    number = watch.get()[0]

    def step() -> None:
        watch.ping("one", 0)
        watch.ping("three", number)

    watch.reach((number + 1, "three", "one"), step, 3 * watch.lab.dead_pings)
    watch.stay(lambda: watch.ping("one", number + 1), 3 * watch.lab.dead_pings)
    watch.stay(lambda: watch.ping("two", 0), 3)


def uninitialised_server_is_not_promoted(watch: Watch) -> None:
    """All are there, then only one that has no data: it is not primary."""
    for _ in range(3):
        watch.ping("one", watch.get()[0])
        watch.ping("two", 0)
        watch.ping("three", watch.get()[0])
        watch.pace()
    assert "two" not in watch.get(), "it holds no part in the view, and no data"
    for _ in range(within(watch)):
        watch.ping("two", 0)
        assert watch.get()[1] != "two"
        watch.pace()


def within(watch: Watch) -> int:
    """Intervals in which whatever the lab waits for must have happened."""
    return 2 * watch.lab.dead_pings


PARTS = (
    first_primary,
    first_backup,
    backup_takes_over,
    restarted_server_becomes_backup,
    idle_third_server_becomes_backup,
    restarted_primary_is_dead,
    dead_backup_is_removed,
    waits_for_acknowledgement,
    uninitialised_server_is_not_promoted,
)


class Course:
    """The one service that all parts are about, and how far they have come."""

    def __init__(self, lab: ViewServers) -> None:
        self.watch = Watch(lab)
        self._next = 0

    def through(self, part: int) -> None:
        """Go through all parts up to this one; one that failed is not tried again."""
        while self._next <= part:
            current, self._next = PARTS[self._next], self._next + 1
            try:
                current(self.watch)
            except BaseException:
                self._next = len(PARTS) + 1
                raise
        if self._next > len(PARTS):
            pytest.fail("a part before this one failed")


@pytest.fixture(scope="module")
def course(lasting_lab: Any) -> Course:
    return Course(lasting_lab)


@pytest.mark.parametrize("part", range(len(PARTS)), ids=[part.__name__ for part in PARTS])
def test_part(course: Course, part: int) -> None:
    """The nine, in their order."""
    course.through(part)


# --- beyond the lab ------------------------------------------------------------------------------


def with_backup(lab: ViewServers) -> Watch:
    """View 2: one is primary, two is its backup and has the data."""
    watch = Watch(lab)
    watch.ping("one", 0)
    watch.ping("one", 1)
    watch.ping("two", 0)
    watch.ping("one", 2)
    watch.ping("two", 2)
    assert watch.get() == (2, "one", "two")
    return watch


def test_isolated_primary(lab: AttackedViewServers, needs: Needs) -> None:
    """It lives and pings, but nothing arrives: dead after `dead_pings` intervals, and not before.

    When it is back it is told who is primary now.
    """
    needs("cut", "heal")
    watch = with_backup(lab)
    heard = time.monotonic()
    watch.ping("one", 2)
    lab.cut("one")
    with ThreadPoolExecutor(1) as pool:
        try:
            back = pool.submit(watch.clerks["one"].ping, 2)
            watch.reach((3, "two", NOBODY), lambda: watch.ping("two", 2), within(watch))
            assert time.monotonic() - heard >= lab.dead_pings * lab.interval
            watch.ping("two", 3)
            assert not back.done()
        finally:
            lab.heal("one")
        assert watch.seen(back.result(patience(20)))[:2] in ((3, "two"), (4, "two"))
    watch.ping("two", 3)
    watch.ping("one", 0)
    assert watch.get() == (4, "two", "one")


def test_isolated_backup(lab: AttackedViewServers, needs: Needs) -> None:
    """The same for a backup, which is let go and taken back."""
    needs("cut", "heal")
    watch = with_backup(lab)
    lab.cut("two")
    watch.reach((3, "one", NOBODY), lambda: watch.ping("one", 2), within(watch))
    watch.ping("one", 3)
    lab.heal("two")
    watch.reach((4, "one", "two"), lambda: watch.ping("two", 0), within(watch))


def test_service_that_slept_declares_nobody_dead(lab: AttackedViewServers, needs: Needs) -> None:
    """Stopped for twice the time after which a server is dead, it wakes and has heard nobody.

    That was its own doing. The servers' pings reach it one after the other, and the view stays.
    """
    needs("stop", "wake")
    watch = with_backup(lab)
    lab.stop()
    try:
        for _ in range(2 * lab.dead_pings):
            watch.pace()
    finally:
        lab.wake()

    def step() -> None:
        watch.ping("one", 2)
        watch.ping("two", 2)

    watch.stay(step, lab.dead_pings)
    assert watch.last == (2, "one", "two")
    watch.reach((3, "two", NOBODY), lambda: watch.ping("two", 2), within(watch))  # it can still


def test_backup_without_data_is_not_promoted(lab: AttackedViewServers, needs: Needs) -> None:
    """The primary knows the view, but dies before its backup says that it holds the data.

    More than the lab asks, where the primary acknowledges late instead.
    """
    needs("promotes_only_who_pinged_the_view")
    watch = Watch(lab)
    watch.ping("one", 0)
    watch.ping("one", 1)
    watch.ping("two", 0)
    watch.ping("one", 2)
    watch.stay(lambda: watch.ping("two", 0), within(watch))
    assert watch.last == (2, "one", "two")
    watch.ping("two", 2)
    assert watch.get() == (3, "two", NOBODY)


def test_last_server_is_not_replaced(lab: ViewServers) -> None:
    """The only one that has the data dies; another comes, and must not serve without it."""
    watch = Watch(lab)
    watch.ping("one", 0)
    watch.ping("one", 1)
    for _ in range(lab.dead_pings + 1):
        watch.pace()
    watch.stay(lambda: watch.ping("two", 0), 5)
    assert watch.last == (1, "one", NOBODY)


def test_numbers_never_skip(lab: ViewServers) -> None:
    """Three servers that start again and again, without a pause: every view is judged.

    In each view one member starts again, when both have the data, so that the other can go on.
    """
    watch = Watch(lab)
    rng = random.Random(1)
    restarted = ("", 0)
    deadline = time.monotonic() + patience(60)
    while (view := watch.get())[0] <= dose(50, 1000):
        number, *members = view
        name = rng.choice(tuple(watch.clerks))
        settled = all(watch.has_pinged(member, number) for member in members)
        if name in members and settled and restarted[1] < number:
            restarted = (name, number)
        if name not in members or restarted == (name, number):
            watch.ping(name, 0)
        else:
            watch.ping(name, rng.choice((number, max(1, number - 1))))
        assert time.monotonic() < deadline, f"it stands still at {view}"
