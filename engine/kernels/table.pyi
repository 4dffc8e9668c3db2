"""The table of the store: keys with their records, by name and in order (`ext/table.pyx`).

A key takes its own bytes, those of its record, and about 32 more. No operation but those that hand
out many keys takes longer than about a millisecond, however many there are. Nothing that can be
observed depends on the secret of its hashes.
"""

from collections.abc import Iterable, Iterator
from typing import final

def hashed(secret: bytes, key: bytes) -> int:
    """SipHash-1-3, with a secret of 16 bytes; tables choose theirs by chance. ValueError."""

@final
class Table:
    """It has no references, so a garbage collector need not look at it."""

    total: int
    """Of keys and records."""

    def __len__(self) -> int: ...
    def __contains__(self, key: bytes) -> bool: ...
    def __getitem__(self, key: bytes) -> bytes:
        """A copy of its record. KeyError."""

    def get(self, key: bytes) -> bytes | None:
        """A copy of its record; None if it is not there."""

    def head(self, key: bytes, most: int) -> bytes | None:
        """So many bytes of its record, or all if it has fewer; None if it is not there."""

    def size(self, key: bytes) -> int:
        """How long its record is; -1 if it is not there."""

    def __setitem__(self, key: bytes, record: bytes) -> None:
        """Without memory for it nothing changes. MemoryError, OverflowError."""

    def __delitem__(self, key: bytes) -> None:
        """KeyError."""

    def extend(self, keys: Iterable[bytes], records: Iterable[bytes]) -> None:
        """Set them all; it is fast if they come in order, behind all that are there. ValueError,
        TypeError, MemoryError, OverflowError; those before the one that is wrong are set."""

    def bisect(self, key: bytes) -> int:
        """How many keys are less."""

    def keys(self, first: int = 0, last: int = ..., reverse: bool = False) -> list[bytes]:
        """The keys from a position to before another one, in order, or the last one first."""

    def __iter__(self) -> Iterator[bytes]:
        """Through the keys that are there now, in order."""

    def part(
        self, start: bytes, keys_max: int, bytes_max: int
    ) -> tuple[list[bytes], list[bytes], bool]:
        """The first keys that are not less than `start`, and their records: so many, or as many as
        it takes to have so many bytes. And whether there are more."""
