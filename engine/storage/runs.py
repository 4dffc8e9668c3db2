"""Run files: what map leaves for reduce, sorted by (partition, key), checked before use.

Grammar, version 1, little-endian::

    run      = section* index trailer
    section  = segment{R}                    one per partition, in order; written by a kernel
    segment  = block*                        keys ascend bytewise through a segment
    block    = header payload                at most 64 KiB unless one record is larger
    header   = magic:u32 "ENBL"  version:u16  kind:u16  job:u64  task:u32  attempt:u32
               partition:u32  records:u32  keys:u32  payload:u32  crc:u32  zero:u32     (48 bytes)
    payload  = counts | groups               by kind
    counts   = (length:uvarint key count:uvarint)*                                kind 1
    groups   = key_length:u32{records} value_length:u32{records} key* values*      kind 2
               keys: their bytes together; values: one msgpack array a record. A key whose values
               are many is several records in a row.
    index    = msgpack [1, kind, job, partitions, [[task, [[offset, length, records]{R}]]*]]
    trailer  = index_offset:u64 index_length:u32 index_crc:u32 magic:u64 "ENRUNEND"  (24 bytes)

`keys` in the header is the length of all keys of a kind 2 block (0 for kind 1); `payload` the
length of the payload; `crc` the CRC32C of header (with crc = 0) and payload. `task` is the first
split of the section, `attempt` the attempt that wrote it. uvarint is LEB128. No key of kind 1 is
empty. A segment without records has no blocks; segments follow one another without gaps.

A section is what one table held: a worker that ran out of memory on the way writes several. The
sections of a Python job each cover consecutive splits, so that reducing them in order of `task`
gives values in the order of the input, whoever read which split.

Runs are not fsynced (they can be made again); a damaged or missing one is found by its checksums.

A worked example, the bytes of a run of job 7 with one partition and one section, of task 3, that
counts `a` once and `bc` 300 times (numbers in hexadecimal)::

    45 4e 42 4c                                           magic
    01 00 01 00                                           version 1, kind 1
    07 00 00 00 00 00 00 00                               job 7
    03 00 00 00 00 00 00 00 00 00 00 00                   task 3, attempt 0, partition 0
    02 00 00 00 00 00 00 00 08 00 00 00                   records 2, keys 0, payload 8
    a7 4d 12 2e 00 00 00 00                               crc, zero
    01 61 01                                              "a" 1
    02 62 63 ac 02                                        "bc" 300
    95 01 01 07 01 91 92 03 91 93 00 38 02                index [1, 1, 7, 1, [[3, [[0, 56, 2]]]]]
    38 00 00 00 00 00 00 00                               it begins at 56
    0d 00 00 00 55 fe f9 35                               its length, its crc
    45 4e 52 55 4e 45 4e 44                               magic
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import msgpack  # type: ignore[import-untyped]

from engine.errors import DamagedData
from engine.kernels.checksum import crc32c
from engine.kernels.counts import DamagedBlock
from engine.record import Record
from engine.storage.files import read_at, unlink_if_there, write_at

VERSION = 1
COUNTS, GROUPS = 1, 2

BLOCK_BYTES = 64 << 10
HEADER_BYTES = 48
INDEX_BYTES_MAX = 256 << 20

_TRAILER = struct.Struct("<QII8s")
_MAGIC = b"ENRUNEND"

Segment = tuple[int, int, int]
"""(file descriptor, offset, length), as the kernels take it."""


class Section(Record):
    """What one table held."""

    task: int
    segments: tuple[tuple[int, int, int], ...]
    """(offset, length, records) of each partition."""


class RunInfo(Record):
    """A finished run."""

    path: str
    size: int
    digest: int
    """CRC32C of its index, which names every byte of the rest."""
    records: int
    sections: int


# --- writing -------------------------------------------------------------------------------------


class RunWriter:
    """A private run file in the making: kernels write its sections, this adds index and trailer."""

    def __init__(self, path: str, kind: int, job: int, partitions: int) -> None:
        """FileExistsError and other OSErrors."""
        assert kind in (COUNTS, GROUPS), kind
        self.path, self.kind, self.job, self.partitions = path, kind, job, partitions
        self.position = 0
        """Where the next section begins."""
        self._sections: list[Section] = []
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def add_section(self, task: int, segments: Iterable[tuple[int, int, int]]) -> None:
        """A kernel wrote these (offset, length, records) from `position` on, one a partition."""
        section = Section(task, tuple(segments))
        assert len(section.segments) == self.partitions, (len(section.segments), self.partitions)
        for offset, length, _records in section.segments:
            assert offset == self.position, (offset, self.position)
            self.position += length
        self._sections.append(section)

    def close(self) -> RunInfo:
        """Write index and trailer. Not synced: a run that is lost is made again. OSError."""
        sections = [[section.task, section.segments] for section in self._sections]
        index = msgpack.packb([VERSION, self.kind, self.job, self.partitions, sections])
        digest = crc32c(index)
        end = index + _TRAILER.pack(self.position, len(index), digest, _MAGIC)
        write_at(self.fd, end, self.position)
        os.close(self.fd)
        records = sum(segment[2] for section in self._sections for segment in section.segments)
        size = self.position + len(end)
        return RunInfo(self.path, size, digest, records, len(self._sections))

    def abandon(self) -> None:
        """Close and unlink; a folder that was swept meanwhile is fine."""
        os.close(self.fd)
        unlink_if_there(self.path)


# --- reading -------------------------------------------------------------------------------------


class Run:
    """An open run whose index has verified; its blocks verify when a kernel reads them."""

    def __init__(self, path: str, fd: int, kind: int, sections: tuple[Section, ...]) -> None:
        self.path, self.fd, self.kind, self.sections = path, fd, kind, sections

    def close(self) -> None:
        """A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_run(
    path: str, *, job: int, partitions: int, size: int | None = None, digest: int | None = None
) -> Run:
    """Open a run and verify trailer and index; `size` and `digest` are what its writer reported.

    DamagedData if the file is missing, or not exactly a run of this job; OSError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DamagedData(path, 0, "the file is missing") from None
    try:
        index, start = _read_index(path, fd, size, digest)
        kind, sections = _parse_index(path, index, start, job, partitions)
    except BaseException:
        os.close(fd)
        raise
    return Run(path, fd, kind, sections)


def _read_index(path: str, fd: int, size: int | None, digest: int | None) -> tuple[bytes, int]:
    """(index, its offset), verified as bytes."""
    actual = os.fstat(fd).st_size
    if size is not None and size != actual:
        raise DamagedData(path, min(size, actual), f"{actual} bytes long instead of {size}")
    end = actual - _TRAILER.size
    if end < 0:
        raise DamagedData(path, actual, "too short for a run")
    start, length, crc, magic = _TRAILER.unpack(_read(path, fd, end, _TRAILER.size))
    if magic != _MAGIC:
        raise DamagedData(path, end, "no trailer")
    if start + length != end or length > INDEX_BYTES_MAX:
        raise DamagedData(path, end, "the trailer points elsewhere")
    index = _read(path, fd, start, length)
    if crc32c(index) != crc:
        raise DamagedData(path, start, "the checksum of the index differs")
    if digest is not None and digest != crc:
        raise DamagedData(path, start, "not the run that was reported")
    return index, start


def _read(path: str, fd: int, offset: int, size: int) -> bytes:
    data = read_at(fd, size, offset)
    if len(data) < size:
        raise DamagedData(path, offset + len(data), "the file ends too soon")
    return data


def _parse_index(
    path: str, index: bytes, start: int, job: int, partitions: int
) -> tuple[int, tuple[Section, ...]]:
    """(kind, sections): every byte before `start` belongs to exactly one segment."""
    try:
        version, kind, its_job, its_partitions, listed = _unpack(index)
        sections = tuple(Section(task, segments) for task, segments in listed)
        shapes = {len(section.segments) for section in sections}
        numbers = [n for section in sections for segment in section.segments for n in segment]
        triples = {len(segment) for section in sections for segment in section.segments}
        tasks = [section.task for section in sections]
    except (ValueError, TypeError) as error:
        raise DamagedData(path, start, f"the index is malformed: {error}") from None
    if version != VERSION or kind not in (COUNTS, GROUPS):
        raise DamagedData(path, start, f"version {version} and kind {kind} are unknown")
    if its_job != job:
        raise DamagedData(path, start, f"a run of job {its_job} instead of {job}")
    if its_partitions != partitions or shapes - {partitions} or triples - {3}:
        raise DamagedData(path, start, f"not a run of {partitions} partitions")
    if any(type(n) is not int or n < 0 for n in [*numbers, *tasks]):
        raise DamagedData(path, start, "the index is malformed: not a number")
    _check_bounds(path, sections, start)
    return kind, sections


def _unpack(index: bytes) -> Any:
    return msgpack.unpackb(
        index, use_list=False, max_str_len=0, max_bin_len=0, max_map_len=0, max_ext_len=0
    )


def _check_bounds(path: str, sections: Sequence[Section], end: int) -> None:
    position = 0
    for section in sections:
        for offset, length, records in section.segments:
            if offset != position or (length == 0) != (records == 0):
                raise DamagedData(path, position, "the index names other segments")
            position += length
    if position != end:
        raise DamagedData(path, min(position, end), "segments and index do not meet")


# --- merging more than memory holds --------------------------------------------------------------

Merge = Callable[[Sequence[Segment], int, int], tuple[int, int, int]]
"""`merge_to_section` of a kernel, bound to all but its segments, its file and the offset there."""

_WINDOW_BYTES = 2 * HEADER_BYTES + BLOCK_BYTES
_LAST_KEY_BYTES = 4 << 10
_OUTPUT_BYTES = 1 << 20


def fan_in(memory: int) -> int:
    """How many segments can be merged at once in `memory` bytes, if no record is huge; at least 2.

    A segment takes a window of one block and its last key; the output takes a megabyte.
    """
    return max(2, (memory - _OUTPUT_BYTES) // (_WINDOW_BYTES + _LAST_KEY_BYTES))


def plan_merge(count: int, width: int) -> list[tuple[int, int]]:
    """One pass over `count` segments: ranges [start, end), each of which becomes one segment.

    A range of one stays as it is: no more is rewritten than must be to come down to `width`. Where
    one pass cannot (`count` > `width` squared), all is in ranges of `width`.
    """
    assert width >= 2, width
    ranges: list[tuple[int, int]] = []
    start = 0
    while start < count:
        excess = len(ranges) + (count - start) - width
        size = min(width, max(excess, 0) + 1, count - start)
        ranges.append((start, start + size))
        start += size
    return ranges


class NarrowedMerge:
    """Segments made few enough to be merged at once, by passes through nameless files in `folder`.

    To be used with `with`: `segments` is what to merge, in the order given. The `segment` of a
    DamagedBlock that leaves the `with` block (or a pass) is an index of the list *given*; damage to
    a pass's own file is DamagedData.
    """

    def __init__(
        self, segments: Sequence[Segment], merge: Merge, *, memory: int, folder: str
    ) -> None:
        """OSError, and whatever `merge` raises."""
        self.segments = list(segments)
        self._origins = list(range(len(self.segments)))
        self._merge, self._folder = merge, folder
        self._files: set[int] = set()
        width = fan_in(memory)
        try:
            while len(self.segments) > width:
                self._pass(width)
        except BaseException:
            self.close()
            raise

    def _pass(self, width: int) -> None:
        out = open_nameless(self._folder)
        self._files.add(out)
        segments, origins, position = [], [], 0
        for start, end in plan_merge(len(self.segments), width):
            if end - start == 1:
                segments.append(self.segments[start])
                origins.append(self._origins[start])
                continue
            try:
                offset, length, _records = self._merge(self.segments[start:end], out, position)
            except DamagedBlock as damage:
                raise self._translated(damage, start) from None
            segments.append((out, offset, length))
            origins.append(-1)
            position += length
        self.segments, self._origins = segments, origins
        for fd in self._files - {segment[0] for segment in segments}:
            os.close(fd)
            self._files.remove(fd)

    def _translated(self, damage: DamagedBlock, start: int = 0) -> DamagedBlock | DamagedData:
        origin = self._origins[start + damage.segment]
        if origin < 0:
            name = f"a file of an intermediate merge in {self._folder}"
            return DamagedData(name, damage.offset, damage.why)
        return DamagedBlock(origin, damage.offset, damage.why)

    def close(self) -> None:
        """A second call does nothing."""
        while self._files:
            os.close(self._files.pop())

    def __enter__(self) -> NarrowedMerge:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if isinstance(error, DamagedBlock):
            raise self._translated(error) from None


def open_nameless(folder: str) -> int:
    """A new file in `folder` that ends with its descriptor. OSError."""
    path = os.path.join(folder, f".merge.{os.getpid()}.{os.urandom(8).hex()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd
