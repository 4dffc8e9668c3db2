"""Which splits are free, and which one a worker should read next.

A worker that reads neighbouring splits in ascending order writes few sections (one for each range),
reads files in sequence, and leaves others a large rest to steal from. So a worker gets the split
after its last one while that is free; otherwise it starts a region of its own: at the front of the
largest free interval if nobody is heading there, or else in its middle.

Free splits are kept as disjoint intervals, not one by one: their number is about that of workers
plus losses, whatever the size of the input.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from itertools import pairwise


class Regions:
    """A set of integers 0 … count - 1 as sorted intervals [low, high).

    Invariants (`check`): intervals are not empty, ascend, and neither touch nor overlap; `free` is
    the sum of their lengths.
    """

    def __init__(self, count: int) -> None:
        self._lows: list[int] = [0] if count else []
        self._highs: list[int] = [count] if count else []
        self.free = count

    def __contains__(self, item: int) -> bool:
        at = bisect_left(self._lows, item + 1) - 1
        return at >= 0 and item < self._highs[at]

    def add(self, item: int) -> None:
        """Make `item` free. Requires: it is not."""
        assert item not in self, f"{item} is free already"
        lows, highs = self._lows, self._highs
        at = bisect_left(lows, item)
        joins_left = at > 0 and highs[at - 1] == item
        joins_right = at < len(lows) and lows[at] == item + 1
        if joins_left and joins_right:
            highs[at - 1] = highs.pop(at)
            lows.pop(at)
        elif joins_left:
            highs[at - 1] = item + 1
        elif joins_right:
            lows[at] = item
        else:
            lows.insert(at, item)
            highs.insert(at, item + 1)
        self.free += 1

    def remove(self, item: int) -> None:
        """Take `item`. Requires: it is free."""
        at = bisect_left(self._lows, item + 1) - 1
        assert item in self, f"{item} is not free"
        low, high = self._lows[at], self._highs[at]
        kept = [(a, b) for a, b in ((low, item), (item + 1, high)) if a < b]
        self._lows[at : at + 1] = [a for a, _ in kept]
        self._highs[at : at + 1] = [b for _, b in kept]
        self.free -= 1

    def take(self, wish: int, others: Collection[int]) -> int | None:
        """The next split for a worker whose last one was `wish` - 1, or None if none is free.

        `others` holds the wishes of the other workers: an interval that begins at one of them is
        being eaten from its front.
        """
        if not self.free:
            return None
        item = wish
        if wish not in self:
            widths = [high - low for low, high in zip(self._lows, self._highs, strict=True)]
            at = widths.index(max(widths))
            item = self._lows[at] + (widths[at] // 2 if self._lows[at] in others else 0)
        self.remove(item)
        return item

    def check(self) -> None:
        """Assert the invariants."""
        bounds = list(zip(self._lows, self._highs, strict=True))
        assert all(low < high for low, high in bounds), bounds
        assert all(a[1] < b[0] for a, b in pairwise(bounds)), bounds
        assert self.free == sum(high - low for low, high in bounds), (self.free, bounds)
