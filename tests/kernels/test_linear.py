"""The search beside one that tries every order, on tables of steps and on functions in Python."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from itertools import combinations, permutations
from typing import Any

import pytest
from support import dose

from engine.kernels import linear
from engine.kernels.linear import RIGHT, UNDECIDED, WRONG, Tree, search, search_calling

HISTORIES = dose(ci=3000, full=100_000)
TEXTS = [b"a", b"ab", b""]
READ_TEXTS = [b"", b"a", b"aab", b"aba", b"abab", b"b"]

Row = tuple[int, int, int]


def after(row: Row, state: Any) -> tuple[bool, Any]:
    """What each kind of step means; a text is a state of its own here, and a put's is a pair."""
    kind, a, b = row
    if kind == linear.READ:
        return state == a, state
    if kind == linear.WRITE:
        return True, b
    if kind == linear.SWAP:
        return state == a, b
    if kind == linear.UNLESS:
        return state != a, state
    if kind == linear.MAYBE:
        return True, b if state == a else state
    version = state >> 32
    if kind == linear.PUT:
        return version == a, b
    if kind == linear.PUT_STALE:
        return state != 0 and version != a, state
    assert kind == linear.PUT_MAYBE
    return True, b if version == a else state


def explained(called: list[int], returned: list[int | None], rows: list[Row], initial: int) -> bool:
    certain = [i for i, end in enumerate(returned) if end is not None]
    unknown = [i for i, end in enumerate(returned) if end is None]
    for count in range(len(unknown) + 1):
        for some in combinations(unknown, count):
            for order in permutations([*certain, *some]):
                if in_time(order, called, returned) and legal(order, rows, initial):
                    return True
    return False


def in_time(order: tuple[int, ...], called: list[int], returned: list[int | None]) -> bool:
    return not any(
        (end := returned[later]) is not None and end < called[earlier]
        for index, later in enumerate(order)
        for earlier in order[:index]
    )


def legal(order: tuple[int, ...], rows: list[Row], initial: int) -> bool:
    state: Any = initial
    for index in order:
        right, state = after(rows[index], state)
        if not right:
            return False
    return True


def drawn(rng: random.Random) -> tuple[list[int], list[int | None], list[Row], int]:
    versions = rng.random() < 0.5
    kinds = (linear.READ, linear.WRITE, linear.SWAP, linear.UNLESS, linear.MAYBE)
    if versions:
        kinds = (linear.READ, linear.PUT, linear.PUT_STALE, linear.PUT_MAYBE)
    states = [0, 1 << 32, 1 << 32 | 1, 2 << 32, 3 << 32] if versions else [0, 1, 2]
    called, returned, rows = [], [], []
    for _ in range(rng.randint(0, 5)):
        called.append(rng.randrange(12))
        returned.append(None if rng.random() < 0.25 else called[-1] + rng.randrange(8))
        kind, a, b = rng.choice(kinds), rng.choice(states), rng.choice(states)
        if kind in (linear.PUT, linear.PUT_MAYBE, linear.PUT_STALE):
            a = rng.randrange(3)
            b = (a + 1) << 32 | rng.randrange(2)
        elif returned[-1] is None and kind in (linear.READ, linear.UNLESS, linear.SWAP):
            kind = linear.MAYBE
        rows.append((kind, a, b))
    return called, returned, rows, states[0]


def test_it_agrees_with_one_that_tries_every_order() -> None:
    seen: Counter[bool] = Counter()
    for seed in range(HISTORIES):
        called, returned, rows, initial = drawn(random.Random(seed))
        expected = RIGHT if explained(called, returned, rows, initial) else WRONG
        found = search(called, returned, rows, initial=initial)
        assert found[0] == expected, (seed, called, returned, rows)

        def step(index: int, state: Any, rows: list[Row] = rows) -> tuple[bool, Any]:
            return after(rows[index], state)

        assert search_calling(called, returned, step, initial)[0] == expected, seed
        if expected == RIGHT:
            order = tuple(found[4][0])
            assert in_time(order, called, returned), seed
            assert legal(order, rows, initial), seed
            assert set(order) >= {i for i, end in enumerate(returned) if end is not None}
        seen[expected == RIGHT] += 1
    assert min(seen.values()) > HISTORIES / 5, seen


# --- texts ---------------------------------------------------------------------------------------


def test_a_tree_knows_all_beginnings_and_nothing_else() -> None:
    tree = Tree(READ_TEXTS)
    beginnings = {text[:end] for text in READ_TEXTS for end in range(len(text) + 1)}
    states = {text: tree.after(0, text) for text in beginnings}
    assert len(set(states.values())) == len(beginnings)
    assert states[b""] == 0
    off = tree.after(0, b"x")
    for begin, state in states.items():
        for more in (b"", b"a", b"b", b"ab", b"\x00", b"\xff"):
            expected = states.get(begin + more, off)
            assert tree.after(state, more) == expected, (begin, more)
    assert tree.after(off, b"") == off
    assert Tree([]).after(0, b"a") == off
    with pytest.raises(ValueError, match="is no state"):
        tree.after(999, b"a")


def test_a_tree_of_random_texts() -> None:
    rng = random.Random(7)
    for _ in range(dose(ci=50, full=2000)):
        texts = [bytes(rng.choices(b"abc", k=rng.randrange(30))) for _ in range(rng.randrange(20))]
        tree, known = Tree(texts), {}
        for text in texts:
            for end in range(len(text) + 1):
                state = tree.after(0, text[:end])
                assert known.setdefault(text[:end], state) == state
        assert len(set(known.values())) == len(known)


def test_appends_go_along_the_tree() -> None:
    tree = Tree([b"aab"])
    read = (linear.READ, tree.after(0, b"aab"), 0)
    steps = [(linear.APPEND, 1, 0), (linear.APPEND, 0, 0), read]
    assert search([0, 0, 9], [5, 5, 9], steps, tree=tree, texts=TEXTS)[4] == [[1, 0, 2]]
    assert search([0, 6, 9], [5, 7, 9], steps, tree=tree, texts=TEXTS)[0] == WRONG


# --- many at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [63, 64, 65, 127, 128, 129, 300])
def test_windows_of_any_width(count: int) -> None:
    """All at the same time, swapped from hand to hand: only one order is right."""
    rng = random.Random(count)
    numbers = list(range(count))
    rng.shuffle(numbers)
    rows = [(linear.SWAP, number, number + 1) for number in numbers]
    called, returned = [0] * count, [9] * count
    found = search(called, returned, rows)
    assert found[0] == RIGHT
    assert [numbers[index] for index in found[4][0]] == list(range(count))
    rows[numbers.index(count // 2)] = (linear.SWAP, count + 7, 0)
    assert search(called, returned, rows)[0] == WRONG


@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_any_number_of_unknown_outcomes(count: int) -> None:
    """Each may have happened, and the last ones must have, in one order."""
    rows = [(linear.MAYBE, number, number + 1) for number in range(count)]
    called: list[int] = [0] * count
    returned: list[int | None] = [None] * count
    found = search([*called, 5], [*returned, 6], [*rows, (linear.READ, count, 0)])
    assert found[0] == RIGHT
    assert found[4] == [list(range(count + 1))]
    assert search([*called, 5], [*returned, 6], [*rows, (linear.READ, count + 1, 0)])[0] == WRONG
    assert search(called, returned, rows)[:3] == (RIGHT, 0, 0), "nobody needs them"


def test_a_slow_one_among_many() -> None:
    """One that takes as long as a thousand others makes the window wide for the first of them."""
    count = 1000
    called = [0, *range(1, count)]
    returned = [2 * count, *range(1, count)]
    rows = [(linear.WRITE, 0, 7), *((linear.WRITE, 0, number % 3) for number in range(1, count))]
    read = (linear.READ, 7, 0)
    found = search([*called, count + 1], [*returned, count + 2], [*rows, read])
    assert found[0] == RIGHT
    assert found[4][0][-2:] == [0, count]


# --- bounds and errors ---------------------------------------------------------------------------

HARD = [(linear.WRITE, 0, number) for number in range(25)] + [(linear.READ, 99, 0)]
CALLED = [0] * 25 + [1]
RETURNED = [2] * 25 + [3]


@pytest.mark.parametrize(
    ("bound", "name"), [({"tries": 1000}, "tries"), ({"configurations": 500}, "configurations")]
)
def test_a_bound_is_no_verdict(bound: dict[str, int], name: str) -> None:
    found = search(CALLED, RETURNED, HARD, **bound)  # type: ignore[arg-type]
    assert (found[0], found[3], found[4]) == (UNDECIDED, name, [])
    assert found[1 if name == "tries" else 2] == next(iter(bound.values()))
    assert search([0], [1], [(linear.READ, 0, 0)], **bound)[0] == RIGHT  # type: ignore[arg-type]


def test_seconds_are_a_bound() -> None:
    for seconds in (-1.0, 0.0, 0.05):
        found = search(CALLED, RETURNED, HARD, seconds=seconds)
        assert (found[0], found[3]) == (UNDECIDED, "seconds")


def test_a_bound_of_one_try_never_passes_what_needs_two() -> None:
    rows = [(linear.WRITE, 0, 1), (linear.READ, 1, 0)]
    assert search([0, 2], [1, 3], rows, tries=1)[0] == UNDECIDED
    assert search([0, 2], [1, 3], rows, tries=2)[0] == RIGHT


def test_what_a_model_raises_ends_the_search() -> None:
    def step(index: int, state: Any) -> tuple[bool, Any]:
        raise LookupError(f"no {index}")

    with pytest.raises(LookupError, match="no 0"):
        search_calling([0], [1], step, None)
    with pytest.raises(TypeError, match="unhashable"):
        search_calling([0], [1], lambda index, state: (True, []), None)
    with pytest.raises(TypeError):
        search_calling([0], [1], lambda index, state: None, None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (([0], [], [(0, 0, 0)]), "a call and a return"),
        (([0], [1], []), "an operation has a step"),
        (([5], [4], [(0, 0, 0)]), "operation 0 returned before"),
        (([0], [1], [(99, 0, 0)]), "99 is no kind"),
        (([0], [1], [(linear.APPEND, 0, 0)]), "there is no text 0"),
    ],
)
def test_arguments_that_make_no_sense(arguments: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        search(*arguments)


def test_other_threads_go_on_meanwhile() -> None:
    """The search lets the GIL go: nobody stands still for as long as it takes."""
    took: list[float] = []

    def judge() -> None:
        begun = time.monotonic()
        assert search(CALLED, RETURNED, HARD, tries=3_000_000)[0] == UNDECIDED
        took.append(time.monotonic() - begun)

    thread = threading.Thread(target=judge)
    thread.start()
    longest, last = 0.0, time.monotonic()
    while not took and thread.is_alive():
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    thread.join()
    assert longest < took[0] / 2


# --- the longest ---------------------------------------------------------------------------------


def test_the_longest_orders_are_each_there_once() -> None:
    rows = [(linear.WRITE, 0, 1), (linear.WRITE, 0, 2), (linear.READ, 1, 0), (linear.READ, 9, 0)]
    _, _, _, _, orders, longest = search([0, 0, 4, 6], [3, 3, 5, 7], rows, explain=True)
    assert orders == [[1, 0, 2]]
    assert longest == {0: 0, 1: 0, 2: 0}
    assert search([0, 0, 4, 6], [3, 3, 5, 7], rows)[4:] == ([], {})
    assert search([0], [1], [(linear.READ, 9, 0)], explain=True)[4:] == ([], {})
