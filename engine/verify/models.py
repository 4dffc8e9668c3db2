"""The models that there are: what one copy of one key, used by one client at a time, would answer.

=========  ==================================================================================
register   `read` (or `get`) → value; `write` (or `put`) VALUE; `cas` OLD NEW → true or false.
           null at first
append     `get` → text; `put` TEXT; `append` TEXT. A missing text is the empty one
versioned  `get` → [value, version], or null where there is no key; `put` VALUE VERSION → "ok",
           "version" (it has another), "nokey" (only version 0 makes a key), or "maybe"
lock       `acquire` [HOLDER] → true or false; `release` [HOLDER] → true or false. The holder is
           the client unless it is named; only the holder can release
=========  ==================================================================================

What `write`, `put` and `append` answer does not matter, but for `put` with a version. Each model
says the same twice: `step` in Python, one operation at a time, and `table` for the kernel. The
tests hold one against the other.

"maybe" is the labs' ErrMaybe: the client asked again, and then the version was another. Either the
first request had been carried out, or the version was another all the time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from engine.kernels import linear
from engine.record import Record
from engine.verify.history import Operation

VERSION_MAX = (1 << 31) - 1
NO_STATE = (1 << 64) - 1
NOTHING = (linear.MAYBE, NO_STATE, NO_STATE)
"""Always right, and changes nothing."""
NEVER = (linear.READ, NO_STATE, 0)
NO_ARGUMENT: tuple[Any, ...] = ((), "", None)


class Table(Record):
    """A model of some operations as the kernel takes it: `engine.kernels.linear.search`."""

    steps: list[tuple[int, int, int]]
    initial: int = 0
    tree: linear.Tree | None = None
    texts: list[bytes] | None = None


class Tabled(Protocol):
    """A model that the kernel can search by itself."""

    initial: Hashable

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]: ...
    def table(self, operations: Sequence[Operation]) -> Table: ...
    def problem(self, operation: Operation) -> str:
        """What makes no sense in an operation; "" if nothing does."""


class Register:
    """A value that is read, written, and compared and set."""

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        sure, argument, result = _sure(operation), operation.argument, operation.result
        match operation.kind:
            case "write" | "put":
                return True, argument
            case "cas":
                done = state == argument[0]
                return not sure or result == done, argument[1] if done else state
        return not sure or result == state, state

    def table(self, operations: Sequence[Operation]) -> Table:
        numbers: dict[Any, int] = {None: 0}

        def number(value: Any) -> int:
            return numbers.setdefault(value, len(numbers))

        def row(operation: Operation) -> tuple[int, int, int]:
            argument, sure = operation.argument, _sure(operation)
            if operation.kind in ("write", "put"):
                return linear.WRITE, 0, number(argument)
            if operation.kind != "cas":
                return (linear.READ, number(operation.result), 0) if sure else NOTHING
            old, new = map(number, argument)
            if not sure:
                return linear.MAYBE, old, new
            return (linear.SWAP, old, new) if operation.result else (linear.UNLESS, old, 0)

        return Table([row(operation) for operation in operations])

    def problem(self, operation: Operation) -> str:
        match operation.kind:
            case "read" | "get":
                return _arguments(operation, 0) or _result(operation, _is_value, "a value")
            case "write" | "put":
                return _arguments(operation, 1)
            case "cas":
                return _arguments(operation, 2) or _result(operation, _is_flag, "true or false")
        return _no_such(operation, "read, get, write, put, cas")


class Append:
    """A text that is read, set, and appended to."""

    initial: Hashable = ""

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        match operation.kind:
            case "put":
                return True, operation.argument or ""
            case "append":
                return True, state + (operation.argument or "")
        return not _sure(operation) or (operation.result or "") == state, state

    def table(self, operations: Sequence[Operation]) -> Table:
        reads = {
            _bytes(o.result) for o in operations if o.kind not in ("put", "append") and _sure(o)
        }
        tree = linear.Tree(reads)
        texts: dict[bytes, int] = {}

        def row(operation: Operation) -> tuple[int, int, int]:
            if operation.kind == "append":
                text = _bytes(operation.argument)
                return linear.APPEND, texts.setdefault(text, len(texts)), 0
            if operation.kind == "put":
                return linear.WRITE, 0, tree.after(0, _bytes(operation.argument))
            if not _sure(operation):
                return NOTHING
            return linear.READ, tree.after(0, _bytes(operation.result)), 0

        return Table([row(operation) for operation in operations], 0, tree, list(texts))

    def problem(self, operation: Operation) -> str:
        match operation.kind:
            case "get":
                return _arguments(operation, 0) or _result(operation, _is_text, "a text")
            case "put" | "append":
                return _arguments(operation, 1, _is_text, "a text")
        return _no_such(operation, "get, put, append")


class Versioned:
    """A value with a version; who puts must name the one that is there. None: there is no key."""

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        sure, result = _sure(operation), operation.result
        if operation.kind != "put":
            return not sure or result == state, state
        value, wanted = operation.argument
        if wanted == (0 if state is None else state[1]):
            return not sure or result in ("ok", "maybe"), (value, wanted + 1)
        return not sure or result in ("maybe", "nokey" if state is None else "version"), state

    def table(self, operations: Sequence[Operation]) -> Table:
        numbers: dict[Any, int] = {}

        def number(value: Any, version: int) -> int:
            assert 0 < version <= VERSION_MAX + 1, f"version {version}"
            return version << 32 | numbers.setdefault(value, len(numbers))

        def row(operation: Operation) -> tuple[int, int, int]:
            result, sure = operation.result, _sure(operation)
            if operation.kind != "put":
                if not sure:
                    return NOTHING
                return linear.READ, 0 if result is None else number(*result), 0
            value, version = operation.argument
            after = number(value, version + 1)
            if not sure or result == "maybe":
                return linear.PUT_MAYBE, version, after
            if result == "ok":
                return linear.PUT, version, after
            if result == "version":
                return linear.PUT_STALE, version, 0
            return (linear.READ, 0, 0) if result == "nokey" and version else NEVER

        return Table([row(operation) for operation in operations])

    def problem(self, operation: Operation) -> str:
        match operation.kind:
            case "get":
                what = "[value, version], or null"
                return _arguments(operation, 0) or _result(operation, _is_versioned, what)
            case "put":
                return (
                    _arguments(operation, 2)
                    or ("" if _is_version(operation.argument[1]) else "a put names a version ≥ 0")
                    or _result(operation, _is_answer, "ok, version, nokey or maybe")
                )
        return _no_such(operation, "get, put")


class Lock:
    """A lock that only its holder can release. None: it is free."""

    initial: Hashable = None

    def step(self, state: Any, operation: Operation) -> tuple[bool, Hashable]:
        holder, result = _holder(operation), operation.result
        before, after = (None, holder) if operation.kind == "acquire" else (holder, None)
        done = state == before
        return not _sure(operation) or result == done, after if done else state

    def table(self, operations: Sequence[Operation]) -> Table:
        numbers: dict[Any, int] = {None: 0}

        def row(operation: Operation) -> tuple[int, int, int]:
            holder = numbers.setdefault(_holder(operation), len(numbers))
            before, after = (0, holder) if operation.kind == "acquire" else (holder, 0)
            if not _sure(operation):
                return linear.MAYBE, before, after
            kind = linear.SWAP if operation.result else linear.UNLESS
            return kind, before, after

        return Table([row(operation) for operation in operations])

    def problem(self, operation: Operation) -> str:
        if operation.kind not in ("acquire", "release"):
            return _no_such(operation, "acquire, release")
        count = 0 if operation.argument in NO_ARGUMENT else 1
        return _arguments(operation, count) or _result(operation, _is_flag, "true or false")


MODELS: dict[str, Tabled] = {
    "register": Register(),
    "append": Append(),
    "versioned": Versioned(),
    "lock": Lock(),
}


# --- operations ----------------------------------------------------------------------------------


def _sure(operation: Operation) -> bool:
    return operation.returned is not None


def _holder(operation: Operation) -> Any:
    named = operation.argument not in NO_ARGUMENT
    return operation.argument if named else ("client", operation.client)


def _bytes(text: str | None) -> bytes:
    """Equal for equal texts only, and one begins another only if the text does."""
    return (text or "").encode("utf-8", "surrogatepass")


# --- what makes no sense -------------------------------------------------------------------------


def _no_such(operation: Operation, known: str) -> str:
    return f"this model has no {operation.kind!r}; it has {known}"


def _is_value(value: Any) -> bool:
    return value is None or isinstance(value, str) or _is_whole(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_version(value: Any) -> bool:
    return _is_whole(value) and 0 <= value <= VERSION_MAX


def _is_versioned(value: Any) -> bool:
    if value is None:
        return True
    pair = isinstance(value, tuple) and len(value) == 2
    return pair and _is_value(value[0]) and _is_version(value[1]) and value[1] > 0


def _is_answer(value: Any) -> bool:
    return value in ("ok", "version", "nokey", "maybe")


def _arguments(
    operation: Operation, count: int, fits: Any = _is_value, what: str = "a text or whole number"
) -> str:
    argument = operation.argument
    given = () if count == 0 and argument in NO_ARGUMENT else argument
    given = given if isinstance(given, tuple) else (given,)
    if len(given) != count:
        return f"{operation.kind} takes {count} arguments, not {len(given)}"
    values = given[:1] if operation.kind == "put" and count == 2 else given
    wrong = [value for value in values if not fits(value)]
    return f"{operation.kind} of {wrong[0]!r}, which is not {what}" if wrong else ""


def _result(operation: Operation, fits: Any, what: str) -> str:
    if not _sure(operation) or fits(operation.result):
        return ""
    return f"the result of {operation.kind} is {operation.result!r}, not {what}"
