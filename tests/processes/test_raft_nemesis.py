"""Five real replicas of the log, and accidents by a schedule that is drawn from a seed.

Accidents and schedules are those of `engine.faults.nemesis`. After each everything is healed, and
there must be progress before the next one: commands and reads. At the end all members agree,
nothing acknowledged is lost, no read saw too little, and an independent judge finds nothing in the
traces of all lives.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from raft_cuts import SNAPSHOTS
from raft_group import RaftGroup
from support import SCORES, TIME_FACTOR, dose, patience
from waiting import eventually

from engine.faults.accidents import Accident, kinds_of, schedule
from engine.faults.nemesis import Nemesis
from engine.verify.trace import judge

pytestmark = pytest.mark.processes

MEMBERS = 5
SECONDS = dose(6.0, 1800.0)
LONGEST = dose(0.5, 1.2)
KINDS_LEAST = 10


@pytest.mark.parametrize("seed", range(dose(1, 4)))
def test_nemesis(seed: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    done: list[Accident] = []
    try:
        told = attacked(seed, tmp_path, done)
    except BaseException as error:
        error.add_note(f"seed {seed}; the schedule so far: {[tuple(one) for one in done]}")
        raise
    request.config.stash.setdefault(SCORES, []).append(told)


def attacked(seed: int, folder: Path, done: list[Accident]) -> str:
    begin = time.monotonic()
    flags: Any = SNAPSHOTS
    more: Any = {"flags": flags, "power": True, "trace": True, "factor": TIME_FACTOR}
    with (
        RaftGroup(folder, MEMBERS, seed=seed, more=1, live=int(SECONDS) + 600, **more) as group,
        group.witness() as witness,
        group.load(3, pause=0.002, size=200) as load,
        group.reads(load) as reader,
    ):

        def alive() -> None:
            load.more(1, seconds=30)
            load.more(2, seconds=30)
            seen = reader.seen
            eventually(lambda: reader.seen > seen, 30, "a read")

        load.more(50)
        nemesis = Nemesis(group, alive)
        until = time.monotonic() + SECONDS
        for accident in schedule(seed, kinds_of("raft"), LONGEST):
            if time.monotonic() > until and len(nemesis.happened) >= KINDS_LEAST:
                break
            done.append(accident)
            nemesis.happen(accident)
        load.more(50)
        reader.stop()
        load.stop()
        status = group.judge_witnessed(load, witness, nemesis.members)
    judged = judge(group.traces[name] for name in group.names if Path(group.traces[name]).exists())
    assert not judged.violations, judged.violations[:5]
    slowest = max(nemesis.recoveries)
    assert slowest < patience(30)
    return (
        f"replicas and their nemesis: {nemesis.happened.total()} accidents of "
        f"{len(nemesis.happened)} kinds, {len(load.acknowledged)} commands acknowledged, "
        f"{len(load.unknown)} unknown, {reader.seen} reads, term {status.term}; back within "
        f"{slowest:.1f} s; {judged.lives} lives judged, in {time.monotonic() - begin:.0f} s"
    )
