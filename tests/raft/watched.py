"""Simulated groups whose members are traced: the trial's cluster, and beside it the real trace.

A member that is killed takes with it what it had not yet put into its file, as a process does. The
clock of the traces is the time of the simulation, made unique. With a planted bug the simulator's
own judge says nothing, and a member whose assertions fail is a process that ends: what is found is
found in the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from engine.contract import Nanos
from engine.raft import trial
from engine.raft.trace import Trace, traced
from engine.raft.trial_judge import Judge
from engine.raft.trial_node import Node
from engine.sim.experiment import Violation
from engine.sim.planting import Patch, planted
from engine.sim.timeline import MILLISECOND, Crashed
from engine.verify.trace import Judged, judge

CALM = 1000 * MILLISECOND
"""When accidents end: sooner than in the trial, and so there are as many in less time."""
BROKEN = (AssertionError, LookupError, TypeError, StopIteration)
"""What the simulator's judge raises: violations, or its own books do not fit any more."""


def _quiet(name: str) -> Callable[..., None]:
    original = getattr(Judge, name)

    def say_nothing(self: Judge, *arguments: Any) -> None:
        try:
            original(self, *arguments)
        except BROKEN:
            self.cluster.seen["a judge was not asked"] += 1

    return say_nothing


class Blind(Judge):
    """Leaves everything as it is, and says nothing."""


for _name in ("written", "durable", "recovered", "said", "look", "applied", "loaded"):
    setattr(Blind, _name, _quiet(_name))


class Watched(trial.RaftCluster):
    """`folder` gets a trace for each member; `alone`: nobody but the traces notices anything."""

    def __init__(self, folder: Path, seed: int, *, alone: bool = False) -> None:
        self.folder, self.alone = folder, alone
        self.traces: dict[str, Trace] = {}
        self._last: Nanos = 0
        super().__init__(seed, keep=False, trace=False, checked=not alone, beyond="")
        if alone:
            self.judge = Blind(self)

    def clock(self) -> Nanos:
        self._last = max(self._last + 1, self.timeline.now)
        return self._last

    def begin(self, name: str) -> None:
        before = self.processes.get(name)
        super().begin(name)
        node = self.node(name)
        if node is not None and node is not before:
            self._watch(node)

    def _watch(self, node: Node) -> None:
        trace = Trace(str(self.folder / f"{node.member}.jsonl"), self.clock)
        self.traces[node.name] = trace
        traced(node.server, trace)
        turn = node.server.turn

        def mortal() -> Nanos | None:
            try:
                return turn()
            except AssertionError as error:
                if not self.alone:
                    raise
                raise Crashed(str(error)) from None

        node.server.turn = mortal  # type: ignore[method-assign]

    def end(self, process: Any, *, power: bool, absent: Nanos | None = None) -> None:
        if process.alive:
            self.traces[process.name].drop()
        super().end(process, power=power, absent=absent)

    def confirmed(self, node: Node, context: int) -> None:
        try:
            super().confirmed(node, context)
        except Violation:
            if not self.alone:
                raise


def run(folder: Path, seed: int, bug: Sequence[Patch] = ()) -> tuple[Watched, Judged]:
    """One seed, and what its traces say."""
    folder.mkdir(parents=True, exist_ok=True)
    with patch.object(trial, "CALM", CALM), planted(tuple(bug)):
        cluster = Watched(folder, seed, alone=bool(bug))
        try:
            cluster.run()
        except Exception as error:
            # A bug may end the run before its time, and then there is that much to judge.
            if not bug:
                raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            for trace in cluster.traces.values():
                trace.drop()
    return cluster, judge(files(folder))


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.jsonl"))


def rows(path: str) -> list[dict[str, Any]]:
    """The whole lines of a trace."""
    found = []
    for line in Path(path).read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def hunt(folder: Path, bug: Sequence[Patch], seeds: Sequence[int]) -> tuple[int, list[str]]:
    """(seeds tried, rules that were broken) until there is a violation; no rules if there is
    none."""
    for tried, seed in enumerate(seeds, 1):
        _, judged = run(folder / str(seed), seed, bug)
        if judged.violations:
            return tried, [violation.rule for violation in judged.violations]
    return len(seeds), []
