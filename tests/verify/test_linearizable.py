"""The judge, beside one that tries every order, and beside histories whose verdict is plain.

The register and the lock here are written anew, so that the services' own models are not judged by
themselves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable
from itertools import combinations, permutations
from typing import Any

import pytest
from support import dose

from engine.verify import linearizable
from engine.verify.history import Operation
from engine.verify.linearizable import Model, unlinearizable

HISTORIES = dose(ci=2500, full=100_000)


class Register:
    """put, get and append on a text that is None at first."""

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        right, after = True, state
        if operation.kind == "get":
            right = operation.result == state
        elif operation.kind == "put":
            after = operation.argument
        else:
            after = (state or "") + operation.argument
        return right or operation.returned is None, after


class Lock:
    """acquire and release say whether they changed something."""

    initial: Hashable = "free"

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        after = "held" if operation.kind == "acquire" else "free"
        return operation.returned is None or operation.result == (state != after), after


MODELS = {"register": Register, "lock": Lock}


# --- the oracle ----------------------------------------------------------------------------------


def explained(operations: list[Operation], model: Model) -> bool:
    """Tries every order of all that returned and of any of those that did not."""
    certain = [o for o in operations if o.returned is not None]
    unknown = [o for o in operations if o.returned is None]
    return any(
        right(order, model)
        for count in range(len(unknown) + 1)
        for some in combinations(unknown, count)
        for order in permutations([*certain, *some])
    )


def right(order: tuple[Operation, ...], model: Model) -> bool:
    for index, later in enumerate(order):
        if any(later.returned is not None and later.returned < o.called for o in order[:index]):
            return False
    state = model.initial
    for operation in order:
        fits, state = model.step(state, operation)
        if not fits:
            return False
    return True


# --- random histories ----------------------------------------------------------------------------


def put_get_append(rng: random.Random) -> tuple[str, str]:
    kind = rng.choice(("put", "get", "get", "append"))
    return kind, "" if kind == "get" else rng.choice("ab")


def acquire_release(rng: random.Random) -> tuple[str, str]:
    return rng.choice(("acquire", "release")), ""


DRAW: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "register": put_get_append,
    "lock": acquire_release,
}


def lived(rng: random.Random, name: str, model: Any) -> list[Operation]:
    """A history of one copy: every operation takes effect at a moment between call and return,
    or, if its outcome is unknown, at any time after the call or never."""
    clock, plans = rng.choice((6, 20, 60)), []
    for client in range(rng.randint(1, 5)):
        called = rng.randrange(clock)
        effect = called + rng.randrange(clock)
        plans.append((effect, client, called, effect + rng.randrange(clock), *DRAW[name](rng)))
    state, operations = model.initial, []
    for effect, client, called, returned, kind, argument in sorted(plans):
        end = None if rng.random() < 0.25 else returned
        if end is None and rng.random() < 0.4:
            operations.append(Operation(client, kind, "k", argument, called))
            continue
        before = state
        _, state = model.step(state, Operation(client, kind, "k", argument, called))
        result: Any = before if kind == "get" else before != state if name == "lock" else None
        operations.append(
            Operation(client, kind, "k", argument, called, end, None if end is None else result)
        )
        assert end is None or called <= effect <= end
    rng.shuffle(operations)
    return operations


def spoilt(rng: random.Random, name: str, operations: list[Operation]) -> list[Operation]:
    """With one answer, or one time, that is made up."""
    index = rng.randrange(len(operations))
    victim = operations[index]
    if rng.random() < 0.5 and victim.returned is not None:
        made_up: Any = rng.choice((True, False))
        if name == "register":
            made_up = rng.choice((None, "a", "b", "ab", "ba", "aa"))
        victim = victim._replace(result=made_up)
    else:
        called = rng.randrange(30)
        returned = None if victim.returned is None else called + rng.randrange(10)
        victim = victim._replace(called=called, returned=returned)
    return [*operations[:index], victim, *operations[index + 1 :]]


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_one_that_tries_every_order(name: str) -> None:
    model = MODELS[name]()
    verdicts: Counter[bool] = Counter()
    for seed in range(HISTORIES):
        rng = random.Random(seed)
        operations = lived(rng, name, model)
        assert unlinearizable(operations, model) is None, f"seed {seed}: {operations}"
        for _ in range(2):
            operations = spoilt(rng, name, operations)
            expected = explained(operations, model)
            found = unlinearizable(operations, model)
            assert found == (None if expected else "k"), f"seed {seed}: {operations}"
            verdicts[expected] += 1
    assert min(verdicts[True], verdicts[False]) > HISTORIES / 4, verdicts


# --- what is plain -------------------------------------------------------------------------------


def operation(
    kind: str, text: str, called: int, returned: int | None, result: Any = None, key: str = "k"
) -> Operation:
    """A client for each."""
    return Operation(called, kind, key, text, called, returned, result)


WRONG = {
    "a stale read": [
        operation("put", "a", 0, 1),
        operation("put", "b", 2, 3),
        operation("get", "", 4, 5, "a"),
    ],
    "a lost update": [
        operation("append", "a", 0, 5),
        operation("append", "b", 1, 6),
        operation("get", "", 7, 8, "b"),
    ],
    "a doubled append": [operation("append", "a", 0, 1), operation("get", "", 2, 3, "aa")],
    "an append of unknown outcome that is doubled": [
        operation("append", "a", 0, None),
        operation("get", "", 2, 3, "aa"),
    ],
    "an order against real time": [
        operation("append", "a", 0, 1),
        operation("append", "b", 2, 3),
        operation("get", "", 4, 5, "ba"),
    ],
    "a read of the future": [operation("get", "", 0, 1, "a"), operation("put", "a", 2, 3)],
    "a read of an unknown future": [
        operation("get", "", 0, 1, "a"),
        operation("put", "a", 2, None),
    ],
    "two readers who disagree on the order": [
        operation("put", "a", 0, 9),
        operation("put", "b", 0, 9),
        operation("get", "", 1, 2, "a"),
        operation("get", "", 3, 4, "b"),
        operation("get", "", 5, 6, "a"),
    ],
    "an unknown outcome that comes and goes": [
        operation("put", "a", 0, 1),
        operation("put", "b", 2, None),
        operation("get", "", 3, 4, "b"),
        operation("get", "", 5, 6, "a"),
    ],
    "a value that nobody wrote": [operation("get", "", 0, 1, "c")],
    "nothing where something was": [operation("put", "a", 0, 1), operation("get", "", 2, 3, None)],
}
RIGHT = {
    "nothing": [],
    "a read of nothing": [operation("get", "", 0, 1, None)],
    "unknown, and it happened": [operation("put", "a", 0, None), operation("get", "", 9, 9, "a")],
    "unknown, and it never did": [operation("put", "a", 0, None), operation("get", "", 9, 9, None)],
    "unknown, and it happened late": [
        operation("put", "a", 0, None),
        operation("get", "", 5, 6, None),
        operation("get", "", 7, 8, "a"),
    ],
    "only unknown ones": [operation("put", "a", 0, None), operation("append", "b", 0, None)],
    "an unknown get says nothing": [operation("get", "", 0, None, "never written")],
    "touching times are concurrent": [operation("put", "a", 0, 5), operation("get", "", 5, 6)],
    "touching times, the other way round": [
        operation("get", "", 0, 5, "a"),
        operation("put", "a", 5, 6),
    ],
    "an instant": [operation("put", "a", 3, 3), operation("get", "", 3, 3, "a")],
    "both orders of what is concurrent": [
        operation("append", "a", 0, 5),
        operation("append", "b", 1, 6),
        operation("get", "", 7, 8, "ba"),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_histories_are_found(name: str) -> None:
    for operations in (WRONG[name], WRONG[name][::-1]):
        assert not explained(operations, Register())
        assert unlinearizable(operations, Register()) == "k"


@pytest.mark.parametrize("name", RIGHT)
def test_right_histories_pass(name: str) -> None:
    for operations in (RIGHT[name], RIGHT[name][::-1]):
        assert explained(operations, Register())
        assert unlinearizable(operations, Register()) is None


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [
        (("acquire", True), ("acquire", True), False),
        (("acquire", True), ("acquire", False), True),
        (("acquire", False), ("acquire", True), False),
        (("release", True), ("acquire", True), False),
        (("release", False), ("acquire", True), True),
        (("acquire", True), ("release", False), False),
    ],
)
def test_a_lock_one_after_the_other(first: Any, second: Any, right: bool) -> None:
    history = [
        operation(first[0], "", 0, 1, first[1]),
        operation(second[0], "", 2, 3, second[1]),
    ]
    assert (unlinearizable(history, Lock()) is None) == right


def test_keys_do_not_touch_each_other() -> None:
    good = [operation("put", "a", 0, 1), operation("get", "", 2, 3, "a")]
    bad = [operation("put", "a", 0, 1), operation("get", "", 2, 3, "b")]
    other = [o._replace(key="other") for o in bad]
    assert unlinearizable([*good, *other], Register()) == "other"
    assert unlinearizable([*other, *bad], Register()) == "k", "the first by name"
    read_elsewhere = [
        operation("put", "a", 0, 1, key="x"),
        operation("get", "", 2, 3, "a", key="y"),
    ]
    assert unlinearizable(read_elsewhere, Register()) == "y"


def test_it_is_quick_where_every_order_would_take_for_ever() -> None:
    """Fifteen at once have 15! orders, but few configurations are worth trying twice."""
    together = [operation("put", "same", 0, 100) for _ in range(15)]
    assert unlinearizable([*together, operation("get", "", 101, 102, "other")], Register()) == "k"
    assert unlinearizable([*together, operation("get", "", 101, 102, "same")], Register()) is None
    chain: list[Operation] = []
    for number in range(3000):
        chain.append(operation("put", str(number), 3 * number, 3 * number + 4))
    chain.append(operation("get", "", 10_000, 10_001, "2999"))
    assert unlinearizable(chain, Register()) is None


def test_what_takes_too_long_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizable, "CONFIGURATIONS_MAX", 100)
    unknown = [Operation(n, "put", "a", str(n), 0) for n in range(12)]
    wrong = Operation(99, "get", "a", "", 1, 2, "nobody wrote this")
    with pytest.raises(linearizable.Undecided):
        linearizable.unlinearizable([*unknown, wrong], Register())
