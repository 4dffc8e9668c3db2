"""Merge sorted runs of counted words into lines or into another run.

The work is in C: `blocks.h` reads and writes blocks, `counts.h` their records, and `merge.h` merges
them. Here are the arguments, the errors and the GIL.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import os


cdef extern from "runs.h" nogil:
    ctypedef struct runs_header:
        uint16_t kind
        uint64_t job
        uint32_t task
        uint32_t attempt
        uint32_t partition

    enum:
        RUNS_KIND_COUNTS


cdef extern from "blocks.h" nogil:
    enum:
        BLOCKS_DAMAGED
        BLOCKS_OVERFLOW
        BLOCKS_NONE

    ctypedef struct blocks_failure:
        int kind
        int error
        size_t segment
        uint64_t offset
        const char *why

    ctypedef struct blocks_identity:
        uint16_t kind
        uint64_t job
        uint32_t partition

    ctypedef struct blocks_output:
        uint64_t written
        uint32_t crc
        size_t open

    int blocks_open_output(blocks_output *, int fd, int64_t offset, blocks_failure *)
    int blocks_flush(blocks_output *, blocks_failure *)
    void blocks_close_output(blocks_output *)


cdef extern from "counts.h" nogil:
    ctypedef struct counts_merge:
        blocks_identity expected
        blocks_failure failure
        uint64_t *page
        blocks_output output
        int text
        runs_header header
        uint64_t keys
        uint64_t total

    void counts_seal(counts_merge *)


cdef extern from "merge.h" nogil:
    ctypedef struct merge_segment:
        int fd
        uint64_t offset
        uint64_t length

    int merge_stream(const merge_segment *, size_t count, uint64_t memory, counts_merge *)


cdef enum:
    PAGE_WORDS = 16


Segment = tuple[int, int, int]


class DamagedBlock(ValueError):
    """A block does not verify."""

    def __init__(self, segment, offset, why):
        super().__init__(f"segment {segment}: damaged at byte {offset}: {why}")
        self.segment = segment
        self.offset = offset
        self.why = why

    def __reduce__(self):
        return type(self), (self.segment, self.offset, self.why)


cdef fail(const blocks_failure *failure):
    if failure.kind == BLOCKS_DAMAGED:
        raise DamagedBlock(failure.segment, failure.offset, failure.why.decode("ascii"))
    if failure.kind == BLOCKS_OVERFLOW:
        raise OverflowError("a count exceeds 64 bits")
    raise OSError(failure.error, os.strerror(failure.error))


cdef merge_segment *copy_segments(list segments) except NULL:
    cdef merge_segment *copied = <merge_segment *>malloc(
        (len(segments) + 1) * sizeof(merge_segment))
    if copied is NULL:
        raise MemoryError
    try:
        for i, (fd, offset, length) in enumerate(segments):
            copied[i] = merge_segment(fd, offset, length)
    except BaseException:
        free(copied)
        raise
    return copied


cdef int merge_all(const merge_segment *segments, size_t count, uint64_t memory,
                   counts_merge *merge) noexcept nogil:
    """Read, merge and write everything; < 0 and `merge.failure`."""
    cdef int result = merge_stream(segments, count, memory, merge)
    if result < 0:
        return result
    if merge.output.open != BLOCKS_NONE:
        counts_seal(merge)
    return blocks_flush(&merge.output, &merge.failure)


cdef counts_merge begin(uint64_t job, uint32_t partition) noexcept:
    """A merge of nothing yet, all zeros but for what its blocks must say."""
    cdef counts_merge merge
    memset(&merge, 0, sizeof(merge))
    merge.expected = blocks_identity(RUNS_KIND_COUNTS, job, partition)
    return merge


cdef run(counts_merge *merge, segments, int out, int64_t offset, uint64_t memory,
         const uint64_t[::1] page):
    """Merge `segments` into `out`; what it adds up to is left in `merge`."""
    cdef list listed = list(segments)
    cdef size_t count = len(listed)
    cdef int result
    if page is not None:
        if page.shape[0] != PAGE_WORDS:
            raise ValueError(f"a page has {PAGE_WORDS} words")
        merge.page = <uint64_t *>&page[0]
    cdef merge_segment *copied = copy_segments(listed)
    try:
        with nogil:
            result = blocks_open_output(&merge.output, out, offset, &merge.failure)
            if result == 0:
                result = merge_all(copied, count, memory, merge)
        if result < 0:
            fail(&merge.failure)
    finally:
        blocks_close_output(&merge.output)
        free(copied)


def merge_to_text(segments, int out, *, uint64_t job, uint32_t partition, uint64_t memory,
                  uint64_t[::1] page=None):
    """Write `key count` lines to `out`, sorted: (keys, sum of counts, bytes, crc32c)."""
    cdef counts_merge merge = begin(job, partition)
    merge.text = 1
    run(&merge, segments, out, -1, memory, page)
    return merge.keys, merge.total, merge.output.written, merge.output.crc


def merge_to_section(segments, int out, int64_t offset, *, uint64_t job, uint32_t task,
                     uint32_t attempt, uint32_t partition, uint64_t memory,
                     uint64_t[::1] page=None):
    """Merge into one segment at `offset` of `out`: (offset, length, records)."""
    if offset < 0:
        raise ValueError("the offset is negative")
    cdef counts_merge merge = begin(job, partition)
    merge.header.kind = RUNS_KIND_COUNTS
    merge.header.job = job
    merge.header.task = task
    merge.header.attempt = attempt
    merge.header.partition = partition
    run(&merge, segments, out, offset, memory, page)
    return offset, merge.output.written, merge.keys
