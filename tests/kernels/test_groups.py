"""Groups: tables of Python pairs, their sections, and merges, against dicts and a slow reader."""

from __future__ import annotations

import gc
import os
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.checksum import crc32c
from engine.kernels.groups import (
    DamagedBlock,
    GroupReader,
    GroupTable,
    KeyTypeError,
    ValueTypeError,
    decode_key,
    encode_key,
    merge_to_section,
)

DOSE = 20 if os.environ.get("ENGINE_DOSE") == "full" else 1
JOB = 0x1122334455667788
MEMORY = 1 << 20
BLOCK_BYTES = 65536
Segment = tuple[int, int, int]

integers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
items = st.none() | texts | st.binary(max_size=6) | integers
tuples = st.recursive(
    st.lists(items, max_size=3).map(tuple),
    lambda inner: st.lists(items | inner, max_size=3).map(tuple),
    max_leaves=8,
)
KEYS = {"text": texts, "bytes": st.binary(max_size=12), "integer": integers, "tuple": tuples}
simple = st.none() | st.booleans() | integers | st.floats(allow_nan=False) | texts
values = st.recursive(
    simple | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture
def fd() -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def fnv1a32(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 % 2**32
    return value


def read(segments: list[Segment], partition: int = 0, codec: str = "text") -> list[tuple[Any, Any]]:
    reader = GroupReader(segments, job=JOB, partition=partition, memory=MEMORY, codec=codec)
    return [(key, list(group)) for key, group in reader]


def write(
    fd: int, pairs: list[tuple[Any, Any]], codec: str = "text", partitions: int = 1, offset: int = 0
) -> list[tuple[int, int, int]]:
    table = GroupTable(partitions, MEMORY, codec)
    for key, value in pairs:
        table.add(key, value)
    return table.write_section(fd, offset, JOB, 1, 2)


# --- keys ----------------------------------------------------------------------------------------


def rank(key: Any) -> Any:
    """What a tuple key sorts by: None < bytes < str < tuple < int, then by value."""
    if isinstance(key, tuple):
        return (3, tuple(rank(item) for item in key))
    for number, kind in ((1, bytes), (2, str), (4, int)):
        if isinstance(key, kind):
            return (number, key)
    return (0,)


@pytest.mark.parametrize("codec", KEYS)
@settings(max_examples=150 * DOSE, deadline=None)
@given(st.data())
def test_encoded_keys_come_back_and_sort_as_keys_do(codec: str, data: st.DataObject) -> None:
    key, other = data.draw(KEYS[codec]), data.draw(KEYS[codec])
    encoded, other_encoded = encode_key(codec, key), encode_key(codec, other)
    assert decode_key(codec, encoded) == key
    assert (encoded < other_encoded) == (rank(key) < rank(other))
    assert (encoded == other_encoded) == (key == other)


def test_tuple_keys_are_laid_out_as_written_down() -> None:
    key = (None, b"a\0", "é", (None, 1), -1, 0, 256)
    expected = (
        b"\0" b"\1a\0\xff\0" b"\2\xc3\xa9\0" b"\5" b"\0\xff" b"\x15\1" b"\0"
        b"\x13\xfe" b"\x14" b"\x16\1\0"
    )  # fmt: skip
    assert encode_key("tuple", key) == expected


@pytest.mark.parametrize(
    ("codec", "key", "words"),
    [
        ("text", 5, ["5", "int", 'keys = "text"', 'declare keys = "integer"']),
        ("text", b"a", ["bytes", 'declare keys = "bytes"']),
        ("text", None, ["None", "yield str keys"]),
        ("text", "a\ud800", ["surrogate", "replace"]),
        ("bytes", "a", ["str", 'declare keys = "text"']),
        ("bytes", bytearray(b"a"), ["bytearray"]),
        ("integer", True, ["True", "bool"]),
        ("integer", 2**63, ["64 bits"]),
        ("tuple", "a", ["str", "yield tuple keys"]),
        ("tuple", (1, 1.5), ["1.5", "float"]),
        ("tuple", (1, [2]), ["list"]),
        ("tuple", (2**63,), ["64 bits"]),
    ],
)
def test_a_key_of_the_wrong_type_is_one_clear_sentence(
    codec: str, key: Any, words: list[str]
) -> None:
    table = GroupTable(1, MEMORY, codec)
    for attempt in (lambda: encode_key(codec, key), lambda: table.add(key, 1)):
        with pytest.raises(KeyTypeError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert all(word in str(caught.value) for word in words), caught.value
    assert (table.keys, table.pairs) == (0, 0)


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="one of text, bytes, integer, tuple"):
        GroupTable(1, MEMORY, "float")


def test_damaged_tuple_keys_do_not_crash() -> None:
    encoded = encode_key("tuple", ("ab", (None, 7), b"\0"))
    for size in range(len(encoded)):
        try:
            short = decode_key("tuple", encoded[:size])
        except ValueError:
            continue
        assert encode_key("tuple", short) == encoded[:size]  # it ended between two items


# --- sections and merges -------------------------------------------------------------------------


@pytest.mark.parametrize("codec", KEYS)
@settings(max_examples=40 * DOSE, deadline=None)
@given(st.data())
def test_merged_groups_are_those_of_a_dict(codec: str, data: st.DataObject) -> None:
    few = data.draw(st.lists(KEYS[codec], min_size=1, max_size=6))
    spills = data.draw(
        st.lists(st.lists(st.tuples(st.sampled_from(few), values), max_size=15), max_size=5)
    )
    partitions = data.draw(st.integers(1, 4))
    oracle: dict[bytes, list[Any]] = {}
    sections, offset = [], 3
    with tempfile.TemporaryFile() as file:
        for pairs in spills:
            for key, value in pairs:
                oracle.setdefault(encode_key(codec, key), []).append(value)
            section = write(file.fileno(), pairs, codec, partitions, offset)
            sections.append(section)
            offset = section[-1][0] + section[-1][1]
        for partition in range(partitions):
            segments = [(file.fileno(), *section[partition][:2]) for section in sections]
            cut = data.draw(st.integers(0, len(segments)))
            start, size, records = merge_to_section(
                segments[:cut], file.fileno(), offset, job=JOB, task=1, attempt=2,
                partition=partition, memory=MEMORY,
            )  # fmt: skip
            assert records == sum(section[partition][2] for section in sections[:cut])
            expected = [
                (decode_key(codec, key), group)
                for key, group in sorted(oracle.items())
                if (fnv1a32(key) & 0x7FFFFFFF) % partitions == partition
            ]
            assert read(segments, partition, codec) == expected
            assert (
                read([(file.fileno(), start, size), *segments[cut:]], partition, codec) == expected
            )


def test_the_order_of_segments_is_the_order_of_values(fd: int) -> None:
    first = write(fd, [("k", 1), ("k", 2)])[0]
    second = write(fd, [("k", 3)], offset=first[1])[0]
    segments = [(fd, *first[:2]), (fd, *second[:2])]
    assert read(segments) == [("k", [1, 2, 3])]
    assert read(segments[::-1]) == [("k", [3, 1, 2])]


def test_many_segments_of_the_same_keys(fd: int) -> None:
    segments, offset = [], 0
    for number in range(37):
        pairs = [(f"key{key}", number) for key in range(number % 5, 40, 3)]
        section = write(fd, pairs, offset=offset)
        segments.append((fd, *section[0][:2]))
        offset += section[0][1]
    for key, group in read(segments):
        assert group == [n for n in range(37) if int(key[3:]) in range(n % 5, 40, 3)]


class Block(NamedTuple):
    """A block as a slow reader of the grammar sees it."""

    partition: int
    size: int
    records: list[tuple[bytes, list[Any]]]


HEADER = struct.Struct("<IHHQIIIIIIII")


def slow_blocks(data: bytes) -> Iterator[Block]:
    """Read kind 2 blocks by the grammar of `engine.storage.runs`."""
    at = 0
    while at < len(data):
        header = HEADER.unpack_from(data, at)
        magic, version, kind, job, task, attempt, partition, records, keys, size, crc, zero = header
        assert (magic, version, kind, job) == (0x4C424E45, 1, 2, JOB)
        assert (task, attempt, zero) == (1, 2, 0)
        payload = data[at + 48 : at + 48 + size]
        assert crc32c(HEADER.pack(*header[:-2], 0, 0) + payload) == crc
        sizes = struct.unpack_from(f"<{2 * records}I", payload)
        key_at, value_at = 8 * records, 8 * records + keys
        pairs = []
        for key_size, value_size in zip(sizes[:records], sizes[records:], strict=True):
            key = payload[key_at : key_at + key_size]
            pairs.append((key, msgpack.unpackb(payload[value_at : value_at + value_size])))
            key_at, value_at = key_at + key_size, value_at + value_size
        assert value_at == size
        yield Block(partition, size, pairs)
        at += 48 + size


def test_blocks_follow_the_grammar(fd: int) -> None:
    pairs: list[tuple[str, Any]] = [(f"k{n % 3000}", "v" * (n % 70)) for n in range(20_000)]
    pairs += [("many", n) for n in range(50_000)] + [("huge", "x" * 200_000), ("huge", "y")]
    section = write(fd, pairs, partitions=3)
    data = os.pread(fd, 1 << 30, 0)
    blocks = list(slow_blocks(data))
    order = [(block.partition, key) for block in blocks for key, _ in block.records]
    assert order == sorted(order)
    assert all((fnv1a32(key) & 0x7FFFFFFF) % 3 == partition for partition, key in order)
    assert [len(b.records) for b in blocks if b.size > BLOCK_BYTES] == [1]
    assert len(blocks) < 1.1 * len(data) / BLOCK_BYTES + 6  # nearly all are nearly full
    for partition, (_, _, records) in enumerate(section):
        assert records == sum(len(b.records) for b in blocks if b.partition == partition)
    oracle: dict[bytes, list[Any]] = {}
    found: dict[bytes, list[Any]] = {}
    for key, value in pairs:
        oracle.setdefault(key.encode(), []).append(value)
    for block in blocks:
        for name, group in block.records:
            found.setdefault(name, []).extend(group)
    assert found == oracle


def test_a_long_key_is_not_repeated_with_every_value(fd: int) -> None:
    key = "k" * 300_000
    ((_, size, records),) = write(fd, [(key, n) for n in range(40_000)])
    assert records == 3  # of 64 KiB of values each
    assert size < 3 * len(key) + 200_000
    assert read([(fd, 0, size)]) == [(key, list(range(40_000)))]


def test_every_flipped_bit_is_found(fd: int) -> None:
    ((_, size, _),) = write(fd, [(f"key{n % 7}", n) for n in range(40)])
    good = (fd, 0, size)
    clean = os.pread(fd, size, 0)
    for position in range(size):
        damaged = bytearray(clean)
        damaged[position] ^= 1 << position % 8
        os.pwrite(fd, damaged, size)
        with pytest.raises(DamagedBlock) as caught:
            read([good, (fd, size, size)])
        assert (caught.value.segment, caught.value.offset) == (1, size)
    os.pwrite(fd, clean, size)  # and without a flip nothing is found
    assert len(read([good, (fd, size, size)])) == 7


def test_damage_is_found_before_any_value_of_its_block_is_used(fd: int) -> None:
    ((_, size, _),) = write(fd, [(f"{n:06}", "v" * 50) for n in range(5000)])
    os.pwrite(fd, b"\xff", size - 3)
    reader = GroupReader([(fd, 0, size)], job=JOB, partition=0, memory=0, codec="text")
    keys: list[str] = []
    with pytest.raises(DamagedBlock) as caught:
        keys.extend(key for key, _ in reader)
    assert 1000 < len(keys) < 5000
    assert caught.value.offset > 65536
    with pytest.raises(DamagedBlock):  # and it stays damaged
        next(reader)


def test_blocks_of_others_and_short_files_are_refused(fd: int) -> None:
    ((_, size, _),) = write(fd, [("a", 1)])
    for job, partition, length in ((JOB + 1, 0, size), (JOB, 1, size), (JOB, 0, size - 1)):
        with pytest.raises(DamagedBlock):
            list(
                GroupReader(
                    [(fd, 0, length)], job=job, partition=partition, memory=MEMORY, codec="text"
                )
            )
    os.ftruncate(fd, size - 1)
    with pytest.raises(DamagedBlock, match="file ends"):
        read([(fd, 0, size)])


# --- large groups --------------------------------------------------------------------------------


def large(fd: int) -> list[Segment]:
    """Two segments; "b" has 200 000 values in each of them, its neighbours two."""
    segments, offset = [], 0
    for segment in range(2):
        table = GroupTable(1, 1 << 30)
        for key, count in (("a", 2), ("b", 200_000), ("c", 2)):
            for number in range(count):
                table.add(key, (segment, number))
        ((start, size, _),) = table.write_section(fd, offset, JOB, segment, 0)
        segments.append((fd, start, size))
        offset += size
    return segments


def test_a_large_group_streams_in_little_memory(fd: int) -> None:
    segments = large(fd)
    tracemalloc.start()
    reader = GroupReader(segments, job=JOB, partition=0, memory=0, codec="text")
    seen = []
    for key, group in reader:
        seen.append((key, isinstance(group, list), sum(1 for _ in group)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == [("a", True, 4), ("b", False, 400_000), ("c", True, 4)]
    assert peak < 4 << 20
    expected = [(segment, number) for segment in range(2) for number in range(200_000)]
    assert dict(GroupReader(segments, job=JOB, partition=0, memory=1 << 30, codec="text"))["b"] == (
        expected
    )
    groups = GroupReader(segments, job=JOB, partition=0, memory=0, codec="text")
    assert [list(group) for key, group in groups if key == "b"] == [expected]


@pytest.mark.parametrize("taken", [0, 1, 5000, 250_000, 400_000])
def test_what_is_left_of_a_large_group_is_skipped(fd: int, taken: int) -> None:
    reader = GroupReader(large(fd), job=JOB, partition=0, memory=0, codec="text")
    next(reader)
    _, group = next(reader)
    rest = iter(group)
    for _ in range(taken):
        next(rest)
    key, values = next(reader)
    assert (key, values) == ("c", [(0, 0), (0, 1), (1, 0), (1, 1)])
    if taken < 200_000:
        with pytest.raises(RuntimeError, match="next key"):
            list(rest)
    assert next(reader, None) is None
    assert next(reader, None) is None


# --- tables --------------------------------------------------------------------------------------


def numbers(document: str, record: str) -> Iterator[tuple[str, int]]:
    for word in record.split():
        yield word, int(word)


@settings(max_examples=40 * DOSE, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), max_size=8), max_size=30),
    st.integers(0, 3000),
    st.booleans(),
)
def test_feeding_stops_when_full_and_goes_on_where_it_stopped(
    numbers_of: list[list[int]], memory: int, whole: bool
) -> None:
    records = [" ".join(map(str, line)) for line in numbers_of]
    table = GroupTable(1, memory)
    oracle: dict[str, list[int]] = {}
    for line in numbers_of:
        for number in line:
            oracle.setdefault(str(number), []).append(number)
    with tempfile.TemporaryFile() as file:
        segments, done, offset = [], 0, 0
        while done < len(records):
            done = table.feed(numbers, "doc", records, done, whole=whole)
            assert done == len(records) or table.full
            if table.full:
                ((start, size, _),) = table.write_section(file.fileno(), offset, JOB, 0, 0)
                segments.append((file.fileno(), start, size))
                offset += size
                assert (table.keys, table.pairs, table.memory) == (0, 0, 0)
        ((start, size, _),) = table.write_section(file.fileno(), offset, JOB, 0, 0)
        assert dict(read([*segments, (file.fileno(), start, size)])) == oracle


def test_a_record_larger_than_the_table_is_gone_on_with(fd: int) -> None:
    calls = []

    def flood(document: str, record: str) -> Iterator[tuple[str, int]]:
        calls.append(record)
        for number in range(10_000):
            yield f"{record}{number}", number

    table = GroupTable(1, 100_000)
    records = ["a", "b"]
    done = sections = keys = 0
    while done < 2:
        done = table.feed(flood, "doc", records, done)
        assert table.memory < 110_000
        keys += table.keys
        sections += 1
        table.write_section(fd, 0, JOB, 0, 0)
    assert (calls, keys) == (["a", "b"], 20_000)
    assert sections > 20
    table.feed(flood, "doc", records, 0)
    with pytest.raises(RuntimeError, match="record 0 is half done"):
        table.feed(flood, "doc", ["c"], 0)


@pytest.mark.parametrize("bad", ["raise", "key", "value", "pair"])
def test_a_failing_record_leaves_nothing_when_whole(bad: str) -> None:
    def some(document: str, record: int) -> Iterator[Any]:
        yield "a", record
        if record == 3:
            if bad == "raise":
                raise ZeroDivisionError
            yield {"key": (7, 1), "value": ("b", {1}), "pair": "xy"}[bad]
        yield "new", record

    for whole, pairs in ((True, 6), (False, 7)):
        table = GroupTable(1, MEMORY)
        page = memoryview(bytearray(128)).cast("Q")
        with pytest.raises((ZeroDivisionError, TypeError)):
            table.feed(some, "doc", list(range(10)), 0, page, whole=whole)
        assert page[4] - 1 == 3  # the record in hand
        assert page[0] == 4
        assert page[8] > 0
        assert table.pairs == pairs
        assert table.feed(some, "doc", list(range(10)), 4, page, whole=whole) == 10
        assert (page[4], page[7]) == (0, 2)


@pytest.mark.parametrize("value", [{1}, object(), [1, (2, {3})], "a\ud800", ("\ud800",), 2**64, 1j])
def test_a_value_that_cannot_be_stored_names_its_key_and_type(value: Any) -> None:
    table = GroupTable(1, MEMORY)
    with pytest.raises(ValueTypeError) as caught:
        table.add("thekey", value)
    assert "'thekey'" in str(caught.value)
    assert type(value).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)
    table.add("thekey", (1, {"a": 2}))  # and the table is as good as new
    assert (table.keys, table.pairs) == (1, 1)


def test_values_are_those_of_the_moment(fd: int) -> None:
    growing: list[int] = []

    def reuse(document: str, record: int) -> Iterator[tuple[str, list[int]]]:
        growing.append(record)
        yield "k", growing

    table = GroupTable(1, MEMORY)
    table.feed(reuse, "doc", [1, 2, 3])
    ((_, size, _),) = table.write_section(fd, 0, JOB, 0, 0)
    assert read([(fd, 0, size)]) == [("k", [(1,), (1, 2), (1, 2, 3)])]


@pytest.mark.parametrize("result", [None, 5])
def test_a_map_that_yields_nothing_sensible_says_so(result: Any) -> None:
    table = GroupTable(1, MEMORY)
    with pytest.raises(TypeError, match=r"yield|iterable"):
        table.feed(lambda document, record: result, "doc", ["x"])


def test_equal_numbers_of_other_types_are_other_keys(fd: int) -> None:
    table = GroupTable(1, MEMORY, "tuple")
    table.add((1,), "int")
    for bad in (1.0, True):
        with pytest.raises(KeyTypeError):
            table.add((bad,), "no")
    assert table.pairs == 1


def word_pairs(document: str, record: int) -> Iterator[tuple[str, Any]]:
    yield f"word{record % 5000}", document
    yield f"wörd{record % 700}", "v" * (record % 50)
    yield str(record), record


def nested_pairs(document: str, record: int) -> Iterator[tuple[str, Any]]:
    yield f"k{record % 100}", (document, record)


def ones(document: str, record: int) -> Iterator[tuple[str, Any]]:
    yield "k", "same"
    yield str(record % 10), 1


@pytest.mark.parametrize("pairs", [word_pairs, nested_pairs, ones])
def test_the_estimate_of_memory_is_honest(pairs: Any) -> None:
    records = list(range(30_000))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    table = GroupTable(1, 1 << 40)
    table.feed(pairs, "a document", records)
    held = tracemalloc.get_traced_memory()[0] - before
    assert 0.8 * held < table.memory < 2 * held
    table.combine(lambda key, group: ((key, value) for value in group))
    combined = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.7 * combined < table.memory < 2 * combined


def test_combine_replaces_the_values_of_each_key(fd: int) -> None:
    table = GroupTable(1, MEMORY)
    for number in range(1000):
        table.add(f"k{number % 3}", number)
        table.add("pair", (number % 2, b"x"))
        table.add("gone", number)
    table.add("one", 7)
    before = table.memory

    def combine(key: str, group: list[Any]) -> Iterator[tuple[str, Any]]:
        if key == "pair":
            yield from ((key, value) for value in sorted(set(group)))
        elif key != "gone":
            yield key, sum(group)

    table.combine(combine)
    assert (table.keys, table.pairs) == (5, 6)
    assert table.memory < before / 5
    ((_, size, _),) = table.write_section(fd, 0, JOB, 0, 0)
    assert dict(read([(fd, 0, size)])) == {
        **{f"k{n}": [sum(range(n, 1000, 3))] for n in range(3)},
        "pair": [(0, b"x"), (1, b"x")],
        "one": [7],
    }


def test_combine_cannot_change_the_key() -> None:
    table = GroupTable(1, MEMORY, "integer")
    for _ in range(2):
        table.add(1, "a")
    with pytest.raises(ValueError, match="combine of key 1"):
        table.combine(lambda key, group: [(2, "a")])
    assert table.pairs >= 0
    table.combine(lambda key, group: [(key, "".join(group))])
    assert table.pairs == 1


def test_a_custom_partition_is_asked_and_checked(fd: int) -> None:
    table = GroupTable(4, MEMORY)
    for key in ("a", "b", "cc"):
        table.add(key, 1)
    answers: list[Any] = [4, -1, "x", None]
    while answers:
        with pytest.raises(ValueError, match="from 0 to 3"):
            table.write_section(fd, 0, JOB, 0, 0, lambda key, partitions: answers.pop())
    section = table.write_section(fd, 0, JOB, 0, 0, lambda key, partitions: len(key) + 1)
    assert [records for _, _, records in section] == [0, 0, 2, 1]
    assert read([(fd, *section[3][:2])], 3) == [("cc", [1])]


def test_no_space_keeps_the_table(fd: int) -> None:
    table = GroupTable(1, MEMORY)
    table.add("a", 1)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space"):
            table.write_section(full, 0, JOB, 0, 0)
    finally:
        os.close(full)
    assert table.keys == 1
    ((_, size, _),) = table.write_section(fd, 0, JOB, 0, 0)
    assert read([(fd, 0, size)]) == [("a", [1])]


def test_merging_moves_the_page(fd: int) -> None:
    ((_, size, _),) = write(fd, [(str(n), n) for n in range(20_000)])
    page = memoryview(bytearray(128)).cast("Q")
    merge_to_section(
        [(fd, 0, size)], fd, size, job=JOB, task=0, attempt=0, partition=0, memory=0, page=page
    )
    assert page[0] > 2
    assert 0 < page[5] <= size


def test_nothing_is_left_for_the_garbage_collector(fd: int) -> None:
    gc.collect()
    gc.disable()
    try:
        for _, group in GroupReader(large(fd), job=JOB, partition=0, memory=0, codec="text"):
            next(iter(group))
        table = GroupTable(1, 50)
        table.feed(numbers, "doc", ["1 2 3 4 5 6 7 8 9"])
        del table, group
        assert gc.collect() == 0
    finally:
        gc.enable()
