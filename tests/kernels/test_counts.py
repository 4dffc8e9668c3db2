"""The merge of counted runs against Counter, and against a slow reader and writer of the format."""

import errno
import os
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.checksum import crc32c
from engine.kernels.counts import DamagedBlock, Segment, merge_to_section, merge_to_text
from engine.mapreduce.progress import BEAT, OFFSET, WORDS

JOB, PARTITION = 0x1122334455667788, 3
HEADER = struct.Struct("<4sHHQIIIIIIII")
BLOCK = 64 << 10
FULL = os.environ.get("ENGINE_DOSE") == "full"
EXAMPLES = 2000 if FULL else 90

Records = Sequence[tuple[bytes, int]]

# --- the format, slowly ---------------------------------------------------------------------------


def uvarint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def payload_of(records: Records) -> bytes:
    return b"".join(uvarint(len(key)) + key + uvarint(count) for key, count in records)


def block(payload: bytes, records: int, **changes: int) -> bytes:
    fields = {"version": 1, "kind": 1, "job": JOB, "task": 5, "attempt": 6}
    fields |= {"partition": PARTITION, "records": records, "keys": 0, "payload": len(payload)}
    fields |= changes
    values = list(fields.values())
    crc = crc32c(HEADER.pack(b"ENBL", *values, 0, 0) + payload)
    return HEADER.pack(b"ENBL", *values, crc, 0) + payload


def segment_of(records: Records, per_block: int = 1000) -> bytes:
    parts = [records[i : i + per_block] for i in range(0, len(records), per_block)]
    return b"".join(block(payload_of(part), len(part)) for part in parts)


def read_uvarint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def read_segment(data: bytes) -> Iterator[tuple[tuple[int, ...], list[tuple[bytes, int]]]]:
    """(task, attempt) and records of each block."""
    while data:
        magic, *fields, crc, zero = HEADER.unpack(data[: HEADER.size])
        version, kind, job, task, attempt, partition, count, keys, size = fields
        whole, payload = data[: HEADER.size + size], data[HEADER.size : HEADER.size + size]
        assert (magic, version, kind, job, partition) == (b"ENBL", 1, 1, JOB, PARTITION)
        assert (keys, zero, len(payload)) == (0, 0, size)
        assert crc == crc32c(whole[:40] + bytes(8) + payload)
        assert size <= BLOCK or count == 1
        at, records = 0, []
        while at < size:
            length, at = read_uvarint(payload, at)
            key, at = payload[at : at + length], at + length
            value, at = read_uvarint(payload, at)
            records.append((key, value))
        assert len(records) == count
        yield (task, attempt), records
        data = data[len(whole) :]


# --- running it -----------------------------------------------------------------------------------


class Files:
    """Segments in one file, and a file to write to, in a folder."""

    def __init__(self, folder: Path, segments: Sequence[bytes]) -> None:
        self.path, self.out_path = folder / "segments", folder / "out"
        self.path.write_bytes(b"before" + b"".join(segments))
        self.segments: list[Segment] = []
        self.fd = os.open(self.path, os.O_RDONLY)
        self.out = os.open(self.out_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        offset = 6
        for segment in segments:
            self.segments.append((self.fd, offset, len(segment)))
            offset += len(segment)

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        os.close(self.out)


def to_text(folder: Path, segments: Sequence[bytes], memory: int = 1 << 26) -> bytes:
    with Files(folder, segments) as files:
        keys, total, size, crc = merge_to_text(
            files.segments, files.out, job=JOB, partition=PARTITION, memory=memory
        )
        text = files.out_path.read_bytes()
    assert (size, crc) == (len(text), crc32c(text))
    # No key of these tests holds a space or a newline, so lines can be taken apart again.
    sums = [int(line.rsplit(b" ", 1)[1]) for line in text.split(b"\n")[:-1]]
    assert (keys, total) == (len(sums), sum(sums))
    return text


def to_section(
    folder: Path, segments: Sequence[bytes], memory: int = 1 << 26
) -> list[tuple[bytes, int]]:
    with Files(folder, segments) as files:
        os.write(files.out, b"front")
        offset, length, records = merge_to_section(
            files.segments,
            files.out,
            100,
            job=JOB,
            task=8,
            attempt=9,
            partition=PARTITION,
            memory=memory,
        )
        data = files.out_path.read_bytes()
    assert offset == 100
    assert len(data) == (100 + length if length else 5)
    assert data[:5] == b"front"
    blocks = list(read_segment(data[100:]))
    assert all(who == (8, 9) for who, _ in blocks)
    found = [record for _, part in blocks for record in part]
    assert len(found) == records
    return found


def expected_of(many: Sequence[Records]) -> list[tuple[bytes, int]]:
    counter: Counter[bytes] = Counter()
    for records in many:
        for key, count in records:
            counter[key] += count
    return sorted(counter.items())


def text_of(records: Records) -> bytes:
    return b"".join(b"%s %d\n" % record for record in records)


def check(
    folder: Path, many: Sequence[Records], per_block: int = 1000, memory: int = 1 << 26
) -> None:
    segments = [segment_of(records, per_block) for records in many]
    expected = expected_of(many)
    assert to_text(folder, segments, memory) == text_of(expected)
    assert to_section(folder, segments, memory) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counts")


# Few letters, so that keys meet; NUL and 0xFF, which a comparison by padded words could confuse;
# lengths about 8 and 16, where the words end.
letters = st.sampled_from([0, 97, 98, 255])
keys = st.one_of(
    st.lists(letters, min_size=1, max_size=4).map(bytes),
    st.builds(
        lambda stem, size, end: (stem * 40)[:size] + bytes(end),
        st.sampled_from([b"a", b"\0", b"\xff", b"ab"]),
        st.sampled_from([7, 8, 9, 15, 16, 17, 31, 33]),
        st.lists(letters, max_size=2),
    ),
)
counts = st.one_of(st.integers(1, 20), st.integers(1, 2**56))
tables = st.dictionaries(keys, counts, max_size=30).map(lambda table: sorted(table.items()))


@settings(max_examples=EXAMPLES, deadline=None)
@given(many=st.lists(tables, max_size=9), per_block=st.integers(1, 8))
def test_merge_equals_counter(folder: Path, many: list[Records], per_block: int) -> None:
    check(folder, many, per_block)


@settings(max_examples=EXAMPLES // 3, deadline=None)
@given(
    many=st.lists(tables, min_size=17, max_size=40),
    per_block=st.integers(1, 8),
    memory=st.sampled_from([0, 1 << 26]),
)
def test_many_segments(folder: Path, many: list[Records], per_block: int, memory: int) -> None:
    check(folder, many, per_block, memory)


def words(first: int, last: int, step: int = 1, width: int = 7) -> Records:
    return [(b"%0*d" % (width, i), i % 300 + 1) for i in range(first, last, step)]


@pytest.mark.parametrize("width", [7, 12, 16, 40])
@pytest.mark.parametrize("segments", [1, 2, 3, 20])
def test_many_blocks(folder: Path, width: int, segments: int) -> None:
    size = 40_000 // segments
    many = [words(i, i + size * (i % 3 + 1), i % 3 + 1, width) for i in range(segments)]
    check(folder, many, per_block=1400)


@pytest.mark.parametrize("memory", [0, 3 << 20, 1 << 29])
def test_windows_of_any_size(folder: Path, memory: int) -> None:
    """Of a block, of a few, and longer than the segment."""
    check(folder, [words(0, 20_000, 1 + i % 2, width=30) for i in range(5)], memory=memory)


@pytest.mark.parametrize("segments", [1, 2, 3, 17])
def test_keys_far_larger_than_a_block(folder: Path, segments: int) -> None:
    big = [b"b" * 1_000_000, b"b" * 3_000_000, b"b" * 1_000_000 + b"c"]
    many = [[(b"a", 1), *((key, i + 2) for key in big), (b"c", 7)] for i in range(segments)]
    check(folder, many, per_block=1, memory=1 << 20)


def test_the_largest_key(folder: Path) -> None:
    """64 MiB: the most that the words kernel makes."""
    key = b"k" * (64 << 20)
    segment = segment_of([(b"k", 1), (key, 12)], per_block=1)
    if FULL:
        assert to_section(folder, [segment, segment]) == [(b"k", 2), (key, 24)]
    assert to_text(folder, [segment]) == b"k 1\n" + key + b" 12\n"


def test_nothing(folder: Path) -> None:
    check(folder, [])
    check(folder, [[], [], []])
    check(folder, [[], [(b"a", 1)], []])


def test_the_largest_count(folder: Path) -> None:
    check(folder, [[(b"a", 2**64 - 2)], [(b"a", 1)]])


@pytest.mark.parametrize("segments", [2, 3, 17])
@pytest.mark.parametrize("other", [b"a", b"b"])
def test_a_sum_that_overflows(folder: Path, segments: int, other: bytes) -> None:
    """Of one key, and of all."""
    many = [[(b"a", 2**64 - 1)], *[[(other, 1)]] * (segments - 1)]
    with pytest.raises(OverflowError):
        to_text(folder, [segment_of(records) for records in many])


# --- damage ---------------------------------------------------------------------------------------

SMALL = [[(b"a", 1), (b"bb", 300), (b"c" * 20, 2)], [(b"a", 5), (b"d", 1)], [(b"bb", 1)]]


def small(per_block: int) -> list[bytes]:
    return [segment_of(records, per_block) for records in SMALL]


@pytest.mark.parametrize("per_block", [1, 9])
def test_any_flipped_byte_is_found(folder: Path, per_block: int) -> None:
    """Never a wrong answer, and the blame is on the right segment and block."""
    segments = small(per_block)
    for index, segment in enumerate(segments):
        for at in range(len(segment)):
            for flip in (1, 0x80, 0xFF) if FULL else (1 << at % 8,):
                damaged = bytearray(segment)
                damaged[at] ^= flip
                with pytest.raises(DamagedBlock) as caught:
                    to_text(folder, [*segments[:index], bytes(damaged), *segments[index + 1 :]])
                before = 6 + sum(map(len, segments[:index]))
                assert caught.value.segment == index
                assert before <= caught.value.offset <= before + at


@pytest.mark.parametrize("per_block", [1, 9])
def test_a_file_that_ends_anywhere_too_soon_is_found(folder: Path, per_block: int) -> None:
    segments = small(per_block)
    for size in range(sum(map(len, segments))):
        with Files(folder, segments) as files:
            os.truncate(files.path, 6 + size)
            with pytest.raises(DamagedBlock):
                merge_to_text(
                    files.segments, files.out, job=JOB, partition=PARTITION, memory=1 << 20
                )


def test_a_segment_that_ends_inside_a_block_is_found(folder: Path) -> None:
    [segment] = [segment_of(SMALL[0])]
    for size in range(1, len(segment)):
        with pytest.raises(DamagedBlock, match="ends inside the block"):
            to_text(folder, [segment[:size]])


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("version", 2, "version"),
        ("kind", 2, "another kind"),
        ("job", JOB + 1, "another job"),
        ("partition", PARTITION + 1, "another partition"),
        ("records", 0, "empty"),
        ("records", 1, "past the block"),
        ("records", 3, "missing"),
        ("keys", 1, "disagree"),
    ],
)
@pytest.mark.parametrize("segments", [1, 3, 20])
def test_a_block_that_verifies_but_is_wrong(
    folder: Path, name: str, value: int, why: str, segments: int
) -> None:
    good = segment_of(SMALL[1])
    wrong = block(payload_of(SMALL[1]), **({"records": 2} | {name: value}))
    with pytest.raises(DamagedBlock, match=why) as caught:
        to_text(folder, [*[good] * (segments - 1), wrong])
    assert caught.value.segment == segments - 1
    assert caught.value.offset == 6 + len(good) * (segments - 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x01a",  # no count
        b"\x01a\x80",  # a count that does not end
        b"\x01a" + b"\xff" * 9 + b"\x02",  # a count of more than 64 bits
        b"\x02a\x01",  # a key past the block
        b"\xff" * 9 + b"\x01a\x01",  # a length of 2**64 - 1
        b"\x80" * 10 + b"\x01a\x01",
        b"\x00\x01",  # an empty key
        b"\x01a\x01\x05",
        b"\x01",
    ],
)
def test_a_payload_that_verifies_but_makes_no_sense(folder: Path, payload: bytes) -> None:
    for records in (1, 2):
        with pytest.raises(DamagedBlock):
            to_text(folder, [block(payload, records)])


@pytest.mark.parametrize(
    "pair", [(b"b", b"a"), (b"a", b"a"), (b"x" * 40, b"x" * 39), (b"\xff", b"a")]
)
@pytest.mark.parametrize("per_block", [1, 2])
def test_keys_that_do_not_ascend(folder: Path, pair: tuple[bytes, bytes], per_block: int) -> None:
    """Within a block, and from one to the next."""
    with pytest.raises(DamagedBlock, match="ascend"):
        to_text(folder, [segment_of([(key, 1) for key in pair], per_block)])


def test_a_block_too_long_for_several_records(folder: Path) -> None:
    records = [(b"%06d" % i * 10, 1) for i in range(1100)]
    with pytest.raises(DamagedBlock, match="too long"):
        to_text(folder, [segment_of(records, per_block=1100)])


# --- the system -----------------------------------------------------------------------------------


def test_errors_of_the_system_keep_their_number(folder: Path) -> None:
    with Files(folder, [segment_of(words(0, 1000))]) as files:
        arguments = {"job": JOB, "partition": PARTITION, "memory": 1 << 20}
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            merge_to_text(files.segments, 9999, **arguments)
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)) as caught:
            merge_to_text([(9999, 0, 100)], files.out, **arguments)
        assert caught.value.errno == errno.EBADF
        if os.path.exists("/dev/full"):
            full = os.open("/dev/full", os.O_WRONLY)
            try:
                with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
                    merge_to_text(files.segments, full, **arguments)
            finally:
                os.close(full)
            assert caught.value.errno == errno.ENOSPC


def test_short_writes_are_finished_and_the_gil_is_free(folder: Path) -> None:
    """A pipe takes 64 KiB at a time, and the thread that empties it needs the GIL."""
    records = words(0, 100_000)
    source, sink = os.pipe()
    received: list[bytes] = []

    def empty() -> None:
        while piece := os.read(source, 50_000):
            received.append(piece)

    reader = threading.Thread(target=empty)
    reader.start()
    with Files(folder, [segment_of(records)]) as files:
        try:
            merge_to_text(files.segments, sink, job=JOB, partition=PARTITION, memory=1 << 20)
        finally:
            os.close(sink)
            reader.join()
            os.close(source)
    assert b"".join(received) == text_of(records)


@pytest.mark.parametrize("segments", [2, 20])
def test_the_page_moves(folder: Path, segments: int) -> None:
    page = memoryview(bytearray(8 * WORDS)).cast("Q")
    many = [segment_of(words(0, 5000)) for _ in range(segments)]
    with Files(folder, many) as files:
        merge_to_text(
            files.segments, files.out, job=JOB, partition=PARTITION, memory=1 << 26, page=page
        )
    assert page[BEAT] >= 5 * segments
    assert [word for word in range(WORDS) if page[word] and word not in (BEAT, OFFSET)] == []


@pytest.mark.parametrize("page", [bytearray(8), bytes(8 * WORDS)])
def test_a_wrong_page_is_refused(folder: Path, page: bytes) -> None:
    with Files(folder, []) as files, pytest.raises((ValueError, BufferError)):
        merge_to_text(
            [],
            files.out,
            job=JOB,
            partition=PARTITION,
            memory=0,
            page=memoryview(page).cast("Q"),
        )
