"""What may stand in a field of a message: the grammar of annotations, checked in both directions.

A class of fields (a `Record`, registered as a message or not) has a `Plan`, compiled when it is
first needed: a worker never needs most of them. A plan has a `Form` for each field. Forms check:
on the way out, because a value of another type would reach the reader as something else or not at
all; on the way in, because bytes from a peer or a file may be anything.

Most forms are *flat*: a right value looks the same in a program and as msgpack reads it. Records,
maps, `Any` and `Tagged` are not, and are rebuilt. A plan whose fields are all flat costs a look at
the types of its values and no more, which is what keeps small messages cheap.

`engine.wire.codec` has the grammar, and adds the bytes.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from engine.record import Record

LENGTH_MAX = 1 << 20
"""Elements of one array, entries of one map; a plan of this many splits is 8 TB of input."""
INT_KEYS_MAX = 1 << 16
"""Entries of a map with int keys. Ints can be chosen to collide in a dict; strings cannot."""
DEPTH_MAX = 64
"""Records in records, and tuples and maps in `Any`: what the sender of a value may nest at will."""

classes: dict[int, type] = {}
"""Message classes by kind."""
kinds: dict[type, int] = {}

if TYPE_CHECKING:
    Tagged: typing.TypeAlias = Any
else:

    class Tagged:
        """As an annotation: any registered message, which travels with its kind."""


class Mismatch(Exception):
    """A value is not what its field is annotated with. Never leaves `engine.wire.codec`."""


class Pairs(list[tuple[Any, Any]]):
    """A map as it was read: its entries in order. Nobody has hashed or compared the keys yet."""


Check = Callable[[Any], bool]
Convert = Callable[[Any, int], Any]
"""(value, depth) to the value on the other side, or `Mismatch`."""


class Form(Record):
    """One annotation, compiled."""

    outer: type | None
    """The one type that its values have; None if there are several, or it is not flat."""
    check: Check | None
    """For flat ones: is this a right value, in a program and as it was read?"""
    load: Convert
    dump: Convert


# --- classes -------------------------------------------------------------------------------------


class Plan:
    """The fields of one class, compiled."""

    __slots__ = ("cls", "deep", "forms", "outer", "rest", "scalars", "simple")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.forms: tuple[Form, ...] = ()
        self.outer: tuple[type | None, ...] | None = None
        """Type of each field, if all are flat and of one type each."""
        self.deep: tuple[tuple[int, Check], ...] = ()
        """Then, the fields whose type does not say everything."""
        self.scalars: tuple[type | None, ...] = ()
        """Else, the types of those fields that are scalars, which `simple` picks."""
        self.simple: Callable[[Any], tuple[Any, ...]] = tuple
        self.rest: tuple[int, ...] = ()
        """And which fields are not."""

    def compile(self, unfinished: dict[type, Plan]) -> None:
        forms = [_form_of_field(self.cls, name, unfinished) for name in _fields(self.cls)]
        if all(form.outer for form in forms):
            self.outer = tuple(form.outer for form in forms)
            self.deep = tuple(
                (index, form.check)
                for index, form in enumerate(forms)
                if form.check and form.outer not in _SCALARS
            )
        else:
            simple = [at for at, form in enumerate(forms) if form.outer in _SCALARS]
            if len(simple) > 1:
                self.scalars = tuple(forms[at].outer for at in simple)
                self.simple = itemgetter(*simple)
                self.rest = tuple(at for at in range(len(forms)) if at not in simple)
        self.forms = tuple(forms)

    def load(self, values: Any, depth: int) -> Any:
        """A new instance, of the array of its fields."""
        if type(values) is not tuple or len(values) != len(self.forms):
            raise Mismatch(f"{self.cls.__name__}: not an array of {len(self.forms)} fields")
        if tuple(map(type, values)) != self.outer or (self.deep and not self._right(values)):
            values = self._convert("load", values, depth)
        return tuple.__new__(self.cls, values)  # plain data: no code of the class has a say

    def dump(self, value: Any, depth: int) -> Any:
        """The fields of an instance, as they travel. (msgpack takes a record for a tuple.)"""
        cls: type = type(value)
        if cls is not self.cls:
            raise wrong(value)
        if tuple(map(type, value)) != self.outer or (self.deep and not self._right(value)):
            return self._convert("dump", value, depth)
        return value

    def _right(self, values: tuple[Any, ...]) -> bool:
        for index, check in self.deep:  # noqa: SIM110 (a generator costs more than most checks)
            if not check(values[index]):
                return False
        return True

    def _convert(self, way: str, values: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
        deeper(depth)
        done = list(values)
        assert len(done) == len(self.forms), self.cls
        which: Collection[int] = range(len(done))
        if tuple(map(type, self.simple(values))) == self.scalars:
            which = self.rest  # scalars of the right type stay as they are
        for at in which:
            form = self.forms[at]
            try:
                done[at] = (form.load if way == "load" else form.dump)(values[at], depth + 1)
            except Mismatch as error:
                name = _fields(self.cls)[at]
                raise Mismatch(f"{self.cls.__name__}.{name}: {error}") from None
        return tuple(done)


plans: dict[type, Plan] = {}
"""What `plan` has compiled."""


def plan(cls: type) -> Plan:
    """The plan of a class; TypeError, naming class and field, if it cannot have one."""
    found = plans.get(cls)
    if found is None:
        unfinished: dict[type, Plan] = {}
        found = _compiled(cls, unfinished)
        # Only now, for no other thread may meet one that is half done.
        plans.update(unfinished)
    return found


def _compiled(cls: type, unfinished: dict[type, Plan]) -> Plan:
    """`unfinished` is what has been begun: records may hold records of their own class."""
    found = plans.get(cls) or unfinished.get(cls)
    if found is None:
        refuse_hidden(cls)
        found = unfinished[cls] = Plan(cls)
        found.compile(unfinished)
    return found


def refuse_hidden(cls: type) -> None:
    """TypeError for a class with data that would not travel, or would under a private name."""
    if not issubclass(cls, tuple) or not hasattr(cls, "_fields"):
        raise TypeError(f"{cls.__name__} is no Record")
    fields = _fields(cls)
    for name in fields:
        if name.startswith("_"):
            raise TypeError(f"{cls.__name__}.{name}: a private field cannot travel")
        if name not in cls.__annotations__:
            raise TypeError(f"{cls.__name__}.{name} is not annotated in the class itself")
    for name, value in vars(cls).items():
        known = name in fields or name.startswith("__") or name in ("_fields", "_field_defaults")
        if not (known or callable(value) or hasattr(value, "__get__")):
            raise TypeError(f"{cls.__name__}.{name} is not annotated, and therefore no field")


def _fields(cls: type) -> tuple[str, ...]:
    return cls._fields  # type: ignore[attr-defined,no-any-return]


def _form_of_field(cls: type, name: str, unfinished: dict[type, Plan]) -> Form:
    hint = cls.__annotations__[name]
    if _holds_text(hint):
        hint = _resolved(cls, name, hint)
    try:
        return _form(hint, unfinished)
    except TypeError as error:
        raise TypeError(f"{cls.__name__}.{name}: {error}") from None


def _holds_text(hint: Any) -> bool:
    return isinstance(hint, str | typing.ForwardRef) or any(map(_holds_text, typing.get_args(hint)))


def _resolved(cls: type, name: str, hint: Any) -> Any:
    """An annotation with text in it, evaluated in the module of its class."""
    alone = {"__annotations__": {name: hint}, "__module__": cls.__module__}
    try:
        return typing.get_type_hints(type(cls.__name__, (), alone))[name]
    except Exception as error:  # whatever the text may do
        raise TypeError(f"{cls.__name__}.{name}: {hint!r} means nothing: {error}") from None


# --- annotations ---------------------------------------------------------------------------------

_SCALARS = frozenset((int, float, str, bytes, bool))
_KEYS = frozenset((str, int, bytes))


def _form(hint: Any, unfinished: dict[type, Plan]) -> Form:
    """The form of an annotation; TypeError for what is none of the grammar."""
    if hint in _SCALARS:
        return _flat(hint, lambda value: type(value) is hint)
    if hint is Any:
        return Form(None, None, _load_any, _dump_any)
    if hint is Tagged:
        return Form(None, None, _load_tagged, _dump_tagged)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if inner[1:] == (Ellipsis,):
            return _many(_form(inner[0], unfinished))
        return _few(tuple(_form(each, unfinished) for each in inner))
    if origin is dict and inner[0] in _KEYS:
        return _map(inner[0], _form(inner[1], unfinished))
    if origin in (types.UnionType, typing.Union) and len(inner) == 2 and types.NoneType in inner:
        return _optional(_form(inner[inner[0] is types.NoneType], unfinished))
    if isinstance(hint, type) and hint is not Record and hasattr(hint, "_fields"):
        record = _compiled(hint, unfinished)
        return Form(None, None, record.load, record.dump)
    raise TypeError(f"{hint} cannot be a field of a message")


def wrong(value: Any) -> Mismatch:
    if type(value) is tuple and len(value) > LENGTH_MAX:
        return Mismatch(f"{len(value)} elements are too many")
    return Mismatch(f"{_name(type(value))} is wrong here")


def _name(cls: type) -> str:
    return "dict" if cls is Pairs else cls.__name__


def deeper(depth: int) -> None:
    if depth >= DEPTH_MAX:
        raise Mismatch(f"more than {DEPTH_MAX} levels")


def _flat(outer: type | None, check: Check) -> Form:
    def same(value: Any, depth: int) -> Any:
        if not check(value):
            raise wrong(value)
        return value

    return Form(outer, check, same, same)


def _optional(form: Form) -> Form:
    _, check, load, dump = form
    if check:
        return _flat(None, lambda value: value is None or check(value))
    return Form(
        None,
        None,
        lambda value, depth: None if value is None else load(value, depth),
        lambda value, depth: None if value is None else dump(value, depth),
    )


# --- arrays --------------------------------------------------------------------------------------


def _many(form: Form) -> Form:
    """`tuple[X, ...]`."""
    outer, check, load, dump = form
    if check is None:
        return Form(None, None, _each(load), _each(dump))
    if outer in _SCALARS:
        only = frozenset((outer,))  # and the loop is in C
        return _flat(tuple, lambda value: _is_array(value) and only.issuperset(map(type, value)))
    return _flat(tuple, lambda value: _is_array(value) and all(map(check, value)))


def _is_array(value: Any) -> bool:
    return type(value) is tuple and len(value) <= LENGTH_MAX


def _each(convert: Convert) -> Convert:
    def converted(value: Any, depth: int) -> Any:
        if not _is_array(value):
            raise wrong(value)
        return tuple([convert(item, depth) for item in value])

    return converted


def _few(forms: tuple[Form, ...]) -> Form:
    """`tuple[X, Y]`."""
    outer = tuple(form.outer for form in forms)
    checks = tuple(form.check for form in forms if form.check)
    if len(checks) < len(forms):
        loads, dumps = tuple(form.load for form in forms), tuple(form.dump for form in forms)
        return Form(None, None, _one_by_one(loads), _one_by_one(dumps))
    if _SCALARS.issuperset(outer):
        return _flat(tuple, lambda value: type(value) is tuple and tuple(map(type, value)) == outer)
    return _flat(
        tuple,
        lambda value: (
            type(value) is tuple
            and len(value) == len(checks)
            and all(check(item) for check, item in zip(checks, value, strict=True))
        ),
    )


def _one_by_one(converts: tuple[Convert, ...]) -> Convert:
    def converted(value: Any, depth: int) -> Any:
        if type(value) is not tuple or len(value) != len(converts):
            raise wrong(value)
        pairs = zip(converts, value, strict=True)
        return tuple([convert(item, depth) for convert, item in pairs])

    return converted


# --- maps ----------------------------------------------------------------------------------------


def _map(key: type, form: Form) -> Form:
    keys = frozenset((key,))
    _, _, load, dump = form
    return Form(
        None,
        None,
        lambda value, depth: _load_map(value, keys, load, depth),
        lambda value, depth: _dump_map(value, keys, dump, depth),
    )


def _load_map(value: Any, keys: frozenset[type], load: Convert, depth: int) -> dict[Any, Any]:
    if type(value) is not Pairs:
        raise wrong(value)
    _check_keys([key for key, _ in value], keys)
    found = {key: load(item, depth) for key, item in value}
    if len(found) < len(value):
        raise Mismatch("a key is there twice")
    return found


def _dump_map(value: Any, keys: frozenset[type], dump: Convert, depth: int) -> dict[Any, Any]:
    if type(value) is not dict:
        raise wrong(value)
    _check_keys(value, keys)
    return {key: dump(item, depth) for key, item in value.items()}


def _check_keys(found: Collection[Any], keys: frozenset[type]) -> None:
    """Before they are hashed: only then is it known that they can be."""
    seen = set(map(type, found))
    for other in seen.difference(keys):
        raise Mismatch(f"{_name(other)} is wrong as a key here")
    if len(found) > (INT_KEYS_MAX if int in seen else LENGTH_MAX):
        raise Mismatch(f"{len(found)} entries are too many")


# --- what says itself what it is -----------------------------------------------------------------


def _load_any(value: Any, depth: int) -> Any:
    if value is None or type(value) in _SCALARS:
        return value
    deeper(depth)
    if _is_array(value):
        return tuple([_load_any(item, depth + 1) for item in value])
    return _load_map(value, _KEYS, _load_any, depth + 1)


def _dump_any(value: Any, depth: int) -> Any:
    # Lists, records and subclasses of anything are refused: they would come back as another type.
    if value is None or type(value) in _SCALARS:
        return value
    deeper(depth)
    if _is_array(value):
        return tuple([_dump_any(item, depth + 1) for item in value])
    return _dump_map(value, _KEYS, _dump_any, depth + 1)


def _load_tagged(value: Any, depth: int) -> Any:
    if type(value) is not tuple or len(value) != 2 or type(value[0]) is not int:
        raise Mismatch("not a kind and its message")
    cls = classes.get(value[0])
    if cls is None:
        raise Mismatch(f"there is no message of kind {value[0]}")
    return plan(cls).load(value[1], depth)


def _dump_tagged(value: Any, depth: int) -> Any:
    kind = kinds.get(type(value))
    if kind is None:
        raise Mismatch(f"{type(value).__name__} is no registered message")
    return kind, plan(type(value)).dump(value, depth)
