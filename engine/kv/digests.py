"""Whether all replicas have made the same of the same entries.

After every 1024th entry a replica tells the others its digest (`machine`). One that is told by a
majority of the voters that they have another one at the same place knows that it is broken: its
memory, its disk, or its program. It must not serve any more.
"""

from __future__ import annotations

from collections.abc import Collection

EVERY = 1024
PLACES_MAX = 8


class Digests:
    """By place of an entry: what each member has, ourselves included."""

    def __init__(self) -> None:
        self._at: dict[int, dict[int, int]] = {}

    def note(self, member: int, place: int, digest: int) -> None:
        """What a member has after this entry."""
        self._at.setdefault(place, {})[member] = digest
        while len(self._at) > PLACES_MAX:
            del self._at[min(self._at)]

    def broken(self, me: int, voters: Collection[int]) -> int:
        """The place at which a majority agrees on something else than ours; 0 if there is none."""
        for place, digests in self._at.items():
            if me in digests:
                others = [digests[m] for m in voters if m in digests and digests[m] != digests[me]]
                for digest in set(others):
                    if 2 * others.count(digest) > len(voters):
                        return place
        return 0
