"""The corpora: generated ones with their exact counts, and real books if they are there.

`natural` has the vocabulary and letter mix of books, `cardinal` five million distinct words at full
size. Both are made from a seed, so everybody measures the same bytes; they are kept between runs
below the work folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from answers import count_plainly, totals
from contenders import Inputs

UNITS = {"K": 1_000, "M": 1_000_000, "G": 1_000_000_000}
SEED = 7
FILE_BYTES = 64 << 20


class Corpus(NamedTuple):
    """Files to count and what is known about them."""

    name: str
    kind: str
    """What its table is: "books" (or as much text), "small", "natural" or "cardinal"."""
    inputs: Inputs
    bytes: int
    words: int
    distinct: int

    @property
    def about(self) -> str:
        files = len(self.inputs.paths)
        return (
            f"{self.bytes / 1e6:.1f} MB in {files} files, {self.words:,} words,"
            f" {self.distinct:,} distinct"
        )


def parse_size(text: str) -> int:
    """Bytes of "1G", "100M", "3.3M" or a plain number."""
    unit = UNITS.get(text[-1:].upper(), 1)
    number = text[:-1] if unit > 1 else text
    try:
        return int(float(number) * unit)
    except ValueError:
        raise SystemExit(
            f"{text!r} is no size: use a number and K, M or G, such as 100M."
        ) from None


def describe(name: str, kind: str, paths: Sequence[Path], right: Path) -> Corpus:
    words, distinct = totals(right)
    size = sum(path.stat().st_size for path in paths)
    return Corpus(name, kind, Inputs(tuple(paths), right), size, words, distinct)


def books(texts: Path, work: Path, most: int = 0) -> Corpus:
    """The first `most` texts of a folder (0: all), counted plainly."""
    paths = sorted(texts.glob("*.txt"))
    paths = paths[:most] if most else paths
    if not paths:
        raise SystemExit(
            f"{texts} has no *.txt: fetch books with `engine data fetch --to {texts}`."
        )
    work.mkdir(parents=True, exist_ok=True)
    right = work / f"books-{len(paths)}.counts"
    count_plainly(paths, right)
    return describe(f"{len(paths)} books", "books", paths, right)


def generated(folder: Path, kind: str, size: int, files: int = 0) -> Corpus:
    """A corpus of ours of `size` bytes, made unless it is there from an earlier run."""
    from engine.corpora.folder import COUNTS
    from engine.corpora.generate import generate

    preset = "cardinal" if kind == "cardinal" else "natural"
    files = files or max(8, size // FILE_BYTES)
    name = f"{preset} {size_name(size)}"
    to = folder / f"{preset}-{size}-{files}"
    made = generate(str(to), size, SEED, preset=preset, files=files)
    paths = tuple(to / entry["name"] for entry in made.files)
    inputs = Inputs(paths, to / COUNTS)
    return Corpus(name, kind, inputs, made.size, made.words, made.exact.distinct)


def size_name(size: int) -> str:
    """Such as "3.3 MB", "1 GB"."""
    return f"{size / 1e9:g} GB" if size >= 10**9 else f"{size / 1e6:g} MB"
