"""What the command line of every trial can do besides running: stop early, and print JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.backup.trial import TRIAL as BACKUP
from engine.locks.trial import TRIAL as LOCKS
from engine.mapreduce.trial import TRIAL as MAPREDUCE
from engine.sim.experiment import Experiment
from engine.views.trial import TRIAL as VIEWS

TRIALS = {"mapreduce": MAPREDUCE, "locks": LOCKS, "views": VIEWS, "backup": BACKUP}
Capture = pytest.CaptureFixture[str]


def objects(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(params=TRIALS)
def trial(request: pytest.FixtureRequest) -> Experiment:
    return TRIALS[request.param]


def test_a_replay_stops_after_so_many_events_with_the_table_so_far(
    trial: Experiment, capsys: Capture
) -> None:
    whole = trial.run_seed(4, keep=True)
    assert trial.main(["--seed", "4", "--steps", "40"]) == 0
    *lines, last, digest = capsys.readouterr().out.splitlines()
    assert last == "stopped after 40 events"
    assert tuple(lines) == whole.lines[: len(lines)]
    assert 0 < len(lines) < len(whole.lines)
    assert digest == trial.run_seed(4, trace=True, steps=40).digest != whole.digest
    assert trial.main(["--seed", "4", "--steps", str(whole.events + 1)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["all is well", whole.digest]


def test_a_replay_as_json(trial: Experiment, capsys: Capture) -> None:
    report = trial.run_seed(4, keep=True)
    assert trial.main(["--seed", "4", "--json"]) == 0
    assert objects(capsys) == [
        {
            "seed": 4,
            "problem": "",
            "events": report.events,
            "seen": report.seen,
            "digest": report.digest,
            "table": list(report.lines),
        }
    ]


def test_a_problem_comes_before_the_end_that_was_asked_for() -> None:
    bug = next(iter(LOCKS.bugs))
    seed, report = next(
        (seed, report)
        for seed in range(300)
        for report in [LOCKS.run_seed(seed, bug)]
        if report.problem
    )
    late = LOCKS.run_seed(seed, bug, steps=report.events + 1)
    assert (late.problem, late.stopped) == (report.problem, False)
    early = LOCKS.run_seed(seed, bug, steps=1)
    assert (early.problem, early.stopped) == ("", True)
    assert early.events <= 2  # both ends of a connection hear of it


def test_many_seeds_as_json(capsys: Capture) -> None:
    assert LOCKS.main(["--seed", "5", "--seeds", "3", "--json"]) == 0
    rows = objects(capsys)
    assert [row["seed"] for row in rows] == [5, 6, 7]
    assert [row["digest"] for row in rows] == [
        LOCKS.run_seed(seed, trace=True).digest for seed in (5, 6, 7)
    ]
    assert not any("table" in row for row in rows)
    arguments = ["--seed", "0", "--seeds", "5", "--beyond", "partition", "--json"]
    assert LOCKS.main(arguments) == 1
    assert any(row["problem"] for row in objects(capsys))


def test_hunts_as_json_take_their_seeds_from_the_first_on(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hunted: list[range] = []

    def hunt(bug: str, seeds: range) -> int | None:
        hunted.append(seeds)
        return 1 if seeds.start < 130 else None

    monkeypatch.setattr(LOCKS, "hunt", hunt)
    assert LOCKS.main(["--hunt", "--seed", "100", "--seeds", "10", "--json"]) == 1
    assert objects(capsys) == [{"bug": bug, "median": 11, "worst": 11} for bug in LOCKS.bugs]
    assert hunted[:9] == [range(100 + 10 * n, 110 + 10 * n) for n in range(9)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "5", "--seeds", "2"], "--steps is for the replay of one seed"),
        (["--steps", "5", "--hunt"], "--steps is for the replay of one seed"),
        (["--steps", "-1"], "--steps must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], says: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        LOCKS.main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
