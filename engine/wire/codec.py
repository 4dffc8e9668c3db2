"""Registered messages to bytes and back: msgpack arrays, strict types, no extension types.

A message class is a `Record` registered under a kind (0-255). Its body is the msgpack array of
its fields, in order. Decoding trusts nothing: the array must have exactly the class's fields, each
of the annotated type, and whatever is wrong comes out as a `WireError` and never as anything else.
Encoding holds values to the same types, with a TypeError: nothing is left out or sent as another
type. What decoding returns is new in all its parts.

Field types, nested at will:

| annotation | travels as |
|---|---|
| `int`, `float`, `str`, `bytes`, `bool` | itself |
| `X | None` | nil, or as X |
| `tuple[X, ...]`, `tuple[X, Y]` | an array |
| `dict[K, X]`, where K is `str`, `int` or `bytes` | a map, in the order of the dict |
| a `Record` class, registered or not | the array of its fields |
| `Tagged`: any registered message | the array of its kind and the array of its fields |
| `Any`: None, the types of the first line, and tuples and dicts of them | itself |

An int is not a float, a bool is not an int, and a record is not a tuple: types are exact. Integers
lie in [-2^63, 2^64). Arrays and maps are bounded (`LENGTH_MAX`, `INT_KEYS_MAX` of
`engine.wire.fields`), and so is the depth of records in records (`DEPTH_MAX`).

A field is public and annotated; whatever else a class holds is code. Another class is refused with
a TypeError when it is registered, or, if only its annotations or the records in it tell, whenever
it is to be encoded or decoded.

Strings are UTF-8; bytes that are not UTF-8 travel as lone surrogates (PEP 383), because most
strings here are paths, and a path may be any bytes.

Worked example::

    class Step(Record):                 @message(250)
        name: str                       class Batch(Record):
        after: int | None                   steps: tuple[Step, ...]
                                            seen: dict[str, int]
                                            last: Tagged

    encode(Batch((Step("a", None),), {"b": 2}, Welcome(3, 4)))     # Welcome is of kind 4

is 250 and::

    93                      an array of three fields
    91  92 a1 61 c0         steps: an array of one; a Step: "a", nil
    81  a1 62 02            seen: a map of one entry
    92 04  92 03 04         last: kind 4; its fields

Kinds: 1-15 `engine.wire.endpoint`; 16-79 `engine.mapreduce`; 80-95 `engine.locks`; 96-111
`engine.views`; 112-127 `engine.backup`; 128-143 `engine.raft`, between members; 144-159
`engine.raft`, with clients and operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import msgpack  # type: ignore[import-untyped]

from engine.wire.fields import (
    LENGTH_MAX,
    Mismatch,
    Pairs,
    Tagged,
    classes,
    kinds,
    plan,
    plans,
    refuse_hidden,
)

__all__ = ["Tagged", "WireError", "decode", "encode", "message", "registered"]

T = TypeVar("T", bound=type)


_packer = msgpack.Packer(unicode_errors="surrogateescape")
"""One for all threads, since no other has a turn while it packs: making one takes twice as long as
what it does."""


class WireError(ValueError):
    """Bytes from a peer or a file that are not exactly one message of a known kind."""


def message(kind: int) -> Callable[[T], T]:
    """Register a `Record` as the message of this kind (0-255), once in a program.

    TypeError for a class with a private field, or with data that is not annotated.
    """

    def register(cls: T) -> T:
        assert 0 <= kind < 256, kind
        assert kind not in classes, f"kind {kind} is {classes[kind].__name__} already"
        refuse_hidden(cls)
        classes[kind] = cls
        kinds[cls] = kind
        return cls

    return register


def registered() -> dict[int, type]:
    """All message classes of the program by kind."""
    return dict(classes)


def encode(value: Any) -> tuple[int, bytes]:
    """(kind, body) of a registered message; TypeError if a value is not what its field says.

    Integers out of range are an OverflowError, strings that are no text a UnicodeEncodeError.
    """
    cls = type(value)
    kind = kinds.get(cls)
    if kind is None:
        raise TypeError(f"{cls.__name__} is no registered message")
    try:
        plain = (plans.get(cls) or plan(cls)).dump(value, 0)
    except Mismatch as error:
        raise TypeError(str(error)) from None
    body: bytes = _packer.pack(plain)
    return kind, body


def decode(kind: int, body: bytes | memoryview) -> Any:
    """The message; `WireError` for anything that is not exactly one."""
    cls = classes.get(kind)
    if cls is None:
        raise WireError(f"there is no message of kind {kind}")
    known = plans.get(cls) or plan(cls)
    try:
        return known.load(_unpack(cls, body), 0)
    except Mismatch as error:
        raise WireError(str(error)) from None


def _unpack(cls: type, body: bytes | memoryview) -> Any:
    try:
        return msgpack.unpackb(
            body,
            use_list=False,
            unicode_errors="surrogateescape",
            max_array_len=min(len(body), LENGTH_MAX),
            max_ext_len=0,
            ext_hook=_refuse_extension,
            object_pairs_hook=Pairs,
            strict_map_key=False,  # keys are checked, and only then hashed
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # The library's own errors are ValueErrors; the others are for what it may overlook.
        raise WireError(f"{cls.__name__}: not msgpack: {error}") from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code}")
