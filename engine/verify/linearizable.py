"""Is there an order in which one copy would have given these answers?

Keys are judged one by one, for a history is linearizable if and only if each key's is (Herlihy and
Wing, "Linearizability", 1990, theorem 1). The search of a key is a kernel, `engine.kernels.linear`:
models of `engine.verify.models` run in it, any other is called back.

A bound that was reached is no verdict, and least of all a good one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

from engine.kernels import linear
from engine.kernels.linear import RIGHT, UNDECIDED, WRONG
from engine.record import Record
from engine.verify.history import Operation

__all__ = [
    "CONFIGURATIONS_MAX",
    "RIGHT",
    "UNDECIDED",
    "UNLIMITED",
    "WRONG",
    "Judged",
    "Limits",
    "Model",
    "Undecided",
    "check",
    "overall",
    "stuck",
    "unlinearizable",
]

CONFIGURATIONS_MAX = 1_000_000
"""Of one key. Many operations of unknown outcome make for more: each may have happened or not."""


class Undecided(Exception):
    """There was too much to try. That is no verdict, and least of all a good one."""


class Model(Protocol):
    """One copy of one key, used by one client at a time."""

    initial: Hashable

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        """(whether this result is right in this state, the state after it). Any result is right if
        `operation.returned` is None."""


class Limits(Record):
    """How much to try: operations and configurations for each key, seconds for all; None is no end.

    A configuration takes 48 bytes of memory or more.
    """

    tries: int | None = None
    configurations: int | None = CONFIGURATIONS_MAX
    seconds: float | None = None


UNLIMITED = Limits(None, None, None)


class Judged(Record):
    """What was found of one key.

    `verdict` is RIGHT, WRONG or UNDECIDED; `bound` says which one was reached. `orders` are lists
    of positions in `operations`. If it is RIGHT there is one, which explains all. If it is WRONG
    and was to be explained, there is for every operation the longest legal order that it is in,
    longest first and each once, and `longest` tells its place; an operation in none is not there.
    """

    key: str
    verdict: str
    operations: tuple[Operation, ...]
    tries: int
    configurations: int
    bound: str = ""
    orders: tuple[tuple[int, ...], ...] = ()
    longest: dict[int, int] = {}  # noqa: RUF012


def unlinearizable(operations: Iterable[Operation], model: Model) -> str | None:
    """The first key whose history no single copy explains, or None if there is none.

    `Undecided` if there is none, but a key takes more than `CONFIGURATIONS_MAX`.
    """
    undecided = None
    for key, those in by_key(operations).items():
        judged = _judge(key, those, model, Limits(None, CONFIGURATIONS_MAX), False)
        if judged.verdict == WRONG:
            return key
        if judged.verdict == UNDECIDED and undecided is None:
            undecided = judged
    if undecided is not None:
        many = f"{undecided.configurations:,} configurations"
        raise Undecided(f"{undecided.key}: there are more than {many}")
    return None


def check(
    operations: Iterable[Operation],
    model: Model,
    limits: Limits = UNLIMITED,
    explain: bool = False,
) -> list[Judged]:
    """What is found of each key, by the order of their names; `explain` what is wrong.

    What is wrong is searched once more to explain it, within the same bounds.
    """
    from time import monotonic

    end = None if limits.seconds is None else monotonic() + limits.seconds

    def left() -> Limits:
        return limits if end is None else limits._replace(seconds=end - monotonic())

    found = []
    for key, those in by_key(operations).items():
        if end is not None and monotonic() >= end:
            judged = Judged(key, UNDECIDED, tuple(those), 0, 0, "seconds")
        else:
            judged = _judge(key, those, model, left(), False)
        if judged.verdict == WRONG and explain:
            again = _judge(key, those, model, left(), True)
            judged = again if again.verdict == WRONG else judged
        found.append(judged)
    return found


def overall(judged: Iterable[Judged]) -> str:
    """WRONG if a key is, else UNDECIDED if a key is, else RIGHT."""
    verdicts = {one.verdict for one in judged}
    return next((verdict for verdict in (WRONG, UNDECIDED) if verdict in verdicts), RIGHT)


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations on each key, by the order of the keys."""
    found: dict[str, list[Operation]] = {}
    for operation in operations:
        found.setdefault(operation.key, []).append(operation)
    return dict(sorted(found.items()))


def stuck(operations: Sequence[Operation], order: Iterable[int]) -> list[int]:
    """Those that would have to follow this order, by their times: left out of it, of known outcome,
    and called before any other of these returned."""
    there = set(order)
    left = [
        index
        for index, operation in enumerate(operations)
        if index not in there and operation.returned is not None
    ]
    soonest = min((operations[index].returned or 0 for index in left), default=0)
    return [index for index in left if operations[index].called <= soonest]


def _judge(
    key: str, operations: list[Operation], model: Model, limits: Limits, explain: bool
) -> Judged:
    called = [operation.called for operation in operations]
    returned = [operation.returned for operation in operations]
    bounds = {**limits._asdict(), "explain": explain}
    table = getattr(model, "table", None)
    if table is not None:
        steps, initial, tree, texts = table(operations)
        found = linear.search(
            called, returned, steps, initial=initial, tree=tree, texts=texts, **bounds
        )
    else:

        def step(index: int, state: Any) -> tuple[bool, Hashable]:
            return model.step(state, operations[index])

        found = linear.search_calling(called, returned, step, model.initial, **bounds)
    verdict, tries, configurations, bound, orders, longest = found
    places = sorted(range(len(orders)), key=lambda place: -len(orders[place]))
    rank = {place: index for index, place in enumerate(places)}
    return Judged(
        key,
        verdict,
        tuple(operations),
        tries,
        configurations,
        bound,
        tuple(tuple(orders[place]) for place in places),
        {operation: rank[place] for operation, place in longest.items()},
    )
