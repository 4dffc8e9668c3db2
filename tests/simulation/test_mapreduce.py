"""The scheduler in the simulator: right under every seed, and wrong ones are found.

Replay what a test prints with `engine sim mapreduce --seed N`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from support import dose, patience

from engine.mapreduce.trial import TRIAL
from engine.mapreduce.trial_bugs import BUGS

SEEDS = dose(ci=1200, full=100_000)
HUNTS = dose(ci=3, full=15)
CAUGHT_WITHIN = 300
"""Seeds that a planted bug may survive."""

# Accidents that must happen, a thousand seeds: one that never does means a test that tests nothing.
REACHED = {
    "quiet": 50,
    "restart": 800,
    "power": 200,
    "lost": 2000,
    "stale": 500,
    "Kill": 200,
    "RunDropped": 300,
    "OutputDropped": 20,
    "skipped": 50,
    "died drained": 50,
    "died stepped": 50,
    "died written": 20,
    "died sent": 50,
    "died turned": 50,
    "died publishing": 8,
}


def test_every_seed_is_right() -> None:
    seen: Counter[str] = Counter()
    wrong = []
    for seed in range(SEEDS):
        report = TRIAL.run_seed(seed)
        seen.update(report.seen)
        if report.problem:
            wrong.append(f"seed {seed}: {report.problem}")
    assert not wrong, "\n".join(wrong[:10])
    rare = {
        name: seen[name] for name, least in REACHED.items() if seen[name] < least * SEEDS / 1000
    }
    assert not rare, f"too rare to prove anything: {rare}"


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(bug: str) -> None:
    starts = range(0, HUNTS * 1000, 1000)
    tried = [TRIAL.hunt(bug, range(start, start + CAUGHT_WITHIN)) for start in starts]
    assert None not in tried, f"{bug} survives {CAUGHT_WITHIN} seeds: {tried}"


def test_bugs_leave_with_their_block() -> None:
    assert TRIAL.run_seed(3, "early_exit").problem
    assert not TRIAL.run_seed(3).problem


@pytest.mark.parametrize("seed", [7, 1202])
def test_equal_seeds_give_equal_traces(seed: int) -> None:
    """In two processes, whose strings hash differently."""
    digests = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "engine.mapreduce.trial", "--seed", str(seed)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=patience(30)
        )
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr
        digests.add(ended.stdout.splitlines()[-1])
    assert len(digests) == 1
    assert digests == {TRIAL.replay(seed).splitlines()[-1]}
    assert digests != {TRIAL.replay(seed + 1).splitlines()[-1]}


def test_the_command_tells_of_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert TRIAL.main(["--seed", "1", "--with-bug", "early_exit"]) == 1
    assert "stopped before Published is durable" in capsys.readouterr().out
    assert TRIAL.main(["--seed", "1", "--seeds", "3"]) == 0
    assert capsys.readouterr().out == "3 seeds, 0 with a problem\n"
