"""Locks, views and the store in the simulator: right under every seed, and wrong ones are found.

Replay what a test prints with `engine sim NAME --seed N`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import pytest
from support import dose, engine, run

from engine.backup.trial import TRIAL as BACKUP
from engine.locks.trial import TRIAL as LOCKS
from engine.sim.cluster import Process
from engine.sim.experiment import Experiment
from engine.sim.timeline import MILLISECOND
from engine.views.trial import TRIAL as VIEWS

ACCIDENTS = ("killed", "paused", "cut off", "broken", "lost")
HUNTS = dose(ci=2, full=9)
CAUGHT_WITHIN = 300
"""Seeds that a planted bug may survive."""


class Proof(NamedTuple):
    """A trial, how many seeds it is run for, and what must happen how often in a thousand: an
    accident that never happens means a test that tests nothing."""

    trial: Experiment
    seeds: int
    reached: dict[str, int]


PROOFS = {
    "locks": Proof(
        LOCKS,
        dose(ci=700, full=100_000),
        {
            "quiet": 50,
            "killed": 100,
            "died drained": 6,
            "died stepped": 6,
            "died sent": 6,
            "died turned": 6,
            "slept": 100,
            "cut off": 100,
            "paused": 400,
            "broken": 300,
        },
    ),
    "views": Proof(
        VIEWS,
        dose(ci=400, full=30_000),
        {
            "quiet": 50,
            "killed": 800,
            "paused": 400,
            "cut off": 2000,
            "lost": 100,
            "filled": 500,
            "promoted": 140,
            "backup changed": 600,
            "views": 1300,
        },
    ),
    "backup": Proof(
        BACKUP,
        dose(ci=400, full=10_000),
        {
            "quiet": 40,
            "killed": 2000,
            "died drained": 500,
            "died stepped": 500,
            "died sent": 500,
            "died turned": 500,
            "paused": 600,
            "cut off": 2000,
            "broken": 200,
            "lost": 100,
            "views": 1200,
        },
    ),
}
BUGS = [(name, bug) for name, proof in PROOFS.items() for bug in proof.trial.bugs]


@pytest.mark.parametrize("name", PROOFS)
def test_every_seed_is_right(name: str) -> None:
    trial, seeds, reached = PROOFS[name]
    seen: Counter[str] = Counter()
    wrong = []
    for seed in range(seeds):
        report = trial.run_seed(seed)
        seen.update(report.seen)
        if report.problem:
            wrong.append(f"seed {seed}: {report.problem}")
        elif report.seen.get("quiet") and any(report.seen.get(what) for what in ACCIDENTS):
            wrong.append(f"seed {seed}: is quiet, and {report.seen}")
    assert not wrong, f"{len(wrong)} of {seeds}:\n" + "\n".join(wrong[:10])
    rare = {
        what: seen[what] for what, least in reached.items() if seen[what] < least * seeds / 1000
    }
    assert not rare, f"too rare to prove anything: {rare}"


@pytest.mark.parametrize("name", PROOFS)
def test_nobody_is_busy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that wants its next turn at once, and then has nothing to do, turns for ever.

    Counted are turns for which nothing had arrived; whatever is timed takes a few in 10 ms.
    """
    turns: Counter[tuple[str, int]] = Counter()
    turn = Process._turn

    def counted(self: Process) -> None:
        if not self._inbox and self.alive and not self.paused:
            turns[self.name, self.now() // (10 * MILLISECOND)] += 1
        turn(self)

    monkeypatch.setattr(Process, "_turn", counted)
    busy = []
    for seed in range(PROOFS[name].seeds // 10):
        turns.clear()
        PROOFS[name].trial.run_seed(seed)
        (who, when), most = turns.most_common(1)[0]
        if most > 20:
            busy.append(f"seed {seed}: {who} turns {most} times within 10 ms at {10 * when} ms")
    assert not busy, f"{len(busy)} seeds:\n" + "\n".join(busy[:10])


# --- planted bugs --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bug"), BUGS, ids=[f"{name}-{bug}" for name, bug in BUGS])
def test_planted_bug_is_found(name: str, bug: str) -> None:
    starts = range(0, HUNTS * 1000, 1000)
    trial = PROOFS[name].trial
    tried = [trial.hunt(bug, range(start, start + CAUGHT_WITHIN)) for start in starts]
    assert None not in tried, f"{bug} survives {CAUGHT_WITHIN} seeds: {tried}"


@cache
def caught(trial: Experiment) -> tuple[str, int]:
    """A bug, and a seed that shows it."""
    found = ((bug, trial.hunt(bug, range(20))) for bug in trial.bugs)
    return next((bug, tried - 1) for bug, tried in found if tried is not None)


def patched(trial: Experiment) -> list[Any]:
    return [p.owner.__dict__[p.name] for patches in trial.bugs.values() for p in patches]


@pytest.mark.parametrize("name", PROOFS)
def test_bugs_leave_with_their_block(name: str) -> None:
    trial = PROOFS[name].trial
    before = patched(trial)
    bug, seed = caught(trial)
    assert trial.run_seed(seed, bug).problem
    assert not trial.run_seed(seed).problem
    assert all(now is then for now, then in zip(patched(trial), before, strict=True))


# --- what is not survived ------------------------------------------------------------------------

SEEN_BEYOND = {
    ("locks", "partition"): "no single copy of lock 0 gives these answers",
    ("locks", "both_die"): "not over after",
    ("views", "amnesia"): "at the same time",
    ("backup", "amnesia"): "",
    ("backup", "both_die"): "clients wait for ever",
}


def test_every_accident_is_looked_at() -> None:
    told = {(name, what) for name, proof in PROOFS.items() for what in proof.trial.beyond}
    assert told == set(SEEN_BEYOND)


@pytest.mark.parametrize(("name", "beyond"), SEEN_BEYOND)
def test_what_is_not_survived_is_shown(name: str, beyond: str) -> None:
    problems = [PROOFS[name].trial.run_seed(seed, beyond=beyond).problem for seed in range(5)]
    assert any(problems), f"{beyond} does no harm"
    assert any(SEEN_BEYOND[name, beyond] in problem for problem in problems), problems


def test_a_store_whose_data_is_gone_answers_nothing_rather_than_something_wrong() -> None:
    lost = 0
    for seed in range(dose(20, 500)):
        report = BACKUP.run_seed(seed, beyond="both_die")
        assert report.problem in (
            "",
            "Violation: nobody who has the data is left, and clients wait for ever",
        )
        assert bool(report.problem) == bool(report.seen.get("lost"))
        lost += report.seen.get("lost", 0)
    assert lost > dose(10, 250)


# --- replays -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROOFS)
def test_equal_seeds_give_equal_traces(name: str) -> None:
    """In two processes, whose strings hash differently."""
    trial = PROOFS[name].trial
    eventful = ("cut off", "paused")
    seed = next(s for s in range(500) if all(trial.run_seed(s).seen.get(what) for what in eventful))
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", f"engine.{name}.trial", "--seed", str(seed)]
        ended = run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed})
        assert ended.code == 0, ended.out[-2000:] + ended.err
        digests.add(ended.out.splitlines()[-1])
    assert digests == {trial.replay(seed).splitlines()[-1]}
    assert digests != {trial.replay(seed + 1).splitlines()[-1]}


@pytest.mark.parametrize("name", PROOFS)
def test_a_trace_that_is_not_kept_is_the_same(name: str) -> None:
    trial = PROOFS[name].trial
    kept, traced, neither = (
        trial.run_seed(3, keep=True),
        trial.run_seed(3, trace=True),
        trial.run_seed(3),
    )
    assert kept.digest == traced.digest != ""
    assert kept.lines
    assert (traced.lines, neither.lines, neither.digest) == ((), (), "")
    assert kept.seen == traced.seen == neither.seen
    assert kept.events == neither.events


def test_the_command_replays_a_seed() -> None:
    ended = engine("sim", "locks", "--seed", "7")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-2:] == ["all is well", LOCKS.run_seed(7, trace=True).digest]
    bug, seed = caught(LOCKS)
    ended = engine("sim", "locks", "--seed", str(seed), "--with-bug", bug)
    assert ended.code == 1
    assert "Violation" in ended.out.splitlines()[-2]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("sim", "locks", "--seeds", "20"), 0, "20 seeds, 0 with a problem"),
        (("sim", "locks", "--seeds", "5", "--beyond", "partition"), 1, "no single copy"),
        (("sim", "views", "--seeds", "5", "--beyond", "amnesia"), 1, "at the same time"),
        (("sim", "backup", "--seed", "1", "--beyond", "both_die"), 1, "wait for ever"),
        (("sim", "views", "--help"), 0, "amnesia"),
        (("sim", "--help"), 0, "NAME"),
        (("sim",), 2, "NAME"),
        (("sim", "nothing"), 2, "no simulation of 'nothing'"),
        (("sim", "locks", "--with-bug", "none"), 2, "invalid choice"),
        (("sim", "locks", "--beyond", "amnesia"), 2, "invalid choice"),
    ],
)
def test_exit_codes_of_the_command(arguments: tuple[str, ...], code: int, says: str) -> None:
    ended = engine(*arguments)
    assert ended.code == code, ended.out[-1000:] + ended.err
    assert says in ended.out + ended.err


def test_the_command_hunts(capsys: pytest.CaptureFixture[str]) -> None:
    assert LOCKS.main(["--hunt", "--seeds", "1"]) == 1, "one seed does not find every bug"
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[1:]] == list(LOCKS.bugs)
