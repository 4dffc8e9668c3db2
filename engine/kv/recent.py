"""When keys changed last, of those that did so lately.

So whoever begins to watch a key need not go through all that happened: most keys did not change
since the revision from which they are watched.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.kv.history import Event

KEPT = 20_000
"""Keys that are known at the least, once there were so many."""


class Recent:
    """Told every change, in order. Two generations: when the younger one is complete the older one
    is forgotten, so that nothing is ever searched for what is too old."""

    def __init__(self, since: int, events: Sequence[Event]) -> None:
        """All that happened after a revision."""
        self.floor = since
        """What happened up to here is not known."""
        self._old: dict[bytes, int] = {}
        self.young = {event[2]: event[0] for event in events}
        """For those who tell a change quickly; they call `turn` now and then."""
        self._young_since = since

    def turn(self, now: int) -> None:
        """All up to this revision was told."""
        if len(self.young) >= KEPT:
            self.floor = self._young_since
            self._old, self.young = self.young, {}
            self._young_since = now

    def last(self, key: bytes) -> int:
        """The revision of its last change after `floor`; 0 if there was none."""
        return self.young.get(key) or self._old.get(key, 0)
