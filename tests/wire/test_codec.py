"""Messages to bytes and back: what is encoded comes back, and nothing else comes through.

The oracle knows the grammar of annotations as three slow functions: `fits` (may this value stand in
that field?), `plain` (what does msgpack see?) and `read` (what does a reader make of it?).
"""

from __future__ import annotations

import contextlib
import random
import struct
import types
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.mapreduce import messages
from engine.record import Record
from engine.wire import codec, fields
from engine.wire.codec import Tagged, WireError, decode, encode
from engine.wire.handshake import Welcome

FLAT, KIND, TREE, BATCH, EMPTY, LENT = 249, 250, 251, 252, 253, 254


@codec.message(KIND)
class Every(NamedTuple):
    """One field of each flat type that a message may have, and one of any."""

    number: int
    real: float
    text: str
    data: bytes
    flag: bool
    anything: Any
    many: tuple[int, ...]
    pair: tuple[str, int]
    deep: tuple[tuple[str, tuple[bytes, ...]], ...]
    perhaps: int | None


@codec.message(FLAT)
class Flat(NamedTuple):
    """Of one type each: the codec looks at them all at once."""

    number: int
    text: str
    many: tuple[int, ...]
    pair: tuple[str, int]
    deep: tuple[tuple[str, tuple[bytes, ...]], ...]


class Step(Record):
    """Not registered: it travels in messages only."""

    name: str
    after: int | None


@codec.message(TREE)
class Tree(Record):
    """A record that holds records of its own class."""

    value: int
    label: Tagged
    children: tuple[Tree, ...]


@codec.message(BATCH)
class Batch(Record):
    steps: tuple[Step, ...]
    seen: dict[str, int]
    last: Tagged
    byname: dict[bytes, Step | None]
    numbered: dict[int, tuple[Step, dict[str, bool]]]


@codec.message(EMPTY)
class Empty(Record):
    pass


GOOD = Every(-1, 0.5, "é", b"\0", True, None, (1, 2), ("a", 3), (("b", (b"x", b"")),), 4)
FULL = Batch(
    (Step("a", None), Step("b", 7)),
    {"x": 1, "y": 2},
    Tree(1, Empty(), (Tree(2, Empty(), ()),)),
    {b"k": Step("c", 1), b"l": None},
    {3: (Step("d", 2), {"e": True})},
)


@contextlib.contextmanager
def lent(cls: type, kind: int = LENT) -> Iterator[None]:
    """`cls` is a message for a while: a test of many classes has no number for each of them."""
    codec.message(kind)(cls)
    try:
        yield
    finally:
        del fields.classes[kind], fields.kinds[cls]


def record(name: str, **annotations: Any) -> Any:
    return type(name, (Record,), {"__annotations__": annotations, "__module__": __name__})


# --- the oracle ----------------------------------------------------------------------------------

SCALARS = (int, float, str, bytes, bool)


class Map:
    """A map as msgpack has it, before anything is made of it."""

    def __init__(self, pairs: Any) -> None:
        self.pairs = list(pairs)


def hints_of(cls: Any) -> list[Any]:
    hints = typing.get_type_hints(cls, localns={cls.__name__: cls})
    return [hints[field] for field in cls._fields]


def parts(hint: Any) -> tuple[str, Any]:
    """(form, what it is made of) of an annotation."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in SCALARS:
        return "scalar", hint
    if hint is Any or hint is Tagged:
        return ("any" if hint is Any else "tagged"), None
    if origin in (typing.Union, types.UnionType):
        (other,) = (each for each in inner if each is not types.NoneType)
        return "optional", other
    if origin is tuple:
        return ("many", inner[0]) if inner[1:] == (...,) else ("few", inner)
    if origin is dict:
        return "map", inner
    return "record", hint


def fits(hint: Any, value: Any) -> bool:
    form, of = parts(hint)
    if form == "scalar":
        return type(value) is of
    if form == "optional":
        return value is None or fits(of, value)
    if form == "many":
        return type(value) is tuple and all(fits(of, each) for each in value)
    if form == "few":
        right = type(value) is tuple and len(value) == len(of)
        return right and all(fits(of[i], value[i]) for i in range(len(of)))
    if form == "map":
        return type(value) is dict and all(
            fits(of[0], key) and fits(of[1], value[key]) for key in value
        )
    if form == "record":
        each = hints_of(of) if type(value) is of else []
        return type(value) is of and all(fits(each[i], value[i]) for i in range(len(each)))
    if form == "tagged":
        return type(value) in codec.registered().values() and fits(type(value), value)
    if type(value) is tuple:
        return all(fits(Any, each) for each in value)
    if type(value) is dict:
        return all(type(k) in (str, int, bytes) and fits(Any, value[k]) for k in value)
    return value is None or type(value) in SCALARS


def plain(hint: Any, value: Any) -> Any:
    """What msgpack sees of a value that fits."""
    form, of = parts(hint)
    if form == "optional":
        return None if value is None else plain(of, value)
    if form == "many":
        return [plain(of, each) for each in value]
    if form == "few":
        return [plain(of[i], value[i]) for i in range(len(of))]
    if form == "map":
        return {key: plain(of[1], value[key]) for key in value}
    if form == "record":
        return [plain(hint, value[i]) for i, hint in enumerate(hints_of(of))]
    if form == "tagged":
        kinds = {cls: kind for kind, cls in codec.registered().items()}
        return [kinds[type(value)], plain(type(value), value)]
    return value


def read(hint: Any, raw: Any) -> Any:
    """What a reader makes of arrays as lists, and of `Map`s; ValueError if it refuses them."""
    form, of = parts(hint)
    if form == "optional":
        return None if raw is None else read(of, raw)
    if form == "any":
        form = {list: "many", Map: "map"}.get(type(raw), "any")
        of = Any if form == "many" else (str | int | bytes, Any)
    if form in ("many", "few", "record", "tagged") and type(raw) is not list:
        raise ValueError
    if form == "many":
        return tuple([read(of, each) for each in raw])
    if form == "tagged":
        kind, body = raw
        if type(kind) is not int or kind not in codec.registered():
            raise ValueError
        return read(codec.registered()[kind], body)
    if form in ("few", "record"):
        inner = of if form == "few" else hints_of(of)
        values = tuple([read(each, part) for each, part in zip(inner, raw, strict=True)])
        return values if form == "few" else of(*values)
    if form == "map":
        return read_map(of, raw)
    if not fits(hint, raw):
        raise ValueError
    return raw


def read_map(of: Any, raw: Any) -> dict[Any, Any]:
    if type(raw) is not Map:
        raise ValueError
    found = {}
    for key, value in raw.pairs:
        if type(key) not in (typing.get_args(of[0]) or (of[0],)) or key in found:
            raise ValueError
        found[key] = read(of[1], value)
    return found


def unpacked(body: bytes) -> Any:
    return msgpack.unpackb(
        body, object_pairs_hook=Map, strict_map_key=False, unicode_errors="surrogateescape"
    )


def same(one: Any, other: Any) -> bool:
    """Equal and of equal types all the way down: a record equals a tuple, and True equals 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return all(map(same, one, other)) and same(tuple(one.values()), tuple(other.values()))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other)
    return bool(one == other)


# --- values and annotations of every form --------------------------------------------------------

KEYS = {
    int: st.integers(-(2**63), 2**64 - 1) | st.integers(-3, 3),
    str: st.text(max_size=4),
    bytes: st.binary(max_size=4),
}
ATOMS = {**KEYS, float: st.floats(), bool: st.booleans()}
ANYTHING = st.recursive(
    st.none() | st.one_of(*ATOMS.values()),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.one_of(*KEYS.values()), inner, max_size=3)
    ),
    max_leaves=5,
)


def values_of(hint: Any, fuel: int = 3) -> st.SearchStrategy[Any]:
    """Right values; with no fuel left, none that go deeper where they need not."""
    form, of = parts(hint)
    if form == "scalar":
        return ATOMS[of]
    if form == "any":
        return ANYTHING
    if form == "optional":
        return st.none() | values_of(of, fuel) if fuel else st.none()
    if form == "few":
        return st.tuples(*(values_of(each, fuel) for each in of))
    if form == "many":
        return st.lists(values_of(of, fuel), max_size=3).map(tuple) if fuel else st.just(())
    if form == "map":
        most = 3 if fuel else 0
        return st.dictionaries(KEYS[of[0]], values_of(of[1], max(fuel - 1, 0)), max_size=most)
    if form == "tagged":
        classes = (Empty, Tree, Batch, Welcome) if fuel else (Empty,)
        return st.sampled_from(classes).flatmap(lambda cls: values_of(cls, max(fuel - 1, 0)))
    return st.builds(of, *(values_of(each, max(fuel - 1, 0)) for each in hints_of(of)))


LEAVES: list[Any] = [*SCALARS, Any, Tagged, Step, Tree, Empty, Welcome, tuple[()]]


def annotations() -> st.SearchStrategy[Any]:
    def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.one_of(
            inner.map(lambda hint: tuple[hint, ...]),
            several.map(lambda hints: tuple[hints]),
            inner.map(lambda hint: hint | None),
            st.tuples(st.sampled_from(list(KEYS)), inner).map(lambda both: dict[both]),
            several.map(lambda hints: record("Made", **{f"f{i}": h for i, h in enumerate(hints)})),
        )

    return st.recursive(st.sampled_from(LEAVES), larger, max_leaves=5)


@st.composite
def fields_and_values(draw: Any) -> tuple[Any, Any]:
    """(a class of up to three fields, a right instance)"""
    hints = draw(st.lists(annotations(), max_size=3))
    cls = record("Drawn", **{f"f{i}": hint for i, hint in enumerate(hints)})
    return cls, draw(values_of(cls, 4))


def any_message() -> st.SearchStrategy[Any]:
    return st.one_of([values_of(cls) for cls in codec.registered().values()])


# --- what comes back -----------------------------------------------------------------------------


@given(any_message())
@settings(max_examples=dose(300, 20_000), deadline=None)
def test_every_registered_message_comes_back(value: Any) -> None:
    assert same(decode(*encode(value)), value)


@given(fields_and_values())
@settings(max_examples=dose(150, 5_000), deadline=None)
def test_fields_of_every_type_come_back(drawn: tuple[Any, Any]) -> None:
    cls, value = drawn
    with lent(cls):
        kind, body = encode(value)
        oracle = msgpack.packb(plain(cls, value))
        assert (kind, body) == (LENT, oracle)
        assert same(decode(kind, body), value)
        assert same(decode(kind, memoryview(body)), value)


@given(fields_and_values(), st.data())
@settings(max_examples=dose(150, 5_000), deadline=None)
def test_values_of_other_types_are_not_sent(drawn: tuple[Any, Any], data: st.DataObject) -> None:
    cls, value = drawn
    wrong = [data.draw(st.just(each) | annotations().flatmap(values_of)) for each in value]
    with lent(cls):
        if fits(cls, cls(*wrong)):
            assert same(decode(*encode(cls(*wrong))), cls(*wrong))
        else:
            with pytest.raises(TypeError, match=r"^Drawn\.f\d: "):
                encode(cls(*wrong))


@given(fields_and_values(), fields_and_values(), st.integers(0, 2**32))
@settings(max_examples=dose(200, 5_000), deadline=None)
def test_the_oracle_reads_what_decode_reads(
    drawn: tuple[Any, Any], other: tuple[Any, Any], seed: int
) -> None:
    """Of the right bytes, of those of another class, and of the right ones with damage."""
    cls, value = drawn
    right = msgpack.packb(plain(cls, value))
    rng = random.Random(seed)
    with lent(cls):
        for body in (right, msgpack.packb(plain(*other)), mutated(rng, right), mutated(rng, right)):
            try:
                expected = read(cls, unpacked(body))
            except (ValueError, TypeError, AttributeError):
                with pytest.raises(WireError):
                    decode(LENT, body)
            else:
                assert same(decode(LENT, body), expected)


def test_the_example_of_the_documentation() -> None:
    cls = record("Documented", steps=tuple[Step, ...], seen=dict[str, int], last=Tagged)
    with lent(cls):
        kind, body = encode(cls((Step("a", None),), {"b": 2}, Welcome(3, 4)))
        assert kind == LENT
        assert body == bytes.fromhex("93 91 92a161c0 81a16202 9204920304")
        assert type(decode(kind, body).steps[0]) is Step
        assert type(decode(kind, body).last) is Welcome


def test_a_path_of_any_bytes_comes_back() -> None:
    path = bytes(range(1, 256)).decode("utf-8", "surrogateescape")
    assert decode(*encode(messages.Committed((1,), path, 2, 3, (4,), ()))).path == path


def test_what_is_decoded_is_new() -> None:
    body = encode(FULL)
    one, other = decode(*body), decode(*body)
    assert same(one, FULL)
    assert same(one, other)
    one.seen["x"] = 99
    one.numbered[3][1].clear()
    assert same(other, FULL)
    assert same(decode(*body), FULL)


def test_a_class_without_code_of_its_own_is_made() -> None:
    """Decoding makes records as they are: no `__new__` of a class can raise, or change a value."""

    class Strict(Record):
        number: int

        def __new__(cls, number: int) -> Strict:
            raise ZeroDivisionError

    with lent(Strict):
        assert same(decode(LENT, b"\x91\x07"), tuple.__new__(Strict, (7,)))


# --- what is refused on the way in ---------------------------------------------------------------


def wrong_values() -> list[tuple[str, Any]]:
    return [
        ("number", True),
        ("number", 1.0),
        ("number", "1"),
        ("number", None),
        ("real", 1),
        ("text", b"bytes"),
        ("data", "text"),
        ("flag", 1),
        ("many", 1),
        ("many", (1, "2")),
        ("many", (1, True)),
        ("many", {}),
        ("pair", ("a",)),
        ("pair", ("a", 1, 1)),
        ("pair", (1, "a")),
        ("pair", {"a": 1}),
        ("deep", (("b", ("text",)),)),
        ("deep", (("b", (b"",), 1),)),
        ("text", None),
        ("perhaps", "1"),
        ("perhaps", False),
        ("perhaps", ()),
        ("anything", ({"a": ({1.5: 1},)},)),
        ("anything", {None: 1}),
        ("anything", {True: 1}),
    ]


@pytest.mark.parametrize(("field", "value"), wrong_values())
def test_a_field_of_another_type_is_refused(field: str, value: Any) -> None:
    flat = Flat(*(getattr(GOOD, name) for name in Flat._fields))
    for kind, good in ((KIND, GOOD), (FLAT, flat)):
        if field not in good._fields:
            continue
        bad = good._replace(**{field: value})
        with pytest.raises(WireError, match=rf"^{type(good).__name__}\.{field}: "):
            decode(kind, msgpack.packb(tuple(bad)))
        with pytest.raises(TypeError, match=rf"^{type(good).__name__}\.{field}: "):
            encode(bad)


@pytest.mark.parametrize(
    ("field", "raw", "why"),
    [
        ("steps", [["a"]], "Step: not an array of 2 fields"),
        ("steps", [["a", 1, 1]], "Step: not an array of 2 fields"),
        ("steps", [{"a": 1, "b": 2}], "Step: not an array of 2 fields"),
        ("steps", [["a", None], [1, None]], "Step.name: int is wrong here"),
        ("steps", [["a", "b"]], "Step.after: str is wrong here"),
        ("steps", [None], "Step: not an array of 2 fields"),
        ("steps", {}, "dict is wrong here"),
        ("seen", [], "tuple is wrong here"),
        ("seen", None, "NoneType is wrong here"),
        ("seen", {b"a": 1}, "bytes is wrong as a key here"),
        ("seen", {"a": None}, "NoneType is wrong here"),
        ("seen", b"\x82\xa1a\x01\xa1a\x02", "a key is there twice"),
        ("seen", b"\x81\x91\x01\x02", "tuple is wrong as a key here"),
        ("seen", b"\x81\x80\x01", "dict is wrong as a key here"),
        ("numbered", {True: [["a", 1], {}]}, "bool is wrong as a key here"),
        ("numbered", b"\x81\xcb?\xf0\0\0\0\0\0\0\xc0", "float is wrong as a key here"),
        ("numbered", {1: [["a", 1], {"b": 1}]}, "int is wrong here"),
        ("byname", {b"a": []}, "Step: not an array of 2 fields"),
        ("last", None, "not a kind and its message"),
        ("last", [], "not a kind and its message"),
        ("last", [EMPTY], "not a kind and its message"),
        ("last", [EMPTY, [], []], "not a kind and its message"),
        ("last", [True, []], "not a kind and its message"),
        ("last", ["Empty", []], "not a kind and its message"),
        ("last", [255, []], "there is no message of kind 255"),
        ("last", [-1, []], "there is no message of kind -1"),
        ("last", [2**63, []], "there is no message of kind 9223372036854775808"),
        ("last", [EMPTY, None], "Empty: not an array of 0 fields"),
        ("last", [EMPTY, [1]], "Empty: not an array of 0 fields"),
        ("last", [TREE, [1, [EMPTY, []], [[2, None, []]]]],
            "Tree.children: Tree.label: not a kind and its message"),
    ],
)  # fmt: skip
def test_a_nested_field_of_another_type_is_refused(field: str, raw: Any, why: str) -> None:
    body = b"\x95" + b"".join(
        (raw if isinstance(raw, bytes) else msgpack.packb(raw))
        if name == field
        else msgpack.packb(plain(hint, value))
        for name, hint, value in zip(Batch._fields, hints_of(Batch), FULL, strict=True)
    )
    with pytest.raises(WireError) as caught:
        decode(BATCH, body)
    assert str(caught.value) == f"Batch.{field}: {why}"


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
        b"\x81\xc0" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_what_is_not_exactly_one_message_is_refused(body: bytes) -> None:
    for kind in (KIND, BATCH):
        with pytest.raises(WireError):
            decode(kind, body)


def test_a_kind_that_nobody_registered_is_refused() -> None:
    with pytest.raises(WireError, match="kind 255"):
        decode(255, b"\x90")


# --- limits, the same in both directions ---------------------------------------------------------


def tower(levels: int) -> Any:
    """Trees in a tree, `levels` of them in all."""
    value = Tree(0, Empty(), ())
    for number in range(1, levels):
        value = Tree(number, value, ()) if number % 2 else Tree(number, Empty(), (value,))
    return value


def raw_tower(levels: int) -> bytes:
    raw: Any = [0, [EMPTY, []], []]
    for number in range(1, levels):
        raw = [number, [TREE, raw], []] if number % 2 else [number, [EMPTY, []], [raw]]
    return bytes(msgpack.packb(raw))


def test_records_are_nested_to_a_limit() -> None:
    most = fields.DEPTH_MAX
    assert same(decode(*encode(tower(most))), tower(most))
    with pytest.raises(TypeError, match=f"more than {most} levels"):
        encode(tower(most + 1))
    assert same(decode(TREE, raw_tower(most)), tower(most))
    for levels in (most + 1, 150):
        with pytest.raises(WireError, match=f"more than {most} levels"):
            decode(TREE, raw_tower(levels))


@pytest.mark.parametrize("wrap", [lambda value: (value,), lambda value: {"a": value}])
def test_anything_is_nested_to_a_limit(wrap: Any) -> None:
    value: Any = None
    for _ in range(fields.DEPTH_MAX - 1):
        value = wrap(value)
    assert same(decode(*encode(GOOD._replace(anything=value))), GOOD._replace(anything=value))
    for _ in range(400):
        value = wrap(value)
        with pytest.raises(TypeError, match=r"^Every.anything: more than 64 levels"):
            encode(GOOD._replace(anything=value))
        with pytest.raises(WireError, match=r"^Every.anything: more than 64 levels"):
            decode(KIND, msgpack.packb(GOOD._replace(anything=value)))


@pytest.fixture
def low(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "LENGTH_MAX", 1000)
    monkeypatch.setattr(fields, "LENGTH_MAX", 1000)
    monkeypatch.setattr(fields, "INT_KEYS_MAX", 100)


@pytest.mark.parametrize(
    "hint",
    [tuple[int, ...], tuple[int | None, ...], tuple[Any, ...], Any, dict[str, tuple[int, ...]]],
)
@pytest.mark.usefixtures("low")
def test_arrays_are_as_long_as_a_reader_takes(hint: Any) -> None:
    cls = record("Long", f=hint)

    def value(length: int) -> Any:
        return cls({"a": (1,) * length} if typing.get_origin(hint) is dict else (1,) * length)

    with lent(cls):
        assert same(decode(*encode(value(1000))), value(1000))
        with pytest.raises(TypeError, match=r"Long\.f: 1001 elements are too many"):
            encode(value(1001))
        with pytest.raises(WireError, match="1001"):
            decode(LENT, msgpack.packb(value(1001)))


@pytest.mark.parametrize(
    ("hint", "key", "limit"),
    [(dict[int, int], int, 100), (dict[str, int], str, 1000), (Any, int, 100), (Any, str, 1000)],
)
@pytest.mark.usefixtures("low")
def test_maps_are_as_long_as_a_reader_takes(hint: Any, key: type, limit: int) -> None:
    cls = record("Long", f=hint)
    with lent(cls):
        found = {key(number): number for number in range(limit)}
        assert same(decode(*encode(cls(found))), cls(found))
        found[key(limit)] = 0
        with pytest.raises(TypeError, match=f"Long.f: {limit + 1} entries are too many"):
            encode(cls(found))
        with pytest.raises(WireError, match=f"Long.f: {limit + 1} entries are too many"):
            decode(LENT, msgpack.packb([found]))


# --- what is refused on the way out --------------------------------------------------------------


class Named(str):
    """A subclass of a field's type: it would come back as another."""


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (FULL._replace(steps=[Step("a", 1)]), "Batch.steps: list is wrong here"),
        (FULL._replace(steps=(("a", 1),)), "Batch.steps: tuple is wrong here"),
        (FULL._replace(steps=(Empty(),)), "Batch.steps: Empty is wrong here"),
        (FULL._replace(steps=(Step(1, 1),)), "Batch.steps: Step.name: int is wrong here"),
        (FULL._replace(seen=(("a", 1),)), "Batch.seen: tuple is wrong here"),
        (FULL._replace(seen={1: 1}), "Batch.seen: int is wrong as a key here"),
        (FULL._replace(seen={"a": 1.0}), "Batch.seen: float is wrong here"),
        (FULL._replace(seen={Named("a"): 1}), "Batch.seen: Named is wrong as a key here"),
        (FULL._replace(last=Step("a", 1)), "Batch.last: Step is no registered message"),
        (FULL._replace(last=None), "Batch.last: NoneType is no registered message"),
        (FULL._replace(last=(EMPTY, ())), "Batch.last: tuple is no registered message"),
        (FULL._replace(last=Welcome(1, "2")), "Batch.last: Welcome.incarnation: str is wrong here"),
        (GOOD._replace(anything=[1]), "Every.anything: list is wrong here"),
        (GOOD._replace(anything=({"a": Step("a", 1)},)), "Every.anything: Step is wrong here"),
        (GOOD._replace(anything=Named("a")), "Every.anything: Named is wrong here"),
        (GOOD._replace(text=Named("a")), "Every.text: Named is wrong here"),
        (GOOD._replace(many=Welcome(1, 2)), "Every.many: Welcome is wrong here"),
        (GOOD._replace(data=bytearray(b"a")), "Every.data: bytearray is wrong here"),
        (Step("a", 1), "Step is no registered message"),
        (None, "NoneType is no registered message"),
    ],
)
def test_what_would_come_back_as_something_else_is_not_sent(value: Any, why: str) -> None:
    with pytest.raises(TypeError) as caught:
        encode(value)
    assert str(caught.value) == why


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_out_of_range_is_not_sent(number: int) -> None:
    with pytest.raises(OverflowError):
        encode(GOOD._replace(number=number))


def test_a_cycle_is_not_sent() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(TypeError, match="more than 64 levels"):
        encode(GOOD._replace(anything=loop))


# --- classes -------------------------------------------------------------------------------------


def test_a_kind_is_given_once() -> None:
    with pytest.raises(AssertionError, match="Every already"):
        codec.message(KIND)(Every)


class Base(Record):
    a: int


class Inheriting(Base):
    pass


class Bare(Record):
    a: int
    b = 2


class HiddenBare(Record):
    a: int
    _b = 2


class Plain:
    a: int


class Code(Record):
    """All that a class of fields may have besides."""

    a: int = 3

    class Inner:
        pass

    @property
    def twice(self) -> int:
        return 2 * self.a

    @classmethod
    def make(cls) -> Code:
        return cls(1)

    @staticmethod
    def one() -> int:
        return 1


@pytest.mark.parametrize(
    ("cls", "why"),
    [
        (record("Private", a=int, _b=int), "Private._b: a private field"),
        (Inheriting, "Inheriting.a is not annotated in the class itself"),
        (Bare, "Bare.b is not annotated, and therefore no field"),
        (HiddenBare, "HiddenBare._b is not annotated, and therefore no field"),
        (Plain, "Plain is no Record"),
        (int, "int is no Record"),
    ],
)
def test_a_class_that_hides_data_is_not_registered(cls: type, why: str) -> None:
    before = codec.registered()
    with pytest.raises(TypeError, match=why):
        codec.message(LENT)(cls)
    assert codec.registered() == before
    if cls is not int:
        with pytest.raises(TypeError, match=rf"^Outer\.f: .*{cls.__name__}"):
            fields.plan(record("Outer", f=tuple[cls, ...]))


def test_a_class_may_have_code() -> None:
    with lent(Code):
        assert same(decode(*encode(Code.make())), Code(1))


@pytest.mark.parametrize(
    "hint",
    [
        list,
        list[int],
        set[int],
        tuple,
        dict,
        dict[float, int],
        dict[bool, int],
        dict[tuple[int, int], int],
        dict[Step, int],
        dict[str, list[int]],
        int | str,
        int | str | None,
        None,
        type(None),
        object,
        Record,
        ClassVar[int],
        complex,
        Named,
        "Nowhere",
        "tuple[Nowhere, ...]",
        "1 +",
        ["int"],
        Tree | Step,
    ],
    ids=repr,
)
def test_an_annotation_that_is_no_field_type_is_refused(hint: Any) -> None:
    for cls in (record("Outer", a=int, f=hint), record("Outer", a=int, f=tuple[hint, ...])):
        with lent(cls):
            for _ in range(2):  # it is refused for ever
                with pytest.raises(TypeError, match=r"^Outer\.f: "):
                    encode(cls(1, 2))
                with pytest.raises(TypeError, match=r"^Outer\.f: "):
                    decode(LENT, b"\x92\x01\x02")


def test_a_refused_class_leaves_nothing_behind() -> None:
    """Of what it holds, neither, for that may hold what was refused."""
    inner = record("Inner", f=list)
    outer = record("Outer", good=record("Good", f=int), bad=inner)
    before = dict(fields.plans)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"^Outer\.bad: Inner\.f: .*list"):
            fields.plan(outer)
    assert fields.plans == before


# --- noise ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("good", [GOOD, FULL], ids=lambda good: type(good).__name__)
def test_no_bytes_raise_anything_but_a_wire_error(good: Any) -> None:
    rng = random.Random(1)
    kinds = sorted(codec.registered())
    own, body = encode(good)
    accepted = 0
    for round_number in range(dose(25_000, 1_000_000)):
        noise = rng.randbytes(rng.randrange(40)) if round_number % 2 else mutated(rng, body)
        kind = rng.choice(kinds) if round_number % 2 else own
        try:
            value = decode(kind, noise)
        except WireError:
            continue
        accepted += 1
        assert same(decode(*encode(value)), value)
    assert accepted > 0, "mutation never left a whole message: the fuzzer is too coarse"
