"""What the clients of a run ask of a store, and how it is noted down for `engine verify`.

Keys are used in small *sets* (`engine.verify.sets`): two registers, a text that is only appended
to, or a key with versions. A set is asked for a few hundred operations and then never again, so
that each history is short and can be judged while others are made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from engine.kv import calls, commands
from engine.kv.calls import Plan
from engine.kv.commands import COMPARE_FAILED, NOT_FOUND, OK
from engine.record import Record
from engine.verify.history import Operation

PREFIX = b"k/"
"""Of all keys of a run."""


class Flavour(Record):
    """What is asked of a set: the names in it, how often each operation is chosen, and how many
    operations there are of it."""

    names: tuple[str, ...]
    weights: dict[str, int]
    most: int


REGISTERS = {
    "get": 22, "range": 10, "put": 20, "cas": 12, "cas_revision": 12, "txn": 16, "delete": 8,
}  # fmt: skip
# A versioned put that is repeated is known by its version alone, and a key that is deleted begins
# anew: so what has versions is never deleted.
FLAVOURS = {
    "registers": Flavour(("a", "b"), REGISTERS, 240),
    "text": Flavour(("a",), {"get": 25, "range": 5, "append": 70}, 120),
    "versions": Flavour(("a",), {"get": 30, "put_version": 65, "put": 5}, 240),
}
READS = ("get", "range")
KINDS = tuple(dict.fromkeys(kind for one in FLAVOURS.values() for kind in one.weights))


class Set:
    """A set in use. `seen` is what was last heard of each name: (value, revision, version)."""

    def __init__(self, name: str, flavour: str) -> None:
        self.name, self.flavour = name, flavour
        self.names = FLAVOURS[flavour].names
        self.left = FLAVOURS[flavour].most
        """Operations that are still to be begun."""
        self.open = 0
        """Operations that have not ended yet."""
        self.notes: list[Operation] = []
        self.seen: dict[str, tuple[Any, int, int]] = {}
        self.acknowledged: list[str] = []
        self.unknown: list[str] = []
        self.refused: list[str] = []
        """Tokens of writes."""

    def key(self, name: str) -> bytes:
        return PREFIX + f"{self.name}/{name}".encode()

    @property
    def prefix(self) -> bytes:
        return self.key("")

    def tokens(self) -> list[str]:
        return self.acknowledged + self.unknown + self.refused


class Asked(Record):
    """An operation: how it is noted, what is asked, which token each name gets ("": it goes), and
    what an answer (as `engine.kv.commands` has it, and how often it was asked) means in a note."""

    kind: str
    argument: Any
    plan: Plan
    writes: dict[str, str]
    result: Callable[[tuple[Any, ...], int], Any]


def raw(plan: Plan) -> Plan:
    """The same, but its outcome is (what a client is told, the answer, how often it was said):
    errors are those of the client."""

    def meaning(answer: tuple[Any, ...], said: int) -> Any:
        return plan.meaning(answer, said), answer, said

    return plan._replace(meaning=meaning)


def choose(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    """The next operation on a set."""
    weights = FLAVOURS[one.flavour].weights
    kind = rng.choices(list(weights), list(weights.values()))[0]
    return ASK[kind](one, rng, token)


def _get(one: Set, rng: random.Random, _: Callable[[], str]) -> Asked:
    name = rng.choice(one.names)

    def result(answer: tuple[Any, ...], said: int) -> Any:
        if answer[0] == NOT_FOUND:
            return None
        _, _, value, _, revision, version, _ = answer
        return value.decode(), revision, version

    return Asked("get", name, calls.get(one.key(name)), {}, result)


def whole(one: Set) -> Asked:
    """All of it at one moment."""

    def result(answer: tuple[Any, ...], said: int) -> Any:
        found: list[Any] = []
        for key, value, _, revision, version, _ in answer[4]:
            name = key[len(one.prefix) :].decode()
            found += (name, value.decode(), revision, version)
        return tuple(found)

    plan = calls.page(one.prefix, commands.prefix_end(one.prefix))
    return Asked("range", (), plan, {}, result)


def _written(answer: tuple[Any, ...], said: int) -> Any:
    return answer[1], answer[2]


def _compared(answer: tuple[Any, ...], said: int) -> Any:
    if answer[0] == OK:
        return True, answer[1], answer[2]
    if answer[0] == COMPARE_FAILED:
        return False, answer[2], answer[3]
    return False, 0, 0  # no such key


def _put(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    name, value = rng.choice(one.names), token()
    return Asked("put", (name, value), calls.put(one.key(name), value), {name: value}, _written)


def _append(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    name, text = rng.choice(one.names), token()
    return Asked("append", (name, text), calls.append(one.key(name), text), {name: text}, _written)


def _delete(one: Set, rng: random.Random, _: Callable[[], str]) -> Asked:
    name = rng.choice(one.names)
    plan = calls.delete(one.key(name))
    return Asked("delete", name, plan, {name: ""}, lambda answer, said: bool(answer[2]))


def _cas(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    name, value = rng.choice(one.names), token()
    old = one.seen.get(name, (None, 0, 0))[0]
    plan = calls.cas(one.key(name), old, value)
    return Asked("cas", (name, old, value), plan, {name: value}, _compared)


def _cas_revision(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    name, value = rng.choice(one.names), token()
    revision = one.seen.get(name, (None, 0, 0))[1]
    plan = calls.cas_revision(one.key(name), revision, value)
    return Asked("cas_revision", (name, revision, value), plan, {name: value}, _compared)


def _put_version(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    name, value = rng.choice(one.names), token()
    version = one.seen.get(name, (None, 0, 0))[2]

    def result(answer: tuple[Any, ...], said: int) -> Any:
        return _compared(answer, said)

    plan = calls.put_version(one.key(name), value, version)
    return Asked("put_version", (name, version, value), plan, {name: value}, result)


def _txn(one: Set, rng: random.Random, token: Callable[[], str]) -> Asked:
    """If the first of two is as it was seen last, both are written."""
    first, other = rng.sample(one.names, 2)
    old, mine, theirs = one.seen.get(first, (None, 0, 0))[0], token(), token()
    compare = commands.compare(
        one.key(first), commands.VALUE, commands.EQUAL, None if old is None else old.encode()
    )
    then = [
        commands.put(one.key(first), mine.encode()),
        commands.put(one.key(other), theirs.encode()),
    ]
    argument = (first, old, first, mine, other, theirs)
    return Asked(
        "txn",
        argument,
        calls.txn([compare], then),
        {first: mine, other: theirs},
        lambda answer, said: (bool(answer[2]), answer[1]),
    )


ASK: dict[str, Callable[[Set, random.Random, Callable[[], str]], Asked]] = {
    "get": _get,
    "range": lambda one, rng, token: whole(one),
    "put": _put,
    "append": _append,
    "delete": _delete,
    "cas": _cas,
    "cas_revision": _cas_revision,
    "put_version": _put_version,
    "txn": _txn,
}
