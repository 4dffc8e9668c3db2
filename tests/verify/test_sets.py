"""The model of sets of keys of the store: histories of one copy, and of one that makes mistakes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from support import dose, engine

from engine.errors import UsageError
from engine.verify.files import lines, read
from engine.verify.history import Operation
from engine.verify.linearizable import RIGHT, WRONG, check
from engine.verify.sets import Sets

NAMES = ("a", "b")
HISTORIES = dose(150, 3000)
OPERATIONS = 40
CLIENTS = 4


class Copy:
    """One copy of a set, as a dictionary, written anew and not by the model; with a `mistake` it
    makes it now and then."""

    def __init__(self, rng: random.Random, mistake: str = "") -> None:
        self.rng, self.mistake = rng, mistake
        self.keys: dict[str, tuple[str, int, int]] = {}
        self.past: list[dict[str, tuple[str, int, int]]] = [{}]
        self.revision = 0

    def wrong(self, mistake: str) -> bool:
        return mistake == self.mistake and self.rng.random() < 0.15

    def apply(self, kind: str, args: tuple[Any, ...]) -> Any:
        keys = self.keys
        if kind in ("get", "range") and self.wrong("a stale read"):
            keys = self.past[max(0, len(self.past) - 8)]  # older than what overlaps
        if kind == "get":
            return keys.get(args[0])
        if kind == "range":
            return tuple(part for name in sorted(keys) for part in (name, *keys[name]))
        result = self._change(kind, args)
        self.past.append(dict(self.keys))
        return result

    def _change(self, kind: str, args: tuple[Any, ...]) -> Any:
        name = args[0]
        there = self.keys.get(name)
        if kind == "delete":
            self.revision += there is not None
            self.keys.pop(name, None)
            return there is not None
        if kind == "put":
            return self._write([(name, args[1])])[:2]
        if kind == "append":
            twice = 2 if self.wrong("an append is applied twice") else 1
            return self._write([(name, (there[0] if there else "") + twice * args[1])])[:2]
        if kind == "txn":
            holds = (there[0] if there else None) == args[1]
            holds ^= self.wrong("a wrong comparison")
            half = args[2:4] if self.wrong("half a transaction") else args[2:]
            writes = [(half[at], half[at + 1]) for at in range(0, len(half), 2)]
            return (True, self._write(writes)[0]) if holds else (False, self.revision)
        place = {"cas": 0, "cas_revision": 1, "put_version": 2}[kind]
        now = there[place] if there else (None if kind == "cas" else 0)
        if (now == args[1]) ^ self.wrong("a wrong comparison"):
            return (True, *self._write([(name, args[2])])[:2])
        return (False, *(there[1:] if there else (0, 0)))

    def _write(self, writes: list[tuple[str, str]]) -> tuple[int, int]:
        if not self.wrong("a revision is given twice"):
            self.revision += 1
        version = 0
        for name, value in writes:
            version = self.keys[name][2] + 1 if name in self.keys else 1
            if not self.wrong("a lost write"):
                self.keys[name] = (value, self.revision, version)
        return self.revision, version


def asked(rng: random.Random, copy: Copy, number: int) -> tuple[str, tuple[Any, ...]]:
    name, value = rng.choice(NAMES), f"<{number}>"
    there = rng.choice(copy.past[-3:]).get(name, (None, 0, 0))
    kind = rng.choice(("get", "get", "range", "put", "append", "delete", "txn", *COMPARED))
    if kind == "txn":
        other = NAMES[1 - NAMES.index(name)]
        return kind, (name, there[0], name, value, other, f"{value}'")
    args: dict[str, tuple[Any, ...]] = {"get": (name,), "range": (), "delete": (name,)}
    args |= {"put": (name, value), "append": (name, value)}
    args |= {kind: (name, there[place], value) for place, kind in enumerate(COMPARED)}
    return kind, args[kind]


COMPARED = ("cas", "cas_revision", "put_version")


def lived(seed: int, mistake: str = "") -> list[Operation]:
    """Clients that overlap; what is unknown was done at any time after its call, or never."""
    rng = random.Random(f"{seed} {mistake}")
    copy = Copy(rng, mistake)
    found: list[Operation] = []
    free = dict.fromkeys(range(CLIENTS), 0)
    later: list[tuple[int, str, tuple[Any, ...]]] = []
    clock, client = 0, 0
    for number in range(OPERATIONS):
        client = min(free, key=lambda one: free[one])
        clock = max(clock + rng.randrange(1, 10), free[client])
        for one in [one for one in later if one[0] <= clock]:
            later.remove(one)
            copy.apply(*one[1:])
        kind, args = asked(rng, copy, number)
        called, returned = clock - rng.randrange(1, 10), clock + rng.randrange(1, 30)
        called = max(called, free.pop(client))
        argument = args[0] if len(args) == 1 else args
        note = Operation(client, kind, "s", argument, called)
        if kind not in ("get", "range") and rng.random() < 0.1:
            found.append(note)
            if rng.random() < 0.6:
                later.append((clock + rng.randrange(60), kind, args))
            client = number + 100
        else:
            found.append(note._replace(returned=returned, result=copy.apply(kind, args)))
        free[client] = returned
    return found


def verdict(operations: list[Operation]) -> str:
    (judged,) = check(operations, Sets())
    return judged.verdict


def test_one_copy_is_right() -> None:
    for seed in range(HISTORIES):
        assert verdict(lived(seed)) == RIGHT, f"seed {seed}"


@pytest.mark.parametrize(
    ("mistake", "least"),
    [
        ("a stale read", 0.6),
        ("a lost write", 0.8),
        ("an append is applied twice", 0.25),
        ("a wrong comparison", 0.6),
        ("half a transaction", 0.15),
        ("a revision is given twice", 0.5),
    ],
)
def test_mistakes_are_wrong(mistake: str, least: float) -> None:
    """Nearly all of those that anybody sees."""
    many = HISTORIES // 3
    wrong = sum(verdict(lived(seed, mistake)) == WRONG for seed in range(many))
    assert wrong >= least * many, f"{wrong} of {many}"


def test_a_file_has_it_all() -> None:
    for seed in range(20):
        operations = lived(seed)
        assert read(lines(operations), "h", Sets().problem) == operations


GET = Operation(1, "get", "s", "a", 1, 2, ("<1>", 1, 1))
PUT = Operation(1, "put", "s", ("a", "<1>"), 1, 2, (1, 1))
TXN = Operation(1, "txn", "s", ("a", None, "a", "<1>", "b", "<2>"), 1, 2, (True, 3))


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (GET._replace(kind="look"), "this model has no 'look'"),
        (GET._replace(argument=("a", "b")), "get takes 1 arguments, not 2"),
        (GET._replace(argument=7), "begins with a name"),
        (GET._replace(result="<1>"), "the result of get"),
        (PUT._replace(argument="a"), "put takes 2 arguments"),
        (PUT._replace(result=None), "the result of put"),
        (PUT._replace(kind="delete", argument="a"), "the result of delete"),
        (PUT._replace(kind="cas", argument=("a", None, "x")), "the result of cas"),
        (TXN._replace(argument=("a", None, "a")), "txn takes a name"),
        (TXN._replace(argument=("a", None, 7, "<1>")), "begins with a name"),
        (GET._replace(kind="range", argument=(), result=("a", "b")), "the result of range"),
    ],
)
def test_what_makes_no_sense(operation: Operation, says: str) -> None:
    assert says in Sets().problem(operation)
    with pytest.raises(UsageError, match="line 1"):
        read(lines([operation]), "h", Sets().problem)


def test_what_makes_sense() -> None:
    for operation in (GET, PUT, TXN, GET._replace(result=None), PUT._replace(returned=None)):
        assert Sets().problem(operation) == ""


def test_the_command_knows_the_model(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    for mistake, code in (("", 0), ("a lost write", 1)):
        path.write_text("".join(lines(lived(3, mistake))))
        ran = engine("verify", str(path), "--model", "store", "--json")
        assert ran.code == code
        assert json.loads(ran.out)["verdict"] == ("violation" if code else "ok")
