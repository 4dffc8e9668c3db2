"""The last answer of each client, so that a request that comes again is not carried out again.

A session's name begins with its birth, in replicated time. The *horizon* is a time that rises: all
that is before it is forgotten. A session that was born and last used before it is dead, known or
not, and what comes of it is not carried out; so a row may be dropped at any moment from then on,
and nobody can tell whether it was. A young session that is not known is new. It follows that a row
is needed for as long as its session's *birth* is behind the horizon, even if the client says that
it ends: then it stays as one that takes nothing any more.

Rows are dropped by a sweep that looks at a few of them for every entry, round and round.

Grammar of a row, little-endian, one bytes object for the same reasons as a record (`store`)::

    row = last:u64 used:u64 answer

The highest bit of `last` (`ENDED`) says that the session has ended. `used` is never before the
birth. Worked example: the answer [OK, 7, 1] to request 3, at time 9::

    03 00 00 00 00 00 00 00  09 00 00 00 00 00 00 00  93 00 07 01
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable

from engine.contract import SECOND, Nanos

EARLY: Nanos = 60 * SECOND
"""A birth may be so much later than the time here: it was told by one who was ahead."""
SWEEP = 4
"""Rows looked at for an entry,"""
SWEEP_NEW = 2
"""and for a session that is new, so that dead rows never keep it out for long."""

HEAD = struct.Struct("<QQ")
HEAD_BYTES = 16
ENDED = 1 << 63

NEW, REPEATED, LATE, EXPIRED, FULL = "new", "repeated", "late", "expired", "full"


def birth_of(session: bytes) -> Nanos:
    return int.from_bytes(session[:8], "big")


class Sessions:
    """Equal histories of calls give equal tables."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.order: deque[bytes] = deque()
        """Every session that has a row, the next to be looked at first."""
        self.horizon: Nanos = 0
        self.bytes = 0
        """Of names and rows."""

    def pass_time(self, time: Nanos, keep: Nanos) -> None:
        """An entry comes: what is older than `keep` is dead from now on."""
        self.horizon = max(self.horizon, time - keep)
        if self.order:
            self._sweep(SWEEP)

    def judge(self, session: bytes, sequence: int, time: Nanos, most: int) -> str:
        """What a request is: `NEW`, `REPEATED`, `LATE`, `EXPIRED` or `FULL`: there are `most`."""
        row = self.rows.get(session)
        if row is None:
            if not self.horizon <= birth_of(session) <= time + EARLY:
                return EXPIRED
            self._sweep(SWEEP_NEW)
            return NEW if len(self.rows) < most else FULL
        last, used = HEAD.unpack_from(row)
        if used < self.horizon:
            return EXPIRED
        ended = last >= ENDED
        last &= ENDED - 1
        if sequence == last:
            return REPEATED
        if sequence < last:
            return LATE
        return EXPIRED if ended else NEW

    def answer(self, session: bytes) -> bytes:
        """What the last request was answered."""
        return self.rows[session][HEAD_BYTES:]

    def keep(
        self, session: bytes, sequence: int, time: Nanos, answer: bytes, ends: bool = False
    ) -> None:
        """A new request was judged and answered, whatever the answer is."""
        old = self.rows.get(session)
        birth = birth_of(session)
        if old is None:
            self.order.append(session)
            self.bytes += len(session)
        else:
            self.bytes -= len(old)
        if ends:  # it is not needed when its birth is past the horizon
            row = HEAD.pack(sequence | ENDED, birth) + answer
        else:
            row = HEAD.pack(sequence, max(time, birth)) + answer
        self.rows[session] = row
        self.bytes += len(row)

    def _sweep(self, most: int) -> None:
        order, rows, horizon = self.order, self.rows, self.horizon
        for _ in range(min(most, len(order))):
            session = order.popleft()
            row = rows[session]
            if HEAD.unpack_from(row)[1] < horizon:
                del rows[session]
                self.bytes -= len(session) + len(row)
            else:
                order.append(session)

    def load(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Become what these say, in the order of `order`. The horizon is set besides."""
        self.rows = dict(rows)
        self.order = deque(self.rows)
        self.bytes = sum(map(len, self.rows)) + sum(map(len, self.rows.values()))
