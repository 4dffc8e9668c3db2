"""Records of log segments: made in batches, and read back by the buffer."""

cimport cython
from cpython cimport array
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import array


cdef extern from "records.h" nogil:
    ctypedef struct records_head:
        uint32_t crc, previous
        uint8_t kind, entry
        uint16_t zero
        uint32_t size, body_crc, group
        uint64_t index, term, watermark
    uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t size)
    void crc32c_three(uint32_t *crc, const uint8_t **bytes, const size_t *size)
    size_t records_padded(size_t size)
    uint32_t records_put(
        uint8_t *out, records_head *head, const uint8_t *body, uint32_t seed, uint64_t position)
    size_t records_walk(
        const uint8_t *data, size_t start, size_t end, uint32_t seed, uint64_t position,
        uint32_t *previous, size_t *count)
    size_t records_find(
        const uint8_t *data, size_t start, size_t end, uint32_t seed, uint64_t position,
        size_t *size)


cdef enum:
    HEAD = 48
    ENTRY = 1
    STATE = 2
    BASE = 3
    LOST = 4
    CONFIG = 2  # a kind of entry, whose places are told apart


cdef class _Column:
    """A `bytes` of numbers that is filled in place."""

    cdef bytes data
    cdef void *at

    def __cinit__(self, Py_ssize_t size):
        self.data = PyBytes_FromStringAndSize(NULL, size)
        self.at = PyBytes_AS_STRING(self.data)


def measure(tuple entries not None):
    """Bytes that the records of these entries take."""
    cdef size_t total = 0
    for entry in entries:
        total += HEAD + records_padded(PyBytes_GET_SIZE(_body(entry)))
    return total


cdef bytes _body(object entry):
    """An entry is a subclass of tuple: (term, kind, crc, body)."""
    if not PyTuple_Check(entry) or PyTuple_GET_SIZE(entry) != 4:
        raise TypeError("an entry is (term, kind, crc, body)")
    return <bytes?><object>PyTuple_GET_ITEM(entry, 3)


cdef array.array POSITIONS = array.array("Q"), SIZES = array.array("I")


@cython.final
cdef class Batch:
    """Records that follow each other, in a buffer of a size that is known beforehand."""

    cdef readonly bytearray data
    cdef readonly uint32_t previous
    cdef uint32_t seed
    cdef uint64_t begin
    cdef size_t at, size
    cdef uint8_t *out
    cdef records_head head

    def __init__(self, size_t size, uint32_t seed, uint64_t position, uint32_t previous,
                 uint64_t watermark):
        self.data = PyByteArray_FromStringAndSize(NULL, size)
        self.out = <uint8_t *>self.data
        self.size = size
        self.seed, self.begin, self.previous = seed, position, previous
        self.head.watermark = watermark

    @property
    def position(self):
        """Where the next record would begin."""
        return self.begin + self.at

    @property
    def watermark(self):
        """The position that its records say to be durable."""
        return self.head.watermark

    cdef int put(self, int kind, const uint8_t *body, size_t size, uint32_t crc) except -1:
        if HEAD + records_padded(size) > self.size - self.at:
            raise ValueError(f"no room for {size} bytes at {self.at} of {self.size}")
        self.head.kind = kind
        self.head.size, self.head.body_crc = size, crc
        self.head.previous = self.previous
        self.previous = records_put(
            self.out + self.at, &self.head, body, self.seed, self.begin + self.at)
        self.at += HEAD + records_padded(size)
        return 0

    def entries(self, uint32_t group, uint64_t first, tuple entries not None):
        """Put entries; their positions, sizes and terms, and the indexes of CONFIG entries."""
        cdef Py_ssize_t count = len(entries), i
        cdef array.array positions = array.clone(POSITIONS, count, zero=False)
        cdef array.array sizes = array.clone(SIZES, count, zero=False)
        cdef array.array terms = array.clone(POSITIONS, count, zero=False)
        cdef list configs = []
        cdef object entry
        cdef bytes body
        cdef uint32_t crc
        cdef uint32_t[3] sums
        cdef (const uint8_t *)[3] bodies
        cdef size_t[3] lengths
        cdef int lane
        self.head.group = group
        for i in range(count):
            lane = i % 3
            if lane == 0:
                for lane in range(3):
                    bodies[lane], lengths[lane] = NULL, 0
                    if i + lane < count:
                        body = _body(<object>PyTuple_GET_ITEM(entries, i + lane))
                        bodies[lane] = <const uint8_t *>PyBytes_AS_STRING(body)
                        lengths[lane] = PyBytes_GET_SIZE(body)
                crc32c_three(sums, bodies, lengths)
                lane = 0
            entry = <object>PyTuple_GET_ITEM(entries, i)
            crc = <object>PyTuple_GET_ITEM(entry, 2)
            self.head.index, self.head.term = first + i, <object>PyTuple_GET_ITEM(entry, 0)
            self.head.entry = <object>PyTuple_GET_ITEM(entry, 1)
            if sums[lane] != crc:
                raise ValueError(f"entry {first + i} of group {group} is not what its CRC says")
            positions.data.as_ulonglongs[i] = self.begin + self.at
            sizes.data.as_uints[i] = <uint32_t>lengths[lane]
            terms.data.as_ulonglongs[i] = self.head.term
            self.put(ENTRY, bodies[lane], lengths[lane], crc)
            if self.head.entry == CONFIG:
                configs.append(first + i)
        return positions, sizes, terms, configs

    def state(self, uint32_t group, uint64_t index, uint64_t last, uint64_t term, uint64_t vote):
        """Put the hard state of a group whose log ends with `index` of term `last`."""
        cdef uint64_t[2] body = [vote, last]
        self.head.group, self.head.index, self.head.term, self.head.entry = group, index, term, 0
        self.put(STATE, <const uint8_t *>body, 16, crc32c(0, <const uint8_t *>body, 16))

    def base(self, uint32_t group, uint64_t index, uint64_t term, bytes config not None,
             bint anew=False):
        """Put the base of a group; `anew` if nothing before it counts any more."""
        cdef const uint8_t *body = <const uint8_t *>PyBytes_AS_STRING(config)
        cdef size_t size = PyBytes_GET_SIZE(config)
        self.head.group, self.head.index, self.head.term = group, index, term
        self.head.entry = anew
        self.put(BASE, body, size, crc32c(0, body, size))

    def lost(self, uint32_t group, uint64_t index, uint64_t term):
        """Put an end that the log of a group is known to have had."""
        self.head.group, self.head.index, self.head.term, self.head.entry = group, index, term, 0
        self.put(LOST, NULL, 0, 0)


# --- reading -------------------------------------------------------------------------------------


cdef tuple _columns(const uint8_t *data, list spans, size_t count, size_t end, uint32_t previous):
    """The heads of verified records in these spans (start, end), and where they form runs."""
    cdef _Column kinds = _Column(2 * count), groups = _Column(4 * count)
    cdef _Column indexes = _Column(8 * count), terms = _Column(8 * count)
    cdef _Column watermarks = _Column(8 * count), offsets = _Column(8 * count)
    cdef _Column sizes = _Column(4 * count), crcs = _Column(4 * count)
    cdef list runs = [], configs = []
    cdef records_head head
    cdef size_t at, stop, i = 0
    cdef uint32_t group = 0
    cdef uint64_t index = 0
    cdef bint running = False
    for at, stop in spans:
        while at < stop:
            memcpy(&head, data + at, HEAD)
            (<uint8_t *>kinds.at)[2 * i] = head.kind
            (<uint8_t *>kinds.at)[2 * i + 1] = head.entry
            (<uint32_t *>groups.at)[i] = head.group
            (<uint64_t *>indexes.at)[i] = head.index
            (<uint64_t *>terms.at)[i] = head.term
            (<uint64_t *>watermarks.at)[i] = head.watermark
            (<uint64_t *>offsets.at)[i] = at
            (<uint32_t *>sizes.at)[i] = head.size
            (<uint32_t *>crcs.at)[i] = head.crc
            if not (running and head.kind == ENTRY and head.group == group
                    and head.index == index + 1):
                runs.append(i)
            running = head.kind == ENTRY
            group, index = head.group, head.index
            if running and head.entry == CONFIG:
                configs.append(i)
            at += HEAD + records_padded(head.size)
            i += 1
    return (kinds.data, groups.data, indexes.data, terms.data, watermarks.data, offsets.data,
            sizes.data, crcs.data, runs, configs, end, previous)


@cython.boundscheck(False)
def scan(const uint8_t[::1] data not None, size_t start, uint32_t seed, uint64_t position,
         uint32_t previous):
    """The records from `start` on, as far as they verify and are chained."""
    cdef size_t end = start, count = 0
    cdef size_t size = <size_t>data.shape[0]
    cdef const uint8_t *bytes = &data[0] if size else NULL
    if start < size:
        with nogil:
            end = records_walk(bytes, start, size, seed, position, &previous, &count)
    return _columns(bytes, [(start, end)], count, end, previous)


@cython.boundscheck(False)
def search(const uint8_t[::1] data not None, size_t start, uint32_t seed, uint64_t position):
    """All records that verify at multiples of 8 from `start` on, chained or not."""
    cdef size_t end = start, count = 0, length = 0
    cdef size_t size = <size_t>data.shape[0]
    cdef const uint8_t *bytes = &data[0] if size else NULL
    cdef list spans = []
    while end < size:
        with nogil:
            end = records_find(bytes, end, size, seed, position, &length)
        if length:
            spans.append((end, end + length))
            count += 1
            end += length
    return _columns(bytes, spans, count, end, 0)


def decode(bytes data not None, uint64_t position, uint32_t group, uint64_t first,
           Py_ssize_t count, uint32_t seed, uint64_t[::1] positions not None, type entry not None):
    """The entries `first` … of a group that begin at these positions, as `entry`; None if not."""
    cdef const uint8_t *bytes = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef size_t size = PyBytes_GET_SIZE(data), at, walked, found
    cdef uint32_t previous
    cdef records_head head
    cdef list made = []
    cdef Py_ssize_t i
    for i in range(count):
        at = positions[i] - position
        if at + HEAD > size:
            return None
        memcpy(&head, bytes + at, HEAD)
        previous, found = head.previous, 0
        walked = at + HEAD + records_padded(head.size)
        if walked > size:
            return None
        if (records_walk(bytes, at, walked, seed, position, &previous, &found) != walked
                or found != 1 or head.kind != ENTRY or head.group != group
                or head.index != first + i):
            return None
        made.append(entry(head.term, head.entry, head.body_crc,
                          data[at + HEAD:at + HEAD + head.size]))
    return made
