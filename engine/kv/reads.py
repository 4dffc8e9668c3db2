"""What is asked and changes nothing. All reads of a frame, or of a transaction, share a `Room`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from engine.kv.commands import (
    COUNT_ONLY,
    GET,
    INFO,
    KEYS_ONLY,
    LEASE_GET,
    LEASES,
    LIMITS,
    NOT_FOUND,
    OK,
    RANGE,
    READ_BYTES_MAX,
    REVERSE,
    ROWS_MAX,
    TOO_LARGE,
)
from engine.kv.leases import Lease
from engine.kv.state import State
from engine.kv.store import unpack_head, unpack_value

Answer = tuple[Any, ...]
Arguments = tuple[Any, ...]


class Room:
    """How much an answer frame may still hold. The first row always fits."""

    def __init__(self) -> None:
        self.bytes = READ_BYTES_MAX
        self.rows = ROWS_MAX
        self.fresh = True

    def take(self, size: int) -> bool:
        """Room for a row of this size, if there is."""
        fits = self.fresh or (size <= self.bytes and self.rows > 0)
        if fits:
            self.fresh = False
            self.bytes -= size
            self.rows -= 1
        return fits


def get(state: State, room: Room, arguments: Arguments) -> Answer:
    key = arguments[0]
    record = state.store.table.get(key)
    if record is None:
        return NOT_FOUND, state.revision
    if not room.take(len(key) + len(record)):
        return TOO_LARGE, "answer"
    return OK, state.revision, unpack_value(record), *unpack_head(record)


def key_range(state: State, room: Room, arguments: Arguments) -> Answer:
    start, end, limit, flags = arguments
    store = state.store
    first, last = store.positions(start, end)
    total = last - first
    if flags & COUNT_ONLY:
        return OK, state.revision, False, total, ()
    most = min(limit or total, total, ROWS_MAX)
    if flags & REVERSE:
        keys = store.span(last - most, last, True)
    else:
        keys = store.span(first, first + most)
    rows: list[Answer] = []
    table, keys_only, take = store.table, flags & KEYS_ONLY, room.take
    for key in keys:
        if keys_only:
            head, value = store.head(key), b""
        else:
            record = table[key]
            head, value = unpack_head(record), unpack_value(record)
        if not take(len(key) + len(value)):
            break
        rows.append((key, value, *head))
    return OK, state.revision, len(rows) < total, total, rows


def lease_get(state: State, _: Room, arguments: Arguments) -> Answer:
    lease = state.leases.living(arguments[0], state.time)
    if lease is None:
        return NOT_FOUND, state.revision
    return OK, state.revision, *_told(state, lease)[1:]


def leases(state: State, room: Room, arguments: Arguments) -> Answer:
    """In the order in which they were granted."""
    by_id = state.leases.by_id
    rows = [_told(state, lease) for lease in islice(by_id.values(), min(arguments[0], room.rows))]
    room.rows -= len(rows)
    return OK, state.revision, len(rows) < len(by_id), rows


def _told(state: State, lease: Lease) -> Answer:
    return lease.id, lease.ttl, lease.remaining(state.time), state.leases.size(lease.id)


def limits(state: State, _: Room, __: Arguments) -> Answer:
    return OK, state.revision, tuple(state.limits)


def info(state: State, _: Room, __: Arguments) -> Answer:
    return (
        OK,
        state.revision,
        state.time,
        len(state.store.table),
        state.store.size,
        len(state.sessions.rows),
        len(state.leases.by_id),
        state.history.compacted,
    )


READERS: dict[int, Callable[[State, Room, Arguments], Answer]] = {
    GET: get,
    RANGE: key_range,
    LEASE_GET: lease_get,
    LEASES: leases,
    LIMITS: limits,
    INFO: info,
}
