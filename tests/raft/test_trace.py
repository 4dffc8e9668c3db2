"""Traces of simulated groups: the judge of traces has no objection to what is right, and finds
alone, by the members' own accounts, what is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raft import watched
from support import dose

from engine.raft.server import RaftServer
from engine.raft.trace import Trace
from engine.raft.trial_bugs import BUGS
from engine.sim.drives import Drive
from engine.sim.planting import Patch
from engine.verify.trace import judge

SEEDS = range(dose(ci=45, full=3000))
REACHED = {
    "led": 100,
    "acknowledged": 3000,
    "killed": 150,
    "lost power": 70,
    "died while recovering": 10,
    "installed": 10,
    "change decided": 5,
    "truncated": 5,
    "cut off": 200,
    "read": 1000,
}
"""What must have happened in the seeds of a short run: what never happens is not judged."""
WITHIN = 150
"""Seeds that a planted bug may survive."""


# --- what is right -------------------------------------------------------------------------------


def test_nothing_is_wrong_with_any_seed(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    events: Counter[str] = Counter()
    wrong = []
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        cluster, judged = watched.run(folder, seed)
        seen.update(cluster.seen)
        if seed < 20:
            for path in watched.files(folder):
                events.update(row["event"] for row in watched.rows(path))
        wrong += [f"seed {seed}: {violation}" for violation in judged.violations[:1]]
        shutil.rmtree(folder)
    assert not wrong, f"{len(wrong)} of {len(SEEDS)}:\n" + "\n".join(wrong[:10])
    rare = {what: seen[what] for what, least in REACHED.items() if seen[what] < least}
    assert not rare, f"too rare to prove anything: {rare}"
    missing = EVENTS - events.keys()
    assert not missing, f"never noted: {missing}"


EVENTS = {
    "life", "write", "durable", "say", "role", "commit", "config", "load", "apply", "ask", "read",
    "take", "taken", "hear",
}  # fmt: skip


def test_what_is_judged_is_what_happened(tmp_path: Path) -> None:
    """The trace and the simulator's own books agree on how much there was."""
    cluster, judged = watched.run(tmp_path, 0)
    assert judged.lives == cluster.seen["started"]
    assert judged.elections == len(cluster.judge.leaders)
    assert judged.entries >= cluster.seen["decided"] > 0
    assert judged.members == len(watched.files(tmp_path))


def test_a_group_that_is_not_traced_does_the_same(tmp_path: Path) -> None:
    """Watching changes nothing: the same seed decides the same."""
    from unittest.mock import patch

    from engine.raft import trial

    with patch.object(trial, "CALM", watched.CALM):
        plain = trial.RaftCluster(3, keep=False, trace=True, checked=True, beyond="")
        plain.run()
        seen = watched.Watched(tmp_path, 3)
        seen.run()
    for trace in seen.traces.values():
        trace.drop()
    assert plain.seen == seen.seen
    assert plain.judge.decided == seen.judge.decided


def test_nobody_pays_for_a_trace_that_is_not_kept() -> None:
    """A replica without one does not even load it."""
    code = "import sys, engine.raft.server; print('engine.raft.trace' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


# --- the file ------------------------------------------------------------------------------------


def test_what_is_not_flushed_dies_and_half_a_line_is_passed_over(tmp_path: Path) -> None:
    path = str(tmp_path / "one.jsonl")
    ticks = iter(range(100))
    for torn in (b"", b'{"at":7,"event":"ro', b""):
        trace = Trace(path, lambda: next(ticks))
        trace.note("life", **LIFE)
        trace.flush()
        trace.note("role", role="leader", term=1, leader=7)  # and is killed
        trace.drop()
        with open(path, "ab") as file:
            file.write(torn)
    trace = Trace(path, lambda: next(ticks))
    trace.note("life", **LIFE)
    trace.close()
    trace.close()
    assert [row["event"] for row in watched.rows(path)] == ["life"] * 4 + ["end"]
    assert len(Path(path).read_bytes().splitlines()) == 6
    judged = judge([path])
    assert (judged.violations, judged.lives, judged.events) == ([], 4, 5)


LIFE: dict[str, Any] = {
    "version": 1, "wall": 0, "boot": "b", "pid": 1, "member": 7, "term": 0, "vote": 0,
    "base": [0, 0], "terms": [], "configs": [[0, [7], []]], "lost": None, "snapshot": None,
    "commit": 0,
}  # fmt: skip


def test_the_worked_example(tmp_path: Path) -> None:
    from engine.raft import trace

    assert trace.__doc__ is not None
    lines = [line.strip() for line in trace.__doc__.splitlines() if line.startswith('    {"at"')]
    path = tmp_path / "example.jsonl"
    path.write_text("\n".join(lines) + "\n")
    judged = judge([str(path)])
    assert (judged.violations, judged.elections, judged.entries) == ([], 1, 1)


# --- what is wrong -------------------------------------------------------------------------------


def _lies(original: Any) -> Any:
    """The disk says that all is durable, and has it in its cache."""
    return lambda self, covered: None


def _does_not_wait(original: Any) -> Any:
    """The turn takes for durable what was written."""

    def sift(self: RaftServer, events: Any) -> Any:
        self._durable = self._written
        return original(self, events)

    return sift


OURS: dict[str, tuple[Patch, ...]] = {
    "disk_lies": (Patch(Drive, "complete", _lies),),
    "turn_does_not_wait": (Patch(RaftServer, "sift", _does_not_wait),),
}
"""Besides those of the trial."""

FOUND_BY = {
    "heartbeat_of_the_past": "election safety",
    "vote_not_persisted": "promises",
    "term_not_persisted": "promises",
    "term_persisted_after_reply": "promises",
    "vote_forgotten_when_given": "promises",
    "acknowledged_before_fsync": "promises",
    "half_is_a_majority": "quorum",
    "no_previous_term_check": "log matching",
    "truncates_matching_tail": "append only",
    "suffix_discarded_at_install": "append only",
    "no_up_to_date_check": "leader completeness",
    "length_before_term": "leader completeness",
    "applied_before_commit": "state machine safety",
    "commit_past_matched": "state machine safety",
    "stale_snapshot_accepted": "state machine safety",
    "commit_old_term_by_counting": "commit",
    "majority_of_old_members": "commit",
    "leader_counts_itself_unsynced": "commit",
    "snapshot_without_members": "commit",
    "log_kept_after_install": "commit",
    "stale_reply_moves_match": "commit",
    "later_term_in_reply_ignored": "monotone",
    "damage_taken_for_torn": "recovery",
    "disk_lies": "recovery",
    "turn_does_not_wait": "tickets",
    "change_before_own_term": "members",
    "removed_leader_counts_itself": "members",
    "learner_counted": "members",
    "read_without_quorum": "reads",
    "read_confirmed_by_the_past": "reads",
    "snapshot_off_by_one": "snapshots",
}
"""Each bug, and the rule that it is found by."""
NOT_FOUND = {"next_index_underflows", "piece_waits_for_silence"}
"""One ends the process that has it, one lets a member wait: nothing untrue comes of them."""
SLOW = {
    "heartbeat_of_the_past", "length_before_term", "commit_past_matched", "stale_snapshot_accepted",
    "later_term_in_reply_ignored", "damage_taken_for_torn", "change_before_own_term",
    "read_confirmed_by_the_past", "log_kept_after_install", "suffix_discarded_at_install",
    "no_previous_term_check", "snapshot_without_members",
}  # fmt: skip
"""They take tens of seeds. Each of their rules has a hand-made case in `tests/verify`."""
HUNTED = sorted(FOUND_BY if dose(ci=False, full=True) else FOUND_BY.keys() - SLOW)


@pytest.mark.parametrize("bug", HUNTED)
def test_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    """By the rule that it breaks, if by others first. Its seeds are few, so they may find it by a
    consequence: the rule is looked for in a few more."""
    patches = OURS.get(bug) or BUGS[bug]
    begin, rules = 1000, set[str]()
    while FOUND_BY[bug] not in rules:
        tried, found = watched.hunt(tmp_path, patches, range(begin, 1000 + WITHIN))
        assert found, f"{bug}: {FOUND_BY[bug]} is kept in {WITHIN} seeds; broken: {rules}"
        begin, rules = begin + tried, rules | {*found}


def test_every_bug_has_its_rule() -> None:
    assert FOUND_BY.keys() | NOT_FOUND == BUGS.keys() | OURS.keys()


def test_bugs_are_planted_for_a_while_only(tmp_path: Path) -> None:
    before: Callable[..., Any] = Drive.__dict__["complete"]
    watched.run(tmp_path, 1, OURS["disk_lies"])
    assert Drive.__dict__["complete"] is before
