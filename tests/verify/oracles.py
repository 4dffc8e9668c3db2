"""What the checker is held against: all orders, a plain search, and histories made by one copy.

`explained` tries every order and is obvious, for a handful of operations. `plainly` is the same
search as the kernel's in twenty lines of Python, for larger ones; it is held against `explained`
too. Histories are `lived` through by one copy, then `spoilt`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

from engine.verify.history import Operation
from engine.verify.linearizable import Model
from engine.verify.models import MODELS

# --- judges --------------------------------------------------------------------------------------


def explained(operations: Sequence[Operation], model: Model) -> bool:
    """Tries every order of all that returned and of any of those that did not."""
    certain = [o for o in operations if o.returned is not None]
    unknown = [o for o in operations if o.returned is None]
    return any(
        right(order, model)
        for count in range(len(unknown) + 1)
        for some in combinations(unknown, count)
        for order in permutations([*certain, *some])
    )


def right(order: Sequence[Operation], model: Model) -> bool:
    for index, later in enumerate(order):
        if any(later.returned is not None and later.returned < o.called for o in order[:index]):
            return False
    state: Any = model.initial
    for operation in order:
        fits, state = model.step(state, operation)
        if not fits:
            return False
    return True


def plainly(
    operations: Sequence[Operation], model: Model, configurations: int = 10_000_000
) -> bool | None:
    """Depth first, with the configurations that were tried in a set; None is undecided."""
    ordered = sorted(operations, key=lambda operation: operation.called)
    returns = [float("inf") if o.returned is None else o.returned for o in ordered]
    must = sum(1 << index for index, o in enumerate(ordered) if o.returned is not None)
    stack = [(0, model.initial)]
    tried = set(stack)
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        for index in _next(ordered, returns, done):
            fits, after = model.step(state, ordered[index])
            follower = (done | 1 << index, after)
            if fits and follower not in tried:
                if len(tried) >= configurations:
                    return None
                tried.add(follower)
                stack.append(follower)
    return False


def _next(ordered: list[Operation], returns: list[float], done: int) -> list[int]:
    """Those that may come next."""
    candidates = []
    first = (~done & done + 1).bit_length() - 1
    soonest = float("inf")
    for index in range(first, len(ordered)):
        if ordered[index].called > soonest:
            break
        if not done >> index & 1:
            candidates.append(index)
            soonest = min(soonest, returns[index])
    return [index for index in candidates if ordered[index].called <= soonest]


def prefixes(
    operations: Sequence[Operation], model: Model, seen: Callable[[Any], Any] | None = None
) -> Iterator[tuple[int, ...]]:
    """Every legal beginning: nobody who is left out returned before somebody in it was called, and
    whoever is of unknown outcome changes something; of a state, only what is `seen`."""
    look = seen or (lambda state: state)

    def extend(order: tuple[int, ...], state: Any) -> Iterator[tuple[int, ...]]:
        yield order
        left = [index for index in range(len(operations)) if index not in order]
        ends = [r for i in left if (r := operations[i].returned) is not None]
        for index in left:
            operation = operations[index]
            if any(end < operation.called for end in ends):
                continue
            fits, after = model.step(state, operation)
            if fits and (operation.returned is not None or look(after) != look(state)):
                yield from extend((*order, index), after)

    yield from extend((), model.initial)


# --- histories -----------------------------------------------------------------------------------

Ask = tuple[str, Any]
Values = Callable[[], Any]


def _register(rng: random.Random, value: Values) -> Ask:
    kind = rng.choice(("read", "read", "write", "cas"))
    return kind, {"read": (), "write": value(), "cas": (value(), value())}[kind]


def _append(rng: random.Random, value: Values) -> Ask:
    kind = rng.choice(("get", "get", "put", "append", "append"))
    return kind, () if kind == "get" else value()


def _versioned(rng: random.Random, value: Values) -> Ask:
    kind = rng.choice(("get", "put", "put"))
    return kind, () if kind == "get" else (value(), rng.randrange(rng.choice((2, 4, 8))))


def _lock(rng: random.Random, value: Values) -> Ask:
    return rng.choice(("acquire", "release")), rng.choice(((), "me", "you"))


ASK: dict[str, Callable[[random.Random, Values], Ask]] = {
    "register": _register,
    "append": _append,
    "versioned": _versioned,
    "lock": _lock,
}


def answer(name: str, state: Any, ask: Operation) -> tuple[Any, Any]:
    """(what one copy answers, the state after it), written anew and not by the model."""
    kind, argument = ask.kind, ask.argument
    if name == "register":
        if kind == "cas":
            return state == argument[0], argument[1] if state == argument[0] else state
        return (None, argument) if kind == "write" else (state, state)
    if name == "append":
        if kind == "get":
            return state, state
        return None, argument if kind == "put" else state + argument
    if name == "versioned":
        if kind == "get":
            return state, state
        version = 0 if state is None else state[1]
        if argument[1] == version:
            return "ok", (argument[0], version + 1)
        return "nokey" if state is None else "version", state
    holder = argument if argument != () else ask.client
    if kind == "acquire":
        return state is None, holder if state is None else state
    return state == holder, None if state == holder else state


class Copy:
    """One copy of one key; with a `mistake`, one that makes it now and then (see `MISTAKES`)."""

    def __init__(self, rng: random.Random, name: str, mistake: str = "") -> None:
        self.rng, self.name, self.mistake = rng, name, mistake
        self.state: Any = MODELS[name].initial
        self.past = [self.state]

    def apply(self, ask: Operation) -> Any:
        wrong = self.mistake and self.rng.random() < 0.1
        if wrong and self.mistake == "an old write is applied again":
            self.state = self.rng.choice(self.past[-4:])
        result, after = answer(self.name, self.state, ask)
        reads = ask.kind in ("read", "get")
        if wrong and self.mistake == "a stale read" and reads:
            result = self.rng.choice(self.past[-4:])
        elif wrong and self.mistake == "a read of a failed write" and reads:
            result = ("failed;", 1) if self.name == "versioned" else "failed;"
        elif wrong and self.mistake == "a lost write":
            after = self.state
        elif wrong and self.mistake == "an append applied twice" and ask.kind == "append":
            after += ask.argument
        elif wrong and self.mistake == "a wrong comparison" and isinstance(result, bool):
            result = not result
            if ask.kind == "cas":
                after = ask.argument[1] if result else self.state
        if after != self.state:
            self.past.append(after)
        self.state = after
        return result


MISTAKES = {
    "a stale read": ("register", "append", "versioned"),
    "a lost write": ("register", "append", "versioned", "lock"),
    "an old write is applied again": ("register", "append", "versioned", "lock"),
    "an append applied twice": ("append",),
    "a read of a failed write": ("register", "append", "versioned"),
    "a wrong comparison": ("register", "lock"),
}


def lived(
    rng: random.Random,
    name: str,
    count: int,
    clients: int,
    unknown: float = 0.2,
    unique: bool = False,
    key: str = "k",
    mistake: str = "",
) -> list[Operation]:
    """A history of one copy: every operation takes effect at a moment between call and return, or,
    if its outcome is unknown, at any time after its call or never. A client whose operation is of
    unknown outcome goes on as another. `unique`: no value is written twice."""
    number = iter(range(1 << 30))

    def value() -> str:
        return f"v{next(number)};" if unique else rng.choice("ab")

    plans: list[tuple[int, int, bool, Operation]] = []
    free = dict.fromkeys(range(clients), 0)
    for _ in range(count):
        client = min(free, key=lambda who: (free[who], who))
        kind, argument = ASK[name](rng, value)
        called = free.pop(client) + rng.randrange(4)
        effect = called + rng.randrange(12)
        returned = effect + rng.randrange(6)
        ask = Operation(client, kind, key, argument, called, returned)
        if rng.random() < unknown:
            effect = called + rng.randrange(60)
            plans.append((effect, len(plans), rng.random() < 0.5, ask._replace(returned=None)))
            free[client + clients * (1 + len(plans))] = returned
        else:
            plans.append((effect, len(plans), True, ask))
            free[client] = returned + 1
    copy, found = Copy(rng, name, mistake), []
    for _, _, happens, ask in sorted(plans, key=lambda plan: plan[:2]):
        result = copy.apply(ask) if happens else None
        found.append(ask._replace(result=None if ask.returned is None else result))
    rng.shuffle(found)
    return found


def spoilt(rng: random.Random, name: str, operations: list[Operation]) -> list[Operation]:
    """With one answer, or one time, that is made up, or the answer of another operation."""
    index = rng.randrange(len(operations))
    victim = operations[index]
    others = [o.result for o in operations if o.kind == victim.kind and o.returned is not None]
    made_up: dict[str, tuple[Any, ...]] = {
        "register": (None, "a", "b") if victim.kind != "cas" else (True, False),
        "append": ("", "a", "b", "ab", "ba", "aa"),
        "versioned": (None, ("a", 1), ("b", 1), ("a", 2))
        if victim.kind == "get"
        else ("ok", "version", "nokey", "maybe"),
        "lock": (True, False),
    }
    if rng.random() < 0.6 and victim.returned is not None:
        victim = victim._replace(result=rng.choice((*others, *made_up[name])))
    else:
        called = rng.randrange(30)
        returned = None if victim.returned is None else called + rng.randrange(10)
        victim = victim._replace(called=called, returned=returned)
    return [*operations[:index], victim, *operations[index + 1 :]]
