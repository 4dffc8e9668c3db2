"""When to go on: as soon as those who were just answered have asked again.

Clients that wait for an answer before they ask again move in step with the entries that carry them.
Left alone they fall into two herds, of which one waits while the other is under way, and every
entry carries half of what it could. Who waits a moment for those it has just answered has them all
in the next entry: fewer entries, and shorter waits for everybody. Where others come than those who
were answered the moment is lost; so after a wait in vain there is none for a while, and twice as
long a while the next time. (Group commit with a timer: DeWitt et al., "Implementation techniques
for main memory database systems", 1984, section 5.2; the timer here is the clients themselves.)
"""

from __future__ import annotations

from engine.contract import SECOND, Nanos

PATIENCE_MIN: Nanos = SECOND // 1000
PATIENCE_MAX: Nanos = SECOND // 125
"""The longest wait is as long as the last entry took, within these: where many ask, all of that is
longer, their own asking as well."""
PAUSE_MAX = 64
"""Entries, after which it is tried again at the latest."""


class Herd:
    """Knows how many are expected, and until when."""

    def __init__(self) -> None:
        self._expected = 0
        self._went: Nanos = 0
        """When an entry went last."""
        self._until: Nanos = 0
        self._pause = 1
        self._skip = 0

    @property
    def until(self) -> Nanos:
        """Who waits does so until then at the longest."""
        return self._until

    def answered(self, answers: int, waiting: int, now: Nanos) -> None:
        """An entry is done, and others wait already."""
        if self._skip:
            self._skip -= 1
            self._expected = 0
        else:
            patience = min(max(now - self._went, PATIENCE_MIN), PATIENCE_MAX)
            self._expected, self._until = answers + waiting, now + patience

    def here(self, present: int, now: Nanos) -> bool:
        """Whether to go on with those who are there."""
        if self._expected and present < self._expected:
            if now < self._until:
                return False
            self._skip, self._pause = self._pause, min(2 * self._pause, PAUSE_MAX)
            self._expected = 0
        elif self._expected:
            self._pause = 1
        self._went = now
        return True
