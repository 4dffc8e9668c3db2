"""The three tests of MIT's labgob, by name, with what they mean for our messages.

Labgob wraps Go's encoder to warn of two traps: fields that begin with a small letter are left out,
and zeros are not sent, so that a reader's old values survive. Our codec has neither trap.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.record import Record
from engine.wire import codec, fields
from engine.wire.codec import Tagged, decode, encode, message

pytestmark = pytest.mark.labgob


class T1(Record):
    """Travels inside of messages: it has no kind of its own."""

    int0: int
    int1: int
    string0: str
    string1: str


@message(240)
class T3(Record):
    int999: int


@message(241)
class T2(Record):
    slice: tuple[T1, ...]
    map: dict[int, T1 | None]
    t3: Tagged


@message(242)
class Everything(Record):
    """The four values that the lab encodes one after the other."""

    x0: int
    x1: int
    t1: T1
    t2: T2


@message(243)
class Default(Record):
    """The zero of every type is a default."""

    number: int = 0
    real: float = 0.0
    flag: bool = False
    text: str = ""
    data: bytes = b""
    many: tuple[int, ...] = ()
    perhaps: int | None = None
    map: dict[str, int] = {}  # noqa: RUF012 (shared on purpose: a reader must not get this one)


def test_gob() -> None:
    """The lab: 0, 1, a struct, and a struct with a slice, a map to pointers and an interface value.

    All come back equal, and no error is counted. Ours: also of the same classes all the way down,
    where a record would pass for equal to a tuple; and the bytes hold nothing else.
    """
    t1 = T1(0, 1, "", "6.5840")
    t2 = T2((T1(0, 0, "", ""), t1), {99: t1, 0: None}, T3(999))
    sent = Everything(0, 1, t1, t2)
    back = decode(*encode(sent))
    assert back == sent
    found = (back, back.t1, back.t2, *back.t2.slice, back.t2.map[99], back.t2.t3)
    assert [type(part) for part in found] == [Everything, T1, T2, T1, T1, T1, T3]
    assert type(back.t2.map) is dict
    assert list(back.t2.map) == [99, 0]
    assert back.t2.t3.int999 == 999
    kind, body = encode(sent)
    with pytest.raises(codec.WireError):
        decode(kind, body + b"\0")


def private(name: str) -> Any:
    space = {"__annotations__": {"Public": int, name: int}, "__module__": __name__}
    return type("Key", (Record,), space)


def test_capital() -> None:
    """The lab: a slice of maps whose key struct has an unexported field is reported, once.

    There it is a line of output, and the field is left out all the same. Ours is a TypeError that
    names class and field, when the class is registered or, if it stands inside of a message,
    whenever that is to be encoded or decoded: no byte is ever sent. Data without an annotation,
    which would be no field and be left out, is refused as well; and so is a record as a key.
    """
    before = codec.registered()
    with pytest.raises(TypeError, match=r"^Key\._yes: a private field cannot travel$"):
        message(244)(private("_yes"))

    class Unannotated(Record):
        yes: int
        no = 7

    with pytest.raises(TypeError, match=r"^Unannotated\.no is not annotated"):
        message(244)(Unannotated)
    assert codec.registered() == before

    for inner in (tuple[dict[str, private("_yes")], ...], tuple[dict[private("_yes"), int], ...]):
        space = {"__annotations__": {"maps": inner}, "__module__": __name__}
        holder = type("Holder", (Record,), space)
        with pytest.raises(TypeError, match=r"^Holder\.maps: .*Key"):
            fields.plan(holder)


def test_default() -> None:
    """The lab: a struct of defaults, decoded into one that holds 99, is reported: 99 survives.

    Ours: there is no decoding into anything. What is decoded is new in all its parts, and zeros
    travel like other values, so that what a reader held before can neither survive nor be changed.
    """
    held = Default(99, 99.0, True, "99", b"99", (99,), 99, {"99": 99})
    kind, body = encode(Default())
    back = decode(kind, body)
    assert back == Default()
    assert body[0] == 0x90 + len(Default._fields), "zeros travel"
    assert held == Default(99, 99.0, True, "99", b"99", (99,), 99, {"99": 99})
    back.map["99"] = 99
    assert decode(kind, body).map == {}
    assert Default().map == {}
