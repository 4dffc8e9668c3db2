"""Transactions as people write them, in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.errors import UsageError
from engine.kv import commands
from engine.kv.commands import Command

TARGETS = {
    "value": commands.VALUE,
    "version": commands.VERSION,
    "create": commands.CREATE,
    "mod": commands.MOD,
    "lease": commands.LEASE,
}
OPERATORS = {
    "=": commands.EQUAL,
    "!=": commands.UNEQUAL,
    "<": commands.LESS,
    ">": commands.GREATER,
}
FIELDS = frozenset({"if", "then", "else"})


def parsed(text: str) -> tuple[list[Command], list[Command], list[Command]]:
    """(compares, then, else). UsageError, which says where."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The transaction is no JSON: {error}.") from None
    if not isinstance(found, dict) or not found.keys() <= FIELDS:
        raise UsageError('The transaction is an object with "if", "then" and "else".')
    parts = []
    for name, one in (("if", _compare), ("then", _operation), ("else", _operation)):
        rows = found.get(name, [])
        if not isinstance(rows, list):
            raise UsageError(f'"{name}" of the transaction is a list.')
        parts.append([_made(name, at, row, one) for at, row in enumerate(rows, 1)])
    return parts[0], parts[1], parts[2]


def _made(name: str, at: int, row: Any, one: Any) -> Command:
    try:
        made: Command = one(*row)
        return made
    except (TypeError, ValueError, KeyError):
        raise UsageError(f'Number {at} of "{name}" makes no sense: {json.dumps(row)}.') from None


def _text(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(text)
    return text.encode("utf-8", "surrogateescape")


def _compare(key: Any, target: str, operator: str, operand: Any) -> Command:
    value: bytes | int | None
    if target == "value":
        if operand is None and operator not in ("=", "!="):
            raise ValueError(operator)
        value = None if operand is None else _text(operand)
    elif type(operand) is int:
        if not 0 <= operand <= commands.INTEGER_MAX:
            raise ValueError(operand)
        value = operand
    else:
        raise TypeError(operand)
    return commands.compare(_text(key), TARGETS[target], OPERATORS[operator], value)


def _operation(op: str, *arguments: Any) -> Command:
    texts = [_text(one) for one in arguments]
    if op in ("put", "append", "range"):
        first, second = texts
        if op == "range":
            return commands.key_range(first, second)
        return commands.put(first, second) if op == "put" else commands.append(first, second)
    if op in ("get", "delete"):
        (key,) = texts
        return commands.get(key) if op == "get" else commands.delete(key)
    raise ValueError(op)


def told(operations: Sequence[Command], answers: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Answers to operations, as people read them."""
    return [_told(op[0], answer) for op, answer in zip(operations, answers, strict=True)]


def _told(op: int, answer: tuple[Any, ...]) -> Any:
    code, *rest = answer
    if code != commands.OK:
        return None
    if op == commands.GET:
        return {"value": _shown(rest[1]), "version": rest[4]}
    if op == commands.RANGE:
        return {"keys": {_shown(row[0]): _shown(row[1]) for row in rest[3]}, "more": rest[1]}
    if op == commands.DELETE:
        return {"deleted": rest[1]}
    return {"version": rest[1]}


def _shown(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
