"""The log's view against a plain list of (index, term, size), on random logs."""

from __future__ import annotations

import random

import pytest
from support import dose

from engine.raft.log import LogView
from engine.storage.entries import COMMAND, Entry, Position

Oracle = list[tuple[int, int, int]]
"""(index, term, size), with the base first."""


def entries(rng: random.Random, term: int, count: int) -> list[Entry]:
    """Terms never fall."""
    made = []
    for _ in range(count):
        term += rng.choice((0, 0, 0, 1, 3))
        made.append(Entry(term, COMMAND, 0, bytes(rng.randint(0, 9))))
    return made


def drawn(rng: random.Random) -> tuple[LogView, Oracle]:
    """A log that was appended to, truncated, compacted and begun anew, and its oracle."""
    log, plain = LogView(0, 0, [], []), [(0, 0, 0)]
    for _ in range(rng.randint(1, 12)):
        what = rng.random()
        if what < 0.6:
            new = entries(rng, plain[-1][1], rng.randint(0, 6))
            log.append(new)
            plain += [(plain[-1][0] + n, e.term, len(e.body)) for n, e in enumerate(new, 1)]
        elif what < 0.75 and len(plain) > 1:
            first = rng.randint(plain[1][0], plain[-1][0] + 1)
            log.truncate(first)
            plain = [one for one in plain if one[0] < first]
        elif what < 0.95:
            index = rng.randint(plain[0][0], plain[-1][0])
            log.compact(index)
            plain = [one for one in plain if one[0] >= index]
        else:
            index, term = plain[-1][0] + rng.randint(1, 5), plain[-1][1] + rng.randint(0, 2)
            log.reset(index, term)
            plain = [(index, term, 0)]
    return log, plain


@pytest.mark.parametrize("seed", range(dose(200, 5000)))
def test_it_is_a_list(seed: int) -> None:
    rng = random.Random(seed)
    log, plain = drawn(rng)
    (base, base_term, _), after = plain[0], plain[1:]
    assert (log.base, log.base_term) == (base, base_term)
    assert (log.last, log.last_term) == plain[-1][:2]
    assert log.end == Position(plain[-1][1], plain[-1][0])
    known = {index: term for index, term, _ in plain} | {0: 0}
    for index in range(log.last + 3):
        # A base that is not 0 is of a term that is known; what is before it is not.
        assert log.term(index) == known.get(index, -1), index
        assert log.size_after(index) == sum(size for i, _, size in after if i > index)
    for term in range(plain[-1][1] + 2):
        for index in range(log.last + 3):
            before = [i for i, t, _ in after if i <= index and t <= term]
            assert log.last_not_after(index, term) == max(before, default=base), (index, term)


@pytest.mark.parametrize("seed", range(dose(100, 2000)))
def test_a_message_holds_as_much_as_fits(seed: int) -> None:
    rng = random.Random(seed)
    log, plain = drawn(rng)
    for first in range(log.base + 1, log.last + 1):
        most, size = rng.randint(1, 5), rng.randint(0, 20)
        fits = [
            last
            for last in range(first, log.last + 1)
            if last - first < most and sum(s for i, _, s in plain[1:] if first <= i <= last) <= size
        ]
        assert log.span(first, most, size) == max([first, *fits])


def test_what_is_in_a_snapshot_is_not_truncated() -> None:
    log = LogView(5, 2, [2, 3], [1, 1])
    with pytest.raises(AssertionError):
        log.truncate(5)
    with pytest.raises(AssertionError):
        log.compact(8)


def test_its_lists_are_its_own() -> None:
    terms, sizes = [1, 1], [4, 4]
    log = LogView(0, 0, terms, sizes)
    log.truncate(1)
    assert (terms, sizes) == ([1, 1], [4, 4])
