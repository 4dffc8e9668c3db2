"""The explorer: states of the shipped core in which bugs like to hide, all of them, step by step.

`engine.raft.trial_explorer_search` says what a state is, what can happen in it, and what must hold;
here are the bounds within which to look, and the command line.
"""

from __future__ import annotations

from engine.raft.trial_explorer_member import Disk, How
from engine.raft.trial_explorer_search import Bounds, Explorer, Outcome
from engine.storage.entries import NOOP, Entry


def _log(*terms: int) -> tuple[Entry, ...]:
    return tuple([Entry(term, NOOP, 0, b"") for term in terms])


_AT_ONCE = How(slow_disk=False)
_ONE_BY_ONE = How(slow_disk=False, entries_max=1)
BOUNDS: dict[str, Bounds] = {
    # Slow disks, of which one loses what waits: what is said too early shows.
    "power": Bounds(),
    # Small enough that there is an end: 700 000 states.
    "whole": Bounds(commands=1, words=0, in_flight=2, losses=True),
    # Every write is durable at once, which leaves steps for a third election.
    "quick": Bounds(elections=3, power_losses=0, how=_AT_ONCE),
    # Several messages with entries on their way to one follower, and one that comes twice.
    "stream": Bounds(power_losses=0, copies=1, how=How(slow_disk=False, window=2, entries_max=1)),
    "pre-vote": Bounds(power_losses=0, how=How(slow_disk=False, pre_vote=True)),
    # Turns that take two messages.
    "together": Bounds(together=True, in_flight=4),
    # Figure 8: the first member led term 1 and the second term 2, and nobody heard of it.
    "old terms": Bounds(
        power_losses=0,
        commands=0,
        how=_ONE_BY_ONE,
        disks=(Disk(2, 0, _log(1)), Disk(2, 2, _log(2)), Disk(2, 2)),
    ),
    # The same, but the first member was given two commands.
    "long log": Bounds(
        power_losses=0,
        commands=0,
        how=_ONE_BY_ONE,
        disks=(Disk(2, 0, _log(1, 1, 1)), Disk(2, 2, _log(2)), Disk(2, 2)),
    ),
}
"""What to look at, by name: no single bounds that can be gone through reach everything."""


def hunted(name: str, bug: str, states: int) -> Outcome:
    """What is found within these bounds with a bug of `engine.raft.trial_bugs`, or without ("").

    With a bug the core is not asked whether it is in order: whoever makes the mistake would make it
    there too. Its assertions where something is done remain.
    """
    from engine.raft.trial_bugs import BUGS
    from engine.sim.planting import planted

    bounds = BOUNDS[name]
    if not bug:
        return Explorer(bounds).explore(states)
    with planted(BUGS[bug]):
        return Explorer(bounds._replace(how=bounds.how._replace(check=False))).explore(states)


def main(arguments: list[str] | None = None) -> int:
    import argparse
    import time

    what = "Visit all states of a small group, breadth first."
    parser = argparse.ArgumentParser(prog="python -m engine.raft.trial_explorer", description=what)
    parser.add_argument("--states", type=int, default=100_000, help="how many to visit")
    parser.add_argument("--bounds", choices=list(BOUNDS), default="power", help="where to look")
    parser.add_argument("--with-bug", default="", metavar="NAME", help="one of trial_bugs")
    asked = parser.parse_args(arguments)
    began = time.perf_counter()
    found = hunted(asked.bounds, asked.with_bug, asked.states)
    rate = found.states / (time.perf_counter() - began)
    whole = ", and there are no more" if found.whole else ""
    print(f"{found.states} states, all of {found.depth} steps{whole}; {rate:.0f} states/s")
    print(f"{found.turns} turns of the core")
    if found.problem:
        print(*found.steps, found.problem, sep="\n")
    return 1 if found.problem else 0


if __name__ == "__main__":
    raise SystemExit(main())
