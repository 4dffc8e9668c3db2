"""Right answers, and how an answer differs from them.

A right answer is a file of `word count` lines sorted bytewise: the generator's own exact counts,
or, for books, a count by the plainest program there is. Lines of an answer are sorted before
comparing, so that neither ten parts nor one, neither a locale's order nor none makes a difference.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

WORD = re.compile(r"[^\W\d_]+")


def count_plainly(inputs: Sequence[Path], answer: Path) -> None:
    """Count maximal runs of letters (general category L*) one by one and write them sorted."""
    counts: Counter[str] = Counter()
    for path in inputs:
        counts.update(WORD.findall(path.read_text(encoding="utf-8", errors="replace")))
    exact: Counter[str] = Counter()
    for run, count in counts.items():
        # \w also holds numbers that are no digits, such as ² and Ⅷ: they end a word.
        for letters, word in itertools.groupby(run, str.isalpha):
            if letters:
                exact["".join(word)] += count
    answer.write_text(
        "".join(f"{word} {count}\n" for word, count in sorted(exact.items())), encoding="utf-8"
    )


def totals(answer: Path) -> tuple[int, int]:
    """(words, distinct words) of a right answer."""
    words = distinct = 0
    with answer.open("rb") as lines:
        for line in lines:
            words += int(line.rsplit(b" ", 1)[1])
            distinct += 1
    return words, distinct


def compare(parts: Sequence[Path], right: Path) -> str:
    """ "equal", or how many lines of the right answer are missing and how many are not in it."""
    wanted = right.read_bytes()
    given = b"".join(part.read_bytes() for part in parts)
    if given == wanted:
        return "equal"
    lines = given.splitlines(keepends=True)
    lines.sort()
    if b"".join(lines) == wanted:
        return "equal"
    right_lines = wanted.splitlines(keepends=True)
    missing = len(set(right_lines).difference(lines))
    extra = len(set(lines).difference(right_lines))
    if not missing and not extra:
        return f"differs: {len(lines)} lines where {len(right_lines)} are right, some twice"
    return f"differs: {missing} of {len(right_lines)} lines missing, {extra} extra"
