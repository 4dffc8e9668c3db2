"""Inverted index: each word with the number of documents that hold it, and their names.

`map` is given lines, not documents, so that a large document is read by many workers and none has
to hold it; the same word then comes from many lines of a document. A line yields each of its words
once, `combine` leaves one name per document of what a worker has gathered, and `reduce` does the
same across workers: wherever a document was split, its name appears once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.mapreduce.apps.wordcount import words
from engine.mapreduce.job import Job, Pair


class Index(Job):
    """word -> "count document1,document2,..." with the documents sorted."""

    def map(self, document: str, record: str) -> Iterator[Pair]:
        """Each distinct word of a line, with the document's name."""
        for word in set(words(record)):
            yield word, document

    def combine(self, key: str, values: Iterable[str]) -> Iterator[Pair]:
        """Each document once."""
        for document in sorted(set(values)):
            yield key, document

    def reduce(self, key: str, values: Iterable[str]) -> Iterator[Pair]:
        """The number of documents and their names."""
        documents = sorted(set(values))
        yield key, f"{len(documents)} {','.join(documents)}"
