"""Accidents as data: schedules, what can be aimed at whom, and plans in files."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFoundError, UsageError
from engine.faults.accidents import (
    KINDS,
    QUIET,
    SHORTEST,
    Accident,
    check_kind,
    kinds_of,
    read_plan,
    schedule,
    written,
)
from engine.faults.nemesis import ACTIONS

LONGEST = 0.8


def first(seed: int, many: int, kinds: list[str]) -> list[Accident]:
    return list(islice(schedule(seed, kinds, LONGEST), many))


def test_a_seed_is_a_schedule() -> None:
    kinds = kinds_of("kv")
    assert first(7, 200, kinds) == first(7, 200, kinds)
    assert first(7, 200, kinds) != first(8, 200, kinds)


def test_all_kinds_happen_with_all_aims_and_a_quarter_is_quiet() -> None:
    kinds = kinds_of("kv")
    found = first(1, 6000, kinds)
    for accident in found:
        assert check_kind(accident.kind, aimed=True) == accident.kind
        assert SHORTEST <= accident.seconds <= LONGEST
    wanted = {f"{name}:{aim}" for name in kinds for aim in KINDS[name].aims}
    wanted |= {name for name in kinds if not KINDS[name].aims} | {QUIET}
    assert {accident.kind for accident in found} == wanted
    quiet = sum(accident.name == QUIET for accident in found) / len(found)
    assert 0.22 < quiet < 0.28
    early = {accident.name for accident in found[: 2 * len(kinds)]}
    assert early >= set(kinds), "each comes once before one comes for the third time"
    counts = Counter(accident.name for accident in found if accident.name != QUIET)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_only_some_kinds() -> None:
    found = first(1, 100, ["pause:leader", "kill"])
    assert {a.name for a in found} == {"pause", "kill", QUIET}
    assert {a.kind for a in found if a.name == "pause"} == {"pause:leader"}
    assert len({a.kind for a in found if a.name == "kill"}) == len(KINDS["kill"].aims)


def test_every_kind_can_be_done() -> None:
    assert ACTIONS.keys() == KINDS.keys()
    assert set(kinds_of("kv")) == KINDS.keys() - {QUIET}
    assert set(kinds_of("raft")) == KINDS.keys() - {QUIET, "snapshot"}


@pytest.mark.parametrize("text", ["", "earthquake", "kill:nobody", "split:leader", "pause:clients"])
def test_what_is_no_accident(text: str) -> None:
    with pytest.raises(UsageError):
        check_kind(text, aimed=False)


def test_a_plan_says_whom_it_means() -> None:
    assert check_kind("kill", aimed=False) == "kill"
    with pytest.raises(UsageError, match="aimed at leader"):
        check_kind("kill", aimed=True)


# --- plans ---------------------------------------------------------------------------------------


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    accidents = first(3, 40, kinds_of("kv"))
    (tmp_path / "plan.json").write_text(written(3, 5, accidents))
    plan = read_plan(str(tmp_path / "plan.json"))
    assert (plan.seed, plan.replicas, list(plan.accidents)) == (3, 5, accidents)


ROW: dict[str, Any] = {"kind": "quiet", "seconds": 1, "seed": 2}
PLAN: dict[str, Any] = {"version": 1, "seed": 1, "replicas": 5, "accidents": [ROW]}


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([], "no plan of version 1"),
        ({**PLAN, "version": 2}, "no plan of version 1"),
        ({**PLAN, "seed": "x"}, "it has a seed"),
        ({**PLAN, "accidents": []}, "it has a seed, replicas, and accidents"),
        ({**PLAN, "accidents": [{**ROW, "who": 1}]}, "accident 1: it has kind, seconds and seed"),
        ({**PLAN, "accidents": [ROW, {**ROW, "seconds": -1}]}, "accident 2: it lasts 0 to 600"),
        ({**PLAN, "accidents": [{**ROW, "seed": True}]}, "its seed is a number"),
        ({**PLAN, "accidents": [{**ROW, "kind": "kill"}]}, "accident 1: 'kill' is no accident"),
    ],
)
def test_plans_that_make_no_sense(plan: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match=says):
        read_plan(str(path))


def test_plans_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no plan"):
        read_plan(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(str(tmp_path))
    (tmp_path / "half").write_text('{"version": 1')
    with pytest.raises(UsageError, match="is no plan"):
        read_plan(str(tmp_path / "half"))
