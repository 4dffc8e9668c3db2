"""Messages to bytes and back: what is encoded comes back, and nothing else comes through."""

from __future__ import annotations

import random
import typing
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.mapreduce import messages
from engine.wire import codec
from engine.wire.codec import WireError, decode, encode

KIND = 250


@codec.message(KIND)
class Every(NamedTuple):
    """One field of each type that a message may have."""

    number: int
    real: float
    text: str
    data: bytes
    flag: bool
    anything: Any
    many: tuple[int, ...]
    pair: tuple[str, int]
    deep: tuple[tuple[str, tuple[bytes, ...]], ...]


GOOD = Every(-1, 0.5, "é", b"\0", True, None, (1, 2), ("a", 3), (("b", (b"x", b"")),))

PLAIN = {
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(),
    bytes: st.binary(),
    bool: st.booleans(),
    Any: st.none() | st.integers(0, 9) | st.text() | st.tuples(st.booleans(), st.text()),
}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    if typing.get_origin(hint) is not tuple:
        return PLAIN[hint]
    inner = typing.get_args(hint)
    if inner[-1] is Ellipsis:
        return st.lists(values_of(inner[0]), max_size=4).map(tuple)
    return st.tuples(*map(values_of, inner))


def any_message() -> st.SearchStrategy[Any]:
    def build(cls: Any) -> st.SearchStrategy[Any]:
        hints = typing.get_type_hints(cls)
        return st.builds(cls, *(values_of(hints[field]) for field in cls._fields))

    return st.one_of([build(cls) for cls in codec.registered().values()])


@given(any_message())
@settings(max_examples=dose(300, 20_000), deadline=None)
def test_every_registered_message_comes_back(value: Any) -> None:
    back = decode(*encode(value))
    assert back == value
    assert type(back) is type(value)


def test_a_path_of_any_bytes_comes_back() -> None:
    path = bytes(range(1, 256)).decode("utf-8", "surrogateescape")
    assert decode(*encode(messages.Committed((1,), path, 2, 3, (4,), ()))).path == path


def wrong_values() -> list[tuple[str, Any]]:
    return [
        ("number", True),
        ("number", 1.0),
        ("number", "1"),
        ("real", 1),
        ("text", b"bytes"),
        ("data", "text"),
        ("flag", 1),
        ("many", 1),
        ("many", (1, "2")),
        ("many", {}),
        ("pair", ("a",)),
        ("pair", ("a", 1, 1)),
        ("pair", (1, "a")),
        ("deep", (("b", ("text",)),)),
        ("deep", (("b", (b"",), 1),)),
        ("text", None),
    ]


@pytest.mark.parametrize(("field", "value"), wrong_values())
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    body = msgpack.packb(tuple(GOOD._replace(**{field: value})))
    with pytest.raises(WireError, match=rf"Every\.{field}"):
        decode(KIND, body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x90",
        msgpack.packb(tuple(GOOD)[:-1]),
        msgpack.packb((*GOOD, 1)),
        msgpack.packb(dict(enumerate(GOOD))),
        msgpack.packb(tuple(GOOD)) + b"\0",
        msgpack.packb(tuple(GOOD))[:-1],
        msgpack.packb(tuple(GOOD._replace(anything=msgpack.ExtType(5, b"x")))),
        msgpack.packb(tuple(GOOD._replace(anything=msgpack.ExtType(5, b"")))),
        msgpack.packb(tuple(GOOD._replace(anything=msgpack.Timestamp(1, 2)))),
        msgpack.packb(tuple(GOOD)).replace(b"\xc0", b"\x81\x91\x01\x02"),
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
    ],
)
def test_what_is_not_exactly_one_message_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        decode(KIND, body)


def test_a_kind_that_nobody_registered_is_refused() -> None:
    with pytest.raises(WireError, match="kind 255"):
        decode(255, b"\x90")


def test_a_kind_is_given_once() -> None:
    with pytest.raises(AssertionError, match="Every already"):
        codec.message(KIND)(Every)


def mutated(rng: random.Random, body: bytes) -> bytes:
    data = bytearray(body)
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) + 1)
        what = rng.randrange(3)
        if what == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif what == 1:
            data[place:place] = rng.randbytes(rng.randrange(1, 5))
        else:
            del data[place : place + rng.randrange(1, 5)]
    return bytes(data)


def test_no_bytes_raise_anything_but_a_wire_error() -> None:
    rng = random.Random(1)
    kinds = sorted(codec.registered())
    good = encode(GOOD)[1]
    accepted = 0
    for round_number in range(dose(50_000, 2_000_000)):
        noise = rng.randbytes(rng.randrange(40)) if round_number % 2 else mutated(rng, good)
        kind = rng.choice(kinds) if round_number % 2 else KIND
        try:
            value = decode(kind, noise)
        except WireError:
            continue
        accepted += 1
        assert decode(*encode(value)) == value or value != value
    assert accepted > 0, "mutation never left a whole message: the fuzzer is too coarse"
