"""The scheduler's proof: its cluster under thousands of seeds, and bugs that must not survive them.

`run_seed` runs one seed and says what went wrong. `hunt` counts the seeds that it takes to find a
planted bug (`trial_bugs`). `replay` is everything that happened in a seed; equal seeds give equal
replays, which the digest in the last line makes easy to compare. What must hold stands in
`trial_judge`, what may go wrong in `trial_cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.mapreduce.trial_bugs import BUGS, planted
from engine.mapreduce.trial_cluster import Cluster
from engine.record import Record


class Report(Record):
    """One seed."""

    seed: int
    problem: str
    """What does not hold, or ""."""
    events: int
    seen: dict[str, int]
    """What happened how often: see `Cluster.seen`."""
    digest: str
    """Of the trace, if there was one."""
    lines: tuple[str, ...]
    """The trace, if it was kept."""


def run_seed(
    seed: int, bug: str | None = None, *, trace: bool = False, keep: bool = False
) -> Report:
    """One run of the cluster. Any exception of the machine is as much a problem as a violation."""
    with planted(bug):
        cluster = Cluster(seed, trace=trace, keep=keep, checked=bug is None)
        problem = ""
        try:
            cluster.run()
        except Exception as error:
            # Whatever it is, it is the seed that the reader needs first.
            problem = f"{type(error).__name__}: {error}"
    timeline = cluster.timeline
    digest = timeline.digest() if trace or keep else ""
    return Report(seed, problem, cluster.events, dict(cluster.seen), digest, tuple(timeline.lines))


def hunt(bug: str, seeds: Sequence[int]) -> int | None:
    """How many of these seeds it takes to catch a planted bug; None if they do not."""
    for tried, seed in enumerate(seeds, 1):
        if run_seed(seed, bug).problem:
            return tried
    return None


def replay(seed: int, bug: str | None = None) -> str:
    """The table of events of a seed; the last line is its digest."""
    return _table(run_seed(seed, bug, keep=True))


def main(argv: Sequence[str] | None = None) -> int:
    """`engine sim mapreduce`: replay a seed, run many, or hunt bugs. 1 if something is wrong."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="engine sim mapreduce",
        description="Run the MapReduce scheduler in the simulator.",
    )
    parser.add_argument("--seed", type=int, default=1, help="replay this seed (default 1)")
    parser.add_argument("--with-bug", choices=sorted(BUGS), help="plant this bug")
    parser.add_argument("--seeds", type=int, metavar="N", help="run N seeds from --seed on instead")
    parser.add_argument("--hunt", action="store_true", help="count seeds to find each planted bug")
    options = parser.parse_args(argv)
    if options.hunt:
        return _show_hunts(options.seed, options.seeds or 300)
    if options.seeds is not None:
        return _show_swarm(range(options.seed, options.seed + options.seeds), options.with_bug)
    report = run_seed(options.seed, options.with_bug, keep=True)
    print(_table(report))
    return 1 if report.problem else 0


def _table(report: Report) -> str:
    return "\n".join((*report.lines, report.problem or "all is well", report.digest))


def _show_swarm(seeds: Sequence[int], bug: str | None) -> int:
    wrong = 0
    for seed in seeds:
        report = run_seed(seed, bug)
        if report.problem:
            wrong += 1
            print(f"seed {seed}: {report.problem}")
    print(f"{len(seeds)} seeds, {wrong} with a problem")
    return 1 if wrong else 0


def _show_hunts(first: int, most: int) -> int:
    """Nine hunts a bug over different seeds: how many seeds the median and the worst took."""
    print(f"{'bug':<24} {'median':>6} {'worst':>6}   seeds until it is found, of {most}")
    missed = 0
    for bug in BUGS:
        starts = range(first, first + 9 * most, most)
        found = [hunt(bug, range(start, start + most)) for start in starts]
        missed += found.count(None)
        tried = sorted(count or most + 1 for count in found)
        print(f"{bug:<24} {tried[4]:>6} {tried[-1]:>6}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
