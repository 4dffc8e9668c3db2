"""A file's contents after a loss of power: which version of each sector, and which size.

A file's changes are numbered from 1; version `n` of a sector or of the size is that after change
`n`, and 0 is that before all of them. Versions are told by what each change found there.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from random import Random

SECTOR = 512
PAGE = 4096
ZEROS = bytes(1 << 16)


class Change:
    """A write, or with `cuts` a change of the size, at `place` of the journal.

    `length` bytes at `at` were changed, the file had `before` bytes, and `image` is where the
    journal has those that were there: (offset, bytes), no bytes if they were 0, or beyond the end.
    """

    __slots__ = ("at", "before", "cuts", "image", "kept", "length", "place", "spoiled")

    def __init__(
        self, place: int, at: int, length: int, before: int, image: tuple[int, int]
    ) -> None:
        self.place, self.at, self.length = place, at, length
        self.before, self.image = before, image
        self.cuts = self.kept = self.spoiled = False

    def sectors(self, unit: int = SECTOR) -> range:
        """The numbers of those that it touches."""
        return (
            range(self.at // unit, -(-(self.at + self.length) // unit)) if self.length else range(0)
        )


class Fate:
    """What is lost: all from `bound` of the journal on, or with `rng` each sector by itself."""

    def __init__(self, bound: int, rng: Random | None) -> None:
        self.bound, self.rng = bound, rng


class Restored:
    """Sums over files."""

    def __init__(self) -> None:
        self.kept = self.torn = self.lost = self.bytes_lost = self.sizes = 0


class _Versions:
    """The version that each sector is to have."""

    def __init__(self, changes: Sequence[Change], fate: Fate) -> None:
        self._changes, self._rng = changes, fate.rng
        many = len(changes)
        self.last_kept = max((i for i, c in enumerate(changes, 1) if c.kept), default=0)
        # A cut is in the file's inode, and that was written with the last sync.
        for change in changes[: self.last_kept]:
            change.kept = change.kept or change.cuts
        places = [change.place for change in changes]
        self._bound = bisect_right(places, fate.bound - 1)
        self.size = max(self.last_kept, self._bound)
        self._luck = 0.5
        if fate.rng is not None:
            self.size = fate.rng.randint(self.last_kept, many)
            self._luck = fate.rng.choice((0.0, 0.5, 0.5, 1.0))
        self.spoiled = any(c.spoiled and not c.kept for c in changes[: self.last_kept])
        self.uniform = fate.rng is None and not self.spoiled
        self._kept_pages: dict[int, int] = {}
        self._touched: defaultdict[int, list[int]] = defaultdict(list)
        self._chosen: dict[int, int] = {}
        if not self.uniform:
            self._list()

    def _list(self) -> None:
        for number, change in enumerate(self._changes, 1):
            if change.kept and self.spoiled:
                for page in change.sectors(PAGE):
                    self._kept_pages[page] = number
            elif not change.kept and self._rng is not None:
                for sector in change.sectors():
                    self._touched[sector].append(number)

    def of(self, sector: int) -> int:
        """The version of a sector; changes that are newer are taken back there."""
        if self.uniform:
            return self.size
        if sector not in self._chosen:
            self._chosen[sector] = self._choose(sector)
        return self._chosen[sector]

    def _choose(self, sector: int) -> int:
        least, most = self.last_kept, len(self._changes)
        if self.spoiled:
            least = self._kept_pages.get(sector * SECTOR // PAGE, 0)
        if self._rng is None:
            return max(least, self._bound)
        touched = self._touched.get(sector, [])
        for number in touched:
            if self._changes[number - 1].cuts:
                if number <= self.size:
                    least = max(least, number)
                else:
                    most = min(most, number - 1)
        choices = [number for number in touched if least < number <= most]
        if self._luck == 1.0:
            return choices[-1] if choices else least
        if self._luck == 0.0 or not choices:
            return least
        return self._rng.choice([least, *choices])


def restore(
    fd: int, changes: Sequence[Change], fate: Fate, journal: memoryview, total: Restored
) -> None:
    """Give an open file the contents and the size that it has after the loss. OSError."""
    versions = _Versions(changes, fate)
    now = os.fstat(fd).st_size
    size = now if versions.size == len(changes) else changes[versions.size].before
    for number in range(len(changes), 0, -1):
        change = changes[number - 1]
        if change.kept:
            continue
        back, whole = 0, 0
        for begin, end, lost in _runs(change, number, versions):
            whole += end - begin
            if lost:
                back += end - begin
                _put_back(fd, change, begin, min(end, size), journal)
        total.bytes_lost += back
        if back == whole and (whole or number > versions.size):
            total.lost += 1
        elif back:
            total.torn += 1
        else:
            total.kept += 1
    os.ftruncate(fd, size)
    total.sizes += size != now


def _runs(change: Change, number: int, versions: _Versions) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, is it lost) of what the change touched; together they are all of it."""
    last = change.at + change.length
    if versions.uniform:
        if change.length:
            yield change.at, last, number > versions.size
        return
    begin, lost = change.at, False
    for sector in change.sectors():
        here = number > versions.of(sector)
        at = max(change.at, sector * SECTOR)
        if here != lost:
            if at > begin:
                yield begin, at, lost
            begin, lost = at, here
    if last > begin:
        yield begin, last, lost


def _put_back(fd: int, change: Change, begin: int, end: int, journal: memoryview) -> None:
    """What the change found in these bytes."""
    offset, length = change.image
    known = min(end, change.at + length)
    if known > begin:
        from_ = offset + begin - change.at
        _write(fd, journal[from_ : from_ + known - begin], begin)
    at = max(begin, known)
    while at < end:
        some = min(end - at, len(ZEROS))
        _write(fd, memoryview(ZEROS)[:some], at)
        at += some


def _write(fd: int, data: memoryview, at: int) -> None:
    while data:
        done = os.pwrite(fd, data, at)
        data, at = data[done:], at + done
