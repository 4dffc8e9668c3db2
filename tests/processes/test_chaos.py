"""The store on real processes under accidents, and the harness that judges it.

One run visits as many kinds of accidents as there is time for. Four others are of stores that are
broken on purpose (`engine.faults.unsafe`): each must fail within seconds, for what it does, and the
same accidents must do no harm to a store that is not broken.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import SCORES, TIME_FACTOR, dose
from waiting import eventually

from engine.errors import EngineError
from engine.faults.accidents import Accident, kinds_of, read_plan, schedule
from engine.faults.chaos import Chaos, Settings
from engine.faults.nemesis import REPAIR_SECONDS, Nemesis
from engine.faults.replicas import Replicas
from engine.faults.unsafe import SWITCHES
from engine.verify.files import read
from engine.verify.linearizable import RIGHT, check, overall
from engine.verify.sets import Sets

pytestmark = pytest.mark.processes

SECONDS = dose(16.0, 1800.0)
LONGEST = dose(0.6, 3.0)
KINDS_LEAST = dose(15, 23)

UNSAFE = {
    "no-fsync": (
        [("power-loss:all", 0.2)] * 3,
        "was answered as of revision|was not told of|not linearizable|is lost",
    ),
    "stale-reads": (
        [("pause:leader", 0.8)] * 8,
        "was answered as of revision|not linearizable",
    ),
    "no-dedupe": ([("resets:clients", 0.4)] * 4, "and again at|not linearizable|times"),
    "skip-crc": ([("flip-log:minority", 0.1)] * 12, "do not agree|ended by itself|Traceback"),
}
"""By switch: what brings it to light, and what is then said."""


def attack(folder: Path, accidents: list[tuple[str, float]], seed: int, unsafe: str = "") -> Chaos:
    """What became of a plan."""
    plan = [Accident(kind, seconds, seed + at) for at, (kind, seconds) in enumerate(accidents)]
    kinds = len({accident.name for accident in plan})
    settings = Settings(str(folder), 0, seed, 5, plan, kinds, unsafe, TIME_FACTOR)
    chaos = Chaos(settings, print)
    chaos.run()
    return chaos


@pytest.mark.parametrize("seed", range(dose(1, 4)))
def test_chaos(seed: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    kinds = kinds_of("kv")
    accidents = schedule(seed, kinds, LONGEST)
    settings = Settings(
        str(tmp_path / "run"), SECONDS, seed, 5, accidents, len(kinds), factor=TIME_FACTOR
    )
    chaos = Chaos(settings, print)
    well = chaos.run()
    report = chaos.report()
    assert well, report["violations"]
    assert len(report["accidents"]) >= KINDS_LEAST, report["accidents"]
    assert report["unsynced_bytes_lost"] or "power-loss" not in report["accidents"]
    assert json.loads(json.dumps(report)) == report
    plan = read_plan(str(tmp_path / "run" / "plan.json"))
    assert list(plan.accidents) == chaos.happened
    assert not list((tmp_path / "run" / "replicas").glob(".power-*")), "it tidies up"
    judged = judged_again(tmp_path / "run")
    assert overall(judged) == RIGHT
    assert sum(len(one.operations) for one in judged) == report["judged"]["operations"]
    done = report["operations"]
    request.config.stash.setdefault(SCORES, []).append(
        f"the store and its nemesis: {sum(report['accidents'].values())} accidents of "
        f"{len(report['accidents'])} kinds, {sum(done['acknowledged'].values())} operations "
        f"acknowledged, {done['unknown']} unknown, {report['reads_while_cut']} reads in "
        f"partitions, {report['watched']} changes watched; back within "
        f"{report['recovery_seconds']['max']} s, in {report['seconds']:.0f} s"
    )


def judged_again(folder: Path) -> list[Any]:
    """As `engine verify` does it, from the file."""
    with open(folder / "history.jsonl", encoding="utf-8") as history:
        return check(read(history, "history", Sets().problem), Sets())


@pytest.mark.parametrize("seed", range(dose(1, 5)))
@pytest.mark.parametrize("switch", UNSAFE)
def test_a_broken_store_fails(switch: str, seed: int, tmp_path: Path) -> None:
    """Or the harness is blind."""
    accidents, says = UNSAFE[switch]
    chaos = attack(tmp_path / "run", accidents, seed, switch)
    report = chaos.report()
    assert report["verdict"] == "failed", "nothing was noticed"
    assert re.search(says, " ".join(report["violations"])), report["violations"]
    assert report["seconds"] < (10 + REPAIR_SECONDS) * TIME_FACTOR, "who is never whole is awaited"
    assert (tmp_path / "run" / "plan.json").exists()
    linear = [one for one in report["violations"] if "not linearizable" in one]
    assert (overall(judged_again(tmp_path / "run")) == RIGHT) == (not linear)


@pytest.mark.parametrize("switch", ["no-fsync", "skip-crc"])
def test_what_is_broken_shows_by_its_accident_only(switch: str, tmp_path: Path) -> None:
    """So it was that what the others noticed."""
    report = attack(tmp_path / "run", [("kill:all", 0.1)], 1, switch).report()
    assert report["verdict"] == "ok", report["violations"]


def test_the_same_accidents_are_survived(tmp_path: Path) -> None:
    """By a store that is not broken."""
    assert UNSAFE.keys() == SWITCHES.keys()
    accidents = [accidents[0] for accidents, _ in UNSAFE.values()]
    assert [kind for kind, _ in accidents] == [one.accident for one in SWITCHES.values()]
    report = attack(tmp_path / "run", accidents, 1).report()
    assert report["verdict"] == "ok", report["violations"]


def test_whoever_refuses_to_start_is_replaced(tmp_path: Path) -> None:
    """With damaged files it says so in a sentence, and an operator puts a new one in its place.
    Whoever was not damaged has to start."""

    def alive() -> None:
        eventually(lambda: group.leads(nemesis.members), 10, "a leader")

    with Replicas(tmp_path, 3, more=1, power=True, factor=TIME_FACTOR) as group:
        assert not group.start_all(group.founders)
        nemesis = Nemesis(group, alive)
        (name,) = nemesis._down("one")
        (group.home(name) / "member").write_bytes(b"{")
        nemesis.heal()
        assert nemesis.members.count("n3") == 1
        assert name not in nemesis.members
        assert "does not say whose folder this is" in nemesis.notes[0]
        status = group.status(group.leads(nemesis.members))
        assert status is not None
        wanted = {group.ids[member] for member in nemesis.members}
        assert {seat.id for seat in status.seats} == wanted
        group.kill("n3")
        (group.home("n3") / "member").write_bytes(b"{")
        with pytest.raises(EngineError, match="does not say whose folder this is"):
            nemesis.heal()
