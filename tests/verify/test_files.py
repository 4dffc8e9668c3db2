"""History files: what is written is read again, and what is wrong is named with its line."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from oracles import lived

from engine.errors import UsageError
from engine.verify import files
from engine.verify.files import lines, read
from engine.verify.history import History, Operation
from engine.verify.models import MODELS

LINE = {"client": 1, "op": "write", "key": "x", "args": ["a"], "call": 10, "return": 25}
LINE |= {"result": None, "outcome": "ok"}


def test_the_example_is_what_it_says() -> None:
    example = [line for line in str(files.__doc__).splitlines() if line.startswith("    {")]
    assert read(example, "the example") == [
        Operation(1, "write", "x", "a", 10, 25, None),
        Operation(2, "read", "x", (), 12, 31, "a"),
        Operation(3, "write", "x", "b", 30, None, None),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_again(name: str) -> None:
    for seed in range(50):
        operations = lived(random.Random(seed), name, 20, 4)
        assert read(lines(operations), "a file", MODELS[name].problem) == operations


@pytest.mark.parametrize(
    ("argument", "result"),
    [("", ""), ((), None), ("é\u2028\ud800", "</script>"), ((1, None), ("a", 3)), (-5, True)],
)
def test_values_stay_what_they_are(argument: Any, result: Any) -> None:
    operation = Operation("me", "op", "k\n", argument, 1 << 60, (1 << 60) + 1, result)
    assert read(lines([operation]), "a file") == [operation]


def test_a_history_is_written_without_what_failed() -> None:
    history = History()
    history.call(1, 1, "write", "k", "a")
    history.call(2, 2, "write", "k", "b")
    history.call(3, 3, "write", "k", "c")
    history.finish(4, 1, None)
    history.fail(2)
    history.abandon(3)
    history.call(5, 2, "read", "k", ())
    found = read(history.lines(), "a file")
    assert found == history.operations()
    assert [o.argument for o in found] == ["a", "c", ()]
    assert [o.returned for o in found] == [4, None, None]


def test_failed_and_empty_lines_are_left_out_and_unknown_ones_never_return() -> None:
    rows = [LINE | {"outcome": "fail"}, LINE | {"outcome": "unknown", "result": 7}, LINE]
    source = [json.dumps(row).encode() + b"\r\n" for row in rows]
    found = read([source[0], b"\n", *source[1:], b"  "], "a file")
    assert found == [Operation(1, "write", "x", "a", 10), Operation(1, "write", "x", "a", 10, 25)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"client": 1.5}, "client is 1.5, not a text or whole number"),
        ({"client": True}, "client is true"),
        ({"op": 7}, "op is 7"),
        ({"key": None}, "key is null"),
        ({"args": "a"}, 'args is "a", not a list of values'),
        ({"args": [["a"]]}, "args is"),
        ({"call": "10"}, 'call is "10", not a whole number of nanoseconds'),
        ({"call": 1 << 63}, "call is"),
        ({"return": None}, "return is null"),
        ({"return": 9}, "it returned at 9, before its call at 10"),
        ({"result": {}}, "result is {}"),
        ({"result": 1.5}, "result is 1.5"),
        ({"outcome": "maybe"}, "outcome is"),
        ({"outcome": []}, "outcome is"),
        ({"time": 7}, 'there is no field "time"'),
        ({"key": ["long" * 100]}, "…"),
    ],
)
def test_a_line_that_makes_no_sense(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        read([json.dumps(LINE), json.dumps(LINE | change)], "h.jsonl")
    assert str(caught.value).startswith("h.jsonl, line 2")
    assert why in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "is no JSON object"),
        (b"[1]", "is [1], not a JSON object"),
        (b"\xff", "UTF-8"),
        (b'{"client": NaN}', "NaN is no JSON"),
        (b"{}", "client, op, key, args, call, outcome is missing"),
        (b"[" * 100_000, "is no JSON object"),
    ],
)
def test_a_line_that_is_no_object(line: bytes, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        read([line], "h.jsonl")
    assert str(caught.value).startswith("h.jsonl, line 1")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("model", "kind", "args", "result", "why"),
    [
        ("register", "push", [], None, "this model has no 'push'; it has read, get, write"),
        ("register", "write", [], None, "write takes 1 arguments, not 0"),
        ("register", "write", [True], None, "write of True"),
        ("register", "read", ["a"], None, "read takes 0 arguments, not 1"),
        ("register", "read", [], True, "the result of read is True"),
        ("register", "cas", ["a"], True, "cas takes 2"),
        ("register", "cas", ["a", "b"], "yes", "the result of cas is 'yes'"),
        ("append", "append", [3], None, "append of 3"),
        ("append", "get", [], 3, "the result of get is 3"),
        ("append", "read", [], "", "has no 'read'"),
        ("versioned", "put", ["a"], "ok", "put takes 2"),
        ("versioned", "put", ["a", "b"], "ok", "a put names a version"),
        ("versioned", "put", ["a", -1], "ok", "a put names a version"),
        ("versioned", "put", ["a", 1], "fine", "the result of put is 'fine'"),
        ("versioned", "get", [], ["a", 0], "the result of get is ('a', 0)"),
        ("versioned", "get", [], "a", "the result of get is 'a'"),
        ("versioned", "append", ["a"], None, "has no 'append'"),
        ("lock", "acquire", ["a", "b"], True, "acquire takes 1"),
        ("lock", "acquire", [], None, "the result of acquire is None"),
        ("lock", "lock", [], True, "has no 'lock'"),
    ],
)
def test_what_a_model_says_no_to(
    model: str, kind: str, args: list[Any], result: Any, why: str
) -> None:
    line = json.dumps(LINE | {"op": kind, "args": args, "result": result})
    with pytest.raises(UsageError) as caught:
        read([line], "h.jsonl", MODELS[model].problem)
    assert str(caught.value).startswith("h.jsonl, line 1: ")
    assert why in str(caught.value)
