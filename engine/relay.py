"""Operations on their way to a follower, in one order, until it has them.

A primary answers an operation when its backup has it. Until then the operation waits here: it is
said to the follower at once and, if that does not acknowledge it, again after `retry`, with all
that was said since (go-back-N). The follower applies in the order of numbers and acknowledges the
last. At most one operation a client waits, so the queue is as long as there are clients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.contract import Link, Nanos

PART_BYTES = 1 << 20
"""About the most that one message holds."""


class Relay:
    """See the module. `weigh` gives the size of an operation in bytes.

    Invariant: of the waiting operations the first `_said` were said to the follower since the last
    `again`; each has one link in `_askers`, by its client.
    """

    def __init__(self, retry: Nanos, weigh: Callable[[Any], int]) -> None:
        self._retry, self._weigh = retry, weigh
        self._waiting: list[Any] = []
        self._askers: dict[int, Link] = {}
        self._said = 0
        self._again_at: Nanos | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def wake_at(self) -> Nanos | None:
        """When something must be said again."""
        return self._again_at if self._waiting else None

    def add(self, operation: Any, link: Link) -> None:
        """An operation with a `client`, to be answered over `link`; if it waits already, there."""
        if operation.client not in self._askers:
            self._waiting.append(operation)
        self._askers[operation.client] = link

    def again(self) -> None:
        """What was said is lost, or was said to another follower."""
        self._said = 0

    def parts(self, now: Nanos) -> list[tuple[int, tuple[Any, ...]]]:
        """What must be said now, as (how many waiting ones come before, operations)."""
        if self._again_at is not None and now >= self._again_at:
            self._said = 0
        parts: list[tuple[int, tuple[Any, ...]]] = []
        while self._said < len(self._waiting):
            begin, size = self._said, 0
            while self._said < len(self._waiting) and size < PART_BYTES:
                size += self._weigh(self._waiting[self._said])
                self._said += 1
            parts.append((begin, tuple(self._waiting[begin : self._said])))
            self._again_at = now + self._retry
        return parts

    def take(self, count: int) -> list[tuple[Any, Link]]:
        """The first `count` leave (or all there are): they take effect, or never will."""
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._said = max(0, self._said - len(taken))
        if not self._waiting:
            self._again_at = None
        return [(operation, self._askers.pop(operation.client)) for operation in taken]

    def check(self) -> None:
        """The invariant."""
        assert 0 <= self._said <= len(self._waiting), (self._said, len(self._waiting))
        assert self._askers.keys() == {operation.client for operation in self._waiting}
