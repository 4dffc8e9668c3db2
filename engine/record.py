"""`Record`: a NamedTuple that takes a seventh of the time to define.

`typing.NamedTuple` compiles source text for every class. A program of sixty of them starts 7 ms
later for it, which is a good part of what a small job takes in all. Type checkers are told that
this is `NamedTuple`; at run time it is the same thing, made from a tuple and C getters.
"""

from typing import TYPE_CHECKING, Any, ClassVar

__all__ = ["Record"]

if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from _collections import _tuplegetter

    class Record(tuple):
        """Subclass with annotated fields, defaults last. What NamedTuple has, this has."""

        __slots__ = ()
        _fields: ClassVar[tuple[str, ...]] = ()
        _field_defaults: ClassVar[dict[str, Any]] = {}

        def __init_subclass__(cls) -> None:
            names = tuple(cls.__annotations__)
            if not names:
                return
            cls._fields = cls.__match_args__ = names
            cls._field_defaults = {n: cls.__dict__[n] for n in names if n in cls.__dict__}
            for index, name in enumerate(names):
                setattr(cls, name, _tuplegetter(index, ""))
            size, new = len(names), tuple.__new__

            # One for each class, since making records is half of what some loops do: it finds the
            # number of fields in its cell, and not in the class.
            def make(cls: Any, *values: Any, **named: Any) -> "Record":
                if not named and len(values) == size:
                    return new(cls, values)
                return new(cls, cls._complete(values, named))

            cls.__new__ = staticmethod(make)

        @classmethod
        def _complete(cls, values: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
            if len(values) > len(cls._fields):
                raise TypeError(f"{cls.__name__} has {len(cls._fields)} fields, not {len(values)}")
            full = list(values)
            for name in cls._fields[len(values) :]:
                if name in named:
                    full.append(named.pop(name))
                elif name in cls._field_defaults:
                    full.append(cls._field_defaults[name])
                else:
                    raise TypeError(f"{cls.__name__} needs {name}")
            if named:
                raise TypeError(f"{cls.__name__} has no {', '.join(named)} (or twice)")
            return full

        @classmethod
        def _make(cls, values: Any) -> "Record":
            return cls(*values)

        def _replace(self, **named: Any) -> "Record":
            values = [named.pop(name, was) for name, was in zip(self._fields, self, strict=True)]
            if named:
                raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")
            return tuple.__new__(type(self), values)

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

        def __repr__(self) -> str:
            fields = ", ".join(f"{n}={v!r}" for n, v in zip(self._fields, self, strict=True))
            return f"{type(self).__name__}({fields})"
