"""Reading the traces of a group's members: the grammar is in `engine.raft.trace`.

What a line is, and in which order lines of several files happened, is known here; what they mean
is judged in `engine.verify.trace`.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from engine.errors import NotFoundError, UsageError

VERSION = 1
CONFIG = 2
"""The kind of an entry that holds a configuration."""

Row = tuple[int, int, int, int, dict[str, Any]]
"""When its machine began to run, when by its clock, which file, which line, what."""

_SHAPES: dict[str, dict[str, Any]] = {
    "life": {
        "version": int, "wall": int, "boot": str, "member": int, "term": int, "vote": int,
        "base": (int, int), "terms": [(int, int)], "configs": [(int, [int], [int])],
        "lost": (None, (int, int)), "snapshot": (None, (int, int)), "commit": int,
    },
    "write": {"ticket": int, "records": [list]},
    "durable": {"ticket": int},
    "say": {"what": str, "term": int, "to": int, "after": int},
    "role": {"role": str, "term": int, "leader": int},
    "commit": {"to": int},
    "config": {"voters": [int], "outgoing": [int]},
    "load": {"last": int, "term": int},
    "apply": {"first": int, "entries": [(int, int)]},
    "ask": {"context": int},
    "read": {"context": int, "last": int},
    "take": {},
    "taken": {"last": int},
    "hear": {"term": int},
    "end": {},
}  # fmt: skip
_RECORDS: dict[str, tuple[Any, ...]] = {
    "state": (str, int, int),
    "base": (str, int, int, [int], [int]),
    "append": (str, int, [list]),
}
_SAID: dict[str, dict[str, Any]] = {
    "VoteRequest": {"pre": bool},
    "VoteReply": {"pre": bool, "granted": bool},
    "AppendReply": {"accepted": bool, "match": int},
}


def merged(paths: Sequence[str]) -> Iterator[Row]:
    """All events in the order in which they happened. UsageError, NotFoundError: a file is no
    trace, and why."""
    boots: dict[str, int] = {}
    for path in paths:
        for row in _lives(path):
            begun = row["wall"] - row["at"]
            boots[row["boot"]] = min(begun, boots.get(row["boot"], begun))
    return heapq.merge(*[_rows(path, place, boots) for place, path in enumerate(paths)])


def _lives(path: str) -> Iterator[dict[str, Any]]:
    """The beginnings of lives alone: most lines need not be looked at twice."""
    try:
        with open(path, "rb") as file:
            for line in file:
                row = _row(line) if b'"life"' in line else ""
                if isinstance(row, dict) and row["event"] == "life":
                    yield row
    except FileNotFoundError:
        raise NotFoundError(f"There is no trace {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


def _rows(path: str, place: int, boots: dict[str, int]) -> Iterator[Row]:
    """In the order of the lines, whatever the clock says."""
    now = boot = -(1 << 63)
    for line, row in _lines(path):
        if row["event"] == "life" and boots[row["boot"]] > boot:
            boot, now = boots[row["boot"]], row["at"]
        now = max(now, row["at"])
        yield boot, now, place, line, row


def _lines(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, event) for all lines but those that a death has torn."""
    torn: tuple[int, str] | None = None
    begun = False
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            row = _row(line)
            if torn is not None and (isinstance(row, str) or row["event"] != "life"):
                _refuse(path, *torn)
            if isinstance(row, str):
                torn = (number, row)
                continue
            if not begun and row["event"] != "life":
                _refuse(path, number, "a trace begins with the beginning of a life")
            torn, begun = None, True
            yield number, row
    if torn is not None and not begun:
        _refuse(path, *torn)


def _refuse(path: str, number: int, why: str) -> NoReturn:
    raise UsageError(f"{path}, line {number} is no line of a member's trace: {why}.")


def _row(line: bytes) -> dict[str, Any] | str:
    """An event, or why it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"it is no JSON ({error})"
    if not isinstance(row, dict) or not _fits(row.get("at"), int):
        return "it has no time"
    event = row.get("event")
    shape = _SHAPES.get(event) if isinstance(event, str) else None
    if shape is None:
        return f"there is no event {event!r:.40}"
    if event == "life" and row.get("version") != VERSION:
        return f"it is of version {row.get('version')!r:.40}, and {VERSION} is known here"
    if event == "say":
        shape = shape | _SAID.get(str(row.get("what")), {})
    for name, wanted in shape.items():
        if not _fits(row.get(name), wanted):
            return f"{name} of {event} is {row.get(name)!r:.60}"
    if event == "write" and not all(map(_is_record, row["records"])):
        return "one of its records is none"
    return row


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, type):
        return type(value) is shape
    if isinstance(shape, list):
        return type(value) is list and all(_fits(one, shape[0]) for one in value)
    if shape[:1] == (None,):
        return value is None or _fits(value, shape[1])
    return (
        type(value) is list and len(value) == len(shape) and all(map(_fits, value, shape))
    )  # fmt: skip


def _is_record(record: list[Any]) -> bool:
    shape = _RECORDS.get(record[0]) if record and isinstance(record[0], str) else None
    if shape is None or not _fits(record, shape):
        return False
    return record[0] != "append" or (bool(record[2]) and all(map(_is_entry, record[2])))


def _is_entry(entry: list[Any]) -> bool:
    plain = _fits(entry[:3], (int, int, int))
    config = len(entry) > 1 and entry[1] == CONFIG
    return plain and _fits(entry[3:], ([int], [int]) if config else ())
