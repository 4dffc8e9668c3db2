"""Snapshots of the state: pieces, each of which is made in about a millisecond.

Grammar: a piece is a byte that says what it holds, and one msgpack array::

    head     = 1 [version, group, revision, time, digest, compacted, horizon, greatest lease,
                  [limit, …]]
    leases   = 2 [[id, ttl, deadline], …]             in the order of granting
    sessions = 3 [[session, …], [row, …]]             in the order of the sweep
    history  = 4 [[revision, kind, key, record], …]
    keys     = 5 [[key, …], [record, …]]              in order
    end      = 6 [leases, sessions, events, keys]     how many there were

in this order, each kind but head and end as often as it takes, or never. Records and rows are those
of `store` and `sessions`; which keys hang on a lease is in their records.

Worked example: the end of a state with one key is 06 94 00 00 00 01.

Keys are walked (`store.Walk`). Of the rest there are copies of tables from the beginning on, whose
rows never change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.errors import DamagedData
from engine.kv.leases import Lease, lease_of
from engine.kv.limits import Limits
from engine.kv.state import State
from engine.kv.store import Walk, unpack_head

VERSION = 1
HEAD, LEASES, SESSIONS, HISTORY, KEYS, END = range(1, 7)
PIECE_BYTES = 1 << 17
"""A piece is complete when it has so many; only one with a long value has many more."""
_ROWS = 1024
"""Rows of a piece, but of keys."""


def _piece(kind: int, content: Any) -> bytes:
    packed: bytes = msgpack.packb(content)
    return bytes((kind,)) + packed


def pieces(state: State, walk: Walk) -> Iterator[bytes]:
    """The state as it is at the first `next`, which gives b"": from then on it may change. The walk
    began just before; it ends with the last piece, or when nobody wants more. Pieces may be b""."""
    leases = state.leases.rows.copy()
    sessions, rows = list(state.sessions.order), state.sessions.rows.copy()
    events = state.history.events[state.history.head :]
    head = (
        VERSION,
        state.group,
        state.revision,
        state.time,
        state.digest,
        state.history.compacted,
        state.sessions.horizon,
        state.leases.greatest,
        tuple(state.limits),
    )
    keys = 0
    try:
        yield b""
        yield _piece(HEAD, head)
        rest = iter(leases.items())
        while part := [lease_of(*one) for one in islice(rest, _ROWS)]:
            yield _piece(LEASES, part)
        for at in range(0, len(sessions), _ROWS):
            names = sessions[at : at + _ROWS]
            yield _piece(SESSIONS, (names, [rows[name] for name in names]))
        for some in _cut(events):
            yield _piece(HISTORY, some)
        while found := _step(walk):
            keys += len(found[0])
            # Where all keys were made since it began a step finds none, and is a step all the same.
            yield _piece(KEYS, found) if found[0] else b""
        yield _piece(END, (len(leases), len(sessions), len(events), keys))
    finally:
        walk.end()


def _step(walk: Walk) -> tuple[list[bytes], list[bytes]] | None:
    if walk.ended:
        raise RuntimeError("this snapshot was given up when the next one began")
    return walk.step(PIECE_BYTES)


def _cut(events: list[tuple[int, int, bytes, bytes]]) -> Iterator[list[Any]]:
    """Parts that are not too large."""
    part: list[Any] = []
    size = 0
    for event in events:
        part.append(event)
        size += len(event[2]) + len(event[3])
        if size >= PIECE_BYTES or len(part) == _ROWS:
            yield part
            part, size = [], 0
    if part:
        yield part


# --- loading -------------------------------------------------------------------------------------


NONSENSE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error)


class _Reader:
    """Takes pieces apart, and sees that they are all there."""

    def __init__(self, found: Iterable[bytes]) -> None:
        self._pieces = iter(found)
        self.at = 0
        self._kind = 0
        self._content: Any = None

    def next(self) -> None:
        piece = next(self._pieces, b"\0\xc0")
        self.at += len(piece)
        self._kind = piece[0]
        self._content = msgpack.unpackb(piece[1:], use_list=False, max_ext_len=0)

    def one(self, kind: int) -> Any:
        """The content of the piece that comes now, which must be of this kind."""
        if self._kind != kind:
            raise DamagedData("snapshot", self.at, f"a piece is of kind {self._kind}, not {kind}")
        return self._content

    def all(self, kind: int) -> Iterator[Any]:
        """The contents of the pieces of this kind that come now."""
        while self._kind == kind:
            yield self._content
            self.next()

    def check(self, told: tuple[int, ...], found: tuple[int, ...]) -> None:
        if told != found:
            raise DamagedData("snapshot", self.at, f"it says {told} and has {found}")


def load(state: State, found: Iterable[bytes]) -> None:
    """Become what the pieces say. DamagedData, and then the state is nothing in particular."""
    reader = _Reader(found)
    try:
        reader.next()
        _load(state, reader)
    except NONSENSE as error:
        # Their checksums fit, so it is a faulty program that made them, or somebody on purpose.
        raise DamagedData("snapshot", reader.at, f"a piece makes no sense: {error}") from None


def _load(state: State, reader: _Reader) -> None:
    version, group, *rest = reader.one(HEAD)
    if (version, group) != (VERSION, state.group):
        raise DamagedData("snapshot", 0, f"version {version} of group {group} is not known here")
    state.revision, state.time, state.digest, compacted, horizon, greatest, limits = rest
    state.limits = Limits(*limits)
    reader.next()
    state.leases.load(Lease(*row) for part in reader.all(LEASES) for row in part)
    state.leases.greatest = greatest
    state.sessions.load(pair for part in reader.all(SESSIONS) for pair in zip(*part, strict=True))
    state.sessions.horizon = horizon
    state.history.load(event for part in reader.all(HISTORY) for event in part)
    state.history.compacted = compacted
    state.store.load(_attached(state, reader.all(KEYS)))
    sizes = (
        len(state.leases.by_id),
        len(state.sessions.rows),
        len(state.history),
        len(state.store.table),
    )
    reader.check(reader.one(END), sizes)


def _attached(state: State, parts: Iterator[Any]) -> Iterator[Any]:
    """Keys and records as they pass by; those with a lease are hung on it."""
    for keys, records in parts:
        for key, record in zip(keys, records, strict=True):
            if record[23] & 0x80:
                state.leases.attach(unpack_head(record).lease, key)
        yield keys, records
