"""Registered messages to bytes and back: msgpack arrays, strict types, no extension types.

A message class is a `Record` registered under a kind (0-255). Its body is the msgpack array of
its fields, in order. Decoding trusts nothing: the array must have exactly the class's fields, each
of the annotated type, and whatever is wrong comes out as a `WireError` and never as anything else.

Field types: int, float, str, bytes, bool, Any, `tuple[X, ...]`, `tuple[X, Y]`, nested at will. An
int is not a float and a bool is not an int. Integers lie in [-2^63, 2^64).

Strings are UTF-8; bytes that are not UTF-8 travel as lone surrogates (PEP 383), because most
strings here are paths, and a path may be any bytes.

Kinds: 1-15 `engine.wire.endpoint`; 16-79 `engine.mapreduce.messages`.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgpack  # type: ignore[import-untyped]

T = TypeVar("T", bound=type)
Check = Callable[[Any], bool]

ARRAY_LENGTH_MAX = 1 << 20
"""Elements of one array; a plan of this many splits is 8 TB of input."""

_classes: dict[int, type] = {}
_kinds: dict[type, int] = {}
_checks: dict[type, tuple[Check, ...]] = {}


class WireError(ValueError):
    """Bytes from a peer or a file that are not exactly one message of a known kind."""


def message(kind: int) -> Callable[[T], T]:
    """Register a `Record` as the message of this kind (0-255), once in a program."""

    def register(cls: T) -> T:
        assert 0 <= kind < 256, kind
        assert kind not in _classes, f"kind {kind} is {_classes[kind].__name__} already"
        _classes[kind] = cls
        _kinds[cls] = kind
        return cls

    return register


def registered() -> dict[int, type]:
    """All message classes of the program by kind."""
    return dict(_classes)


def encode(value: Any) -> tuple[int, bytes]:
    """(kind, body) of a registered message."""
    body: bytes = msgpack.packb(tuple(value), unicode_errors="surrogateescape")
    return _kinds[type(value)], body


def decode(kind: int, body: bytes | memoryview) -> Any:
    """The message; `WireError` for anything that is not exactly one."""
    cls = _classes.get(kind)
    if cls is None:
        raise WireError(f"there is no message of kind {kind}")
    checks = _checks.get(cls)
    if checks is None:
        checks = _checks[cls] = _compile(cls)
    values = _unpack(cls, body)
    if type(values) is not tuple or len(values) != len(checks):
        raise WireError(f"{cls.__name__}: not an array of {len(checks)} fields")
    for index, check in enumerate(checks):
        if not check(values[index]):
            field = cls._fields[index]  # type: ignore[attr-defined]
            raise WireError(f"{cls.__name__}.{field}: {type(values[index]).__name__} is wrong here")
    return cls(*values)


def _unpack(cls: type, body: bytes | memoryview) -> Any:
    try:
        return msgpack.unpackb(
            body,
            use_list=False,
            unicode_errors="surrogateescape",
            max_array_len=min(len(body), ARRAY_LENGTH_MAX),
            max_ext_len=0,
            ext_hook=_refuse_extension,
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # TypeError: a map key that cannot be hashed. The library's own errors are ValueErrors.
        raise WireError(f"{cls.__name__}: not msgpack: {error}") from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code}")


# --- types to checks -----------------------------------------------------------------------------


def _compile(cls: type) -> tuple[Check, ...]:
    # At the first decode, not at registration: a worker never decodes most of the classes.
    hints = cls.__annotations__
    if any(isinstance(hint, str | typing.ForwardRef) for hint in hints.values()):
        hints = typing.get_type_hints(cls)
    return tuple(_check_of(hints[field]) for field in cls._fields)  # type: ignore[attr-defined]


def _check_of(hint: Any) -> Check:
    if hint is Any:
        return lambda value: True
    if hint in (int, float, str, bytes, bool):
        return lambda value: type(value) is hint
    if typing.get_origin(hint) is not tuple:
        raise TypeError(f"{hint} cannot be a field of a message")
    inner = typing.get_args(hint)
    if len(inner) == 2 and inner[1] is Ellipsis:
        each = _check_of(inner[0])
        return lambda value: type(value) is tuple and all(map(each, value))
    checks = tuple(map(_check_of, inner))
    return lambda value: (
        type(value) is tuple
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )
