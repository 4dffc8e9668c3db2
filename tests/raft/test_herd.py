"""When a leader goes on: those who were answered are waited for, if that ever pays."""

from __future__ import annotations

import itertools

from engine.raft.herd import PATIENCE_MAX as PATIENCE
from engine.raft.herd import PATIENCE_MIN, PAUSE_MAX, Herd


def test_at_first_nobody_is_waited_for() -> None:
    assert Herd().here(1, 0)


def test_all_who_were_answered_are_waited_for() -> None:
    herd = Herd()
    herd.answered(16, 3, now=100)
    assert not herd.here(3, 100)
    assert not herd.here(18, 100 + PATIENCE_MIN - 1)
    assert herd.here(19, 101)


def test_the_longest_wait_is_as_long_as_the_last_entry_took() -> None:
    for took, wait in (
        (PATIENCE_MIN // 9, PATIENCE_MIN),
        (3 * PATIENCE_MIN, 3 * PATIENCE_MIN),
        (9 * PATIENCE, PATIENCE),
    ):
        herd, now = Herd(), 1000
        assert herd.here(2, now)
        now += took
        herd.answered(2, 0, now)
        assert herd.until == now + wait
        assert not herd.here(1, now + wait - 1)
        assert herd.here(1, now + wait)


def test_a_lone_client_never_waits() -> None:
    herd = Herd()
    for now in range(0, 50 * PATIENCE, PATIENCE):
        herd.answered(1, 0, now)
        assert herd.here(1, now)


def test_patience_ends_and_then_there_is_none_for_a_while() -> None:
    herd = Herd()
    waits = []
    for entry in range(300):
        now = entry * 10 * PATIENCE
        herd.answered(2, 0, now)  # of two only ever one comes back
        if not herd.here(1, now):
            waits.append(entry)
            assert herd.here(1, now + PATIENCE)
    pauses = [later - before - 1 for before, later in itertools.pairwise(waits)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert set(pauses[6:]) == {PAUSE_MAX}


def test_a_wait_that_paid_makes_patient_again() -> None:
    herd = Herd()
    for now in (0, 10 * PATIENCE, 20 * PATIENCE):
        herd.answered(2, 0, now)
        herd.here(1, now + PATIENCE)
    for now in range(30 * PATIENCE, 60 * PATIENCE, 10 * PATIENCE):
        herd.answered(2, 0, now)
        assert herd.here(2, now)
    herd.answered(2, 0, 90 * PATIENCE)
    assert not herd.here(1, 90 * PATIENCE)
    assert herd.here(1, 91 * PATIENCE)
    herd.answered(2, 0, 100 * PATIENCE)
    assert herd.here(1, 100 * PATIENCE), "one entry without"
    herd.answered(2, 0, 110 * PATIENCE)
    assert not herd.here(1, 110 * PATIENCE), "and not more"
