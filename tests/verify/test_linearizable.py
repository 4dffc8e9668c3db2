"""The checker, beside one that tries every order, a plain search, and what is plain.

Two models here are written anew and in Python only, as a service's own are: a text that is None at
first, and a lock that anybody may release.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import pytest
from oracles import MISTAKES, explained, lived, plainly, prefixes, spoilt
from support import dose

from engine.verify import linearizable
from engine.verify.history import Operation
from engine.verify.linearizable import (
    RIGHT,
    UNDECIDED,
    UNLIMITED,
    WRONG,
    Limits,
    Model,
    Undecided,
    check,
    overall,
    stuck,
    unlinearizable,
)
from engine.verify.models import MODELS

SMALL = dose(ci=1500, full=50_000)
LARGE = dose(ci=150, full=5000)
FAULTY = dose(ci=40, full=1500)


class Called:
    """A model that the kernel does not know: the same answers, by calling back."""

    def __init__(self, model: Model) -> None:
        self.initial, self.step = model.initial, model.step


class Text:
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


class Anybodys:
    """acquire and release say whether they changed something."""

    initial: Hashable = "free"

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        after = "held" if operation.kind == "acquire" else "free"
        return operation.returned is None or operation.result == (state != after), after


def verdict(operations: list[Operation], model: Model, limits: Limits = UNLIMITED) -> str:
    return overall(check(operations, model, limits))


# --- beside the oracles --------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_one_that_tries_every_order(name: str) -> None:
    model = MODELS[name]
    seen: Counter[bool] = Counter()
    for seed in range(SMALL):
        rng = random.Random(seed)
        operations = lived(rng, name, rng.randint(1, 6), rng.randint(1, 4))
        for spoiling in range(3):
            expected = explained(operations, model)
            assert expected or spoiling, f"seed {seed}: {operations}"
            for asked in (model, Called(model)):
                found = verdict(operations, asked)
                assert found == (RIGHT if expected else WRONG), f"seed {seed}: {operations}"
            assert plainly(operations, model) == expected, f"seed {seed}: {operations}"
            seen[expected] += 1
            operations = spoilt(rng, name, operations)
    assert min(seen.values()) > SMALL / 4, seen


@pytest.mark.parametrize("name", MODELS)
def test_no_false_alarm(name: str) -> None:
    """Long histories of one copy, with values that are written once and with two values."""
    for seed in range(LARGE):
        rng = random.Random(seed)
        clients, count = rng.randint(2, 12), rng.choice((100, 200, 400))
        unknown = rng.choice((0.0, 0.01, 0.05))
        operations = lived(rng, name, count, clients, unknown, unique=seed % 3 > 0)
        assert verdict(operations, MODELS[name]) == RIGHT, f"seed {seed}"
        shorter = lived(rng, name, 60, 4, 0.02, unique=True)
        assert verdict(shorter, Called(MODELS[name])) == RIGHT, f"seed {seed}"


def test_no_false_alarm_in_a_very_long_one() -> None:
    for name, model in MODELS.items():
        operations = lived(random.Random(1), name, 5000, 10, 0.001, unique=True)
        assert verdict(operations, model) == RIGHT, name


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake: str) -> None:
    """One copy that errs now and then. Concurrency may hide it: the plain search says."""
    seen: Counter[bool] = Counter()
    for name in MISTAKES[mistake]:
        for seed in range(FAULTY):
            rng = random.Random(seed)
            operations = lived(rng, name, 50, 4, 0.02, unique=True, mistake=mistake)
            expected = plainly(operations, MODELS[name])
            assert expected is not None
            assert verdict(operations, MODELS[name]) == (RIGHT if expected else WRONG), seed
            if seed % 5 == 0:
                assert verdict(operations, Called(MODELS[name])) == (RIGHT if expected else WRONG)
            seen[expected] += 1
    assert seen[False] > seen.total() / 4, seen


# --- what is plain -------------------------------------------------------------------------------


def operation(
    kind: str, text: str, called: int, returned: int | None, result: Any = None, key: str = "k"
) -> Operation:
    """A client for each."""
    return Operation(called, kind, key, text, called, returned, result)


BAD = {
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
GOOD = {
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


@pytest.mark.parametrize("name", BAD)
def test_wrong_histories_are_found(name: str) -> None:
    for operations in (BAD[name], BAD[name][::-1]):
        assert not explained(operations, Text())
        assert unlinearizable(operations, Text()) == "k"


@pytest.mark.parametrize("name", GOOD)
def test_right_histories_pass(name: str) -> None:
    for operations in (GOOD[name], GOOD[name][::-1]):
        assert explained(operations, Text())
        assert unlinearizable(operations, Text()) is None


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
    assert (unlinearizable(history, Anybodys()) is None) == right


@pytest.mark.parametrize("name", [*BAD, *GOOD])
def test_the_model_of_the_kernel_says_the_same(name: str) -> None:
    """Where nothing is the empty text."""
    operations = BAD.get(name) or GOOD[name]
    expected = explained(operations, MODELS["append"])
    assert (unlinearizable(operations, MODELS["append"]) is None) == expected


def test_keys_do_not_touch_each_other() -> None:
    good = [operation("put", "a", 0, 1), operation("get", "", 2, 3, "a")]
    bad = [operation("put", "a", 0, 1), operation("get", "", 2, 3, "b")]
    other = [o._replace(key="other") for o in bad]
    assert unlinearizable([*good, *other], Text()) == "other"
    assert unlinearizable([*other, *bad], Text()) == "k", "the first by name"
    read_elsewhere = [
        operation("put", "a", 0, 1, key="x"),
        operation("get", "", 2, 3, "a", key="y"),
    ]
    assert unlinearizable(read_elsewhere, Text()) == "y"


def test_it_is_quick_where_every_order_would_take_for_ever() -> None:
    """Fifteen at once have 15! orders, but few configurations are worth trying twice."""
    together = [operation("put", "same", 0, 100) for _ in range(15)]
    assert unlinearizable([*together, operation("get", "", 101, 102, "other")], Text()) == "k"
    assert unlinearizable([*together, operation("get", "", 101, 102, "same")], Text()) is None
    chain: list[Operation] = []
    for number in range(3000):
        chain.append(operation("put", str(number), 3 * number, 3 * number + 4))
    chain.append(operation("get", "", 10_000, 10_001, "2999"))
    assert unlinearizable(chain, Text()) is None


def test_what_takes_too_long_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linearizable, "CONFIGURATIONS_MAX", 100)
    unknown = [Operation(n, "put", "a", str(n), 0) for n in range(12)]
    wrong = Operation(99, "get", "a", "", 1, 2, "nobody wrote this")
    with pytest.raises(Undecided, match="a: there are more than 100 configurations"):
        unlinearizable([*unknown, wrong], Text())
    plainly_wrong = operation("get", "", 0, 1, "nobody wrote this", key="z")
    assert unlinearizable([*unknown, wrong, plainly_wrong], Text()) == "z"


# --- bounds --------------------------------------------------------------------------------------


def hard(key: str = "k") -> list[Operation]:
    """Wrong, which takes 2^25 configurations to know."""
    writes = [Operation(n, "write", key, str(n), 0, 2) for n in range(25)]
    return [*writes, Operation(99, "read", key, (), 3, 4, "nobody wrote this")]


@pytest.mark.parametrize(
    "limits", [Limits(1000, None), Limits(None, 1000), Limits(None, None, 0.02), Limits(seconds=0)]
)
@pytest.mark.parametrize("called", [False, True])
def test_a_bound_is_never_a_pass(limits: Limits, called: bool) -> None:
    model = Called(MODELS["register"]) if called else MODELS["register"]
    good = [Operation(1, "read", "a", (), 0, 1, None)]
    bad = [Operation(1, "read", "z", (), 0, 1, "what")]
    judged = {one.key: one for one in check([*hard(), *good], model, limits)}
    assert judged["k"].verdict == UNDECIDED
    assert judged["k"].bound in ("tries", "configurations", "seconds")
    assert overall(judged.values()) == UNDECIDED
    if limits.seconds is None:
        assert verdict([*hard(), *good, *bad], model, limits) == WRONG
    else:
        assert verdict([*hard(), *bad], model, limits) == UNDECIDED, "z was not looked at"


def test_seconds_are_shared_by_the_keys() -> None:
    operations = [o for key in "abc" for o in hard(key)]
    judged = check(operations, MODELS["register"], Limits(None, None, 0.02))
    assert [one.bound for one in judged] == ["seconds"] * 3
    assert [one.tries > 0 for one in judged] == [True, False, False]


def test_the_bounds_hold_for_the_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be wrong stays wrong if there is no time to say why."""
    bad = [Operation(1, "read", "z", (), 0, 1, "what")]
    real = linearizable._judge

    def slow(*arguments: Any) -> Any:
        judged = real(*arguments)
        return judged._replace(verdict=UNDECIDED) if arguments[-1] else judged

    monkeypatch.setattr(linearizable, "_judge", slow)
    assert verdict(bad, MODELS["register"]) == WRONG
    assert overall(check(bad, MODELS["register"], explain=True)) == WRONG


def test_nothing_is_right() -> None:
    assert check([], MODELS["register"]) == []
    assert overall([]) == RIGHT


# --- keys ----------------------------------------------------------------------------------------


def test_each_key_is_judged_as_if_alone() -> None:
    for seed in range(dose(ci=60, full=2000)):
        rng = random.Random(seed)
        everything, expected = [], {}
        for key in "abc":
            operations = lived(rng, "append", 6, 3, key=key)
            for _ in range(rng.randrange(3)):
                operations = spoilt(rng, "append", operations)
            expected[key] = verdict(operations, MODELS["append"])
            everything += operations
        rng.shuffle(everything)
        found = {one.key: one.verdict for one in check(everything, MODELS["append"])}
        assert found == expected, f"seed {seed}"


# --- explanations --------------------------------------------------------------------------------


def read_of(operations: list[Operation]) -> Callable[[Any], Any]:
    """The kernel's states of a text: which beginning of what was read, or none."""
    reads = [o.result for o in operations if o.kind == "get" and o.returned is not None]
    return lambda text: text if any(read.startswith(text) for read in [*reads, ""]) else None


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_longest_legal_orders(name: str, called: bool) -> None:
    """Beside all legal beginnings, one by one."""
    model, wrong = Called(MODELS[name]) if called else MODELS[name], 0
    for seed in range(dose(ci=250, full=10_000)):
        rng = random.Random(seed)
        operations = lived(rng, name, rng.randint(2, 6), 3)
        for _ in range(3):
            operations = spoilt(rng, name, operations)
        seen = read_of(operations) if name == "append" and not called else None
        (judged,) = check(operations, model, explain=True)
        if judged.verdict == RIGHT:
            assert judged.orders[0] in set(prefixes(operations, model, seen))
            continue
        wrong += 1
        legal = set(prefixes(operations, model, seen))
        longest: dict[int, int] = {}
        for order in legal:
            for index in order:
                longest[index] = max(longest.get(index, 0), len(order))
        assert set(judged.orders) <= legal, f"seed {seed}"
        assert len(set(judged.orders)) == len(judged.orders)
        assert list(map(len, judged.orders)) == sorted(map(len, judged.orders), reverse=True)
        assert {i: len(judged.orders[at]) for i, at in judged.longest.items()} == longest
        assert all(i in judged.orders[at] for i, at in judged.longest.items())
        for order in judged.orders:
            following = stuck(operations, order)
            assert following, "somebody had to come next"
            assert not any((*order, index) in legal for index in following)
    assert wrong > 40, wrong


def test_who_is_stuck() -> None:
    operations = [
        operation("put", "a", 0, 9),
        operation("get", "", 1, 2, "x"),
        operation("get", "", 3, 4, "y"),
        operation("put", "b", 0, None),
    ]
    assert stuck(operations, ()) == [0, 1]
    assert stuck(operations, (1,)) == [0, 2]
    assert stuck(operations, (1, 0, 2)) == []
