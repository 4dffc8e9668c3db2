"""The scheduler's parts by themselves; its behaviour is in `scenarios/` and in the simulator."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support import dose

from engine.contract import SECOND, Durable, Exited, Link, Linked, Moved, Overslept, Received
from engine.mapreduce import messages as m
from engine.mapreduce.attempts import MAP, REDUCE, Worker
from engine.mapreduce.blame import CRASHES_MAX, DEATHS_MAX, DROPS_MAX, Blame, is_crash
from engine.mapreduce.ledger import Ledger
from engine.mapreduce.machine import Recovered, Scheduler, Settings
from engine.mapreduce.progress import BEAT, IDLE, MAPPING, PHASE, RECORD, WORDS
from engine.mapreduce.regions import Regions

FIRST = 1 << m.EPOCH_BITS


class RegionsAgainstSet(RuleBasedStateMachine):
    """`Regions` does what a plain set of free splits does."""

    count = 40

    def __init__(self) -> None:
        super().__init__()
        self.regions = Regions(self.count)
        self.oracle = set(range(self.count))

    @rule(item=st.integers(0, 39))
    def add_or_remove(self, item: int) -> None:
        if item in self.oracle:
            self.regions.remove(item)
            self.oracle.remove(item)
        else:
            self.regions.add(item)
            self.oracle.add(item)

    @precondition(lambda self: self.oracle)
    @rule(wish=st.integers(-1, 40), others=st.sets(st.integers(-1, 40), max_size=5))
    def take(self, wish: int, others: set[int]) -> None:
        item = self.regions.take(wish, others)
        assert item in self.oracle
        assert wish not in self.oracle or item == wish
        self.oracle.remove(item)

    @invariant()
    def same(self) -> None:
        self.regions.check()
        assert {item for item in range(-1, 41) if item in self.regions} == self.oracle
        assert self.regions.free == len(self.oracle)


TestRegions = RegionsAgainstSet.TestCase
TestRegions.settings = settings(max_examples=dose(ci=20, full=2000), stateful_step_count=40)


@given(count=st.integers(1, 200), workers=st.integers(1, 8), seed=st.integers(0, 99))
def test_few_sections(count: int, workers: int, seed: int) -> None:
    """Workers of any speed read few ranges: a run's sections are one for each."""
    regions, rng = Regions(count), random.Random(seed)
    wishes = [-1] * workers
    starts = 0
    while regions.free:
        worker = rng.randrange(workers)
        others = {wish for other, wish in enumerate(wishes) if other != worker}
        item = regions.take(wishes[worker], others)
        assert item is not None
        starts += item != wishes[worker]
        wishes[worker] = item + 1
    assert starts <= workers * (1 + count.bit_length())


def test_no_split_is_free() -> None:
    assert Regions(0).take(0, ()) is None


def start(splits: int = 2, partitions: int = 1, **settings: int) -> Scheduler:
    tasks = tuple(("a.txt", n, n + 1, (1, 2, 3)) for n in range(splits))
    configure = m.Configure(**dict.fromkeys(m.Configure._fields, 0))  # type: ignore[arg-type]
    given = Settings(tasks, partitions, configure, **settings)  # type: ignore[arg-type]
    scheduler = Scheduler(Recovered(), given, random.Random(0))
    scheduler.step(0, [])
    scheduler.ready()
    return scheduler


LINK = Link("worker", 0, 1)


def tell(scheduler: Scheduler, *messages: object, now: int = 0, link: Link = LINK) -> list[object]:
    """What it sends when it hears these."""
    scheduler.step(now, [Received(link, message) for message in messages])
    scheduler.check()
    return [send.message for send in scheduler.ready().now]


def page(beat: int, phase: int, record: int = 0, attempt: int = FIRST + 1) -> tuple[int, ...]:
    words = [0] * WORDS
    words[BEAT], words[PHASE], words[RECORD], words[1] = beat, phase, record, attempt
    return tuple(words)


def committed(*attempts: int, path: str = "run", counters: tuple[int, ...] = (1, 1, 0)) -> object:
    return m.Committed(attempts, path, 1, 2, counters, ("a.txt: record 3",))


@pytest.mark.parametrize(
    "message",
    [
        committed(),
        committed(FIRST + 1, FIRST + 1),
        committed(FIRST + 1, 77),
        committed(77),
        m.Reduced(FIRST + 1, "part", 1, 2, 3, 4),
        m.Reduced(77, "part", 1, 2, 3, 4),
        m.Scanned(77),
        m.Failed(77, "user", "stale", 0, ""),
        m.Failed(77, "run", "stale", 1, ""),
        m.Join(1),
        m.Stop("nonsense"),
        None,
    ],
)
def test_a_peer_may_say_anything(message: object) -> None:
    """Nothing wrong, stale or out of place is accepted, raises, or ends the job."""
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1))
    tell(scheduler, message)
    tell(scheduler, message, link=Link("worker", 5, 9))
    assert scheduler.outcome is None
    assert scheduler.status().tasks_done == 0


def test_an_old_link_says_nothing() -> None:
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1))
    tell(scheduler, m.Join(1), link=LINK._replace(incarnation=2))
    tell(scheduler, m.Scanned(FIRST + 1), committed(FIRST + 1))
    assert scheduler.status().tasks_done == 0
    assert tell(scheduler, m.Join(1)) == []


@pytest.mark.parametrize("reason", ["user", "input", "word", "space", "memory"])
def test_a_definite_failure_ends_the_job(reason: str) -> None:
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1))
    sent = tell(scheduler, m.Failed(FIRST + 1, reason, "a.txt: no good", 0, "Traceback …"))
    assert sent == [m.Stop("failed")]
    assert scheduler.outcome is not None
    assert scheduler.outcome[:4] == (False, "a.txt: no good", "Traceback …", 1)


def test_a_worker_that_cannot_import_the_job_ends_it() -> None:
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1), m.Failed(0, "user", "job.py: no such file", 0, ""))
    assert scheduler.outcome is not None
    assert scheduler.outcome.text == "job.py: no such file"


def test_damage_within_a_merge_is_tried_again_but_not_for_ever() -> None:
    scheduler = start(splits=1, workers=1)
    tell(scheduler, m.Join(1))
    tell(scheduler, committed(FIRST + 1))
    scheduler.step(0, [Durable(1)])
    scheduler.ready()
    for attempt in range(FIRST + 2, FIRST + 3 + DROPS_MAX):
        assert scheduler.outcome is None
        assert [a.kind for a in scheduler.attempts.current.values()] == [REDUCE]
        tell(scheduler, m.Failed(attempt, "run", "a file of a merge: damaged", m.NO_RUN, ""))
    assert scheduler.outcome is not None
    assert scheduler.outcome.text == "a file of a merge: damaged; check the disk of --scratch"
    assert scheduler.status().runs == 1


def test_nobody_can_fail_a_job_that_needs_no_workers() -> None:
    """A worker joins while the output is being published, and has not got the application."""
    scheduler = start(splits=1, workers=1)
    late = Link("worker", 9, 9)
    tell(scheduler, m.Join(1))
    tell(scheduler, committed(FIRST + 1))
    scheduler.step(0, [Durable(1)])
    scheduler.ready()
    tell(scheduler, m.Reduced(FIRST + 2, "part", 1, 2, 3, 4))
    tell(scheduler, m.Join(1), m.Failed(0, "user", "job.py: no such file", 0, ""), link=late)
    assert scheduler.status().phase == "publish"


def test_the_skip_budget_is_the_jobs_not_a_workers() -> None:
    scheduler = start(workers=1, skip_bad=1)
    tell(scheduler, m.Join(1), m.Scanned(FIRST + 1))
    tell(scheduler, committed(FIRST + 1, counters=(1, 1, 1)))
    assert scheduler.outcome is None
    tell(scheduler, committed(FIRST + 2, path="run-2", counters=(1, 1, 1)))
    assert scheduler.outcome is not None
    assert scheduler.outcome.text == "2 bad records, more than the 1 that --skip-bad allows"
    assert scheduler.outcome.samples == ("a.txt: record 3", "a.txt: record 3")


def test_deaths_with_one_task_in_hand_are_bounded() -> None:
    scheduler = start(splits=1, workers=1)
    for node in range(DEATHS_MAX + 1):
        assert scheduler.outcome is None
        tell(scheduler, m.Join(1), link=Link("worker", node, node))
        scheduler.step(0, [Exited(node, 1)])
        scheduler.ready()
    assert scheduler.outcome is not None
    assert scheduler.outcome.text == (
        "21 workers died with a.txt, bytes 0 to 1 in hand (the last: exit code 1)"
    )


def test_a_run_that_is_lost_for_ever_ends_the_job() -> None:
    scheduler = start(splits=1, workers=1)
    tell(scheduler, m.Join(1))
    attempt, tickets = FIRST, 0
    for run in range(1, DROPS_MAX + 2):
        tell(scheduler, committed(attempt + 1, path=f"run-{run}"))
        tickets += 1
        scheduler.step(0, [Durable(tickets)])
        scheduler.ready()
        assert scheduler.outcome is None
        tell(scheduler, m.Failed(attempt + 2, "run", "run: damaged", run, ""))
        attempt, tickets = attempt + 2, tickets + 1
    assert scheduler.outcome is not None
    assert "lost or damaged 6 times (the last: run: damaged)" in scheduler.outcome.text


def test_a_lease_is_renewed_by_movement_alone() -> None:
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1))
    scheduler.step(9 * SECOND, [Moved(0, page(1, MAPPING, 1))])
    assert scheduler.ready().wake_at == 19 * SECOND
    scheduler.step(19 * SECOND - 1, [])
    assert not scheduler.ready().jobs
    scheduler.step(19 * SECOND, [])
    assert [job.work for job in scheduler.ready().jobs] == [m.Kill(0), m.Spawn(1)]


def test_an_idle_workers_beat_renews_nothing() -> None:
    """It owns an attempt, so it should be reading: the message to it, or from it, is lost."""
    worker = Worker(0, True, 0)
    worker.move(1, page(1, IDLE))
    worker.move(2, page(2, IDLE))
    assert worker.moved_at == 1


def test_nobody_is_late_because_we_slept() -> None:
    """The coordinator was stopped for a minute: it finds its workers where they were."""
    scheduler = start(workers=1)
    tell(scheduler, m.Join(1))
    wake_at = scheduler.ready().wake_at
    assert wake_at is not None
    scheduler.step(60 * SECOND, [Overslept(60 * SECOND - wake_at)])
    ready = scheduler.ready()
    assert not ready.jobs
    assert ready.wake_at == 62.5 * SECOND
    scheduler.step(ready.wake_at, [])
    assert [job.work for job in scheduler.ready().jobs] == [m.Kill(0), m.Spawn(1)]


def test_no_input_is_an_empty_output() -> None:
    scheduler = start(splits=0, workers=1)
    assert tell(scheduler, m.Join(1))[1:] == [m.Reduce(FIRST + 1, 0, ())]


def test_equal_histories_give_equal_ready() -> None:
    def history() -> list[object]:
        scheduler = start(splits=6, partitions=2, workers=2)
        sent = tell(scheduler, m.Join(1)) + tell(scheduler, m.Join(1), link=Link("worker", 1, 2))
        return sent + tell(scheduler, m.Scanned(FIRST + 1), committed(FIRST + 1))

    assert history() == history()


def test_blame_needs_a_crash() -> None:
    assert [code for code in (-11, -9, -15, -7, -6, 0, 1, 139) if is_crash(code)] == [-11, -7, -6]
    blame = Blame(skip_bad=1)
    assert [blame.crash(MAP, 3, 7) for _ in range(CRASHES_MAX)] == [False] * 3 + [True]
    assert blame.skip(MAP, 3, 7)
    assert blame.skips(3) == (7,)
    assert not blame.crash(MAP, 3, 7)
    assert not blame.skip(MAP, 4, 0)


def test_totals_do_not_depend_on_what_was_done_twice() -> None:
    once, twice = Ledger(1, 1), Ledger(1, 1)
    run = m.RunAccepted(1, (0,), "a", 1, 2, (10, 5, 0))
    output = m.OutputAccepted(0, "part", 1, 2, 3, 4)
    for record in (run, output):
        once.apply(record)
    again = (m.RunDropped(1), run._replace(run=2, path="b"))
    for record in (run, *again, output, m.Publishing(1), m.OutputDropped(0), output):
        twice.apply(record)
    twice.check()
    assert once.totals() == twice.totals()
    assert dict(once.totals())["bytes"] == 10


def test_a_page_that_moved_before_its_link_fell_is_no_sign_of_life() -> None:
    """Pages are sampled: the last movement of a dead worker is seen after its link's fall."""
    scheduler = start(splits=1)
    assert tell(scheduler, m.Join(1))
    scheduler.step(1, [Linked(LINK, False)])
    scheduler.step(2, [Moved(LINK.node, page(7, MAPPING, 3))])
    scheduler.ready()
    assert scheduler.crew.usable() == []
    other = LINK._replace(node=LINK.node + 1)
    sent = tell(scheduler, m.Join(2), now=3, link=other)
    assert any(isinstance(message, m.Map) for message in sent)
