"""Entries from the segments of a log, verified."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from engine.errors import DamagedData
from engine.kernels.records import decode
from engine.storage.entries import Entry
from engine.storage.groups import Group
from engine.storage.records import number_of, offset_of, record_bytes
from engine.storage.segments import Segment

READ_BYTES = 1 << 20
"""Bytes read at a time, unless one entry is larger."""


def fitting(group: Group, first: int, last: int, limit: int) -> int:
    """The last entry from `first` on whose bodies fit `limit` bytes; at least `first`."""
    at = first - group.first
    total = 0
    for count, size in enumerate(group.sizes[at : last + 1 - group.first]):
        total += size
        if total > limit and count:
            return first + count - 1
    return last


def load(segments: Mapping[int, Segment], group: Group, first: int, last: int) -> list[Entry]:
    """The entries `first` … `last` from the disk. DamagedData, OSError."""
    found: list[Entry] = []
    while first <= last:
        some = _load_some(segments, group, first, last)
        found += some
        first += len(some)
    return found


def _load_some(segments: Mapping[int, Segment], group: Group, first: int, last: int) -> list[Entry]:
    """At least one: as many as lie close together in one segment."""
    at = stop = first - group.first
    begin = end = group.positions[at]
    while stop <= last - group.first:
        after = group.positions[stop] + record_bytes(group.sizes[stop])
        if number_of(after) != number_of(begin) or (after - begin > READ_BYTES and stop > at):
            break
        end = after
        stop += 1
    segment = segments[number_of(begin)]
    data = segment.file.read(offset_of(begin), end - begin)
    positions = group.positions[at:stop]
    found = decode(data, begin, group.number, first, stop - at, segment.seed, positions, Entry)
    if found is None:
        why = f"not all of the entries {first} to {first + stop - at - 1} of group {group.number}"
        raise DamagedData(segment.name, offset_of(begin), f"{why} are whole")
    return found


def tail_of(segments: Mapping[int, Segment], group: Group, durable: int) -> tuple[Entry, ...]:
    """The entries of a group that are not known to be durable. DamagedData, OSError."""
    many = len(group.positions) - bisect_left(group.positions, durable)
    last = group.end.last
    return tuple(load(segments, group, last + 1 - many, last))
