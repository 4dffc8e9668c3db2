"""Count words, a word being a maximal run of letters of one named Unicode table.

The kernels do the work (`native`); the functions here say what it is, and are their oracle. Bytes
that are not UTF-8 reach `map` as U+FFFD, which is no letter, so they separate words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from engine.errors import UsageError
from engine.mapreduce.job import Job, Pair

Find = Callable[[str], list[str]]

_finders: tuple[Find, Find] | None = None


def words(text: str) -> list[str]:
    """All words of a text, in order. The patterns are made when first needed: kernels need none."""
    global _finders
    if _finders is None:
        _finders = _make_finders()
    in_ascii, in_any = _finders
    return in_ascii(text) if text.isascii() else in_any(text)


def _make_finders() -> tuple[Find, Find]:
    """For ASCII, and for any text: `[letters]+`, five times faster.

    `re` looks a character up in a bitmap if it is below U+10000, and in a list of 200 ranges if the
    bitmap says no: so only characters above get to see the list.
    """
    import re

    from engine.mapreduce.letters import letters

    ranges = re.findall(".(?:-.)?", letters())
    low = "".join(span for span in ranges if span[-1] <= "\uffff")
    high = "".join(span for span in ranges if span[-1] > "\uffff")
    in_any = re.compile(f"(?:[{low}]+|(?![\0-\uffff])[{high}]+)+")
    return re.compile("[A-Za-z]+").findall, in_any.findall


class WordCount(Job):
    """word -> how often it occurs; with `fold_case`, upper and lower case are one word."""

    native = "words"
    split_bytes = 8 << 20
    options: ClassVar[dict[str, str]] = {"fold_case": "no"}

    def __init__(self, **settings: str) -> None:
        super().__init__(**settings)
        self._folds: dict[int, int] = {}
        if self.settings["fold_case"] not in ("yes", "no"):
            raise UsageError(
                f'wordcount: fold_case is "yes" or "no", not {self.settings["fold_case"]!r}.'
            )

    def map(self, document: str, record: str) -> Iterator[Pair]:
        """Each word of a line, with 1."""
        for word in words(self.folded(record)):
            yield word, 1

    def combine(self, key: str, values: Iterable[int]) -> Iterator[Pair]:
        """What reduce does: sums of sums are sums."""
        yield key, sum(values)

    def reduce(self, key: str, values: Iterable[int]) -> Iterator[Pair]:
        """The word and its count."""
        yield key, sum(values)

    def folded(self, text: Any) -> Any:
        """The text, case folded if the option says so: letter by letter, so words stay words."""
        if self.settings["fold_case"] == "no":
            return text
        if not self._folds:
            from engine.mapreduce.letters import folds

            self._folds = folds()
        return text.translate(self._folds)
