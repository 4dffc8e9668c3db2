"""Group, encode and merge the pairs of jobs whose map and reduce are Python (`ext/groups.pyx`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from engine.kernels.counts import DamagedBlock as DamagedBlock
from engine.kernels.counts import Segment

class KeyTypeError(TypeError):
    """map yielded a key that the job's key codec cannot encode."""

class ValueTypeError(TypeError):
    """map or combine yielded a value that msgpack cannot encode; the text names key and type."""

class GroupTable:
    """key -> list of values in the order they came; bounded by an estimate of its memory."""

    def __init__(self, partitions: int, memory: int, codec: str = "text") -> None:
        """`codec`: "text" (str as UTF-8), "bytes", "integer" (signed 64 bit) or "tuple"."""
    @property
    def keys(self) -> int: ...
    @property
    def pairs(self) -> int: ...
    @property
    def memory(self) -> int:
        """Estimate of the bytes held."""
    @property
    def full(self) -> bool: ...
    def feed(
        self,
        map_function: Callable[[str, Any], Iterable[tuple[Any, Any]]],
        document: str,
        records: Sequence[Any],
        first: int = 0,
        page: memoryview | None = None,
        whole: bool = False,
    ) -> int:
        """Call map(document, record) for records[first:], adding what it yields; the next index.

        Returns early when the table is full (write a section, call again). When it fills inside a
        record, that is the record's own index: its generator is kept, and the next call, which must
        bring the same list, goes on in it (RuntimeError otherwise). Before each record, RECORD of
        the page is set to its index + 1; to 0 on return. With `whole`, a record's pairs are added
        only once map has ended without an exception. What map raises passes through; the failed
        record's index is RECORD - 1.
        """
    def add(self, key: Any, value: Any) -> None: ...
    def combine(self, function: Callable[[Any, list[Any]], Iterable[tuple[Any, Any]]]) -> None:
        """Replace the values of every key by what function(key, values) yields, key by key.

        Keys with one value are left as they are. ValueError if a pair has another key.
        """
    def write_section(
        self,
        fd: int,
        offset: int,
        job: int,
        task: int,
        attempt: int,
        partition: Callable[[bytes, int], int] | None = None,
    ) -> list[tuple[int, int, int]]:
        """Write all groups sorted by (partition, encoded key); clear. Format: storage/runs.py.

        (offset, length, records) of each partition. After an error (OSError, for one with ENOSPC;
        ValueError for a wrong answer of `partition`) the table is as it was.
        """

def encode_key(codec: str, key: Any) -> bytes:
    """Bytes whose unsigned lexicographic order is the keys' order."""

def decode_key(codec: str, data: bytes) -> Any: ...

class GroupReader(Iterator[tuple[Any, Iterable[Any]]]):
    """Merge of segments: (key, values) in key order, values in (segment, position) order.

    `values` is a list when the group is small, else an iterator that reads as it is consumed (what
    is left over is skipped when the next key is asked for; RuntimeError if read after that). Lists
    that were yielded come back as tuples. DamagedBlock, OSError.
    """

    def __init__(
        self, segments: Sequence[Segment], *, job: int, partition: int, memory: int, codec: str
    ) -> None: ...
    def __iter__(self) -> GroupReader: ...
    def __next__(self) -> tuple[Any, Iterable[Any]]: ...

def merge_to_section(
    segments: Sequence[Segment],
    out: int,
    offset: int,
    *,
    job: int,
    task: int,
    attempt: int,
    partition: int,
    memory: int,
    page: memoryview | None = None,
) -> tuple[int, int, int]:
    """Merge into one segment, for multi-pass merges: (offset, length, records)."""
