"""Keys that expire: each hangs on a lease of its own, which is of no use without it.

A key that is written anew, or deleted, lets its lease go, and the store keeps that until its time
has come: a cache that sets keys for a day would have millions of them. Whoever granted a lease
looks after it, and revokes it once no key hangs on it. A gateway that ends forgets its leases;
those end by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Nanos
from engine.kv import commands
from engine.kv.leases import CHOSEN_MAX
from engine.kv.requests import WRITE

if TYPE_CHECKING:
    from engine.kv.machine import Machine

LOOK_EVERY: Nanos = SECOND // 10
LOOK_LEAST = 500
LOOK_PART = 50
"""At each look a part of all, so that a round takes some seconds at most."""
YOUNG: Nanos = 10 * SECOND
"""One that is not known here may still be on its way for so long."""
REVOKED_MAX = 512


class Leases:
    """Those that a gateway has granted. `call` asks the store, `chance` gives random bytes."""

    def __init__(
        self,
        call: Callable[[int, object, list[bytes]], None],
        chance: Callable[[int], bytes],
        now: Callable[[], Nanos],
    ) -> None:
        self._call, self._chance, self._now = call, chance, now
        self._granted: deque[tuple[int, Nanos]] = deque()
        self.look_at: Nanos = 0
        self.revoked = 0

    def __len__(self) -> int:
        return len(self._granted)

    def new(self) -> int:
        """A number for another one, that no lease has."""
        number = 1 + int.from_bytes(self._chance(8), "little") % (CHOSEN_MAX - 1)
        self._granted.append((number, self._now()))
        return number

    @property
    def until(self) -> Nanos | None:
        """When to look again."""
        return self.look_at if self._granted else None

    def look(self, machine: Machine) -> None:
        """Revoke what is of no use, as far as this replica knows: a lease and its key come in one
        entry, so one without a key has lost it."""
        now = self._now()
        if now < self.look_at:
            return
        self.look_at = now + LOOK_EVERY
        leases, granted = machine.leases, self._granted
        useless: list[bytes] = []
        most = max(LOOK_LEAST, len(granted) // LOOK_PART)
        for _ in range(min(len(granted), most)):
            number, born = granted.popleft()
            if number not in leases.by_id:
                if now - born < YOUNG:
                    granted.append((number, born))
            elif leases.size(number) or len(useless) >= REVOKED_MAX:
                granted.append((number, born))
            else:
                useless.append(msgpack.packb(commands.lease_revoke(number)))
        if useless:
            self.revoked += len(useless)
            self._call(WRITE, self, useless)

    def hear(self, raw: bytes) -> None:
        """Revoked, or not there any more."""

    def fail(self, reply: bytes) -> None:
        """Those that were not revoked end by themselves."""
