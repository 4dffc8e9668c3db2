"""Is there an order in which one copy would have given these answers?

Wing and Gong's search ("Testing and Verifying Concurrent Objects", 1993) with Lowe's memory of
configurations that were tried ("Testing for linearizability", 2017), one key at a time. An
operation may come next if no other that is left returned before it was called.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol

from engine.verify.history import Operation

NEVER = 1 << 62
CONFIGURATIONS_MAX = 1_000_000
"""Of one key. Many operations of unknown outcome make for more: each may have happened or not."""


class Undecided(Exception):
    """There was too much to try. That is no verdict, and least of all a good one."""


class Model(Protocol):
    """One copy of one key, used by one client at a time."""

    initial: Hashable

    def step(self, state: Hashable, operation: Operation) -> tuple[bool, Hashable]:
        """(whether this result is right in this state, the state after it). Any result is right if
        `operation.returned` is None."""


def unlinearizable(operations: Iterable[Operation], model: Model) -> str | None:
    """The first key whose history no single copy explains, or None if there is none.

    `Undecided` if that takes more than `CONFIGURATIONS_MAX`.
    """
    by_key: dict[str, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    return next((key for key in sorted(by_key) if not _explained(by_key[key], model)), None)


def _explained(operations: list[Operation], model: Model) -> bool:
    ordered = sorted(operations, key=lambda operation: operation.called)
    returns = [NEVER if o.returned is None else o.returned for o in ordered]
    must = sum(1 << index for index, when in enumerate(returns) if when != NEVER)
    # Depth first. `done` has a bit for every operation that is in the order already.
    stack = [(0, model.initial)]
    tried = set(stack)
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        for index in _next(ordered, returns, done):
            right, after = model.step(state, ordered[index])
            follower = (done | 1 << index, after)
            if right and follower not in tried:
                if len(tried) >= CONFIGURATIONS_MAX:
                    raise Undecided(f"{ordered[0].key}: more than {len(tried):,} configurations")
                tried.add(follower)
                stack.append(follower)
    return False


def _next(ordered: list[Operation], returns: list[int], done: int) -> list[int]:
    """Those that may come next."""
    candidates = []
    first = (~done & done + 1).bit_length() - 1
    soonest = NEVER
    for index in range(first, len(ordered)):
        if ordered[index].called > soonest:
            break
        if not done >> index & 1:
            candidates.append(index)
            soonest = min(soonest, returns[index])
    return [index for index in candidates if ordered[index].called <= soonest]
