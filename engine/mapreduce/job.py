"""What a user writes: a class with plain generator methods, and what it declares about itself.

A job's pieces run without the engine: `list(MyJob().map("a.txt", "some line"))` is a unit test. The
same class runs `inline` and on `local` processes, with the same bytes as result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

Pair = tuple[Any, Any]


class Job:
    """Base of all jobs; `map` and `reduce` must depend on their arguments and options alone."""

    records: ClassVar[str] = "lines"
    """What `map` is called with: "lines" (str without its \\n) or "files" (the whole text)."""
    keys: ClassVar[str] = "text"
    """Type of map's keys: "text" (str), "bytes", "integer" (signed 64 bit) or "tuple" of these."""
    split_bytes: ClassVar[int] = 2 << 20
    """Bytes of input a task reads; files are never split when `records` is "files"."""
    options: ClassVar[dict[str, str]] = {}
    """Options and their defaults, set by `--set name=value`; `self.settings[name]` reads them."""
    native: ClassVar[str] = ""
    """Name of the kernel that does the work of map and reduce, or ""."""

    combine: Callable[[Any, list[Any]], Iterable[Pair]] | None = None
    """Optional: (key, values) -> pairs of the same key, called on what a worker holds before it is
    written; may be called any number of times, including none."""

    def __init__(self, **settings: str) -> None:
        self.settings: dict[str, str] = {**type(self).options, **settings}

    def map(self, document: str, record: Any) -> Iterator[Pair]:
        """Pairs of one record. `document` is the file's name without its folder."""
        raise NotImplementedError  # pragma: no cover

    def reduce(self, key: Any, values: Iterable[Any]) -> Iterator[Pair]:
        """Pairs to write for one key; `values` can be iterated once, in the order of the input."""
        raise NotImplementedError  # pragma: no cover

    def line(self, key: Any, value: Any) -> str:
        """One line of the output, without its end."""
        return f"{key} {value}"

    partition: Callable[[bytes, int], int] | None = None
    """Optional: (encoded key, partitions) -> partition; (fnv1a32(key) & 0x7fffffff) % partitions if
    None."""
