"""Clocks of simulated machines that run faster or slower than time does."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest

from engine.contract import Event, Nanos, Ready
from engine.sim.cluster import TURN, Cluster
from engine.sim.timeline import MILLISECOND, Clock, Timeline

SECOND = 1000 * MILLISECOND
RATES = [(1, 1), (1, 2), (2, 1), (3, 7), (1_000_001, 1_000_000)]


def pass_time(timeline: Timeline, duration: Nanos) -> None:
    done: list[bool] = []
    timeline.after(duration, done.append, True)
    while not done:
        assert timeline.step()


@pytest.mark.parametrize(("numerator", "denominator"), RATES)
def test_until_is_the_first_moment_that_the_clock_shows_it(
    numerator: int, denominator: int
) -> None:
    rng = Random(1)
    timeline = Timeline(1)
    clock = Clock(timeline)
    pass_time(timeline, 12_345)
    clock.run_at(numerator, denominator)
    for _ in range(200):
        shown = clock.now() + rng.randrange(1, 100)
        wait = clock.until(shown)
        pass_time(timeline, wait - 1)
        assert clock.now() < shown
        pass_time(timeline, 1)
        assert clock.now() >= shown
        assert clock.until(shown) == clock.until(shown - 50) == 0


def test_a_clock_goes_on_when_its_pace_changes() -> None:
    """Against exact fractions: no change of pace may lose more than a nanosecond, or go back."""
    rng = Random(2)
    timeline = Timeline(2)
    clock, exact = Clock(timeline), Fraction(0)
    rate, before = Fraction(1), 0
    for changes in range(200):
        elapsed = rng.randrange(1, 10 * MILLISECOND)
        pass_time(timeline, elapsed)
        exact += elapsed * rate
        assert before <= clock.now() <= exact < clock.now() + changes + 1
        before = clock.now()
        numerator, denominator = rng.randrange(1, 9), rng.randrange(1, 9)
        clock.run_at(numerator, denominator)
        assert clock.now() == before
        rate = Fraction(numerator, denominator)


class Metronome:
    """Wants a turn every second by its own clock, and writes down when each came by real time."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.due: Nanos = 0
        self.beats: list[Nanos] = []
        self.turns = 0

    def step(self, now: Nanos, events: Sequence[Event]) -> None:
        self.turns += 1
        if now >= self.due:
            self.beats.append(self.timeline.now)
            self.due = now + SECOND

    def ready(self) -> Ready:
        return Ready(wake_at=self.due)

    def check(self) -> None:
        assert self.turns >= len(self.beats)


def a_cluster() -> tuple[Cluster, Metronome]:
    cluster = Cluster(1, keep=False, trace=False, checked=True)
    return cluster, Metronome(cluster.timeline)


def gaps(beats: list[Nanos]) -> list[Nanos]:
    return [after - before for before, after in pairwise(beats)]


@pytest.mark.parametrize(("numerator", "denominator"), RATES)
def test_a_process_wakes_by_its_own_clock(numerator: int, denominator: int) -> None:
    cluster, machine = a_cluster()
    cluster.drift("one", numerator, denominator)
    cluster.start("one", "server", machine)
    pass_time(cluster.timeline, 20 * SECOND)
    expected = SECOND * denominator / numerator
    assert len(machine.beats) >= 20 * numerator // denominator - 1
    for gap in gaps(machine.beats):
        assert expected <= gap + 1 <= expected + TURN + 3
    assert machine.turns == len(machine.beats), "it is woken in vain"


def test_an_alarm_that_is_set_follows_a_change_of_pace() -> None:
    cluster, machine = a_cluster()
    process = cluster.start("one", "server", machine)
    pass_time(cluster.timeline, SECOND // 2)
    cluster.drift("one", 2, 1)
    pass_time(cluster.timeline, SECOND // 4 + 2 * TURN)
    assert len(machine.beats) == 2, "the second half takes half as long"
    assert process.now() - SECOND <= 4 * TURN
    cluster.drift("one", 1, 2)
    pass_time(cluster.timeline, 3 * SECOND // 2)
    assert len(machine.beats) == 2
    pass_time(cluster.timeline, SECOND)
    assert len(machine.beats) == 3


def test_the_clock_of_a_machine_outlives_its_processes_and_is_nobody_elses() -> None:
    cluster, machine = a_cluster()
    cluster.drift("one", 2, 1)
    process = cluster.start("one", "server", machine)
    other = cluster.start("two", "server", Metronome(cluster.timeline))
    pass_time(cluster.timeline, SECOND)
    cluster.kill(process)
    again = cluster.start("one", "server", Metronome(cluster.timeline))
    pass_time(cluster.timeline, SECOND)
    assert again.now() == 4 * SECOND
    assert other.now() == cluster.timeline.now == 2 * SECOND
