"""Logs whose sums are not looked at: what is whole is read as ever, what is not is believed."""

from __future__ import annotations

import random
from array import array
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.faults.unsafe import PLANT, SWITCHES, believed, believed_entries, check_switch
from engine.kernels.checksum import crc32c
from engine.kernels.records import decode
from engine.storage.directory import Folder
from engine.storage.entries import COMMAND, CONFIG, Append, Base, Entry, State
from engine.storage.log import Log, LogSettings
from engine.storage.records import (
    HEADER_BYTES,
    name_of,
    parse_header,
    place,
    record_bytes,
    scan,
    seed_of,
)

GROUP = 1
BODIES = [b"body %d" % number + bytes(number % 13) for number in range(40)]


@pytest.fixture
def segment(tmp_path: Path) -> bytes:
    """A segment with entries of both kinds, terms, and hard states between them."""
    rng, directory = random.Random(7), Folder(str(tmp_path))
    log = Log.open(directory, LogSettings(segment_bytes=1 << 14), lambda: rng.getrandbits(64))
    log.append((Base(GROUP, 0, 0, b"config"), State(GROUP, 0, 0)))
    index = 0
    while index < len(BODIES):
        part = BODIES[index : index + rng.randint(1, 5)]
        kinds = [rng.choice((COMMAND, COMMAND, CONFIG)) for _ in part]
        entries = [
            Entry(1 + index // 20, kind, crc32c(body), body)
            for kind, body in zip(kinds, part, strict=True)
        ]
        log.append((Append(GROUP, index + 1, tuple(entries)),))
        log.settle(log.sync())
        index += len(part)
    log.close()
    directory.close()
    return (tmp_path / name_of(1)).read_bytes()


def test_what_is_whole_is_read_as_ever(segment: bytes) -> None:
    header = parse_header(segment, name_of(1), 1)
    assert header is not None
    right = scan(segment, HEADER_BYTES, header, header.chain)
    assert len(right.sizes) > len(BODIES)
    assert len(right.configs) > 3
    assert believed(segment, HEADER_BYTES, header, header.chain) == right


def test_what_is_not_is_believed(segment: bytes) -> None:
    header = parse_header(segment, name_of(1), 1)
    assert header is not None
    right = scan(segment, HEADER_BYTES, header, header.chain)
    at = segment.index(b"body 20")
    damaged = bytearray(segment)
    damaged[at] ^= 1
    bad = bytes(damaged)
    assert len(scan(bad, HEADER_BYTES, header, header.chain).sizes) < len(right.sizes)
    assert believed(bad, HEADER_BYTES, header, header.chain) == right
    number = max(n for n, offset in enumerate(right.offsets) if offset < at)
    offset, index = right.offsets[number], right.indexes[number]
    data = bad[offset : offset + record_bytes(right.sizes[number])]
    begin = place(1, offset)
    args = (data, begin, GROUP, index, 1, seed_of(header.salt), array("Q", [begin]))
    assert decode(*args, Entry) is None
    (entry,) = believed_entries(*args, Entry)
    assert entry.body.startswith(b"cody 20")
    assert entry.crc == crc32c(entry.body)


def test_switches() -> None:
    assert PLANT.keys() == SWITCHES.keys()
    for name in SWITCHES:
        assert check_switch(name) == name
    with pytest.raises(UsageError, match="There is no unsafe switch 'no-votes'"):
        check_switch("no-votes")
