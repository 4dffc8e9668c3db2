# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""Group, encode and merge the pairs of jobs whose map and reduce are Python.

Three costs decide how fast a Python job is, after the user's own code: resuming the generator,
finding the key's list, and making objects of what a merge reads. So the loop around the generator
is here, a table is a plain dict of lists, and values are read by `groups_values.h` instead of by
one call of msgpack a record. Blocks are built and merged in C (`groups_blocks.h`).

What a table keeps is either a value that cannot change (str, bytes, int, float, bool, None), as it
came, or the msgpack of anything else, made when it was yielded: a value that cannot be stored is
then an error of the record that yielded it, and a list that map changes later does no harm. No
object here points back at one that points to it, since workers run without a garbage collector.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next, PyDict_SetItem
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject, PyTypeObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memset, strerror
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import msgpack

from engine.kernels.counts import DamagedBlock

cdef extern from "Python.h":
    PyObject *PyDict_GetItemWithError(object, object) except? NULL
    int PyList_Append(object, object) except -1
    bint PyUnicode_CheckExact(object)
    bint PyLong_CheckExact(object)
    bint PyBytes_CheckExact(object)
    bint PyTuple_CheckExact(object)
    Py_ssize_t Py_REFCNT(PyObject *)
    PyTypeObject *Py_TYPE(PyObject *)
    long long PyLong_AsLongLongAndOverflow(object, int *) except? -1

cdef extern from "groups_blocks.h" nogil:
    ctypedef struct runs_header:
        uint16_t kind
        uint64_t job
        uint32_t task, attempt, partition
    enum:
        RUNS_KIND_GROUPS, RUNS_BLOCK_BYTES
        BLOCKS_DAMAGED, BLOCKS_SYSTEM
        BLOCKS_WINDOW_MIN
        BLOCKS_OUTPUT_BYTES
    ctypedef struct blocks_failure:
        int kind, error
        size_t segment
        uint64_t offset
        const char *why
    ctypedef struct blocks_output:
        pass
    ctypedef struct blocks_reader:
        pass
    uint64_t blocks_size(const blocks_output *)
    int blocks_flush(blocks_output *, blocks_failure *)
    int blocks_open_reader(
        blocks_reader *, size_t, int, uint64_t, uint64_t, size_t, blocks_failure *)
    uint32_t FNV_BASIS
    uint32_t fnv_continue(uint32_t, const uint8_t *, size_t)
    uint32_t fnv_partition(uint32_t, uint32_t)

    enum:
        GROUPS_OTHER, GROUPS_VALUE_MAX
    ctypedef struct groups_bytes:
        uint8_t *bytes
        size_t used
    ctypedef struct groups_cache:
        pass
    int groups_append(groups_bytes *, const void *, size_t)
    void groups_free(groups_bytes *)
    uint8_t *groups_store(uint8_t *, uint64_t, int)
    uint64_t groups_load(const uint8_t *, int)
    const uint8_t *groups_utf8(object, size_t *) except NULL
    Py_ssize_t groups_cost(object) except -2
    int groups_put(groups_bytes *, object, int) except -1
    object groups_text(const uint8_t *, size_t)
    void groups_drop_cache(groups_cache *)
    int groups_get_record(const uint8_t *, size_t, groups_cache *, list) except -1

    ctypedef struct groups_item:
        uint64_t prefix
        const uint8_t *key
        uint32_t size, partition
        PyObject *values
    uint64_t groups_prefix(const uint8_t *, size_t)
    void groups_sort(groups_item *, size_t)
    ctypedef struct groups_builder:
        blocks_output output
        runs_header header
        groups_bytes values
        size_t total
    int groups_open_builder(groups_builder *, int, int64_t, runs_header, blocks_failure *)
    void groups_close_builder(groups_builder *)
    int groups_end_block(groups_builder *, blocks_failure *)
    int groups_open_record(groups_builder *, const uint8_t *, size_t, size_t, blocks_failure *)
    int groups_close_record(groups_builder *, blocks_failure *)
    int groups_count_value(groups_builder *, size_t, size_t, blocks_failure *)
    ctypedef struct groups_cursor:
        blocks_reader reader
        const uint8_t *key
        const uint8_t *value
        uint32_t key_size, value_size
    ctypedef struct groups_merge:
        groups_cursor *cursors
        size_t count
        blocks_failure failure
    int groups_open_merge(groups_merge *, size_t, uint64_t, uint32_t)
    void groups_close_merge(groups_merge *)
    int groups_start(groups_merge *)
    groups_cursor *groups_first(const groups_merge *)
    int groups_advance(groups_merge *)
    int groups_is_at(const groups_merge *, const uint8_t *, size_t)
    int groups_merge_all(groups_merge *, groups_builder *, uint64_t *)


cdef int failed(blocks_failure *failure) except -1:
    """Raise what a kernel's failure says."""
    if failure.kind == BLOCKS_DAMAGED:
        raise DamagedBlock(failure.segment, failure.offset, failure.why.decode("ascii"))
    if failure.error == ENOMEM:
        raise MemoryError("no memory for the buffers of a merge or a section")
    raise OSError(failure.error, strerror(failure.error).decode())


cdef runs_header described(job, task, attempt, partition):
    """What every block of a section or segment says of itself."""
    cdef runs_header header
    memset(&header, 0, sizeof(header))
    header.kind = RUNS_KIND_GROUPS
    header.job = job
    header.task = task
    header.attempt = attempt
    header.partition = partition
    return header


include "groups_keys.pxi"
include "groups_pairs.pxi"
include "groups_table.pxi"
include "groups_reader.pxi"
