"""One file of a simulated disk: what can be read of it, what is durable, and what power cuts leave.

See `engine.sim.drives`, whose files these are.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

SECTOR = 512
"""Bytes that a power cut leaves as they were or as they were written, never in part."""


class Inode:
    """`pending` holds (number, offset, bytes) of writes that no completed sync covers."""

    __slots__ = ("covered", "data", "durable", "lost", "pending")

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.data = bytearray(data)
        self.durable = bytearray(data)
        self.pending: list[tuple[int, int, bytes]] = []
        self.lost: list[tuple[int, int]] = []
        """(offset, end) of what a failing sync marked clean."""
        self.covered = 0
        """The number of the last write that a sync which did not fail is to make durable."""

    def settle(self, number: int) -> None:
        """What was written up to this number is durable."""
        done = 0
        for written, offset, data in self.pending:
            if written > number:
                break
            _put(self.durable, offset, data)
            done += 1
        del self.pending[:done]

    def abandon(self) -> None:
        """A sync fails: what it alone covered is clean, and will not be written."""
        lost = [write for write in self.pending if write[0] > self.covered]
        self.pending = [write for write in self.pending if write[0] <= self.covered]
        self.lost += [(offset, offset + len(data)) for _, offset, data in lost]

    def after_power_loss(self, rng: Random) -> Inode:
        """The file that a power cut leaves, with any part of the pending writes."""
        kept = bytearray(self.durable)
        for (_, offset, data), likely in zip(
            self.pending, odds(rng, len(self.pending)), strict=True
        ):
            if 0 < likely < 1 and rng.random() < 0.25:
                _tear(rng, offset, data, kept)
            elif rng.random() < likely:
                _put(kept, offset, data)
        return Inode(kept)

    def flip(self, bit: int) -> None:
        """In the cache and on the disk; bit 8 is in byte 1."""
        byte, mask = bit // 8, 1 << bit % 8
        self.data[byte] ^= mask
        if byte < len(self.durable):
            self.durable[byte] ^= mask
        for place, (number, offset, data) in enumerate(self.pending):
            if offset <= byte < offset + len(data):
                flipped = bytearray(data)
                flipped[byte - offset] ^= mask
                self.pending[place] = number, offset, bytes(flipped)

    def durable_ranges(self, start: int, end: int | None) -> list[tuple[int, int]]:
        """(first, end) of the bytes there that a power cut would leave as they can be read now."""
        size = min(len(self.durable), len(self.data))
        end = size if end is None else min(end, size)
        written = [(offset, offset + len(data)) for _, offset, data in self.pending]
        ranges = []
        for first, stop in sorted(written + self.lost):
            if start < min(first, end):
                ranges.append((start, min(first, end)))
            start = max(start, stop)
        return [*ranges, (start, end)] if start < end else ranges


def odds(rng: Random, count: int) -> list[float]:
    """How likely each of so many changes survives: if each were always drawn alone, then of many it
    would hardly ever be seen that all, none, or just the first few do."""
    mood = rng.randrange(5)
    if mood < 2:
        return [0.5] * count
    if mood == 2:
        first = rng.randint(0, count)
        # The one at the cut may be torn.
        return ([1.0] * first + [0.5] + [0.0] * count)[:count]
    return [float(mood == 3)] * count


def _tear(rng: Random, offset: int, data: bytes, kept: bytearray) -> None:
    """Some sectors of a write, the first few, or zeros from some sector on."""
    sectors = sectors_of(offset, len(data))
    how, first = rng.randrange(3), rng.randrange(len(sectors))
    for place, (start, end) in enumerate(sectors):
        stays = rng.random() < 0.5 if how == 0 else place < first
        if stays:
            _put(kept, start, data[start - offset : end - offset])
        elif how == 2:
            _put(kept, start, bytes(end - start))


def _put(data: bytearray, offset: int, piece: bytes) -> None:
    if offset > len(data):
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def sectors_of(offset: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of the parts of a range of a file, not empty, that lie in one sector each."""
    end = offset + size
    first = offset // SECTOR * SECTOR + SECTOR
    return list(pairwise([offset, *range(first, end, SECTOR), end]))
