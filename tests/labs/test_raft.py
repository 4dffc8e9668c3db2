"""The Raft labs' tests (2A to 2D), by name, in the simulator.

What happens in them stands in `raft_scenes`. Time is virtual, so a test of a minute takes a second,
and a seed says all that happens; see `raft_lab`.

`PLANTED` holds, for every test, a bug that it is there to catch, and shows that it does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import raft_scenes as scenes
from raft_bugs import CORE_BUGS
from raft_lab import RaftLab
from raft_scenes import Make
from support import dose

from engine.record import Record
from engine.sim.planting import planted

lab_2a: pytest.MarkDecorator = getattr(pytest.mark, "2A")
lab_2b: pytest.MarkDecorator = getattr(pytest.mark, "2B")
lab_2c: pytest.MarkDecorator = getattr(pytest.mark, "2C")
lab_2d: pytest.MarkDecorator = getattr(pytest.mark, "2D")


def seeds(ci: int, full: int) -> pytest.MarkDecorator:
    """So many seeds of the test's own."""
    return pytest.mark.parametrize("number", range(dose(ci, full)))


batches = pytest.mark.parametrize("entries_max", [1, 1024], ids=["single", "batched"])
"""Entries in one message: alone, so that more can come between, and as they are shipped."""


def sized(make: Make, entries_max: int) -> Make:
    """The same, with so many entries in one message."""
    return partial(make, entries_max=entries_max)


def seed_of(name: str, number: int) -> int:
    return zlib.crc32(f"{name} {number}".encode())


@pytest.fixture
def make(request: pytest.FixtureRequest, number: int) -> Iterator[Make]:
    """Makes the group of this test and seed; what must hold in the end is looked at afterwards."""
    if request.config.getoption("--impl"):
        pytest.skip("this is our simulator: --impl is for test_raft_processes")
    made: list[RaftLab] = []

    def build(servers: int, **how: Any) -> RaftLab:
        made.append(RaftLab(seed_of(request.function.__name__, number), servers, **how))
        return made[-1]

    yield build
    for lab in made:
        lab.finish()


# --- 2A: elections -------------------------------------------------------------------------------


@lab_2a
@seeds(3, 300)
def test_initial_election(make: Make) -> None:
    scenes.initial_election(make)


@lab_2a
@seeds(3, 300)
def test_re_election(make: Make) -> None:
    scenes.re_election(make)


@lab_2a
@seeds(2, 200)
def test_many_elections(make: Make) -> None:
    scenes.many_elections(make)


# --- 2B: agreement -------------------------------------------------------------------------------


@lab_2b
@seeds(3, 300)
def test_basic_agree(make: Make) -> None:
    scenes.basic_agree(make)


@lab_2b
@seeds(3, 100)
def test_rpc_bytes(make: Make) -> None:
    scenes.rpc_bytes(make)


@lab_2b
@seeds(3, 200)
def test_follower_failure(make: Make) -> None:
    scenes.follower_failure(make)


@lab_2b
@seeds(3, 200)
def test_leader_failure(make: Make) -> None:
    scenes.leader_failure(make)


@lab_2b
@seeds(3, 200)
def test_fail_agree(make: Make) -> None:
    scenes.fail_agree(make)


@lab_2b
@seeds(3, 200)
def test_fail_no_agree(make: Make) -> None:
    scenes.fail_no_agree(make)


@lab_2b
@seeds(3, 200)
def test_concurrent_starts(make: Make) -> None:
    scenes.concurrent_starts(make)


@lab_2b
@batches
@seeds(3, 150)
def test_rejoin(make: Make, entries_max: int) -> None:
    scenes.rejoin(sized(make, entries_max))


@lab_2b
@batches
@seeds(2, 50)
def test_backup(make: Make, entries_max: int) -> None:
    scenes.backup(sized(make, entries_max))


@lab_2b
@seeds(3, 200)
def test_count(make: Make) -> None:
    scenes.count(make)


@lab_2b
@seeds(3, 200)
def test_paused_leader(make: Make) -> None:
    scenes.paused_leader(make)


# --- 2C: persistence, and a network that is not reliable -----------------------------------------


@lab_2c
@seeds(3, 300)
def test_persist1(make: Make) -> None:
    scenes.persist1(make)


@lab_2c
@seeds(2, 200)
def test_persist2(make: Make) -> None:
    scenes.persist2(make)


@lab_2c
@seeds(3, 300)
def test_persist3(make: Make) -> None:
    scenes.persist3(make)


@lab_2c
@batches
@seeds(1, 30)
def test_figure8(make: Make, entries_max: int) -> None:
    scenes.figure8(sized(make, entries_max))


@lab_2c
@seeds(5, 500)
def test_figure8_step_by_step(make: Make) -> None:
    scenes.figure8_step_by_step(make)


@lab_2c
@batches
@seeds(1, 30)
def test_unreliable_agree(make: Make, entries_max: int) -> None:
    scenes.unreliable_agree(sized(make, entries_max))


@lab_2c
@seeds(2, 60)
def test_figure8_unreliable(make: Make) -> None:
    scenes.figure8_unreliable(make)


@lab_2c
@seeds(1, 60)
def test_reliable_churn(make: Make) -> None:
    scenes.reliable_churn(make)


@lab_2c
@batches
@seeds(1, 30)
def test_unreliable_churn(make: Make, entries_max: int) -> None:
    scenes.unreliable_churn(sized(make, entries_max))


@lab_2d
@seeds(1, 60)
def test_snapshot_basic(make: Make) -> None:
    scenes.snapshot_basic(make)


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install(make: Make, entries_max: int) -> None:
    scenes.snapshot_install(sized(make, entries_max))


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_unreliable(make: Make, entries_max: int) -> None:
    scenes.snapshot_install_unreliable(sized(make, entries_max))


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_crash(make: Make, entries_max: int) -> None:
    scenes.snapshot_install_crash(sized(make, entries_max))


@lab_2d
@batches
@seeds(1, 30)
def test_snapshot_install_un_crash(make: Make, entries_max: int) -> None:
    scenes.snapshot_install_un_crash(sized(make, entries_max))


@lab_2d
@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable", "unreliable"])
@seeds(1, 60)
def test_snapshot_all_crash(make: Make, unreliable: bool) -> None:
    scenes.snapshot_all_crash(make, unreliable=unreliable)


@lab_2d
@pytest.mark.parametrize("unreliable", [False, True], ids=["reliable", "unreliable"])
@pytest.mark.parametrize("before", [12, 32])
@seeds(1, 100)
def test_snapshot_init(make: Make, unreliable: bool, before: int) -> None:
    scenes.snapshot_init(make, unreliable=unreliable, before=before)


# --- the bugs that these tests are there to catch ------------------------------------------------


class Planted(Record):
    """A bug that a test is there to catch, within its first `TRIED` seeds."""

    bug: str
    test: Callable[..., None]
    how: tuple[tuple[str, Any], ...] = ()
    """What the test is called with, beside `make`."""
    judging: bool = False
    """Whether it takes the trial's judge: the labs' checks do not look at disks."""

    def __str__(self) -> str:
        return f"{self.bug}-{self.test.__name__.removeprefix('test_')}"


TRIED = 64
SINGLE, BATCHED = (("entries_max", 1),), (("entries_max", 1024),)

PLANTED = [
    Planted("no_heartbeats", test_initial_election),
    Planted("term_persisted_after_reply", test_initial_election, judging=True),
    Planted("no_check_quorum", test_re_election),
    Planted("heartbeat_of_the_past", test_re_election),
    Planted("zombie_leader", test_many_elections),
    Planted("commits_not_told", test_basic_agree),
    Planted("acknowledged_before_fsync", test_basic_agree, judging=True),
    Planted("said_three_times", test_rpc_bytes),
    Planted("one_is_enough", test_follower_failure),
    Planted("one_is_enough", test_leader_failure),
    Planted("never_backs_up", test_fail_agree),
    Planted("two_are_enough", test_fail_no_agree),
    Planted("same_index_for_all", test_concurrent_starts),
    Planted("no_previous_term_check", test_rejoin, BATCHED),
    Planted("length_before_term", test_rejoin, BATCHED),
    Planted("backs_up_by_one", test_backup, BATCHED),
    Planted("talks_all_the_time", test_count),
    Planted("zombie_leader", test_paused_leader),
    Planted("last_entry_forgotten", test_persist1),
    Planted("no_up_to_date_check", test_persist2),
    Planted("no_up_to_date_check", test_persist3),
    Planted("no_up_to_date_check", test_figure8, BATCHED),
    Planted("length_before_term", test_figure8, SINGLE),
    Planted("no_previous_term_check", test_figure8, BATCHED),
    Planted("vote_not_persisted", test_figure8, BATCHED, judging=True),
    Planted("commit_old_term_by_counting", test_figure8_step_by_step),
    Planted("truncates_matching_tail", test_unreliable_agree, BATCHED),
    Planted("truncates_matching_tail", test_figure8_unreliable),
    Planted("never_backs_up", test_reliable_churn),
    *dose((), (Planted("applied_before_commit", test_reliable_churn),)),
    Planted("applied_before_commit", test_unreliable_churn, BATCHED),
    Planted("truncates_matching_tail", test_unreliable_churn, SINGLE),
    Planted("log_never_compacted", test_snapshot_basic),
    Planted("segments_never_retired", test_snapshot_basic),
    Planted("snapshot_off_by_one", test_snapshot_install, BATCHED),
    Planted("log_kept_after_install", test_snapshot_install, BATCHED),
    Planted("log_kept_after_install", test_snapshot_install_unreliable, BATCHED),
    Planted("snapshot_not_loaded", test_snapshot_install_crash, BATCHED),
    Planted("suffix_discarded_at_install", test_snapshot_install_crash, BATCHED),
    Planted("snapshot_without_members", test_snapshot_install_un_crash, BATCHED),
    Planted("segments_never_retired", test_snapshot_install_un_crash, BATCHED),
    Planted("last_entry_forgotten", test_snapshot_all_crash, (("unreliable", True),)),
    Planted("snapshots_removed", test_snapshot_init, (("unreliable", True), ("before", 32))),
]


def attempt(case: Planted, number: int, **how: Any) -> str:
    """One seed of a test; what it finds, or ""."""
    made: list[RaftLab] = []

    def build(servers: int, **more: Any) -> RaftLab:
        made.append(RaftLab(seed_of(case.test.__name__, number), servers, **how, **more))
        return made[-1]

    try:
        case.test(build, **dict(case.how))
        made[0].finish()
    except Exception as error:  # whatever a bug breaks
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_planted_bug_is_caught(case: Planted) -> None:
    """By the named test, with the members' own invariants off, and by the labs' own checks unless
    it says otherwise. Without the bug the same seed is fine."""
    patches = CORE_BUGS[case.bug]
    for number in range(TRIED):
        with planted(patches):
            found = attempt(case, number, checked=False, judging=case.judging)
        if found:
            assert attempt(case, number) == ""
            return
    pytest.fail(f"{case} is not caught in {TRIED} seeds")


def test_every_lab_test_has_a_planted_bug() -> None:
    marks = ("2A", "2B", "2C", "2D")
    tests = {
        name
        for name, value in globals().items()
        if any(mark.name in marks for mark in getattr(value, "pytestmark", []))
    }
    assert len(tests) == 30
    assert tests == {case.test.__name__ for case in PLANTED}
