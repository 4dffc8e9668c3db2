"""Records of log segments (`ext/records.pyx`); the grammar is in `engine/storage/records.py`."""

from array import array

from engine.storage.entries import Entry

Columns = tuple[
    bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, list[int], list[int], int, int
]
"""What `engine.storage.records.Columns` names: packed numbers, native and little-endian."""

def measure(entries: tuple[Entry, ...]) -> int:
    """Bytes that the records of these entries take. TypeError if a body is not bytes."""

class Batch:
    """Records that follow each other, in a buffer of a size that is known beforehand.

    `seed` is the CRC32C of the segment's salt, `previous` the sum of the record before, and
    `watermark` the position known to be durable. ValueError where a record does not fit.
    """

    data: bytearray
    previous: int
    """The sum of the last record."""
    def __init__(
        self, size: int, seed: int, position: int, previous: int, watermark: int
    ) -> None: ...
    @property
    def position(self) -> int:
        """Where the next record would begin."""

    @property
    def watermark(self) -> int:
        """The position that its records say to be durable."""

    def entries(
        self, group: int, first: int, entries: tuple[Entry, ...]
    ) -> tuple[array[int], array[int], array[int], list[int]]:
        """Put entries: positions (64 bits), sizes (32), terms (64); the indexes of kind CONFIG.

        ValueError if a body is not what its CRC says.
        """

    def state(self, group: int, index: int, last: int, term: int, vote: int) -> None:
        """Put the hard state of a group whose log ends with `index` of term `last`."""

    def base(self, group: int, index: int, term: int, config: bytes, anew: bool = False) -> None:
        """Put the base of a group; `anew` if nothing before it counts any more."""

    def lost(self, group: int, index: int, term: int) -> None:
        """Put an end that the log of a group is known to have had."""

def scan(
    data: bytes | bytearray | memoryview, start: int, seed: int, position: int, previous: int
) -> Columns:
    """The records from `start` on, as far as they verify and are chained. GIL released.

    `position` is that of the first byte of `data`.
    """

def search(data: bytes | bytearray | memoryview, start: int, seed: int, position: int) -> Columns:
    """All records that verify at multiples of 8 from `start` on, chained or not. GIL released."""

def decode(
    data: bytes,
    position: int,
    group: int,
    first: int,
    count: int,
    seed: int,
    positions: array[int] | memoryview,
    entry: type[Entry],
) -> list[Entry] | None:
    """The entries `first` … of a group that begin at these positions; None if one is not whole.

    `position` is that of the first byte of `data`.
    """
