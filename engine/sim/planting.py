"""Planted bugs: a trial that does not catch them proves nothing about what it passes.

A bug is a few patches, each of which must find what it replaces. They are hunted by what the
cluster does alone: the machine's own `check` is off, since whoever makes the mistake would make it
there too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from engine.record import Record


class Patch(Record):
    """Puts `make(original)` in the place of `owner.name`."""

    owner: type
    name: str
    make: Callable[[Any], Any]


@contextmanager
def planted(patches: tuple[Patch, ...]) -> Iterator[None]:
    """The code with these patches for as long as the block runs."""
    originals = [(patch, patch.owner.__dict__[patch.name]) for patch in patches]
    for patch, original in originals:
        setattr(patch.owner, patch.name, patch.make(original))
    try:
        yield
    finally:
        for patch, original in reversed(originals):
            setattr(patch.owner, patch.name, original)
