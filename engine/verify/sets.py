"""The model `store`: one copy of a key of the store, or of a few keys that are changed together.

What is judged as one is a *set*; its keys have names in it, which come first in the arguments, and
what they answer is known to the revision. JSON has lists for what are tuples here.

==============  ===================================  ===========================================
op              args                                 result
==============  ===================================  ===========================================
`get`           NAME                                 [value, revision, version], null: no key
`range`                                              [name, value, revision, version, …] in order
`put`           NAME VALUE                           [revision, version]
`append`        NAME TEXT                            [revision, version]
`delete`        NAME                                 whether there was a key
`cas`           NAME OLD NEW                         [true, revision, version], or
`cas_revision`  NAME REVISION NEW                    [false, revision, version] as it is, 0 and 0
`put_version`   NAME VERSION NEW                     if there is no key; "maybe": `put_version`
                                                     was said twice, and had not the version then
`txn`           NAME OLD (NAME NEW)…                 [whether NAME was OLD, revision]
==============  ===================================  ===========================================

A revision counts all that was ever changed, a version how often a key was since it was made. Of a
write whose outcome is unknown nobody was told the revision: then the first who reads is believed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from engine.verify.history import Operation

Key = tuple[str, Any, int | None, int]
"""name, value, revision (None: nobody knows), version."""
State = tuple[Key, ...]
COUNTS = {"get": 1, "range": 0, "put": 2, "append": 2, "delete": 1}
COUNTS |= {"cas": 3, "cas_revision": 3, "put_version": 3}


class Sets:
    """See above. The state has the keys that there are, by name."""

    initial: Hashable = ()

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        sure, result = operation.returned is not None, operation.result
        arguments = operation.argument
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        match operation.kind:
            case "get":
                return self._get(state, arguments[0], sure, result)
            case "range":
                return self._range(state, sure, result)
            case "put" | "append":
                return self._put(state, operation.kind, arguments, sure, result)
            case "delete":
                name = arguments[0]
                there = _find(state, name)[3] > 0
                return not sure or result == there, _without(state, name)
            case "txn":
                return self._txn(state, arguments, sure, result)
        return self._compared(state, operation.kind, arguments, sure, result)

    def _get(self, state: State, name: str, sure: bool, result: Any) -> tuple[bool, State]:
        if not sure:
            return True, state
        _, value, revision, version = _find(state, name)
        if result is None or not version:
            return result is None and not version, state
        right = (value, version) == (result[0], result[2]) and revision in (None, result[1])
        return right, _with(state, (name, *result)) if right and revision is None else state

    def _range(self, state: State, sure: bool, result: Any) -> tuple[bool, State]:
        if not sure:
            return True, state
        flat = result or ()
        rows = [tuple(flat[at : at + 4]) for at in range(0, len(flat), 4)]
        if [row[0] for row in rows] != [key[0] for key in state]:
            return False, state
        for row in rows:
            right, state = self._get(state, row[0], True, row[1:])
            if not right:
                return False, state
        return True, state

    def _put(
        self, state: State, kind: str, arguments: Any, sure: bool, result: Any
    ) -> tuple[bool, State]:
        name, text = arguments
        _, value, revision, version = _find(state, name)
        value = (value or "") + text if kind == "append" else text
        right = not sure or (result[1] == version + 1 and result[0] > (revision or 0))
        return right, _with(state, (name, value, result[0] if sure else None, version + 1))

    def _compared(
        self, state: State, kind: str, arguments: Any, sure: bool, result: Any
    ) -> tuple[bool, State]:
        name, expected, value = arguments
        _, is_, revision, version = _find(state, name)
        said = result[0] if sure and result != "maybe" else None
        if kind == "cas_revision" and revision is None:
            holds = bool(said) if sure else True  # what was answered is believed
        else:
            holds = expected == {"cas": is_, "cas_revision": revision}.get(kind, version)
        if not holds:
            as_it_is = said is False and result[2] == version and revision in (None, result[1])
            return not sure or result == "maybe" or as_it_is, state
        fits = not said or (result[2] == version + 1 and result[1] > (revision or 0))
        new = (name, value, result[1] if said else None, version + 1)
        return said is not False and fits, _with(state, new)

    def _txn(self, state: State, arguments: Any, sure: bool, result: Any) -> tuple[bool, State]:
        name, expected, *writes = arguments
        holds = _find(state, name)[1] == expected
        right = not sure or result[0] == holds
        if not (holds and right):
            return right, state
        for at in range(0, len(writes), 2):
            before = _find(state, writes[at])
            right = right and (not sure or result[1] > (before[2] or 0))
            revision = result[1] if sure else None
            state = _with(state, (writes[at], writes[at + 1], revision, before[3] + 1))
        return right, state

    def problem(self, operation: Operation) -> str:
        """What makes no sense in an operation; "" if nothing does."""
        kind, arguments = operation.kind, operation.argument
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        if kind == "txn":
            if len(arguments) < 4 or len(arguments) % 2:
                return "txn takes a name, what it has, and names with what they get"
        elif kind not in COUNTS:
            return f"this model has no {kind!r}; it has {', '.join(COUNTS)}, txn"
        elif len(arguments) != COUNTS[kind]:
            return f"{kind} takes {COUNTS[kind]} arguments, not {len(arguments)}"
        if any(not isinstance(name, str) for name in _names(kind, arguments)):
            return f"{kind} begins with a name, which is a text"
        if operation.returned is None or _fits(kind, operation.result):
            return ""
        return f"the result of {kind} is {operation.result!r}"


def _names(kind: str, arguments: Any) -> Any:
    if kind == "range":
        return ()
    return (arguments[0], *arguments[2::2]) if kind == "txn" else arguments[:1]


def _fits(kind: str, result: Any) -> bool:
    """Whether a result has the shape that it must have."""
    if kind == "delete":
        return isinstance(result, bool)
    if kind == "range":
        return result is None or (isinstance(result, tuple) and len(result) % 4 == 0)
    if kind == "get" and result is None:
        return True
    if kind == "put_version" and result == "maybe":
        return True
    flags = kind not in ("get", "put", "append")
    length = 2 if kind in ("put", "append", "txn") else 3
    whole = isinstance(result, tuple) and len(result) == length
    if not whole or (flags and not isinstance(result[0], bool)):
        return False
    numbers = result if kind in ("put", "append") else result[1:]
    return all(isinstance(number, int) for number in numbers)


def _find(state: State, name: str) -> Key:
    for key in state:
        if key[0] == name:
            return key
    return name, None, 0, 0


def _without(state: State, name: str) -> State:
    return tuple([key for key in state if key[0] != name])


def _with(state: State, new: Key) -> State:
    return tuple(sorted([*_without(state, new[0]), new], key=lambda key: key[0]))
