"""Lines that match a Python regular expression, as `grep -H` prints them.

The key is the document, the value the line: output is sorted by document, and since values keep
the order of the input, the lines of a document come as they stand in it, however it was split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import ClassVar

from engine.errors import UsageError
from engine.mapreduce.job import Job, Pair


class Grep(Job):
    """document -> its lines in which `pattern` is found."""

    options: ClassVar[dict[str, str]] = {"pattern": ""}

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)
        if not self.settings["pattern"]:
            raise UsageError("grep: no pattern; give one with --set pattern=REGEX.")
        try:
            self._search = re.compile(self.settings["pattern"]).search
        except re.error as error:
            raise UsageError(
                f"grep: pattern {self.settings['pattern']!r} is no regular expression: {error}."
            ) from error

    def map(self, document: str, record: str) -> Iterator[Pair]:
        """The line, if it matches."""
        if self._search(record):
            yield document, record

    def reduce(self, key: str, values: Iterable[str]) -> Iterator[Pair]:
        """Every line as it is."""
        for line in values:
            yield key, line

    def line(self, key: str, value: str) -> str:
        """document:line"""
        return f"{key}:{value}"
