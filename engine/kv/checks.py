"""Whether a frame is well-formed: all of it, before any of it is carried out.

This is about types and shapes only. What is well-formed and makes no sense gets an answer that says
so (`INVALID`), and its sender may go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.kv.commands import (
    APPEND,
    CAS_REVISION,
    CAS_VALUE,
    COMPACT,
    CONFIGURE,
    DELETE,
    DELETE_RANGE,
    END_SESSION,
    EQUAL,
    FRAME_MOST,
    GET,
    GREATER,
    INFO,
    INTEGER_MAX,
    KEEP_LEASE,
    LEASE,
    LEASE_ALIVE,
    LEASE_GET,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASES,
    LESS,
    LIMITS,
    PUT,
    PUT_VERSION,
    RANGE,
    SESSION_BYTES,
    TXN,
    UNEQUAL,
    VALUE,
)

Check = Callable[[Any], bool]
Message = tuple[Any, ...]

MALFORMED = (ValueError, TypeError, RecursionError, OverflowError)
"""What msgpack raises for bytes that are not what was agreed upon."""


def _bytes(value: Any) -> bool:
    return type(value) is bytes


def _bytes_or_nil(value: Any) -> bool:
    return value is None or type(value) is bytes


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value <= INTEGER_MAX


def _lease(value: Any) -> bool:
    return type(value) is int and KEEP_LEASE <= value <= INTEGER_MAX


def _limits(value: Any) -> bool:
    return type(value) is tuple and all(one is None or _natural(one) for one in value)


def _compare(value: Any) -> bool:
    if type(value) is not tuple or len(value) != 4:
        return False
    key, target, operator, operand = value
    if not (type(key) is bytes and _natural(target) and _natural(operator)):
        return False
    if target == VALUE:
        right = _bytes(operand) or (operand is None and operator in (EQUAL, UNEQUAL))
    else:
        right = target <= LEASE and _natural(operand)
    return right and operator <= GREATER


def _compares(value: Any) -> bool:
    return type(value) is tuple and all(map(_compare, value))


def _branch(value: Any) -> bool:
    return type(value) is tuple and all(_command(one, PARTS) for one in value)


PARTS: dict[int, tuple[Check, ...]] = {
    PUT: (_bytes, _bytes, _lease),
    APPEND: (_bytes, _bytes),
    DELETE: (_bytes,),
    DELETE_RANGE: (_bytes, _bytes_or_nil),
    GET: (_bytes,),
    RANGE: (_bytes, _bytes_or_nil, _natural, _natural),
}
"""What a transaction is made of, and the arguments of each."""

WRITES: dict[int, tuple[Check, ...]] = {
    **{op: PARTS[op] for op in (PUT, APPEND, DELETE, DELETE_RANGE)},
    CAS_VALUE: (_bytes, _bytes_or_nil, _bytes, _lease),
    CAS_REVISION: (_bytes, _natural, _bytes, _lease),
    PUT_VERSION: (_bytes, _bytes, _natural),
    TXN: (_compares, _branch, _branch),
    LEASE_GRANT: (_natural, _natural),
    LEASE_REVOKE: (_natural,),
    LEASE_ALIVE: (_natural,),
    CONFIGURE: (_limits,),
    COMPACT: (_natural,),
    END_SESSION: (),
}

READS: dict[int, tuple[Check, ...]] = {
    **{op: PARTS[op] for op in (GET, RANGE)},
    LEASE_GET: (_natural,),
    LEASES: (_natural,),
    LIMITS: (),
    INFO: (),
}

assert LESS < GREATER  # the greatest operator


def _command(value: Any, known: dict[int, tuple[Check, ...]]) -> bool:
    if type(value) is not tuple or not value or type(value[0]) is not int:
        return False
    checks = known.get(value[0])
    if checks is None or len(checks) != len(value) - 1:
        return False
    return all(check(one) for check, one in zip(checks, value[1:], strict=True))


def _request(value: Any) -> bool:
    if type(value) is not tuple or len(value) < 3:
        return False
    session, sequence = value[:2]
    return (
        type(session) is bytes
        and len(session) in (0, SESSION_BYTES)
        and _natural(sequence)
        and sequence > 0
        and _command(value[2:], WRITES)
    )


def _ask(value: Any) -> bool:
    return _command(value, READS)


def _frame(message: Any, part: Check) -> bool:
    return (
        type(message) is tuple
        and 2 <= len(message) <= FRAME_MOST + 1
        and type(message[0]) is int
        and all(map(part, message[1:]))
    )


def well_formed_write(message: Any) -> bool:
    """[number, request, …] as msgpack gives it, with tuples."""
    return _frame(message, _request)


def well_formed_read(message: Any) -> bool:
    """[number, ask, …] as msgpack gives it, with tuples."""
    return _frame(message, _ask)
