"""Draw words from tables, write prose, know its counts exactly (`ext/corpus.pyx`)."""

from collections.abc import Sequence

WORD_BYTES_MAX: int
"""18: a word with its tallies is half a cache line."""
ROOM: int
"""Bytes of the smallest buffer that `Generator.fill` accepts."""

class Generator:
    """An endless text, cut into files by `begin`; its bytes depend on the arguments alone."""

    def __init__(
        self,
        seed: int,
        *,
        letters: Sequence[tuple[bytes, bytes]],
        draw: bytes,
        accents: bytes,
        accented: int,
        lengths: Sequence[tuple[int, int]],
        slots: Sequence[tuple[int, int, int, int]],
        growth: Sequence[tuple[int, int]],
        separators: Sequence[tuple[bytes, bool]],
        line: int,
        capitals: bool,
    ) -> None:
        """Invent the words. OverflowError when the alphabet has too few, MemoryError.

        `letters`: (small, capital) in UTF-8, of equal length. `draw`: 256 indexes of letters, each
        as likely as it is frequent. `accents`: indexes of the letters of which `accented` in 256
        words hold one. `lengths`: bounds in letters for the ranks of 0, 1, 2 … 32 bits.
        `slots`: alias table of (first rank, ranks, threshold out of 2^32, other slot).
        `growth`: (byte position, words that have appeared by then), rising, linear in between.
        `separators`: 256 of (bytes, whether a sentence ends). `line`: bytes after which a space
        becomes a line break.
        """
    @property
    def written(self) -> int:
        """Words written so far, repetitions included."""
    @property
    def vocabulary(self) -> int:
        """Different words written so far, capitals aside."""
    def begin(self, size: int) -> None:
        """The next `size` bytes are one file; it ends with a line break, after a whole word."""
    def fill(self, buffer: bytearray | memoryview) -> int:
        """Bytes put into `buffer` (of `ROOM` or more), 0 at the end of the file. Without GIL."""
    def sort(self, folded: bool = False) -> int:
        """Sort the forms written, bytewise; how many. `folded`: capitals count as small letters."""
    def lines(self, first: int, last: int, folded: bool = False) -> bytes:
        """Lines `word count` of the forms [first, last) as `sort(folded)` ordered them."""
