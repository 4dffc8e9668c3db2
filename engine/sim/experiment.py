"""What all trials share: run a seed, hunt a planted bug, replay, and the command line for it.

Equal seeds give equal replays; the digest in the last line makes them easy to compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from engine.record import Record
from engine.sim.planting import Patch, planted
from engine.sim.timeline import Stopped, Timeline

if TYPE_CHECKING:
    from argparse import Namespace


class Violation(AssertionError):
    """Something that must never happen did."""


class Run(Protocol):
    """One seed's world; `run` raises for whatever is wrong."""

    timeline: Timeline
    events: int
    seen: Counter[str]

    def run(self) -> None: ...


class Make(Protocol):
    """Builds the world of a seed. `checked`: assert the machines' own invariants as well. `beyond`
    names an accident that the service does not promise to survive."""

    def __call__(
        self, seed: int, *, keep: bool, trace: bool, checked: bool, beyond: str
    ) -> Run: ...


class Report(Record):
    """One seed."""

    seed: int
    problem: str
    """What does not hold, or ""."""
    events: int
    seen: dict[str, int]
    """What happened how often."""
    digest: str
    """Of the trace, if there was one."""
    lines: tuple[str, ...]
    """The trace, if it was kept."""
    stopped: bool = False
    """Whether it was cut short, as had been asked for, with no problem so far."""

    def as_json(self) -> str:
        """One line, with the trace if it was kept."""
        import json

        told: dict[str, Any] = {
            "seed": self.seed,
            "problem": self.problem,
            "events": self.events,
            "seen": self.seen,
            "digest": self.digest,
        }
        if self.lines:
            told["table"] = self.lines
        return json.dumps(told)

    def as_table(self) -> str:
        """The trace, what does not hold, and the digest."""
        fine = f"stopped after {self.events} events" if self.stopped else "all is well"
        return "\n".join((*self.lines, self.problem or fine, self.digest))


class Experiment:
    """A service's trial: how its world is built, and the bugs that must not survive it."""

    def __init__(
        self,
        name: str,
        make: Make,
        bugs: Mapping[str, tuple[Patch, ...]],
        beyond: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.bugs = name, bugs
        self.beyond = dict(beyond or {})
        """Accidents that are not survived, each with what is seen then."""
        self._make = make

    def run_seed(
        self,
        seed: int,
        bug: str | None = None,
        *,
        trace: bool = False,
        keep: bool = False,
        beyond: str = "",
        steps: int | None = None,
    ) -> Report:
        """Any exception of a machine is as much a problem as a violation. `steps`: stop after so
        many events."""
        with planted(self.bugs[bug] if bug else ()):
            world = self._make(seed, keep=keep, trace=trace, checked=bug is None, beyond=beyond)
            problem, stopped = "", False
            if steps is not None:
                world.timeline.stop = lambda: world.events >= steps
            try:
                world.run()
            except Stopped:
                stopped = True
            except Exception as error:
                # Whatever it is, it is the seed that the reader needs first.
                problem = f"{type(error).__name__}: {error}"
        timeline = world.timeline
        digest = timeline.digest() if trace or keep else ""
        seen, lines = dict(world.seen), tuple(timeline.lines)
        return Report(seed, problem, world.events, seen, digest, lines, stopped)

    def hunt(self, bug: str, seeds: Sequence[int]) -> int | None:
        """How many of these seeds it takes to catch a planted bug; None if they do not."""
        for tried, seed in enumerate(seeds, 1):
            if self.run_seed(seed, bug).problem:
                return tried
        return None

    def replay(self, seed: int, bug: str | None = None) -> str:
        """The table of events of a seed; the last line is its digest."""
        return self.run_seed(seed, bug, keep=True).as_table()

    def main(self, argv: Sequence[str] | None = None) -> int:
        """`engine sim NAME`: replay a seed, run many, or hunt bugs. 1 if something is wrong."""
        options = self._options(argv)
        if options.hunt:
            return self._show_hunts(options.seed, options.seeds or 300, options.json)
        if options.seeds is not None:
            seeds = range(options.seed, options.seed + options.seeds)
            return self._show_swarm(seeds, options.with_bug, options.beyond, options.json)
        report = self.run_seed(
            options.seed, options.with_bug, keep=True, beyond=options.beyond, steps=options.steps
        )
        print(report.as_json() if options.json else report.as_table())
        return 1 if report.problem else 0

    def _options(self, argv: Sequence[str] | None) -> Namespace:
        import argparse

        parser = argparse.ArgumentParser(
            prog=f"engine sim {self.name}",
            description=f"Run {self.name} in the simulator.",
        )
        add = parser.add_argument
        add("--seed", type=int, default=1, help="replay this seed (default 1)")
        add("--with-bug", choices=sorted(self.bugs), help="plant this bug")
        add("--seeds", type=int, metavar="N", help="run N seeds from --seed on instead")
        add("--hunt", action="store_true", help="count seeds to find each planted bug")
        add("--steps", type=int, metavar="M", help="stop the replay after M events")
        add("--json", action="store_true", help="print a JSON object for each seed, or bug")
        if self.beyond:
            told = "; ".join(f"{name}: {what}" for name, what in self.beyond.items())
            add("--beyond", choices=sorted(self.beyond), default="", help=f"let happen: {told}")
        else:
            parser.set_defaults(beyond="")
        options = parser.parse_args(argv)
        if options.steps is not None and (options.hunt or options.seeds is not None):
            parser.error("--steps is for the replay of one seed")
        if options.steps is not None and options.steps < 0:
            parser.error("--steps must be 0 or more")
        return options

    def _show_swarm(self, seeds: Sequence[int], bug: str | None, beyond: str, json: bool) -> int:
        wrong = 0
        for seed in seeds:
            report = self.run_seed(seed, bug, beyond=beyond, trace=json)
            wrong += bool(report.problem)
            if json:
                print(report.as_json())
            elif report.problem:
                print(f"seed {seed}: {report.problem}")
        if not json:
            print(f"{len(seeds)} seeds, {wrong} with a problem")
        return 1 if wrong else 0

    def _show_hunts(self, first: int, most: int, as_json: bool) -> int:
        """Nine hunts a bug over different seeds: how many seeds the median and the worst took."""
        import json

        if not as_json:
            print(f"{'bug':<32} {'median':>6} {'worst':>6}   seeds until it is found, of {most}")
        missed = 0
        for bug in self.bugs:
            starts = range(first, first + 9 * most, most)
            found = [self.hunt(bug, range(start, start + most)) for start in starts]
            missed += found.count(None)
            tried = sorted(count or most + 1 for count in found)
            if as_json:
                print(json.dumps({"bug": bug, "median": tried[4], "worst": tried[-1]}))
            else:
                print(f"{bug:<32} {tried[4]:>6} {tried[-1]:>6}")
        return 1 if missed else 0
