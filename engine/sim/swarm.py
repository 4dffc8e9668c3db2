"""Which accidents a seed has: every seed draws its own subset and its own rates.

A test that always has all faults at medium rates sees the same medium chaos for ever; it is the
seed that has *only* stopped workers, or *only* a slow disk, that finds the bug (swarm testing,
Groce et al., ISSTA 2012). A tenth of the seeds has none at all: those must be uneventful.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

QUIET = 0.1
"""Share of seeds without any accident."""
PRESENT = 0.45
"""How likely one kind of accident is in a seed that has accidents, if there are few kinds. Where
there are many, all at once would leave nothing that still goes on."""


def draw(
    rng: random.Random,
    shape: Mapping[str, Sequence[Any]],
    faults: Mapping[str, Sequence[Any]],
    present: float = PRESENT,
) -> dict[str, Any]:
    """A value for every name.

    `shape` gives the values of what is not an accident (sizes, timings). `faults` gives for every
    kind of accident its values, the first of which means that it does not happen.
    """
    drawn = {name: rng.choice(values) for name, values in shape.items()}
    quiet = rng.random() < QUIET
    for name, values in faults.items():
        there = rng.random() < present
        value = rng.choice(values[1:])
        drawn[name] = value if there and not quiet else values[0]
    return drawn


def silence(plan: dict[str, Any], faults: Mapping[str, Sequence[Any]]) -> None:
    """Take every accident out of a plan, so that one that is planned besides stands alone."""
    plan.update({name: values[0] for name, values in faults.items()})


def is_quiet(plan: Mapping[str, Any], faults: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a plan has no accident."""
    return all(plan[name] == values[0] for name, values in faults.items())
