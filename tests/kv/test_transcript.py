"""Transactions in JSON: what they mean, what makes no sense, and answers as people read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.errors import UsageError
from engine.kv import commands as c
from engine.kv.checks import well_formed_write
from engine.kv.machine import Machine
from engine.kv.transcript import parsed, told

LARGE = 1 << 63


def test_all_of_it() -> None:
    text = json.dumps(
        {
            "if": [
                ["k", "value", "=", "v"],
                ["k", "value", "!=", None],
                ["k", "version", "<", 3],
                ["k", "create", ">", 0],
                ["k", "mod", "=", 7],
                ["k", "lease", "!=", 0],
            ],
            "then": [["put", "a", "1"], ["append", "b", "é"], ["delete", "c"]],
            "else": [["get", "k"], ["range", "a", ""]],
        }
    )
    compares, then, otherwise = parsed(text)
    assert compares == [
        (b"k", c.VALUE, c.EQUAL, b"v"),
        (b"k", c.VALUE, c.UNEQUAL, None),
        (b"k", c.VERSION, c.LESS, 3),
        (b"k", c.CREATE, c.GREATER, 0),
        (b"k", c.MOD, c.EQUAL, 7),
        (b"k", c.LEASE, c.UNEQUAL, 0),
    ]
    assert then == [c.put(b"a", b"1"), c.append(b"b", "é".encode()), c.delete(b"c")]
    assert otherwise == [c.get(b"k"), c.key_range(b"a", b"")]


@pytest.mark.parametrize("text", ["{}", '{"if": []}', '{"then": [], "else": []}'])
def test_parts_may_be_missing(text: str) -> None:
    assert parsed(text) == ([], [], [])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[]", "is an object with"),
        ("null", "is an object with"),
        ('{"iff": []}', "is an object with"),
        ('{"if": {}}', '"if" of the transaction is a list'),
        ('{"then": "put"}', '"then" of the transaction is a list'),
    ],
)
def test_no_transaction(text: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        parsed(text)


@pytest.mark.parametrize(
    "row",
    [
        [],
        3,
        None,
        ["k", "value", "="],
        ["k", "value", "=", "v", "w"],
        ["k", "value", "=", 3],
        ["k", "value", "<", None],
        ["k", "value", "==", "v"],
        ["k", "weight", "=", 3],
        ["k", "version", "=", "3"],
        ["k", "version", "=", 1.5],
        ["k", "version", "=", True],
        ["k", "version", "=", None],
        ["k", "version", "=", -1],
        ["k", "version", "=", LARGE],
        [3, "value", "=", "v"],
        ["\ud800", "value", "=", "v"],
        ["k", [], "=", "v"],
    ],
)
def test_compares_that_make_no_sense(row: Any) -> None:
    with pytest.raises(UsageError, match='Number 2 of "if" makes no sense'):
        parsed(json.dumps({"if": [["k", "value", "=", "v"], row]}))


@pytest.mark.parametrize(
    "row",
    [
        [],
        ["put", "k"],
        ["put", "k", "v", "w"],
        ["put", "k", 3],
        ["put", 3, "v"],
        ["get"],
        ["get", "k", "l"],
        ["delete", None],
        ["cas", "k", "v"],
        ["range", "a"],
        [["put"], "k", "v"],
    ],
)
@pytest.mark.parametrize("name", ["then", "else"])
def test_operations_that_make_no_sense(row: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f'Number 1 of "{name}" makes no sense'):
        parsed(json.dumps({name: [row]}))


@pytest.mark.parametrize("target", ["value", "version", "create", "mod", "lease"])
@pytest.mark.parametrize("operator", ["=", "!=", "<", ">"])
def test_whatever_is_taken_is_well_formed(target: str, operator: str) -> None:
    """A store does not answer what is not, and whoever asked would wait in vain."""
    for operand in ("v", None, 0, 5, LARGE - 1, LARGE, -1):
        row = ["k", target, operator, operand]
        try:
            compares, then, otherwise = parsed(json.dumps({"if": [row], "then": [["get", "k"]]}))
        except UsageError:
            continue
        command = c.txn(compares, then, otherwise)
        assert well_formed_write((1, (b"", 1, *command))), row


def test_answers() -> None:
    """Those of a real machine."""
    machine = Machine()
    rows = [["put", "a", "1"], ["append", "b", "2"], ["delete", "none"], ["get", "z"]]
    assert carried_out(machine, rows) == [{"version": 1}, {"version": 1}, {"deleted": 0}, None]
    rows = [["get", "a"], ["range", "a", "c"], ["delete", "a"], ["append", "b", "3"]]
    assert carried_out(machine, rows) == [
        {"value": "1", "version": 1},
        {"keys": {"a": "1", "b": "2"}, "more": False},
        {"deleted": 1},
        {"version": 2},
    ]


def carried_out(machine: Machine, rows: list[Any]) -> list[Any]:
    _, then, _ = parsed(json.dumps({"then": rows}))
    frame = c.pack_frame(1, c.request(b"", 1, c.txn((), then)))
    ((_, _, succeeded, answers),) = c.unpack_answers(
        machine.apply(c.pack_entry(1, 0, [(1, frame)]))[0]
    )[1]
    assert succeeded
    return told(then, answers)


def test_values_that_are_no_text() -> None:
    machine = Machine()
    frame = c.pack_frame(1, c.request(b"", 1, c.put(b"k", b"\xff")))
    machine.apply(c.pack_entry(1, 0, [(1, frame)]))
    assert carried_out(machine, [["get", "k"]]) == [{"value": "\\xff", "version": 1}]
