"""Requests that took long, for whoever asks why: what they were, and what they waited for.

Those that come together go together: writes in one entry of the log, reads in one round of the
members. So what is noted of all is when they came, by their place among the others, and of each
entry or round a few times more. Whether that took long is one comparison at its end; only then a
frame is looked into.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.contract import SECOND, Link, Nanos
from engine.kv import commands
from engine.kv.checks import MALFORMED
from engine.raft.requests import Slow

LIMIT: Nanos = SECOND // 10
"""What takes longer, from when it came to its answer, is slow."""
KEPT = 32
KEY_BYTES = 64
"""Of a key: more of it is not told."""
GRAIN: Nanos = SECOND // 1000
"""What comes within so much time came at the same time."""

QUEUE, DISK, MAJORITY, APPLYING = "earlier requests", "its disk", "a majority", "applying"
DONE, NOT_DONE, UNKNOWN = "done", "not done", "unknown"
VERBS = {
    commands.PUT: "put",
    commands.APPEND: "append",
    commands.DELETE: "delete",
    commands.DELETE_RANGE: "delete range",
    commands.CAS_VALUE: "cas",
    commands.CAS_REVISION: "cas",
    commands.PUT_VERSION: "put version",
    commands.TXN: "txn",
    commands.LEASE_GRANT: "lease grant",
    commands.LEASE_REVOKE: "lease revoke",
    commands.LEASE_ALIVE: "lease alive",
    commands.CONFIGURE: "configure",
    commands.COMPACT: "compact",
    commands.END_SESSION: "end session",
    commands.GET: "get",
    commands.RANGE: "range",
    commands.LEASE_GET: "lease get",
    commands.LEASES: "leases",
    commands.LIMITS: "limits",
    commands.INFO: "info",
}
SOMETHING = "?"
"""The verb of what nobody can understand."""

Frames = Sequence[tuple[Link, bytes]]


class Came:
    """When those came that wait, in order: until which place, at which time."""

    def __init__(self) -> None:
        self.upto: list[int] = []
        self.times: list[Nanos] = []

    def note(self, many: int, now: Nanos) -> None:
        """So many are there by now."""
        if self.times and (many == self.upto[-1] or now - self.times[-1] < GRAIN):
            self.upto[-1] = many
        elif many:
            self.upto.append(many)
            self.times.append(now)


class Trip:
    """Those that go together, in parts: all of them `came`, then `went`, and are over one after
    the other. Writes are on this replica's disk since `durable`, 0 if they are not yet."""

    def __init__(self, came: Came, went: Nanos) -> None:
        self.came, self.went = came, went
        self.place = 0
        self.durable: Nanos = 0
        self.over = 0
        """So many of them."""

    def came_at(self, n: int) -> Nanos:
        """When the n-th came, from 0, of those that are not over."""
        at = bisect_right(self.came.upto, self.over + n)
        return self.came.times[at] if at < len(self.came.times) else self.went

    def late(self, until: Nanos) -> int:
        """How many of those that are not over came before this time."""
        at = bisect_left(self.came.times, until)
        return max(0, self.came.upto[at - 1] - self.over) if at else 0


class SlowRequests:
    """The last of them, and how many there were. `now` is the time at which this turn began."""

    def __init__(self, limit: Nanos = LIMIT) -> None:
        self.limit = limit
        self.now: Nanos = 0
        self.writes, self.reads = Came(), Came()
        """Of those that wait."""
        self.entry, self.round = Trip(Came(), 0), Trip(Came(), 0)
        """Under way."""
        self.noted: deque[tuple[Nanos, Slow]] = deque(maxlen=KEPT)
        """When they were over, and `ago_ms` is to be said then."""
        self._said: deque[tuple[bytes, int]] = deque(maxlen=KEPT)
        """Sessions and sequences of them: who waits for long says it again."""
        self.many = 0
        """Those that were said again too."""

    def came(self, writes: int, reads: int) -> None:
        """So many frames wait by now."""
        self.writes.note(writes, self.now)
        self.reads.note(reads, self.now)

    def entry_goes(self) -> None:
        """All writes that wait go into the log."""
        self.entry, self.writes = Trip(self.writes, self.now), Came()

    def round_goes(self) -> None:
        """All reads that wait are to be confirmed."""
        self.round, self.reads = Trip(self.reads, self.now), Came()

    def look(self, place: int, stable: int) -> None:
        """The entry under way is at this place, and all up to `stable` is on our disk."""
        entry = self.entry
        entry.place = place
        if not entry.durable and stable >= place:
            entry.durable = self.now

    def wrote(self, asked: Frames, answers: Sequence[bytes], stable: int, now: Nanos) -> None:
        """These were answered."""
        if now - self.entry.came_at(0) > self.limit:
            self._note(self.entry, asked, answers, self._waits(stable), DONE, now)
        self.entry.over += len(asked)

    def read(self, asked: Frames, answers: Sequence[bytes], now: Nanos) -> None:
        """These were answered."""
        if now - self.round.came_at(0) > self.limit:
            self._note(self.round, asked, answers, self._waits_of_reads(), DONE, now)
        self.round.over += len(asked)

    def lost(self, asked: Frames, stable: int, now: Nanos) -> None:
        """Nobody can say what becomes of these writes."""
        if now - self.entry.came_at(0) > self.limit:
            self._note(self.entry, asked, None, self._waits(stable), UNKNOWN, now)
        self.entry.over += len(asked)

    def refused(self, asked: Frames, now: Nanos) -> None:
        """These reads were not confirmed."""
        if now - self.round.came_at(0) > self.limit:
            self._note(self.round, asked, None, self._waits_of_reads(), NOT_DONE, now)
        self.round.over += len(asked)

    def told(self, now: Nanos) -> tuple[Slow, ...]:
        """The last ones, the newest last."""
        return tuple([one._replace(ago_ms=_ms(now - over)) for over, one in self.noted])

    # --- what they waited for --------------------------------------------------------------------

    def _waits(self, stable: int) -> dict[str, Nanos]:
        """Besides the last turn, which was that of applying. What was decided before it was on our
        disk did not wait for that."""
        entry = self.entry
        durable = entry.durable or (self.now if stable >= entry.place else entry.went)
        return {DISK: durable - entry.went, MAJORITY: self.now - durable}

    def _waits_of_reads(self) -> dict[str, Nanos]:
        return {MAJORITY: self.now - self.round.went}

    # --- what they were --------------------------------------------------------------------------

    def _note(
        self,
        trip: Trip,
        asked: Frames,
        answers: Sequence[bytes] | None,
        waits: dict[str, Nanos],
        ended: str,
        now: Nanos,
    ) -> None:
        """Those of the asked that came too long ago and made sense: how many there are, and the
        first of them that is not one of those that were noted, said again. An answer that is empty
        says that a frame made none."""
        late = range(min(trip.late(now - self.limit), len(asked)))
        sizes = {n: _requests(asked[n][1]) for n in late if answers is None or answers[n]}
        slow = [n for n, size in sizes.items() if size]
        many = sum(sizes.values())
        self.many += many
        for n in slow[:KEPT]:
            link, frame = asked[n]
            session, sequence, verb, key = what(frame)
            if not session or (session, sequence) not in self._said:
                break
        else:
            return
        self._said.append((session, sequence))
        came = trip.came_at(n)
        waits = {QUEUE: trip.went - came, **waits, APPLYING: now - self.now}
        waited = max(waits, key=lambda what: waits[what])
        self.noted.append((now, Slow(
            self.many, 0, _ms(now - came), verb, key[:KEY_BYTES], len(key) > KEY_BYTES,
            who(link), session[-4:].hex(), waited, ended, many - 1,
        )))  # fmt: skip


def shown(key: bytes, cut: bool) -> str:
    """A key as text: what is no text, or could not be seen, is written out; a part ends with …."""
    decoder = getincrementaldecoder("utf-8")("backslashreplace")
    text = decoder.decode(key.replace(b"\\", b"\\\\"), final=not cut)
    seen = [one if one.isprintable() else repr(one)[1:-1] for one in text]
    return "".join(seen) + "…" * cut


def _ms(nanos: Nanos) -> int:
    return nanos * 1000 // SECOND


def _requests(frame: bytes) -> int:
    """How many a frame holds: the head of its array says so."""
    if frame[:1] == b"\xdc":
        return max(0, int.from_bytes(frame[1:3], "big") - 1)
    return max(0, (frame[0] & 15) - 1) if frame and frame[0] >> 4 == 9 else 0


def what(frame: bytes) -> tuple[bytes, int, str, bytes]:
    """(session, sequence, verb, key) of a frame's first request, as far as it has them. Total:
    whatever it is, something is said."""
    try:
        request = msgpack.unpackb(frame, use_list=False, max_ext_len=0)[1]
    except (*MALFORMED, IndexError, KeyError):
        request = ()
    session, sequence = b"", 0
    if type(request) is not tuple:
        request = ()
    elif len(request) > 1 and type(request[0]) is bytes and type(request[1]) is int:  # a write
        session, sequence, *request = request
        session = session[: commands.SESSION_BYTES]
    op, *arguments = request or (None,)
    verb = VERBS.get(op, SOMETHING) if type(op) is int else SOMETHING
    return session, sequence, verb, _key(arguments)


def _key(arguments: Sequence[Any]) -> bytes:
    """The first argument, or what the first of a transaction's parts begins with."""
    for argument in arguments:
        if type(argument) is bytes:
            return argument
        if type(argument) is not tuple:
            break
        for part in argument:
            if type(part) is tuple:
                return next((one for one in part if type(one) is bytes), b"")
    return b""


def who(link: Link) -> str:
    """Its name, if it has one that was proven; else what it is, and its number if it has one."""
    return link.principal or (f"{link.role} {link.node}" if link.node else link.role)
