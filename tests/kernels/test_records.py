"""The kernel of log records against the grammar, on random batches and random damage."""

from __future__ import annotations

import itertools
import random
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import dose

from engine.kernels.checksum import crc32c
from engine.kernels.records import Batch, decode, measure, scan, search
from engine.storage.entries import CONFIG, Entry

sys.path.insert(0, str(Path(__file__).parent.parent / "storage"))
import log_oracle as oracle

NUMBERS = st.integers(0, 2**64 - 1)
BODIES = st.binary(max_size=40)
ENTRIES = st.builds(
    lambda term, kind, body: Entry(term, kind, crc32c(body), body),
    NUMBERS,
    st.integers(0, 255),
    BODIES,
)
GROUPS = st.integers(0, 2**32 - 1)
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("entries"), GROUPS, st.integers(1, 2**60), st.lists(ENTRIES, max_size=5)),
        st.tuples(st.just("state"), GROUPS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        st.tuples(st.just("base"), GROUPS, NUMBERS, NUMBERS, BODIES, st.booleans()),
        st.tuples(st.just("lost"), GROUPS, NUMBERS, NUMBERS),
    ),
    max_size=6,
)
SALTS = NUMBERS
SEGMENTS = st.integers(0, 2**31 - 1)
START = 64


def size_of(write: Any) -> int:
    kind, *rest = write
    if kind == "entries":
        return measure(tuple(rest[2]))
    return 48 + (16 if kind == "state" else (len(rest[3]) + 7) // 8 * 8 if kind == "base" else 0)


def seed_of(salt: int) -> int:
    return crc32c(salt.to_bytes(8, "little"))


def encoded(
    writes: list[Any], salt: int, number: int, previous: int, watermark: int
) -> tuple[bytes, list[oracle.Row], int]:
    """(bytes behind a gap of a header's size, what they must be, the last sum)."""
    size = sum(map(size_of, writes))
    position = (number << 32) + START
    batch = Batch(size, seed_of(salt), position, previous, watermark)
    rows: list[oracle.Row] = []

    def expect(kind: int, entry: int, group: int, index: int, term: int, body: bytes) -> None:
        offset = rows[-1].end if rows else START
        before = rows[-1].crc if rows else previous
        row = oracle.Row(offset, 0, before, kind, entry, group, index, term, watermark, body)
        crc = int.from_bytes(oracle.encode(salt, number, row)[:4], "little")
        rows.append(row._replace(crc=crc))

    for kind, group, *rest in writes:
        if kind == "entries":
            first, entries = rest
            positions, sizes, terms, configs = batch.entries(group, first, tuple(entries))
            for index, one in enumerate(entries, first):
                expect(1, one.kind, group, index, one.term, one.body)
            mine = rows[len(rows) - len(entries) :]
            assert list(array("Q", positions)) == [(number << 32) + row.offset for row in mine]
            assert list(array("I", sizes)) == [len(one.body) for one in entries]
            assert list(array("Q", terms)) == [one.term for one in entries]
            assert configs == [i for i, one in enumerate(entries, first) if one.kind == CONFIG]
        elif kind == "state":
            index, last, term, vote = rest
            batch.state(group, index, last, term, vote)
            body = vote.to_bytes(8, "little") + last.to_bytes(8, "little")
            expect(2, 0, group, index, term, body)
        elif kind == "base":
            index, term, config, anew = rest
            batch.base(group, index, term, config, anew)
            expect(3, int(anew), group, index, term, config)
        else:
            index, term = rest
            batch.lost(group, index, term)
            expect(4, 0, group, index, term, b"")
    assert batch.position == position + size
    assert batch.watermark == watermark
    assert batch.previous == (rows[-1].crc if rows else previous)
    data = bytes(START) + bytes(batch.data)
    assert data[START:] == b"".join(oracle.encode(salt, number, row) for row in rows)
    return data, rows, batch.previous


def check_columns(found: Any, rows: list[oracle.Row], data: bytes) -> None:
    kinds, groups, indexes, terms, watermarks, offsets, sizes, sums, runs, configs, _, _ = found
    assert kinds == b"".join(bytes((row.kind, row.entry)) for row in rows)
    assert list(array("I", groups)) == [row.group for row in rows]
    assert list(array("Q", indexes)) == [row.index for row in rows]
    assert list(array("Q", terms)) == [row.term for row in rows]
    assert list(array("Q", watermarks)) == [row.watermark for row in rows]
    assert list(array("Q", offsets)) == [row.offset for row in rows]
    assert list(array("I", sizes)) == [len(row.body) for row in rows]
    assert list(array("I", sums)) == [row.crc for row in rows]
    follows = [
        one.kind == other.kind == 1 and (one.group, one.index + 1) == (other.group, other.index)
        for one, other in itertools.pairwise(rows)
    ]
    assert runs == [at for at in range(len(rows)) if at == 0 or not follows[at - 1]]
    assert configs == [i for i, row in enumerate(rows) if row.kind == 1 and row.entry == CONFIG]


@settings(max_examples=dose(150, 5000), deadline=None)
@given(WRITES, SALTS, SEGMENTS, st.integers(0, 2**32 - 1), NUMBERS)
def test_equals_the_grammar(
    writes: list[Any], salt: int, number: int, previous: int, watermark: int
) -> None:
    data, rows, last = encoded(writes, salt, number, previous, watermark)
    base = number << 32
    found = scan(data, START, seed_of(salt), base, previous)
    check_columns(found, rows, data)
    assert found[-2:] == (len(data), last)
    assert oracle.scan(data, START, salt, number, previous) == rows
    check_columns(search(data, START, seed_of(salt), base), rows, data)
    if rows:
        assert scan(data, START, seed_of(salt), base, previous ^ 1)[-2] == START
        assert scan(data, START, seed_of(salt ^ 1), base, previous)[-2] == START
        assert scan(data, START, seed_of(salt), base + 8, previous)[-2] == START


@settings(max_examples=dose(150, 5000), deadline=None)
@given(WRITES, SALTS, st.integers(0, 2**32))
def test_damage_is_seen_as_the_grammar_sees_it(writes: list[Any], salt: int, chance: int) -> None:
    data, _, _ = encoded(writes, salt, 7, 0, 0)
    rng = random.Random(chance)
    damaged = bytearray(data + bytes(64))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(START, len(damaged))
        action = rng.randrange(4)
        if action == 0:
            damaged[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            damaged[at : at + 16] = bytes(len(damaged[at : at + 16]))
        elif action == 2:
            start = rng.randrange(START, len(damaged)) & ~7
            piece = damaged[start : start + 128]
            damaged[at & ~7 : (at & ~7) + len(piece)] = piece
        else:
            del damaged[max(START, at) :]
            break
    whole = bytes(damaged)
    seed, base = seed_of(salt), 7 << 32
    check_columns(scan(whole, START, seed, base, 0), oracle.scan(whole, START, salt, 7, 0), whole)
    start = rng.randrange(0, len(whole) + 1)
    rows = oracle.search(whole, start, salt, 7)
    check_columns(search(whole, start, seed, base), rows, whole)


@given(st.lists(ENTRIES, min_size=1, max_size=6), st.integers(0, 2**32))
def test_decodes_what_it_encoded(entries: list[Entry], chance: int) -> None:
    batch = Batch(measure(tuple(entries)), 5, 64, 9, 0)
    positions, _, _, _ = batch.entries(3, 100, tuple(entries))
    places = array("Q", positions)
    data = bytes(batch.data)
    found = decode(data, 64, 3, 100, len(entries), 5, places, Entry)
    assert found == entries
    assert all(type(one) is Entry for one in found)
    skip = len(entries) // 2
    tail = data[places[skip] - 64 :]
    some = decode(tail, places[skip], 3, 100 + skip, len(entries) - skip, 5, places[skip:], Entry)
    assert some == entries[skip:]
    assert decode(data, 64, 4, 100, len(entries), 5, places, Entry) is None
    assert decode(data, 64, 3, 101, len(entries), 5, places, Entry) is None
    assert decode(data, 64, 3, 100, len(entries), 6, places, Entry) is None
    assert decode(data[:-8], 64, 3, 100, len(entries), 5, places, Entry) is None
    damaged = bytearray(data)
    damaged[chance % len(data)] ^= 1 << chance % 8
    assert decode(bytes(damaged), 64, 3, 100, len(entries), 5, places, Entry) is None


def test_refuses_what_is_no_entry() -> None:
    batch = Batch(1000, 0, 0, 0, 0)
    with pytest.raises(ValueError, match="entry 6 of group 1 is not what its CRC says"):
        batch.entries(1, 5, (Entry(1, 1, crc32c(b"a"), b"a"), Entry(1, 1, 0, b"b")))
    for wrong in [
        (1, 1, 0),
        "text",
        (1, 1, 0, "text"),
        Entry(-1, 1, 0, b""),
        Entry(1, 256, 0, b""),
    ]:
        with pytest.raises((TypeError, OverflowError)):
            batch.entries(1, 1, (wrong,))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        measure(("text",))  # type: ignore[arg-type]


def test_never_writes_beyond_its_buffer() -> None:
    batch = Batch(100, 0, 0, 0, 0)
    batch.state(1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="no room for 16 bytes at 64 of 100"):
        batch.state(1, 1, 1, 1, 1)
    assert batch.position == 64


def test_empty_and_odd_places() -> None:
    for data in (b"", b"\0" * 47, b"\0" * 4096):
        assert scan(data, 0, 0, 0, 0)[-2] == 0
        assert search(data, 3, 0, 0)[0] == b""
        assert scan(data, len(data) + 8, 0, 0, 0)[0] == b""
        assert search(data, len(data) + 8, 0, 0)[0] == b""
    assert decode(b"", 0, 1, 1, 1, 0, array("Q", [0]), Entry) is None
    assert decode(b"x" * 100, 64, 1, 1, 1, 0, array("Q", [0]), Entry) is None
