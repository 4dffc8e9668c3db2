r"""History files: what clients saw, one JSON object a line, in any order.

Each has these fields and no others::

    client    text or whole number; clients are the rows of the picture
    op        what was asked; a model says what there is (`engine.verify.models`)
    key       text; keys are judged one by one
    args      list of the arguments
    call      nanoseconds of a clock that all clients share (CLOCK_MONOTONIC), before it was sent
    return    the same clock, after the answer came; null if none came
    result    the answer; null if none came
    outcome   "ok"; "fail": it definitely did not happen; "unknown": it may have, or may yet

An example: a write, a read, and a client that was killed::

    {"client": 1, "op": "write", "key": "x", "args": ["a"], "call": 10, "return": 25, "result": null, "outcome": "ok"}
    {"client": 2, "op": "read", "key": "x", "args": [], "call": 12, "return": 31, "result": "a", "outcome": "ok"}
    {"client": 3, "op": "write", "key": "x", "args": ["b"], "call": 30, "return": null, "result": null, "outcome": "unknown"}

Values are texts, whole numbers, true, false and null; a result may be a list of them. A line without
`return` or `result` is as if they were null. Empty lines are passed over. UTF-8, version 1; a field that
is not known is refused, so that a later version can not be misread.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from engine.errors import UsageError
from engine.verify.history import Operation

REQUIRED = ("client", "op", "key", "args", "call", "outcome")
FIELDS = (*REQUIRED, "return", "result")
OUTCOMES = ("ok", "fail", "unknown")
TIME_MAX = (1 << 63) - 1

Look = Callable[[Operation], str]
"""What is wrong with an operation, for a model; "" if nothing is."""


def read(source: Iterable[str | bytes], name: str, look: Look | None = None) -> list[Operation]:
    """The operations of a history file but for those that failed, in the order of its lines.

    `UsageError` names the line that is not as described above, or that `look` says no to.
    """
    found = []
    for number, line in enumerate(source, 1):
        operation = _operation(line, f"{name}, line {number}")
        if operation is None:
            continue
        if look is not None and (problem := look(operation)):
            raise UsageError(f"{name}, line {number}: {problem}.")
        found.append(operation)
    return found


def lines(operations: Iterable[Operation]) -> Iterator[str]:
    """A line for each operation, with its end; `read` gives the same operations again."""
    for o in operations:
        row: dict[str, Any] = {"client": o.client, "op": o.kind, "key": o.key, "args": arguments(o)}
        ended = o.returned is not None
        row |= {"call": o.called, "return": o.returned, "result": o.result if ended else None}
        yield json.dumps(row | {"outcome": "ok" if ended else "unknown"}, ensure_ascii=False) + "\n"


def arguments(operation: Operation) -> list[Any]:
    """The `args` of an operation: one, unless its argument is a tuple."""
    argument = operation.argument
    return list(argument) if isinstance(argument, tuple) else [argument]


def _operation(line: str | bytes, where: str) -> Operation | None:
    try:
        text = line.decode() if isinstance(line, bytes) else line
        if not text.strip():
            return None
        row = json.loads(text, parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: {error}: a history is UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON object: {error}.") from None
    if not isinstance(row, dict):
        raise UsageError(f"{where} is {_shown(row)}, not a JSON object.")
    problem = _misfit(row)
    if problem:
        raise UsageError(f"{where}: {problem}.")
    if row["outcome"] == "fail":
        return None
    returned, result = None, None
    if row["outcome"] == "ok":
        returned, result = row["return"], row.get("result")
        result = tuple(result) if isinstance(result, list) else result
    args = row["args"]
    argument = args[0] if len(args) == 1 else tuple(args)
    return Operation(row["client"], row["op"], row["key"], argument, row["call"], returned, result)


def _misfit(row: dict[str, Any]) -> str:
    """What is wrong with a line; "" if nothing is."""
    missing = [field for field in REQUIRED if field not in row]
    if missing:
        return f"{', '.join(missing)} is missing"
    unknown = [field for field in row if field not in FIELDS]
    if unknown:
        return f"there is no field {_shown(unknown[0])}; there is {', '.join(FIELDS)}"
    if row["outcome"] not in OUTCOMES:
        return f"outcome is {_shown(row['outcome'])}, not one of {', '.join(OUTCOMES)}"
    ok, returned = row["outcome"] == "ok", row.get("return")
    result = row.get("result")
    checks = (
        ("client", isinstance(row["client"], str) or _whole(row["client"]), "text or whole number"),
        ("op", isinstance(row["op"], str), "text"),
        ("key", isinstance(row["key"], str), "text"),
        ("args", isinstance(row["args"], list) and all(map(_value, row["args"])), "list of values"),
        ("call", _time(row["call"]), "whole number of nanoseconds"),
        ("return", _time(returned) or (returned is None and not ok), "whole number of nanoseconds"),
        ("result", _value(result) or _values(result), "value or list of values"),
    )
    for field, fits, what in checks:
        if not fits:
            return f"{field} is {_shown(row.get(field))}, not a {what}"
    if ok and returned < row["call"]:
        return f"it returned at {returned}, before its call at {row['call']}"
    return ""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _time(value: object) -> bool:
    return _whole(value) and -TIME_MAX <= value <= TIME_MAX  # type: ignore[operator]


def _value(value: object) -> bool:
    return value is None or isinstance(value, str | int)


def _values(value: object) -> bool:
    return isinstance(value, list) and all(map(_value, value))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _shown(value: object) -> str:
    """A value in a message, cut where it gets long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
