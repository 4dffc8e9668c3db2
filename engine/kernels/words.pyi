"""Tokenise, hash, count and partition words (`ext/words.pyx`)."""

LETTERS: str
"""Name of the letter and case tables, e.g. "Unicode 14.0.0 L*"."""
WORD_BYTES_MAX: int
"""64 MiB; a longer word is an error."""

class WordTooLong(ValueError):
    """A word exceeds `WORD_BYTES_MAX`; `offset` is the byte of the file at which it begins."""

    offset: int

def isa_levels() -> tuple[str, ...]:
    """Instruction sets that this machine can run, slowest first: "portable", ..., "avx2"."""

class WordTable:
    """Counts of words; bounded by `memory` bytes, scratch for sorting and writing included."""

    def __init__(
        self,
        partitions: int,
        memory: int,
        *,
        fold_case: bool = False,
        isa: str = "",
        chunk: int = 0,
    ) -> None:
        """`isa` picks one of `isa_levels()`; "" picks the best. `partitions`: 1 to 65536.

        `chunk` is the bytes read at a time, for tests; 0 is the usual 256 KB. However small
        `memory` is, a table takes at least one word. A table serves one call at a time:
        RuntimeError if another thread is inside.
        """
    isa: str
    @property
    def keys(self) -> int:
        """Distinct words in the table now."""
    @property
    def words(self) -> int:
        """Words counted since the last `clear` or `write_section`."""
    @property
    def memory(self) -> int:
        """Bytes mapped now."""
    def count(self, path: str, start: int, end: int, page: memoryview | None = None) -> int:
        """Count the words that begin in bytes [start, end) of the file, with the GIL released.

        Returns `end` (or the file's size, if less) when done; a smaller position when the table is
        full: write a section and call again from there with the same `end`. A word that begins
        before `end` is read to its end, however far. `page` is a writable view of 16 uint64 words
        (`engine.mapreduce.progress`), moved about every 256 KB. OSError, WordTooLong.
        """
    def write_section(
        self, fd: int, offset: int, job: int, task: int, attempt: int
    ) -> list[tuple[int, int, int]]:
        """Write all words sorted by (partition, bytes) from `offset` of `fd`; clear the table.

        Returns (offset, length, records) of each partition. Format: `engine/storage/runs.py`.
        OSError, for one with ENOSPC: then too the words are gone, so count them again.
        """
    def clear(self) -> None: ...

def fold(text: bytes) -> bytes:
    """Simple case folding of the letters of UTF-8 `text`, as `fold_case` does it (for tests)."""

def partition(key: bytes, partitions: int) -> int:
    """(fnv1a32(key) & 0x7fffffff) % partitions."""
