"""Run files: what is written is read, damage of every kind is found, passes change nothing."""

import functools
import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import DamagedData
from engine.kernels import counts
from engine.kernels.checksum import crc32c
from engine.kernels.counts import DamagedBlock
from engine.storage import runs
from engine.storage.runs import (
    COUNTS,
    NarrowedMerge,
    Run,
    RunInfo,
    RunWriter,
    Segment,
    fan_in,
    open_run,
    plan_merge,
)

JOB = 7
Table = dict[bytes, int]

# --- a slow writer --------------------------------------------------------------------------------


def uvarint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + uvarint(value >> 7) if value > 127 else bytes([value])


def block(table: Table, task: int, partition: int) -> bytes:
    payload = b"".join(uvarint(len(k)) + k + uvarint(v) for k, v in sorted(table.items()))
    header = struct.pack(
        "<4sHHQIIIIII", b"ENBL", 1, 1, JOB, task, 0, partition, len(table), 0, len(payload)
    )
    crc = crc32c(header + bytes(8) + payload)
    return header + struct.pack("<II", crc, 0) + payload


def write_run(path: Path, sections: Sequence[tuple[int, Sequence[Table]]], width: int) -> RunInfo:
    writer = RunWriter(str(path), COUNTS, JOB, width)
    for task, tables in sections:
        segments = []
        position = writer.position
        for partition, table in enumerate(tables):
            data = block(table, task, partition) if table else b""
            os.pwrite(writer.fd, data, position)
            segments.append((position, len(data), len(table)))
            position += len(data)
        writer.add_section(task, segments)
    return writer.close()


SECTIONS = [
    (4, [{b"a": 1, b"bc": 300}, {}, {b"x": 5}]),
    (2, [{b"a": 2}, {b"m": 1}, {}]),
]


@pytest.fixture
def run(tmp_path: Path) -> RunInfo:
    return write_run(tmp_path / "run", SECTIONS, 3)


def segments_of(run: Run, partition: int) -> list[Segment]:
    """Those that hold something, in the order of sections."""
    found = [section.segments[partition] for section in run.sections]
    return [(run.fd, offset, length) for offset, length, records in found if records]


def merged(run: Run, partition: int, path: Path) -> bytes:
    with path.open("wb") as out:
        counts.merge_to_text(
            segments_of(run, partition), out.fileno(), job=JOB, partition=partition, memory=1 << 20
        )
    return path.read_bytes()


def read_all(info: RunInfo, out: Path, *, reported: bool = True) -> list[bytes]:
    """The text of every partition; with size and digest as reported, or without."""
    size, digest = (info.size, info.digest) if reported else (None, None)
    with open_run(info.path, job=JOB, partitions=3, size=size, digest=digest) as run:
        return [merged(run, partition, out) for partition in range(3)]


# --- written and read -----------------------------------------------------------------------------


def test_what_is_written_is_read(run: RunInfo, tmp_path: Path) -> None:
    assert run.size == os.path.getsize(run.path)
    assert (run.records, run.sections) == (5, 2)
    assert os.stat(run.path).st_mode & 0o777 == 0o600
    assert read_all(run, tmp_path / "out") == [b"a 3\nbc 300\n", b"m 1\n", b"x 5\n"]
    with open_run(run.path, job=JOB, partitions=3) as opened:
        assert opened.kind == COUNTS
        assert [section.task for section in opened.sections] == [4, 2]
        first, second = (section.segments for section in opened.sections)
        assert segments_of(opened, 0) == [(opened.fd, *first[0][:2]), (opened.fd, *second[0][:2])]
        assert segments_of(opened, 1) == [(opened.fd, *second[1][:2])]
    assert opened.fd == -1
    opened.close()


def test_a_run_without_sections(tmp_path: Path) -> None:
    info = write_run(tmp_path / "run", [], 3)
    assert read_all(info, tmp_path / "out") == [b"", b"", b""]


def test_a_writer_does_not_overwrite_and_can_give_up(run: RunInfo, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        RunWriter(run.path, COUNTS, JOB, 3)
    writer = RunWriter(str(tmp_path / "other"), COUNTS, JOB, 3)
    writer.abandon()
    assert os.listdir(tmp_path) == ["run"]


def test_a_writer_checks_what_kernels_report(tmp_path: Path) -> None:
    writer = RunWriter(str(tmp_path / "run"), COUNTS, JOB, 2)
    for segments in ([(0, 10, 1)], [(0, 10, 1), (11, 5, 1)]):
        with pytest.raises(AssertionError):
            writer.add_section(0, segments)
    writer.abandon()


def test_the_worked_example(tmp_path: Path) -> None:
    """The bytes in the documentation are those that are written."""
    assert runs.__doc__ is not None
    lines = runs.__doc__.split("A worked example", 1)[1].splitlines()[3:]
    written = b"".join(bytes.fromhex(line[4:58]) for line in lines)
    info = write_run(tmp_path / "run", [(3, [{b"a": 1, b"bc": 300}])], 1)
    assert Path(info.path).read_bytes() == written


# --- damage ---------------------------------------------------------------------------------------


def test_any_flipped_byte_is_found(run: RunInfo, tmp_path: Path) -> None:
    """By the trailer, the index or a block; the sizes and digests reported are not needed."""
    path = Path(run.path)
    good = path.read_bytes()
    for at in range(len(good)):
        for flip in (1 << at % 8, 0xFF):
            damaged = bytearray(good)
            damaged[at] ^= flip
            path.write_bytes(damaged)
            with pytest.raises((DamagedData, DamagedBlock)) as caught:
                read_all(run, tmp_path / "out", reported=False)
            assert 0 <= caught.value.offset <= len(good)


def test_any_length_but_the_right_one_is_found(run: RunInfo, tmp_path: Path) -> None:
    path = Path(run.path)
    good = path.read_bytes()
    for data in [*(good[:size] for size in range(len(good))), good + b"\0", good + good[-24:]]:
        path.write_bytes(data)
        for reported in (False, True):
            with pytest.raises(DamagedData, match=re.escape(run.path)):
                read_all(run, tmp_path / "out", reported=reported)


def test_a_missing_run_is_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match="the file is missing"):
        open_run(str(tmp_path / "none"), job=JOB, partitions=3)


@pytest.mark.parametrize(
    ("job", "partitions", "size", "digest", "why"),
    [
        (JOB + 1, 3, 0, 0, "of job 7 instead of 8"),
        (JOB, 4, 0, 0, "not a run of 4 partitions"),
        (JOB, 3, -1, 0, "bytes long instead of"),
        (JOB, 3, 0, 1, "not the run that was reported"),
    ],
)
def test_another_run_is_refused(
    run: RunInfo, job: int, partitions: int, size: int, digest: int, why: str
) -> None:
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    with pytest.raises(DamagedData, match=why):
        open_run(
            run.path,
            job=job,
            partitions=partitions,
            size=run.size + size,
            digest=run.digest ^ digest,
        )
    if descriptors is not None:
        assert len(os.listdir("/proc/self/fd")) == descriptors


GOOD = [1, 1, JOB, 1, [[3, [[0, 100, 2]]]]]


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\xc1",
        msgpack.packb(GOOD) + b"\0",
        msgpack.packb(GOOD[:4]),
        msgpack.packb({}),
        msgpack.packb("text"),
        msgpack.packb([2, *GOOD[1:]]),
        msgpack.packb([1, 3, *GOOD[2:]]),
        msgpack.packb([*GOOD[:4], 5]),
        msgpack.packb([*GOOD[:4], [5]]),
        msgpack.packb([*GOOD[:4], [[3, 5]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 100]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 100, 2], [100, 0, 0]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 99, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 101, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[1, 99, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 100, 0]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 200, 2]]], [3, [[200, -100, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [[0, 100.0, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[-3, [[0, 100, 2]]]]]),
        msgpack.packb([*GOOD[:4], [["3", [[0, 100, 2]]]]]),
        msgpack.packb([*GOOD[:4], [[3, [["0", 100, 2]]]]]),
        msgpack.packb([*GOOD[:4], []]),
    ],
)
def test_an_index_that_verifies_but_makes_no_sense(tmp_path: Path, index: bytes) -> None:
    def write(index: bytes) -> str:
        path = tmp_path / "run"
        trailer = struct.pack("<QII8s", 100, len(index), crc32c(index), b"ENRUNEND")
        path.write_bytes(bytes(100) + index + trailer)
        return str(path)

    open_run(write(msgpack.packb(GOOD)), job=JOB, partitions=1).close()
    with pytest.raises(DamagedData):
        open_run(write(index), job=JOB, partitions=1)


# --- merging in passes ----------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(2, 30))
def test_plan_covers_all_and_rewrites_no_more_than_needed(count: int, width: int) -> None:
    ranges = plan_merge(count, width)
    assert [i for start, end in ranges for i in range(start, end)] == list(range(count))
    assert all(0 < end - start <= width for start, end in ranges)
    if count <= width:
        assert len(ranges) == count
    elif count <= width * width:
        assert len(ranges) == width
        assert sum(1 < end - start < width for start, end in ranges) <= 1
    else:
        assert len(ranges) == -(-count // width)


@pytest.mark.parametrize("memory", [0, 1 << 20, (1 << 20) + 1_000_000, 1 << 29])
def test_fan_in_fits_memory(memory: int) -> None:
    width = fan_in(memory)
    assert width >= 2
    assert width == 2 or (1 << 20) + width * (64 << 10) < memory
    if memory == 1 << 29:
        assert width > 5000


def tables(count: int) -> list[Table]:
    return [{b"%05d" % (i * step): i + 1 for i in range(50)} for step in range(1, count + 1)]


def bound(memory: int = 1 << 20) -> Callable[[Sequence[Segment], int, int], Segment]:
    return functools.partial(
        counts.merge_to_section, job=JOB, task=0, attempt=0, partition=0, memory=memory
    )


def text_of(segments: Sequence[Segment], path: Path) -> bytes:
    with path.open("wb") as out:
        counts.merge_to_text(segments, out.fileno(), job=JOB, partition=0, memory=1 << 20)
    return path.read_bytes()


@pytest.mark.parametrize("width", [2, 3, 5, 40])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9, 10, 37])
def test_passes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, count: int
) -> None:
    monkeypatch.setattr(runs, "fan_in", lambda memory: width)
    many = tables(count)
    info = write_run(tmp_path / "run", [(i, [table]) for i, table in enumerate(many)], 1)
    expected = sorted(sum(map(Counter, many), Counter()).items())
    with open_run(info.path, job=JOB, partitions=1) as run:
        given = segments_of(run, 0)
        with NarrowedMerge(given, bound(), memory=0, folder=str(tmp_path)) as narrowed:
            assert len(narrowed.segments) == min(count, narrowed_to(count, width))
            text = text_of(narrowed.segments, tmp_path / "out")
            assert text == text_of(given, tmp_path / "out")
            assert text == b"".join(b"%s %d\n" % record for record in expected)
    assert sorted(os.listdir(tmp_path)) == ["out", "run"]


def narrowed_to(count: int, width: int) -> int:
    while count > width:
        count = max(width, -(-count // width))
    return count


@pytest.mark.parametrize("width", [2, 3, 5])
def test_passes_keep_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Jobs in Python depend on it: here a merge is a concatenation."""
    monkeypatch.setattr(runs, "fan_in", lambda memory: width)

    def concatenate(segments: Sequence[Segment], out: int, offset: int) -> Segment:
        data = b"".join(os.pread(fd, length, at) for fd, at, length in segments)
        os.pwrite(out, data, offset)
        return offset, len(data), 1

    source = tmp_path / "letters"
    source.write_bytes(bytes(range(100)))
    fd = os.open(source, os.O_RDONLY)
    try:
        given = [(fd, i, 1) for i in range(100)]
        with NarrowedMerge(given, concatenate, memory=0, folder=str(tmp_path)) as narrowed:
            pieces = [os.pread(fd, length, at) for fd, at, length in narrowed.segments]
    finally:
        os.close(fd)
    assert b"".join(pieces) == bytes(range(100))


def narrow_and_merge(run: Run, folder: Path, damage: bytes = b"") -> None:
    """`damage` is written into the first segment that a pass has made."""
    with NarrowedMerge(segments_of(run, 0), bound(), memory=0, folder=str(folder)) as narrowed:
        if damage:
            os.pwrite(narrowed.segments[0][0], damage, 50)
        text_of(narrowed.segments, folder / "out")


def test_damage_is_blamed_on_the_segment_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a pass finds it or the last merge, which sees other segments."""
    monkeypatch.setattr(runs, "fan_in", lambda memory: 5)
    info = write_run(tmp_path / "run", [(i, [table]) for i, table in enumerate(tables(9))], 1)
    with open_run(info.path, job=JOB, partitions=1) as run:
        given = segments_of(run, 0)
    path = Path(info.path)
    good = path.read_bytes()
    for index, (_fd, offset, _length) in enumerate(given):
        path.write_bytes(good[: offset + 60] + bytes([good[offset + 60] ^ 1]) + good[offset + 61 :])
        with open_run(info.path, job=JOB, partitions=1) as run:
            with pytest.raises(DamagedBlock) as caught:
                narrow_and_merge(run, tmp_path)
            assert (caught.value.segment, caught.value.offset) == (index, offset)


def test_damage_to_a_file_of_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "fan_in", lambda memory: 2)
    info = write_run(tmp_path / "run", [(i, [table]) for i, table in enumerate(tables(3))], 1)
    run = open_run(info.path, job=JOB, partitions=1)
    with run, pytest.raises(DamagedData, match="intermediate merge"):
        narrow_and_merge(run, tmp_path, damage=b"?")
